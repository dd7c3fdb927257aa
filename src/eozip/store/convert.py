"""Files to stores in one call: what the command line does, for Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from eozip import arguments
from eozip.codecs.base import Codec
from eozip.raster import Scene, open_scene, with_fill
from eozip.raster.files import PathLike
from eozip.raster.masks import MaskReader, open_mask, parse_mask, split_mask
from eozip.store.append import Appended, append_store
from eozip.store.container import check_target
from eozip.store.description import describe
from eozip.store.grid import GOP
from eozip.store.request import make_request
from eozip.store.writer import Progress, Summary, encode_store

Bands = Sequence[str | int] | None


def _warn(note: str) -> None:
    warnings.warn(note, stacklevel=3)


def encode_files(
    inputs: PathLike | Sequence[PathLike],
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    quality: float | None = None,
    target_psnr: float | None = None,
    max_error: int | None = None,
    bands: Bands = None,
    sensor: str | None = None,
    offset: int | None = None,
    nodata: int | None = None,
    chunk: int | None = None,
    gop: int = GOP,
    mask: str | None = None,
    budgets: int | Sequence[int] | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = _warn,
) -> Summary:
    """Encodes GeoTIFFs into a Zarr v3 store: `eozip.encode_store("in.tif", "out.zarr", quality=60)`.

    Args:
        inputs: a GeoTIFF, several (dates), or a folder of them; see `eozip.raster.open_scene`.
        out: a `.zarr` directory or `.zarr.zip` file to be made.
        codec: full id or short name, the path of own or published weights, or a loaded codec; None: tec-tt-small for
            two dates in a group or more, else tec-elic-small.
        quality: 0 to 100; 60 where neither this nor `target_psnr` nor `max_error` is given.
        target_psnr: dB at peak 10,000 DN that each chunk reaches.
        max_error: largest absolute error of any pixel, DN.
        bands: names or 1-based positions; see `eozip.raster.open_scene`.
        sensor: whose bands these are, in its order, whatever the files call them; an id or a TOML file.
        offset: radiometric offset in DN; None takes the files'.
        nodata: DN of missing pixels; None takes the files'.
        chunk: side of a chunk in pixels; None fits it near 256.
        gop: most dates coded together.
        mask: what clouds hide, on which nothing is spent, as text for `eozip.raster.masks.parse_mask`.
        budgets: sections to send of each date, one for all or one for each date of a group; see `eozip.encode`.
        overwrite: whether an existing store may be replaced.
        progress: called with chunks done and in all.
        note: takes sentences that a person should read: unknown dates, files left out; by default a warning.

    Returns:
        the summary.

    Raises:
        EozipError: the message says what was expected, what was found, and what to do; nothing was written.
    """
    target = arguments.store_path("out", out)
    check_target(target, overwrite)  # before weights are loaded
    if chunk is not None:
        arguments.whole("chunk", chunk, 8)
    arguments.whole("gop", gop, 1)
    opened, band = _pixels_and_mask(mask, inputs, bands, offset)
    _tell(opened.notes, note)
    scene = with_fill(opened, nodata)
    asked = {"quality": quality, "target_psnr": target_psnr, "max_error": max_error, "budgets": budgets}
    facts = {"sensor": sensor, "nodata": nodata, "offset": offset}
    wanted = make_request(scene, codec, **asked, **facts, gop=gop)  # type: ignore[arg-type]
    _tell(wanted.notes, note)
    settings: dict[str, Any] = {"chunk": chunk, "gop": gop, "overwrite": overwrite, "progress": progress}
    with _opened_mask(mask, scene, band) as drop:
        return encode_store(
            scene, target, wanted.codec, order=wanted.order, drop=drop, facts=wanted.facts, **settings
        )


def append_files(
    store: str | Path,
    inputs: PathLike | Sequence[PathLike],
    *,
    bands: Bands = None,
    mask: str | None = None,
    asked: dict[str, Any] | None = None,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = _warn,
) -> Appended:
    """Adds later dates to a store: `eozip.append_store("year.zarr", "20211229.tif")`.

    Args:
        store: a `.zarr` directory or `.zarr.zip` file written by eozip.
        inputs: GeoTIFFs on its grid with its bands, as for `encode_files`.
        bands: names or 1-based positions; None matches the store's bands by what they mean.
        mask: as for `encode_files`, of the new dates.
        asked: what the store is expected to have, by the fields of `eozip.store.EozipChunkCodec`.
        progress: called with chunks done and in all.
        note: as for `encode_files`.

    Returns:
        the summary.

    Raises:
        EozipError: as for `encode_files`; the store is as it was.
    """
    path = arguments.store_path("store", store)
    opened, band = _pixels_and_mask(mask, inputs, bands, describe(path).codec.offset)
    _tell(opened.notes, note)
    with _opened_mask(mask, opened, band) as drop:
        return append_store(path, opened, asked=asked, drop=drop, progress=progress)


def _tell(notes: Sequence[str], note: Callable[[str], None]) -> None:
    for text in notes:
        note(text)


def _pixels_and_mask(
    mask: str | None, inputs: PathLike | Sequence[PathLike], bands: Bands, offset: float | None
) -> tuple[Scene, Scene | None]:
    """The input, and its band that is the mask; None where there is no mask or it has files of its own."""
    spec = None if mask is None else parse_mask(str(arguments.text("mask", mask)))
    if spec is None or spec.band is None:
        return open_scene(inputs, bands, offset), None
    pixels, band = split_mask(open_scene(inputs, None, offset), spec)
    return (pixels if bands is None else open_scene(inputs, bands, offset)), band


def _opened_mask(
    mask: str | None, scene: Scene, band: Scene | None
) -> AbstractContextManager[MaskReader | None]:
    """The mask on the grid of a scene; None where none was asked for."""
    if mask is None:
        return nullcontext()
    times, _, height, width = scene.shape
    return open_mask(parse_mask(mask), (times, height, width), band)
