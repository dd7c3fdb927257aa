"""From the [[data]] tables of a recipe to open sources of training crops."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from eozip_lab.train.data import Scenes, Source, is_chosen, open_stacks
from eozip_lab.train.recipe import DataSource, Recipe, located
from eozip_lab.train.series import open_series


def open_source(source: DataSource, band_names: Sequence[str]) -> Source:
    """The source of a recipe's [[data]] table.

    Raises:
        InputError: nothing there, or nothing that fits.
    """
    if source.kind == "npz":
        return open_stacks(source, len(band_names))
    if source.kind in ("series", "seasons"):
        return open_series(source, len(band_names))
    if source.kind == "geotiff":
        return Scenes(source, band_names)
    from eozip_lab.train.ssl4eo import Shards  # zarr, which a machine that trains on packs may lack

    paths = [
        p for p in Shards.list(located(source.path)) if is_chosen(p.name.removesuffix(".zarr.zip"), source)
    ]
    return Shards(paths, source, band_names)


def open_sources(recipe: Recipe, band_names: Sequence[str]) -> list[Source]:
    """All sources of a recipe, in its order; close each after use."""
    opened: list[Source] = []
    with ExitStack() as on_error:
        for source in recipe.data:
            opened.append(open_source(source, band_names))
            on_error.callback(opened[-1].close)
        on_error.pop_all()
    return opened
