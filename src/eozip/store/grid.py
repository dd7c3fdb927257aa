"""How a scene [T, C, H, W] is cut into chunks and shards, and how bands on several grids lie in its array. Numbers only.

The array lies on the finest grid; bands of a grid that is `factor` times coarser are repeated, so that every factor-th pixel
is a sample, exactly. Streams hold the samples alone (`eozip.encode_groups`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from eozip import bitstream
from eozip.bitstream import MAX_BANDS, MAX_FACTOR, MAX_GROUPS, Header
from eozip.chunk.decoding import checked_blob, decode_chunk
from eozip.errors import FormatError, InputError


@dataclass(frozen=True)
class NativeGrid:
    """Bands that were measured on one grid.

    Attributes:
        resolution: metres a cell, or any whole unit; that of the finest grid divides it.
        bands: positions on the band axis of the array.
    """

    resolution: int
    bands: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """As in a codec's configuration."""
        return {"resolution": self.resolution, "bands": list(self.bands)}


def read_grids(found: object) -> tuple[NativeGrid, ...]:
    """Grids as a codec's configuration spells them, finest first.

    Raises:
        FormatError: no such grids.
    """
    items = list(found) if isinstance(found, list | tuple) else [found]
    try:
        grids = tuple(item if isinstance(item, NativeGrid) else _grid(item) for item in items)
    except (TypeError, KeyError, AttributeError) as error:
        raise FormatError(f"grids: expected resolutions and bands, got {found!r:.80}") from error
    problem = _problem(grids)
    if problem:
        raise FormatError(f"grids: {problem}, got {found!r:.120}")
    return grids


def _grid(item: Any) -> NativeGrid:
    resolution, bands = item["resolution"], tuple(item["bands"])
    if any(isinstance(n, bool) or not isinstance(n, int) for n in (resolution, *bands)) or len(item) != 2:
        raise TypeError("not whole numbers")
    return NativeGrid(resolution, bands)


def _problem(grids: Sequence[NativeGrid]) -> str:
    positions = sorted(band for grid in grids for band in grid.bands)
    sizes = [grid.resolution for grid in grids]
    if not 1 <= len(grids) <= MAX_GROUPS or not all(grid.bands for grid in grids):
        return f"expected 1 to {MAX_GROUPS} grids with a band each"
    if positions != list(range(len(positions))) or len(positions) > MAX_BANDS:
        return f"expected each of at most {MAX_BANDS} bands once"
    if not 1 <= sizes[0] <= 65535 or sizes != sorted(set(sizes)) or sizes[-1] > MAX_FACTOR * sizes[0]:
        return f"expected rising resolutions, the last at most {MAX_FACTOR} times the first"
    return "expected multiples of the finest resolution" * any(size % sizes[0] for size in sizes)


def factors(grids: Sequence[NativeGrid]) -> tuple[int, ...]:
    """Of each grid, pixels of the array along one of its cells."""
    return tuple(grid.resolution // grids[0].resolution for grid in grids)


def band_factors(grids: Sequence[NativeGrid], bands: int) -> tuple[int, ...]:
    """[C] the factor of each band of an array; 1 where all lie on one grid."""
    found = {band: f for grid, f in zip(grids, factors(grids), strict=True) for band in grid.bands}
    return tuple(found.get(band, 1) for band in range(bands))


def alignment(grids: Sequence[NativeGrid]) -> int:
    """Pixels of the array after which cells of all grids begin together."""
    return math.lcm(*factors(grids)) if grids else 1


def samples(shape: Sequence[int], grids: Sequence[NativeGrid]) -> int:
    """What was measured within a joint cube [T, C, H, W]."""
    t, c, h, w = shape
    return t * sum(-(-h // f) * -(-w // f) for f in band_factors(grids, c))


def cells_of(dn: np.ndarray, grids: Sequence[NativeGrid]) -> dict[int, np.ndarray]:
    """The samples of a joint cube [T, C, H, W]: resolution > [T, c, h, w]."""
    return {
        grid.resolution: np.ascontiguousarray(dn[:, list(grid.bands), ::f, ::f])
        for grid, f in zip(grids, factors(grids), strict=True)
    }


def joint(cells: Mapping[int, np.ndarray], grids: Sequence[NativeGrid], size: tuple[int, int]) -> np.ndarray:
    """The joint cube of samples; the inverse of `cells_of`.

    Args:
        cells: resolution > [T, c, h, w].
        grids: of the array.
        size: H, W of the cube.
    """
    finest = cells[grids[0].resolution]
    out = np.empty((len(finest), sum(len(grid.bands) for grid in grids), *size), finest.dtype)
    for grid, f in zip(grids, factors(grids), strict=True):
        out[:, list(grid.bands)] = repeated(cells[grid.resolution], f, size)
    return out


def repeated(cells: np.ndarray, factor: int, size: tuple[int, int]) -> np.ndarray:
    """Cells [..., h, w] as pixels [..., H, W] so many times finer."""
    if factor == 1:
        return cells
    return cells.repeat(factor, axis=-2)[..., : size[0], :].repeat(factor, axis=-1)[..., : size[1]]


def check_repeated(dn: np.ndarray, grids: Sequence[NativeGrid], fill: int) -> None:
    """Refuse a cube whose coarse bands are anything but repeated samples; fill values behind its end are none of it.

    Raises:
        InputError: see above.
    """
    used = dn != fill
    height, width = (
        int(np.max(np.flatnonzero(used.any(axis=axes)), initial=-1)) + 1 for axes in ((0, 1, 3), (0, 1, 2))
    )
    inside = dn[..., :height, :width]
    if not np.array_equal(joint(cells_of(inside, grids), grids, (height, width)), inside):
        raise InputError(
            f"expected bands on grids of {[grid.resolution for grid in grids]}, each sample repeated on the finest one, got "
            "other pixels; resample them onto their own grids, or write an array of one grid"
        )


def decode_joint(
    data: bytes,
    grids: Sequence[NativeGrid],
    budget: int | None = None,
    dates: Sequence[int] | None = None,
) -> np.ndarray:
    """Pixels [T, C, H, W] of one stream, of some dates or all.

    Raises:
        FormatError: damaged bytes, or groups that are not these grids.
    """
    layout = bitstream.read_layout(checked_blob(data))
    header = layout.header
    check_grids(header, grids)
    if budget is not None:  # other streams of an array may have more
        budget = min(budget, max(1, layout.declared))
    found = decode_chunk(data, budget=budget, dates=dates)[1]
    return joint(found, grids, header.shape[2:]) if grids else found[0]


def check_grids(header: Header, grids: Sequence[NativeGrid]) -> None:
    """Refuse a stream of other grids than its array's.

    Raises:
        FormatError: see above.
    """
    got = [(group.resolution, group.bands) for group in header.groups]
    expected = [(grid.resolution, len(grid.bands)) for grid in grids]
    if got != expected:
        raise FormatError(
            f"expected a stream of grids (resolution, bands) {expected}, got {got}; it belongs to another array"
        )


def block_means(dn: np.ndarray, times: int, nodata: int | None) -> np.ndarray:
    """Averages of blocks of so many cells each way, halves up; blocks at the edge have what is left.

    Args:
        dn: integers [..., h, w].
        times: cells of a block, each way.
        nodata: value that does not count, and that blocks without any other have; None: none.
    """
    if times == 1:
        return dn
    starts = [np.arange(0, side, times) for side in dn.shape[-2:]]
    counted = np.ones(dn.shape, bool) if nodata is None else dn != nodata
    values = np.where(counted, dn, 0).astype(np.int64)
    sums, counts = values, counted.astype(np.int64)
    for axis, at in zip((-2, -1), starts, strict=True):
        sums, counts = np.add.reduceat(sums, at, axis=axis), np.add.reduceat(counts, at, axis=axis)
    whole = np.maximum(counts, 1)
    means = (2 * sums + whole) // (2 * whole)
    if nodata is not None:
        means[(means == nodata) & (counts > 0)] += 1 if nodata < np.iinfo(dn.dtype).max else -1
        means[counts == 0] = nodata
    return means.astype(dn.dtype)


_CHUNK = 256
GOP = 6
_CHUNKS_PER_SHARD = 8
_LARGEST_UNIT = 64  # pixels: of sides that must suit coarser grids
_MULTIPLE = 16  # of pixels: fitted chunk sides stay multiples of the networks' stride

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """The true extent of one chunk in the scene, and its place.

    Attributes:
        position: index of the chunk within its shard (t, band, y, x).
        times, rows, columns: half-open ranges in dates and pixels, cut at the edge of the scene.
    """

    position: tuple[int, int, int, int]
    times: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """Chunks and shards of one array.

    Attributes:
        shape: (T, C, H, W) of the scene.
        chunk: (t, C, h, w) of a chunk.
        per_shard: chunks per shard along each axis.
    """

    shape: Shape
    chunk: Shape
    per_shard: Shape

    @property
    def shard(self) -> Shape:
        """(t, C, h, w) of a shard."""
        t, c, h, w = (a * b for a, b in zip(self.chunk, self.per_shard))
        return t, c, h, w

    @property
    def chunk_count(self) -> int:
        """Chunks that the scene touches."""
        t, _, y, x = _ceil_div(self.shape, self.chunk)
        return t * y * x

    def shards(self) -> Iterator[Shape]:
        """Shard indices in C order."""
        t, c, y, x = _ceil_div(self.shape, self.shard)
        return ((a, b, d, e) for a in range(t) for b in range(c) for d in range(y) for e in range(x))

    def key(self, shard: Shape) -> str:
        """The shard's key below the array, with zarr's default chunk key encoding."""
        return "c/" + "/".join(map(str, shard))

    def strips(self, shard: Shape) -> Iterator[list[Window]]:
        """The chunks of one shard that lie in the scene, one list per row of chunks, left to right."""
        for y in range(self.per_shard[2]):
            windows = [self._window(shard, (0, 0, y, x)) for x in range(self.per_shard[3])]
            inside = [w for w in windows if w.rows[0] < w.rows[1] and w.columns[0] < w.columns[1]]
            if inside:
                yield inside

    def _window(self, shard: Shape, position: Shape) -> Window:
        times, _, rows, columns = (self._range(axis, shard, position) for axis in range(4))
        return Window(position, times, rows, columns)

    def _range(self, axis: int, shard: Shape, position: Shape) -> tuple[int, int]:
        start = (shard[axis] * self.per_shard[axis] + position[axis]) * self.chunk[axis]
        return start, min(start + self.chunk[axis], self.shape[axis])


def plan(
    shape: Shape,
    chunk: int | None = None,
    gop: int = GOP,
    per_shard: int = _CHUNKS_PER_SHARD,
    alignment: int = 1,
) -> Grid:
    """Choose chunks and shards for a scene.

    Args:
        shape: (T, C, H, W).
        chunk: side of a chunk in pixels; None fits it near 256, so that no sliver is left at the edge.
        gop: most dates in one chunk.
        per_shard: most chunks along a shard's side.
        alignment: pixels after which coarser grids begin again; chunks do, too.

    Returns:
        the grid; one date group and all bands per chunk.

    Raises:
        InputError: an axis is empty, a setting is below 1, or chunks would cut cells of coarser grids.
    """
    if min(shape) < 1:
        raise InputError(f"expected a scene with at least one date, band, row and column, got shape {shape}")
    if min(gop, per_shard, chunk or 1) < 1:
        raise InputError(f"expected chunk, gop and shard of at least 1, got {chunk}, {gop}, {per_shard}")
    if chunk is not None and chunk % alignment and chunk < max(shape[2:]):
        raise InputError(
            f"chunk: expected a multiple of {alignment} pixels, after which cells of all grids begin, got {chunk}; choose "
            f"{max(1, round(chunk / alignment)) * alignment}"
        )
    fitted = _fitted_side if alignment == 1 else partial(_aligned_side, alignment=alignment)
    height, width = (chunk or fitted(length) for length in shape[2:])
    rows, columns = -(-shape[2] // height), -(-shape[3] // width)
    sides = (min(per_shard, rows), min(per_shard, columns))
    # room for a whole group even where there are fewer dates: others may be appended
    return Grid(shape, (gop, shape[1], height, width), (1, 1, *sides))


def regular_groups(first: int, stop: int, gop: int) -> tuple[int, ...]:
    """Dates in each group of the dates from `first` up to `stop`: cut where chunks begin."""
    edges = [first, *range(first - first % gop + gop, stop, gop), stop]
    return tuple(b - a for a, b in pairwise(edges))


def _fitted_side(length: int, side: int = _CHUNK) -> int:
    """Side near 256 that cuts `length` into nearly equal parts: 264 become one chunk, not 256 + 8."""
    parts = max(1, round(length / side))
    return min(length, -(-length // (parts * _MULTIPLE)) * _MULTIPLE)


def _aligned_side(length: int, alignment: int, side: int = _CHUNK) -> int:
    """As `_fitted_side`, a multiple of `alignment` and, as far as it is small, of more powers of 2: for reduced pictures."""
    unit = alignment
    while 2 * unit <= _LARGEST_UNIT:
        unit *= 2
    if length <= side + side // 2:
        return length
    sides = range(unit, 2 * side + unit, unit)
    whole = [s for s in sides if length % s == 0 or 2 * (length % s) >= s]  # no sliver at the edge
    return min(whole or sides, key=lambda s: abs(s - side))


def _ceil_div(lengths: Shape, steps: Shape) -> Shape:
    t, c, h, w = (-(-a // b) for a, b in zip(lengths, steps))
    return t, c, h, w
