"""From a store to files that others open: GeoTIFF and COG, one COG per band, Zarr as EOPF products have it, NetCDF by CF.

Windows, dates, bands and resolutions are chosen before anything is decoded; only chunks that they touch are read.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip import arguments
from eozip.arguments import PlaceLike, place
from eozip.errors import InputError, OutputError
from eozip.outputs import publish, resolved, temporary
from eozip.raster.cog import write_cog
from eozip.raster.write import create_geotiff
from eozip.store.cuts import Cut, cut_of, layer_profile, layer_values, layers_of, open_layer
from eozip.store.description import BandGrid, Description, described
from eozip.store.documents import LayerRecord
from eozip.store.eopf import write_eopf
from eozip.store.files import plain_store, store_files
from eozip.store.netcdf import write_netcdf
from eozip.store.options import Progress
from eozip.store.windows import Source

_FORMATS = ("geotiff", "cog", "bands", "eopf-zarr", "netcdf")
_STRIP = 512  # rows written at once


@dataclass(frozen=True)
class Exported:
    """What one `export_store` did.

    Attributes:
        output: the file or folder written.
        format: of it.
        files: names within it.
        shape: (T, C, H, W) on the finest grid written.
        bytes_read: of streams and shard indices.
        seconds: wall time.
    """

    output: str
    format: str
    files: list[str]
    shape: tuple[int, int, int, int]
    bytes_read: int
    seconds: float


def export_store(
    store: PlaceLike,
    out: str | Path,
    form: str = "cog",
    *,
    bands: Sequence[str | int] | None = None,
    dates: Sequence[str | int] | None = None,
    resolution: float | None = None,
    window: Sequence[int] | None = None,
    bbox: Sequence[float] | None = None,
    crs: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """Write a store, or a part of it, as files of another format.

    Args:
        store: path or URL of a store.
        out: a file where one is written (`geotiff` and `cog` of one date, `netcdf`), a `.zarr` folder for `eopf-zarr` of
            one date, else a folder.
        form: "geotiff" and "cog": all bands on one grid; "bands": one COG per band on its own grid, under the names that
            came in; "eopf-zarr": plain Zarr in the layout of EOPF products; "netcdf": by CF, a group for each grid.
        bands: names or 1-based positions in the source's order; None for all.
        dates: see `choose_dates`.
        resolution: side of a pixel in units of the CRS. Of `geotiff` and `cog` a multiple of the finest; of the others
            that of a grid whose bands alone are written.
        window: column, row, width, height in pixels of the finest grid.
        bbox: x from, y from, x to, y to.
        crs: of `bbox`, as rasterio takes it; None: that of the store.
        overwrite: whether an existing output may be replaced.
        progress: called with parts done and in all.

    Raises:
        FormatError: the store is damaged; the message names the chunk.
        InputError: what the store has not, or a window that it does not touch.
        OutputError: the output exists or cannot be written.
    """
    started = time.perf_counter()
    if form not in _FORMATS:
        raise InputError(f"format: expected one of {', '.join(_FORMATS)}, got {form!r}")
    target = resolved(arguments.store_path("out", out))
    where = place("store", store, reading=True)
    with store_files(where) as files:
        found = described(files)
        cut = cut_of(found, Source(found, files), form, bands, dates, resolution, window, bbox, crs)
        names = _names(cut, target, form)
        _check_target(target, form, len(cut.times), overwrite)
        with temporary(target, folder=True) as part:
            _WRITERS[form](cut, part, names, progress, plain_store(where))
            _publish(part, target, names, form, overwrite)
        read = files.bytes_read
    profile = cut.profile()
    shape = len(cut.times), len(cut.picks), profile.height, profile.width
    return Exported(str(out), form, names, shape, read, time.perf_counter() - started)


# --- names ---


def _names(cut: Cut, target: Path, form: str) -> list[str]:
    found = cut.description
    if form == "netcdf":
        return [target.name]
    if form == "eopf-zarr":
        is_one = len(cut.times) == 1
        return [target.name] if is_one else _distinct([f"{found.stem(t)}.zarr" for t in cut.times])
    if form in ("geotiff", "cog"):
        if target.suffix.lower() in (".tif", ".tiff"):
            if len(cut.times) > 1:
                raise InputError(
                    f"expected a folder for {len(cut.times)} dates, got the file name {target}; name a folder, or choose "
                    "one date with --dates (dates=)"
                )
            return [target.name]
        return _distinct([f"{found.stem(t)}.tif" for t in cut.times])
    names = [_band_stem(found, t, pick) for t in cut.times for pick in cut.picks]
    return [f"{name}.tif" for name in _distinct(names, found, cut)]


def _band_stem(found: Description, t: int, pick: int) -> str:
    """The name that a band came in; with the band where several share a file."""
    if found.product is None:
        return f"{found.stem(t)}_{_label(found, pick)}"
    own = found.product.names[t]
    stem = Path(own[pick]).stem
    return stem if own.count(own[pick]) == 1 else f"{stem}_{_label(found, pick)}"


def _label(found: Description, pick: int) -> str:
    return found.labels[found.band_order[pick]].replace("/", "-").replace(" ", "_")


def _distinct(names: list[str], found: Description | None = None, cut: Cut | None = None) -> list[str]:
    """Names, made different by their date or position where they are not."""
    if len(set(names)) == len(names):
        return names
    if found is not None and cut is not None:
        dates = [
            (found.dates[t] or f"{t + 1:03d}")[:10].replace("-", "") for t in cut.times for _ in cut.picks
        ]
        names = [f"{name}_{date}" for name, date in zip(names, dates, strict=True)]
        if len(set(names)) == len(names):
            return names
    return [f"{Path(name).stem}_{i + 1:03d}{Path(name).suffix}" for i, name in enumerate(names)]


def _check_target(target: Path, form: str, dates: int, overwrite: bool) -> None:
    """Refuses what would not be written at the end, before anything is decoded."""
    if form == "netcdf" and target.suffix.lower() not in (".nc", ".nc4"):
        raise OutputError(f"expected an output named *.nc, got {target}; rename the output")
    if form == "eopf-zarr" and (target.suffix.lower() == ".zarr") != (dates == 1):
        what = "an output named *.zarr for one date" if dates == 1 else f"a folder for {dates} dates"
        raise OutputError(f"expected {what}, got {target}; rename the output, or choose dates")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; make it first")
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise OutputError(f"{target} exists already; choose another name or pass --overwrite")
    if target.is_dir():
        mark = target / "zarr.json"
        ours = form == "eopf-zarr" and mark.is_file() and b"eozip" in mark.read_bytes()
        others = [
            p.name
            for p in target.rglob("*")
            if p.is_file() and not p.name.lower().endswith((".tif", ".tiff"))
        ]
        if not ours and others:
            raise OutputError(f"{target} holds {others[0]}, which this did not write; choose another name")


def _publish(part: Path, target: Path, names: Sequence[str], form: str, overwrite: bool) -> None:
    is_file = target.suffix.lower() in (".tif", ".tiff", ".nc", ".nc4")
    is_one_store = form == "eopf-zarr" and target.suffix.lower() == ".zarr"
    publish(part / names[0] if is_file or is_one_store else part, target, overwrite=overwrite)


# --- writers ---


def _geotiffs(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    profile, tags = cut.profile(), cut.description
    band_tags = [tags.band_tags[i] for i in cut.picks] if tags.band_tags else []
    for done, (t, name) in enumerate(zip(cut.times, names, strict=True)):
        with create_geotiff(part / name, profile, tags.tags[t], band_tags) as writer:
            for y in range(0, profile.height, _STRIP):
                rows = slice(y, min(y + _STRIP, profile.height))
                values = cut.pixels(t, 1, rows, slice(0, profile.width))
                writer.write(np.ascontiguousarray(values), y, 0)
        progress(done + 1, len(names))


def _cogs(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    profile, tags = cut.profile(), cut.description
    band_tags = [tags.band_tags[i] for i in cut.picks] if tags.band_tags else []
    for done, (t, name) in enumerate(zip(cut.times, names, strict=True)):

        def read(factor: int, rows: slice, columns: slice, t: int = t) -> np.ndarray:
            return cut.pixels(t, factor, rows, columns)

        write_cog(part / name, profile, read, tags.tags[t], band_tags)
        progress(done + 1, len(names))


def _bands(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    found = cut.description
    pairs = [(t, pick) for t in cut.times for pick in cut.picks]
    for done, ((t, pick), name) in enumerate(zip(pairs, names, strict=True)):
        band = found.band_order[pick]
        grid = next(grid for grid in found.grids if band in grid.bands)

        def read(
            factor: int,
            rows: slice,
            columns: slice,
            grid: BandGrid = grid,
            t: int = t,
            band: int = band,
        ) -> np.ndarray:
            return cut.cells(grid, t, band, factor, rows, columns)

        own = [found.band_tags[pick]] if found.band_tags else []
        write_cog(part / name, cut.band_profile(grid, pick), read, found.tags[t], own)
        progress(done + 1, len(names))
    for layer in layers_of(cut):
        _layer_files(cut, part, layer, layers)


def _layer_files(cut: Cut, part: Path, layer: LayerRecord, store: Any) -> None:
    """A COG for each date of a raster beside the bands; classes have no averages, so it has no overviews."""
    array = open_layer(cut, layer, store)
    found, name = cut.description, layer.path.split("/")[1].upper()
    for t in cut.times:
        values = layer_values(cut, layer, array, t)[None]
        profile = layer_profile(cut, layer, values.dtype.name)
        stamp = (found.dates[t] or f"{t + 1:03d}")[:10].replace("-", "")

        def read(factor: int, y: slice, x: slice, values: np.ndarray = values) -> np.ndarray:
            return values[:, ::factor, ::factor][:, y, x]

        write_cog(part / f"{name}_{stamp}.tif", profile, read)


def _eopf(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    for done, (t, name) in enumerate(zip(cut.times, names, strict=True)):
        write_eopf(cut, t, part / name, layers)
        progress(done + 1, len(names))


def _netcdf(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    write_netcdf(cut, part / names[0], layers, progress)


_WRITERS = {"geotiff": _geotiffs, "cog": _cogs, "bands": _bands, "eopf-zarr": _eopf, "netcdf": _netcdf}
