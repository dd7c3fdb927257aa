"""Stored levels: reduced pictures as ordinary arrays of a store, `levels/16/reflectance`, which every reader of Zarr knows.

    levels_of(description) > the levels that a store has
    Overviews              gathers them, shard by shard, from the pixels that the encoder knows
    read_level             a window of one

A chunk of a level is made of the pixels of one shard, so that whoever codes a shard writes it too. The first level averages
16 x 16 decoded pixels, each further one 4 x 4 of the one before; nodata does not count. Finer levels are virtual
(`eozip.store.levels`): they are made from the streams.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from eozip.errors import FormatError
from eozip.raster import Profile
from eozip.store.codec import EozipChunkCodec
from eozip.store.documents import ARRAY, NOT_OURS
from eozip.store.geozarr import coarser, grid_attributes, pyramid
from eozip.store.grid import Grid, Shape, Window, block_means

LEVELS = "levels"
FACT = "levels"
"""Under which a store's record has the factors of its stored levels."""
_FIRST, _STEP = 16, 4
_SMALLEST = 64  # pixels of the longer side of a level that is worth an array


@dataclass(frozen=True)
class Level:
    """A stored level.

    Attributes:
        factor: pixels of the array along one of its own.
        grid: of the store.
    """

    factor: int
    grid: Grid

    @property
    def path(self) -> str:
        """Of its array."""
        return f"{LEVELS}/{self.factor}/{ARRAY}"

    @property
    def shape(self) -> Shape:
        """(T, C, h, w)."""
        t, c, *sides = self.grid.shape
        h, w = (-(-side // self.factor) for side in sides)
        return t, c, h, w

    @property
    def chunk(self) -> Shape:
        """(t, C, h, w): one for each shard."""
        t, c, *sides = self.grid.shard
        h, w = (-(-min(pair) // self.factor) for pair in zip(sides, self.grid.shape[2:]))
        return t, c, h, w

    def key(self, shard: Shape) -> str:
        """Of the chunk that a shard makes."""
        return f"{self.path}/c/{'/'.join(map(str, shard))}"


def levels_for(grid: Grid) -> tuple[Level, ...]:
    """The levels that are worth storing for an array, finest first; none for small ones, and where chunks do not suit."""
    found, factor = [], _FIRST
    many = [side < length for side, length in zip(grid.shard[2:], grid.shape[2:])]
    inside = [side < length for side, length in zip(grid.chunk[2:], grid.shape[2:])]
    fits = all(side % _FIRST == 0 for side, cut in zip(grid.chunk[2:], inside) if cut)
    while fits and max(grid.shape[2:]) >= _SMALLEST * factor:
        found.append(Level(factor, grid))
        factor *= _STEP
        fits = all(side % factor == 0 for side, cut in zip(grid.shard[2:], many) if cut)
    return tuple(found)


def levels_of(facts: Mapping[str, Any], grid: Grid) -> tuple[Level, ...]:
    """The levels that a store has, finest first.

    Args:
        facts: of the store.
        grid: of the store.

    Raises:
        FormatError: a record of others than there can be.
    """
    known = facts.get(FACT) or ()
    possible = {level.factor: level for level in levels_for(grid)}
    if not isinstance(known, Sequence) or not all(isinstance(f, int) and f in possible for f in known):
        raise FormatError(f"{FACT}: expected some of {list(possible)}, got {known!r:.80}; {NOT_OURS}")
    return tuple(possible[factor] for factor in known)


def overviews_of(codec: EozipChunkCodec, grid: Grid, dtype: np.dtype[Any]) -> Overviews | None:
    """What gathers the levels of a new store; None where it is too small for any."""
    levels = levels_for(grid)
    return Overviews(levels, codec, dtype) if levels else None


def level_paths(facts: Mapping[str, Any]) -> list[str]:
    """Of the arrays of a store's levels."""
    return [f"{LEVELS}/{factor}/{ARRAY}" for factor in facts.get(FACT) or ()]


@dataclass
class Overviews:
    """Gathers the levels of the shards that are being coded.

    Attributes:
        levels: to be stored, finest first.
        codec: of the array; its nodata does not count.
        dtype: of the array.
    """

    levels: tuple[Level, ...]
    codec: EozipChunkCodec
    dtype: np.dtype[Any]
    _parts: dict[Shape, np.ndarray] = field(default_factory=dict)

    @property
    def fill(self) -> int:
        """Value where nothing is stored."""
        return self.codec.nodata or 0

    def add(self, shard: Shape, window: Window, first: int, dn: np.ndarray) -> None:
        """Take the decoded pixels of a chunk.

        Args:
            shard: of the chunk.
            window: the chunk.
            first: date of the store that is the first of `dn`.
            dn: [t, C, h, w].
        """
        finest = self.levels[0]
        if shard not in self._parts:
            self._parts[shard] = np.full(finest.chunk, self.fill, self.dtype)
        made = block_means(dn, _FIRST, self.codec.nodata)
        begin = first - shard[0] * finest.grid.shard[0]
        top, left = (
            (side[0] - index * whole) // _FIRST
            for side, index, whole in zip((window.rows, window.columns), shard[2:], finest.grid.shard[2:])
        )
        height, width = made.shape[2:]
        self._parts[shard][begin : begin + len(dn), :, top : top + height, left : left + width] = made

    def chunks(
        self, shard: Shape, first: int = 0, read: Callable[[str], bytes | None] = lambda key: None
    ) -> dict[str, bytes]:
        """Bytes of the chunks of all levels that a shard makes, by key; none where it holds nothing.

        Args:
            shard: all of whose chunks were added.
            first: date of the store that is the first new one.
            read: gives the bytes of a key of the store before.
        """
        part = self._parts.pop(shard, None)
        if part is None:
            return {}
        finest = self.levels[0]
        inside = _cut(part, finest, shard)
        kept = max(0, first - shard[0] * finest.grid.shard[0])
        if kept:
            old = _array(finest, self.dtype, self.fill, read, [shard])
            inside[:kept] = _values(old, _region(finest, shard))[:kept]
        found: dict[str, bytes] = {}
        for level in self.levels:
            if level is not finest:
                inside = block_means(inside, _STEP, self.codec.nodata)
            found |= _packed(level, self.dtype, self.fill, shard, inside)
        return found


def _cut(part: np.ndarray, level: Level, shard: Shape) -> np.ndarray:
    """What of a chunk lies in the level."""
    t, _, h, w = level.chunk
    dates, _, height, width = level.shape
    stop = [
        min(length - k * side, side)
        for length, k, side in ((dates, shard[0], t), (height, shard[2], h), (width, shard[3], w))
    ]
    return part[: stop[0], :, : stop[1], : stop[2]].copy()


def _region(level: Level, shard: Shape) -> tuple[slice, ...]:
    return tuple(
        slice(k * side, min((k + 1) * side, length))
        for k, side, length in zip(shard, level.chunk, level.shape)
    )


def _packed(level: Level, dtype: np.dtype[Any], fill: int, shard: Shape, dn: np.ndarray) -> dict[str, bytes]:
    memory = MemoryStore()
    array = create_level(zarr.create_group(memory), level, dtype, fill)
    array[_region(level, shard)] = dn
    return {key: value.to_bytes() for key, value in memory._store_dict.items() if key == level.key(shard)}


def _array(
    level: Level,
    dtype: np.dtype[Any],
    fill: int,
    read: Callable[[str], bytes | None],
    shards: Iterable[tuple[int, ...]],
) -> zarr.Array[Any]:
    """The array of a level with some of its chunks."""
    memory = MemoryStore()
    array = create_level(zarr.create_group(memory), level, dtype, fill)
    buffer = default_buffer_prototype().buffer
    for t, band, y, x in shards:
        data = read(level.key((t, band, y, x)))
        if data is not None:
            memory._store_dict[level.key((t, band, y, x))] = buffer.from_bytes(data)
    return array


def _values(array: zarr.Array[Any], region: tuple[slice, ...]) -> np.ndarray:
    try:
        return np.asarray(array[region])
    except (ValueError, RuntimeError) as error:
        raise FormatError(
            f"{array.path}: expected the chunks of a stored level, got damaged ones: {error}; remove the group {LEVELS} and "
            "the entry of eozip/zarr.json, or copy the store again"
        ) from error


def create_level(root: zarr.Group, level: Level, dtype: np.dtype[Any], fill: int) -> zarr.Array[Any]:
    """The array of a level, without values."""
    suffix = f"_{level.factor}"
    return root.require_group(f"{LEVELS}/{level.factor}").create_array(
        ARRAY,
        shape=level.shape,
        chunks=level.chunk,
        dtype=dtype.name,
        compressors=[
            BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle", typesize=dtype.itemsize),
            Crc32cCodec(),
        ],
        filters=None,
        fill_value=fill,
        dimension_names=["time", "band", f"y{suffix}", f"x{suffix}"],
        attributes={"comment": f"averages of {level.factor} x {level.factor} pixels"},
    )


def add_levels(
    root: zarr.Group, levels: Sequence[Level], profile: Profile, dtype: np.dtype[Any], fill: int
) -> None:
    """Groups, arrays and coordinates of stored levels, without values."""
    for level in levels:
        create_level(root, level, dtype, fill)
        group = root[f"{LEVELS}/{level.factor}"]
        if isinstance(group, zarr.Group):
            suffix = f"_{level.factor}"
            group.attrs.update(grid_attributes(profile, level.factor, suffix))
            add_axes(group, profile, level.factor, level.shape[2:], suffix)


def layout_of(levels: Sequence[Level], size: Sequence[int]) -> dict[str, Any]:
    """The root's attribute that names the levels, by the convention of multiscales."""
    names = [".", *(f"{LEVELS}/{level.factor}" for level in levels)]
    factors = [1, *(level.factor for level in levels)]
    return pyramid(names, factors, [list(size), *(list(level.shape[2:]) for level in levels)])


def add_axes(group: zarr.Group, profile: Profile, factor: int, size: Sequence[int], suffix: str) -> None:
    """Coordinates of the centres of a level's pixels; none where the source does not tell, or is turned."""
    transform = profile.transform
    if transform is None or transform[1] != 0 or transform[3] != 0:
        return
    a, _, c, _, e, f = coarser(transform, factor)
    for name, values in (
        ("y", f + e * (np.arange(size[0]) + 0.5)),
        ("x", c + a * (np.arange(size[1]) + 0.5)),
    ):
        axis = group.create_array(
            name + suffix,
            shape=values.shape,
            chunks=values.shape,
            dtype=values.dtype,
            dimension_names=[name + suffix],
        )
        axis[...] = values


def level_for(levels: Sequence[Level], reduce: int) -> Level | None:
    """The coarsest level from which a reduction can be made; None where there is none."""
    return max((one for one in levels if reduce % one.factor == 0), key=lambda one: one.factor, default=None)


def read_level(
    read: Callable[[str], bytes | None],
    level: Level,
    like: Overviews,
    times: Sequence[int],
    rows: slice,
    columns: slice,
    reduce: int,
) -> np.ndarray:
    """A window of a reduction, made from a stored level.

    Args:
        read: gives the bytes of a key of the store.
        level: see `level_for`.
        like: what is known of the values.
        times: dates.
        rows: of the reduction; start and stop.
        columns: likewise.
        reduce: pixels of the store, each way, that become one.

    Returns:
        DN [t, C, h, w].
    """
    rest = reduce // level.factor
    y, x = (
        slice(part.start * rest, min(part.stop * rest, length))
        for part, length in zip((rows, columns), level.shape[2:])
    )
    t = slice(min(times), max(times) + 1)
    sides = zip((t, slice(0, 1), y, x), (level.chunk[0], 1, *level.chunk[2:]))
    touched = product(*(range(part.start // side, -(-part.stop // side)) for part, side in sides))
    array = _array(level, like.dtype, like.fill, read, touched)
    found = _values(array, (t, slice(None), y, x))
    return block_means(found[[one - t.start for one in times]], rest, like.codec.nodata)
