"""From a store to files that others open: GeoTIFF and COG, one COG per band, Zarr as EOPF products have it, NetCDF by CF.

Windows, dates, bands and resolutions are chosen before anything is decoded; only chunks that they touch are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from eozip import arguments
from eozip.errors import InputError, OutputError
from eozip.keys import PlaceLike, place
from eozip.outputs import publish, resolved, temporary
from eozip.raster import Profile
from eozip.raster.cog import coarser_profile, write_cog
from eozip.raster.scene import Lattice
from eozip.raster.write import create_geotiff
from eozip.store.description import BandGrid, Description, choose_dates, described
from eozip.store.documents import LayerRecord
from eozip.store.native import alignment
from eozip.store.reader import choose_bands, select_bands
from eozip.store.records import lattice_of
from eozip.store.remote import plain_store, store_files
from eozip.store.windows import Source, block_means, chosen_reduction
from eozip.store.writer import Progress

FORMATS = ("geotiff", "cog", "bands", "eopf-zarr", "netcdf")
STRIP = 512  # rows written at once


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


@dataclass(frozen=True)
class Cut:
    """What is exported of a store.

    Attributes:
        description: the store.
        source: its pixels.
        times: positions of dates.
        picks: positions of bands in the order of the store's source.
        reduce: pixels of the array, each way, that make one.
        rows: of the array; they begin where a pixel of what is written does.
        columns: likewise.
    """

    description: Description
    source: Source
    times: tuple[int, ...]
    picks: tuple[int, ...]
    reduce: int
    rows: slice
    columns: slice

    @property
    def stored(self) -> list[int]:
        """Positions in the array of the bands."""
        return [self.description.band_order[i] for i in self.picks]

    @cached_property
    def lattice(self) -> Lattice | None:
        """What DN mean where the source held floats."""
        found = self.description.product
        return lattice_of(found.lattice if found else None)

    def profile(self) -> Profile:
        """Of the joint picture: all bands on one grid."""
        whole = self._typed(select_bands(self.description.profile, self.picks))
        return coarser_profile(_windowed(whole, self.rows, self.columns), self.reduce)

    def band_profile(self, grid: BandGrid, pick: int) -> Profile:
        """Of one band on its own grid."""
        whole = self._typed(select_bands(self.description.profile, [pick]))
        return coarser_profile(_windowed(whole, self.rows, self.columns), grid.factor)

    def pixels(self, t: int, more: int, rows: slice, columns: slice) -> np.ndarray:
        """[C, h, w] of a window of the joint picture, `more` times coarser than it is written."""

        def read(y: slice, x: slice, times: int) -> np.ndarray:
            return self.source.pixels([t], self.stored, y, x, times)[0]

        return self.values(
            self._moved(read, self.reduce, more, rows, columns, self.description.grid.shape[2:])
        )

    def cells(self, grid: BandGrid, t: int, band: int, more: int, rows: slice, columns: slice) -> np.ndarray:
        """[1, h, w] of a window of one band on its own grid, `more` times coarser."""
        index, own = self.description.grids.index(grid), grid.bands.index(band)

        def read(y: slice, x: slice, times: int) -> np.ndarray:
            return self.source.cells(index, [t], y, x, times // grid.factor)[0, [own]]

        return self.values(
            self._moved(read, grid.factor, more, rows, columns, self.description.grid.shape[2:])
        )

    def _moved(
        self,
        read: Callable[[slice, slice, int], np.ndarray],
        unit: int,
        more: int,
        rows: slice,
        columns: slice,
        size: Sequence[int],
    ) -> np.ndarray:
        """A window of what was cut out; where reduced pixels of the store do not begin with it, finer ones are averaged."""
        starts = self.rows.start, self.columns.start
        times = unit * more if all(start % (unit * more) == 0 for start in starts) else unit
        rest = unit * more // times
        moved = [
            slice(
                part.start * rest + start // times,
                min(part.stop * rest + start // times, -(-length // times)),
            )
            for part, start, length in zip((rows, columns), starts, size, strict=True)
        ]
        dn = read(moved[0], moved[1], times)
        return block_means(dn, rest, self.description.codec.nodata)

    def values(self, dn: np.ndarray) -> np.ndarray:
        """As the source had them: DN, or floats."""
        return dn if self.lattice is None else self.lattice.values(dn, self.description.codec.nodata)

    def _typed(self, profile: Profile) -> Profile:
        if self.lattice is not None:
            return replace(profile, dtype="float32", nodata=self.lattice.nodata)
        if any(self.description.masks):
            return replace(profile, nodata=self.description.fill_value)
        return profile


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
    """Writes a store, or a part of it, as files of another format.

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
    if form not in FORMATS:
        raise InputError(f"format: expected one of {', '.join(FORMATS)}, got {form!r}")
    target = resolved(arguments.store_path("out", out))
    where = place("store", store)
    with store_files(where) as files:
        found = described(files)
        cut = _cut(found, Source(found, files), form, bands, dates, resolution, window, bbox, crs)
        names = _names(cut, target, form)
        _check_target(target, form, len(cut.times), overwrite)
        with temporary(target, folder=True) as part:
            _WRITERS[form](cut, part, names, progress, plain_store(where))
            _publish(part, target, names, form, overwrite)
        read = files.bytes_read
    profile = cut.profile()
    shape = len(cut.times), len(cut.picks), profile.height, profile.width
    return Exported(str(out), form, names, shape, read, time.perf_counter() - started)


def is_plain_request(form: str, options: dict[str, Any]) -> bool:
    """Whether whole GeoTIFFs are asked for, which `decode_store` writes."""
    return form == "geotiff" and all(
        options.get(name) is None for name in ("resolution", "window", "bbox", "crs")
    )


# --- what is taken ---


def _cut(
    found: Description,
    source: Source,
    form: str,
    bands: Sequence[str | int] | None,
    dates: Sequence[str | int] | None,
    resolution: float | None,
    window: Sequence[int] | None,
    bbox: Sequence[float] | None,
    crs: str | None,
) -> Cut:
    times = choose_dates(found, arguments.choice("dates", dates))
    picks = choose_bands(found, arguments.choice("bands", bands))
    reduce, unit = chosen_reduction(found, resolution), 1
    if form in ("geotiff", "cog"):
        unit = reduce
    else:
        unit = alignment(found.codec.grids)
        if resolution is not None:
            picks = _of_grid(found, picks, reduce, resolution)
        reduce = 1
    rows, columns = _window(found, window, bbox, crs)
    height, width = found.grid.shape[2:]
    rows, columns = _aligned(rows, unit, height), _aligned(columns, unit, width)
    return Cut(found, source, tuple(times), tuple(picks), reduce, rows, columns)


def _of_grid(found: Description, picks: Sequence[int], factor: int, resolution: float) -> list[int]:
    """The bands that were measured at a resolution."""
    factors = found.source_factors or (1,) * found.grid.shape[1]
    kept = [i for i in picks if factors[i] == factor]
    if not kept:
        grids = ", ".join(grid.name for grid in found.grids)
        raise InputError(
            f"{found.path}: resolution: expected that of a grid with some of the bands ({grids}), got {resolution:g}"
        )
    return kept


def _window(
    found: Description, window: Sequence[int] | None, bbox: Sequence[float] | None, crs: str | None
) -> tuple[slice, slice]:
    height, width = found.grid.shape[2:]
    if window is not None and bbox is not None:
        raise InputError("give window or bbox, not both")
    if crs is not None and bbox is None:
        raise InputError("crs: it is that of bbox, which was not given")
    if window is not None:
        if len(window) != 4 or any(isinstance(v, bool) or int(v) != v for v in window):
            raise InputError(
                f"window: expected column, row, width, height in whole pixels, got {list(window)}"
            )
        x, y, w, h = (int(v) for v in window)
        rows, columns = slice(y, y + h), slice(x, x + w)
        if x < 0 or y < 0 or w < 1 or h < 1 or y + h > height or x + w > width:
            raise InputError(
                f"window: expected one within {width} columns and {height} rows, got column {x}, row {y}, width {w}, height "
                f"{h}"
            )
        return rows, columns
    return (slice(0, height), slice(0, width)) if bbox is None else _bbox(found, bbox, crs)


def _bbox(found: Description, bbox: Sequence[float], crs: str | None) -> tuple[slice, slice]:
    """Pixels that a box touches, cut at the edge of the scene."""
    profile = found.profile
    if len(bbox) != 4 or not all(np.isfinite(bbox)) or not (bbox[0] < bbox[2] and bbox[1] < bbox[3]):
        raise InputError(f"bbox: expected x from, y from, x to, y to, got {list(bbox)}")
    if profile.transform is None or profile.transform[1] or profile.transform[3]:
        raise InputError(f"{found.path}: bbox: the store has no grid along x and y; give a window")
    box = tuple(map(float, bbox))
    if crs is not None:
        if profile.crs is None:
            raise InputError(f"{found.path}: crs: the store does not say its own")
        try:
            box = transform_bounds(CRS.from_user_input(crs), CRS.from_wkt(profile.crs), *box)
        except (CRSError, ValueError) as error:
            raise InputError(
                f"crs: expected a coordinate reference system, got {crs!r:.80} ({error})"
            ) from error
    a, _, c, _, e, f = profile.transform
    xs, ys = sorted(((box[0] - c) / a, (box[2] - c) / a)), sorted(((box[1] - f) / e, (box[3] - f) / e))
    height, width = found.grid.shape[2:]
    columns = slice(max(0, int(np.floor(xs[0] + 1e-6))), min(width, int(np.ceil(xs[1] - 1e-6))))
    rows = slice(max(0, int(np.floor(ys[0] + 1e-6))), min(height, int(np.ceil(ys[1] - 1e-6))))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        left, top = c, f
        right, bottom = c + a * width, f + e * height
        raise InputError(
            f"{found.path}: bbox: expected one that touches x {min(left, right):g}..{max(left, right):g}, y "
            f"{min(top, bottom):g}..{max(top, bottom):g}, got {[round(v, 3) for v in box]}"
        )
    return rows, columns


def _aligned(part: slice, unit: int, length: int) -> slice:
    return slice(part.start // unit * unit, min(-(-part.stop // unit) * unit, length))


def _windowed(profile: Profile, rows: slice, columns: slice) -> Profile:
    transform = profile.transform
    if transform is not None:
        a, b, c, d, e, f = transform
        x, y = columns.start, rows.start
        transform = a, b, c + a * x + b * y, d, e, f + d * x + e * y
    is_whole = rows.stop - rows.start == profile.height and columns.stop - columns.start == profile.width
    return replace(
        profile,
        height=rows.stop - rows.start,
        width=columns.stop - columns.start,
        transform=transform,
        gcps=profile.gcps if is_whole else (),
    )


# --- names ---


def _names(cut: Cut, target: Path, form: str) -> list[str]:
    found = cut.description
    if form == "netcdf":
        return [target.name]
    if form == "eopf-zarr":
        is_one = len(cut.times) == 1
        return [target.name] if is_one else [f"{_stem(found, t)}.zarr" for t in cut.times]
    if form in ("geotiff", "cog"):
        if target.suffix.lower() in (".tif", ".tiff"):
            if len(cut.times) > 1:
                raise InputError(
                    f"expected a folder for {len(cut.times)} dates, got the file name {target}; name a folder, or choose "
                    "one date with --dates (dates=)"
                )
            return [target.name]
        return _distinct([f"{_stem(found, t)}.tif" for t in cut.times])
    names = [_band_stem(found, t, pick) for t in cut.times for pick in cut.picks]
    return [f"{name}.tif" for name in _distinct(names, found, cut)]


def _stem(found: Description, t: int) -> str:
    return Path(found.files[t]).stem


def _band_stem(found: Description, t: int, pick: int) -> str:
    """The name that a band came in; with the band where several share a file."""
    if found.product is None:
        return f"{_stem(found, t)}_{_label(found, pick)}"
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
            for y in range(0, profile.height, STRIP):
                rows = slice(y, min(y + STRIP, profile.height))
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


def layers_of(cut: Cut) -> list[LayerRecord]:
    """Rasters beside the bands that lie on a grid of the store's."""
    found = cut.description.product
    return [] if found is None else [layer for layer in found.layers if layer.factor is not None]


def layer_window(cut: Cut, layer: LayerRecord) -> tuple[slice, slice]:
    """Cells of a layer that the cut touches."""
    factor = layer.factor or 1
    rows, columns = (slice(part.start // factor, -(-part.stop // factor)) for part in (cut.rows, cut.columns))
    return rows, columns


def _layer_files(cut: Cut, part: Path, layer: LayerRecord, store: Any) -> None:
    """A COG for each date of a raster beside the bands; classes have no averages, so it has no overviews."""
    array = zarr.open_array(store, path=layer.path, mode="r")
    rows, columns = layer_window(cut, layer)
    found, name = cut.description, layer.path.split("/")[1].upper()
    for t in cut.times:
        values = np.asarray(array[t, rows, columns])[None]
        profile = layer_profile(cut, layer, values.dtype.name)
        stamp = (found.dates[t] or f"{t + 1:03d}")[:10].replace("-", "")

        def read(factor: int, y: slice, x: slice, values: np.ndarray = values) -> np.ndarray:
            return values[:, ::factor, ::factor][:, y, x]

        write_cog(part / f"{name}_{stamp}.tif", profile, read)


def layer_profile(cut: Cut, layer: LayerRecord, dtype: str) -> Profile:
    """Of a raster beside the bands."""
    found = cut.description.profile
    whole = coarser_profile(_windowed(found, cut.rows, cut.columns), layer.factor or 1)
    name = layer.path.split("/")[1].upper()
    one: dict[str, Any] = {"band_names": (name,), "scales": (1.0,), "offsets": (0.0,), "units": (None,)}
    return replace(whole, dtype=dtype, nodata=None, colorinterp=("gray",), **one)


def _eopf(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    from eozip.store.eopf import write_eopf

    for done, (t, name) in enumerate(zip(cut.times, names, strict=True)):
        write_eopf(cut, t, part / name, layers)
        progress(done + 1, len(names))


def _netcdf(cut: Cut, part: Path, names: Sequence[str], progress: Progress, layers: Any) -> None:
    from eozip.store.netcdf import write_netcdf

    write_netcdf(cut, part / names[0], layers, progress)


_WRITERS = {"geotiff": _geotiffs, "cog": _cogs, "bands": _bands, "eopf-zarr": _eopf, "netcdf": _netcdf}
