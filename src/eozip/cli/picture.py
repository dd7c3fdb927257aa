"""`eozip picture [ORIGINAL...] STORE OUT.png`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from eozip import raster
from eozip import store as stores
from eozip.arguments import Place
from eozip.cli.common import RASTER, READ_STORE, decibels, overwrite_option, say, tell
from eozip.errors import InputError, OutputError
from eozip.picture import comparison

if TYPE_CHECKING:
    from eozip.raster import Scene
    from eozip.store import Description

RGB = ("B04", "B03", "B02")


@click.command()
@click.argument("original", nargs=-1, type=RASTER, metavar="[ORIGINAL...]")
@click.argument("store", type=READ_STORE)
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--date",
    default="1",
    show_default=True,
    help="Date to draw: 2021-07-15, its beginning where one date has it, or a position.",
)
@click.option(
    "--size",
    default=512,
    show_default=True,
    type=click.IntRange(min=1),
    help="Side in pixels, cut from the middle.",
)
@overwrite_option
def picture(
    original: tuple[str, ...], store: Place, out: Path, date: str, size: int, overwrite: bool
) -> None:
    """Draw original, reconstruction and error (10 times) side by side; without ORIGINAL the reconstruction.

    ORIGINAL is what was encoded, or the file of the date that is drawn.
    """
    if out.suffix.lower() != ".png":
        raise OutputError(
            f"{out}: expected a name ending in .png, as that is what is drawn; rename the output"
        )
    if out.exists() and not overwrite:
        raise OutputError(f"{out} exists already; choose another name, or pass --overwrite")
    found = stores.describe(store)
    t = _one_date(found, date)
    window = tuple(_middle(length, size) for length in found.grid.shape[2:])
    source = _original(original, found, t, window) if original else None
    picks = _rgb(found)
    rows, columns = window
    decoded = stores.read_pixels(found, slice(t, t + 1), rows, columns)[0][list(found.band_order)][picks]
    seen = decoded if source is None else source[picks]
    nodata = found.codec.nodata
    valid = np.ones(seen.shape[1:], bool) if nodata is None else (seen != nodata).all(axis=0)
    reference = None if source is None else source[picks]
    comparison(reference, decoded, _caption(found, t), out, valid, overwrite=overwrite)
    tell(str(out))


def _one_date(found: Description, wanted: str) -> int:

    chosen = stores.choose_dates(found, [wanted])
    if len(chosen) > 1:
        known = ", ".join(str(found.dates[t]) for t in chosen)
        raise InputError(f"date: expected one date, got {wanted!r}, with which several begin: {known}")
    return chosen[0]


def _original(paths: tuple[str, ...], found: Description, t: int, window: tuple[slice, ...]) -> np.ndarray:
    """DN [C, h, w] of the source, bands in the source's order."""
    opened = raster.open_scene(list(paths))
    for note in opened.notes:
        say(note)
    scene = stores.in_band_order(opened, found)
    stores.check_same_pixels(found, scene)
    at = _same_date(scene, found, t)
    return raster.read_window(scene, slice(at, at + 1), *window)[0]


def _same_date(scene: Scene, found: Description, t: int) -> int:
    """Position in the original of a date of the store: by its time, else by its place among as many, or the only one."""
    times = [None if date is None else date.isoformat() for date in scene.dates]
    wanted = found.dates[t]
    if wanted is not None and wanted in times:
        return times.index(wanted)
    if len(times) == found.grid.shape[0]:
        return t
    if times == [None]:
        return 0
    if None in times:
        raise InputError(
            f"expected {len(found.dates)} originals, as {found.path} has dates, or the one of {wanted or f'date {t + 1}'}, "
            f"got {len(times)}, of which {times.count(None)} without a date in name, folder or tags; give the file of that "
            "date, or all that were encoded"
        )
    raise InputError(
        f"expected an original of {wanted or f'date {t + 1}'}, got {', '.join(str(time) for time in times)}; give the "
        "file of that date, or all that were encoded"
    )


def _middle(length: int, size: int) -> slice:
    start = max(0, (length - size) // 2)
    return slice(start, min(length, start + size))


def _rgb(found: Description) -> list[int]:
    """Positions in the source's order of red, green and blue; the first three bands where they are not known."""

    codes = stores.band_codes(found)
    return [codes.index(code) for code in RGB] if set(RGB) <= set(codes) else _first_three(found)


def _first_three(found: Description) -> list[int]:
    count = found.grid.shape[1]
    return [min(i, count - 1) for i in range(3)]


def _caption(found: Description, t: int) -> str:
    raw = int(np.prod(found.grid.shape, dtype=np.int64)) * np.dtype(found.dtype).itemsize
    when = (found.dates[t] or f"date {t + 1}")[:10]
    return (
        f"{when}, {found.codec.codec}: {raw / found.bytes:.1f} times smaller, "
        f"PSNR {decibels(found.facts.get('psnr'))} (peak {found.facts.get('peak', 0):,.0f} DN, whole store)"
    )
