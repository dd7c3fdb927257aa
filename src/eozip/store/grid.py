"""How a scene [T, C, H, W] is cut into chunks and shards. Numbers only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from eozip.errors import InputError

_CHUNK = 256
GOP = 4
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
    """Chooses chunks and shards for a scene.

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
