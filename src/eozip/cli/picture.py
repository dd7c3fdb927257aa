"""`eozip picture ORIGINAL STORE OUT.png`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from eozip.cli.common import STORE, decibels

if TYPE_CHECKING:
    from eozip.raster import Scene
    from eozip.store import Description

RGB = ("B04", "B03", "B02")


@click.command()
@click.argument("original", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="ORIGINAL...")
@click.argument("store", type=STORE)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--date", default=1, show_default=True, type=click.IntRange(min=1), help="Position of the date."
)
@click.option(
    "--size",
    default=512,
    show_default=True,
    type=click.IntRange(min=1),
    help="Side in pixels, cut from the middle.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing picture.")
def picture(
    original: tuple[Path, ...], store: Path, out: Path, date: int, size: int, overwrite: bool
) -> None:
    """Draw original, reconstruction and error (10 times) side by side."""
    from eozip.errors import OutputError
    from eozip.picture import comparison
    from eozip.raster import open_scene
    from eozip.store import describe

    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already; choose another name, or pass --overwrite")
    found = describe(store)
    names = found.profile.band_names
    scene = open_scene(list(original), bands=list(names) if all(names) else None)
    source, decoded = _same_window(scene, found, date, size)
    picks = _rgb(names)
    nodata = found.codec.nodata
    valid = np.ones(source.shape[1:], bool) if nodata is None else (source[picks] != nodata).all(axis=0)
    comparison(source[picks], decoded[picks], _caption(scene, found, date), out, valid, overwrite=overwrite)
    click.echo(str(out))


def _same_window(scene: Scene, found: Description, date: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """DN [C, h, w] of source and store from the middle of one date, bands in the source's order."""
    from eozip.errors import InputError
    from eozip.raster import read_window
    from eozip.store.pixels import read_pixels

    times, _, height, width = found.grid.shape
    if scene.shape != found.grid.shape or date > times:
        raise InputError(
            f"expected a source of {found.grid.shape} and a date up to {times}, got {scene.shape}, {date}"
        )
    rows, columns = _middle(height, size), _middle(width, size)
    when = slice(date - 1, date)
    decoded = read_pixels(found, when, rows, columns)[0]
    return read_window(scene, when, rows, columns)[0], decoded[list(found.band_order)]


def _middle(length: int, size: int) -> slice:
    start = max(0, (length - size) // 2)
    return slice(start, min(length, start + size))


def _rgb(names: tuple[str | None, ...]) -> list[int]:
    """Positions of red, green and blue; the first three bands where they are not known."""
    from eozip.sensors.sensor import canonical_name

    codes = [canonical_name(name) if name else None for name in names]
    return [codes.index(code) for code in RGB] if set(RGB) <= set(codes) else [0, 1, 2][: len(names)]


def _caption(scene: Scene, found: Description, date: int) -> str:
    raw = int(np.prod(found.grid.shape, dtype=np.int64)) * scene.dtype.itemsize
    when = found.dates[date - 1] or f"date {date}"
    return (
        f"{when[:10]}, {found.codec.codec}: {raw / found.bytes:.1f} times smaller, "
        f"PSNR {decibels(found.facts.get('psnr'))} (peak {found.facts.get('peak', 0):,.0f} DN, whole store)"
    )
