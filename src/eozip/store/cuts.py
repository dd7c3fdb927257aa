"""A part of a store that is to be written elsewhere: dates, bands, a window, a resolution."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import zarr
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.warp import transform_bounds

from eozip import arguments
from eozip.errors import EozipError, FormatError, InputError
from eozip.raster import Profile
from eozip.raster.cog import coarser_profile
from eozip.raster.scene import Lattice
from eozip.store.description import BandGrid, Description, choose_bands, choose_dates, select_bands
from eozip.store.documents import LayerRecord
from eozip.store.grid import alignment, block_means
from eozip.store.records import lattice_of
from eozip.store.windows import Source, chosen_reduction


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


def cut_of(
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
    """What is asked for; see `eozip.store.exports.export_store`.

    Raises:
        InputError: what the store has not.
    """
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
        sides = arguments.numbers("window", window, ("column", "row", "width", "height"))
        x, y, w, h = (arguments.whole("window", side) for side in sides)
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
    box = arguments.numbers("bbox", bbox, ("x from", "y from", "x to", "y to"))
    if not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(f"bbox: expected x from, y from, x to, y to, got {box}")
    if profile.transform is None or profile.transform[1] or profile.transform[3]:
        raise InputError(f"{found.path}: bbox: the store has no grid along x and y; give a window")
    if crs is not None:
        if profile.crs is None:
            raise InputError(f"{found.path}: crs: the store does not say its own")
        try:
            box = transform_bounds(CRS.from_user_input(crs), CRS.from_wkt(profile.crs), *box)
        except (CRSError, ValueError, TypeError, AttributeError) as error:
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
            f"{found.path}: bbox: expected one that touches x {min(left, right):.10g}..{max(left, right):.10g}, y "
            f"{min(top, bottom):.10g}..{max(top, bottom):.10g}, got {[round(v, 3) for v in box]}"
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


def layers_of(cut: Cut) -> list[LayerRecord]:
    """Rasters beside the bands that lie on a grid of the store's."""
    found = cut.description.product
    return [] if found is None else [layer for layer in found.layers if layer.factor is not None]


def layer_window(cut: Cut, layer: LayerRecord) -> tuple[slice, slice]:
    """Cells of a layer that the cut touches."""
    factor = layer.factor or 1
    rows, columns = (slice(part.start // factor, -(-part.stop // factor)) for part in (cut.rows, cut.columns))
    return rows, columns


# what zarr raises of documents that it does not understand, and of bytes that its codecs cannot unpack
_FAULTS = (
    ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError, zlib.error,
)  # fmt: skip


@contextmanager
def _named(layer: LayerRecord) -> Iterator[None]:
    """What zarr raises of documents and bytes that are not as it wrote them, named.

    Raises:
        FormatError: see above.
    """
    try:
        yield
    except _FAULTS as error:
        if isinstance(error, EozipError):
            raise
        raise FormatError(
            f"{layer.path}: cannot be read ({type(error).__name__}: {error!s:.200}); the store was not written by eozip, "
            "or was changed after writing"
        ) from error


def open_layer(cut: Cut, layer: LayerRecord, store: Any) -> zarr.Array[Any]:
    """The array of a raster beside the bands.

    Raises:
        FormatError: none, or one of other dimensions or values than layers have.
    """
    with _named(layer):
        array = zarr.open_array(store, path=layer.path, mode="r")
        is_layer = array.ndim == 3 and array.dtype.kind in "iu" and array.dtype.itemsize <= 2
        if not is_layer or array.shape[0] < len(cut.description.dates):
            raise FormatError(
                f"{layer.path}: expected whole numbers [time, y, x] of {len(cut.description.dates)} dates, got "
                f"{array.shape} of {array.dtype}; the store was changed after writing"
            )
        return array


def layer_values(cut: Cut, layer: LayerRecord, array: zarr.Array[Any], t: int) -> np.ndarray:
    """Cells [h, w] of a raster beside the bands that the cut touches, of one date.

    Raises:
        FormatError: damaged, or smaller than the store's grid.
    """
    rows, columns = layer_window(cut, layer)
    with _named(layer):
        values = np.asarray(array[t, rows, columns])
        if values.shape != (rows.stop - rows.start, columns.stop - columns.start):
            raise FormatError(
                f"{layer.path}: expected {rows.stop} x {columns.stop} cells or more, got {array.shape[1:]}; the store was "
                "changed after writing"
            )
        return values


def layer_profile(cut: Cut, layer: LayerRecord, dtype: str) -> Profile:
    """Of a raster beside the bands."""
    found = cut.description.profile
    whole = coarser_profile(_windowed(found, cut.rows, cut.columns), layer.factor or 1)
    name = layer.path.split("/")[1].upper()
    one: dict[str, Any] = {"band_names": (name,), "scales": (1.0,), "offsets": (0.0,), "units": (None,)}
    return replace(whole, dtype=dtype, nodata=None, colorinterp=("gray",), **one)
