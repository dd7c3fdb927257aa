"""From the [[data]] tables of a recipe to open sources of training crops, kept apart from the validation data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from eozip.errors import InputError
from eozip_lab.train.data import Scenes, Source, is_chosen, open_stacks
from eozip_lab.train.recipe import DataSource, Recipe, located
from eozip_lab.train.series import open_series


def check_apart(train: Iterable[Path], held_back: Iterable[Path]) -> None:
    """Refuse files that are trained on and validated on, copies under other names included.

    Raises:
        InputError: names both files.
    """
    held = {path.resolve() for path in held_back}
    by_size: dict[int, list[Path]] = {}
    for path in held:
        by_size.setdefault(path.stat().st_size, []).append(path)
    for path in {p.resolve() for p in train}:
        for other in by_size.get(path.stat().st_size, ()):
            if path == other or _digest(path) == _digest(other):
                raise InputError(
                    f"{path} is trained on and is the validation file {other}; scores on it would mean "
                    "nothing: take it out of the recipe's data (skip) or of its validation places"
                )


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def open_source(source: DataSource, band_names: Sequence[str]) -> Source:
    """The source of a recipe's [[data]] table.

    Raises:
        InputError: nothing there, or nothing that fits.
    """
    if source.kind == "npz":
        return open_stacks(source, len(band_names))
    if source.kind == "series":
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
