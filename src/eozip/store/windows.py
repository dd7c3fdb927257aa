"""Windows of the bands of one grid, whole or reduced; no more of a store is fetched and decoded than that takes.

    with open_source("scene.zarr.zip") as source:               # or a URL that fsspec knows
        source.cells(1, [0], slice(0, 256), slice(0, 256))      # [t, c, h, w] of the second grid, such as 20 m
        source.pixels([0], [3, 2, 1], slice(0, 64), slice(0, 64), reduce=8)     # [t, c, h, w], bands of any grids

A group of bands is decoded from the first sections of a stream, a reduced picture from fewer still (docs/bitstream.md).
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eozip.arguments import real
from eozip.bitstream import read_layout
from eozip.chunk import api
from eozip.chunk.decoding import bytes_for, selected
from eozip.codecs.registry import needs_torch
from eozip.codecs.scales import REDUCTIONS
from eozip.errors import FormatError, InputError
from eozip.store.codec import DESK
from eozip.store.description import BandGrid, Description, described
from eozip.store.files import StoreFiles, store_files
from eozip.store.grid import Shape, Window, block_means, cells_of, check_grids, repeated
from eozip.store.overviews import Level, Overviews, level_for, levels_of, read_level
from eozip.store.pixels import StorePixels
from eozip.store.shards import Shard, Stream
from eozip.threads import each

_KEPT_BYTES = 128 << 20  # decoded pixels that are kept for the next window
_MOST_HEADS = 1 << 14  # chunks of which headers are kept


@dataclass(frozen=True)
class _Task:
    """Cells of one chunk.

    Attributes:
        shard: index of its shard.
        window: its place.
        index: position of the grid in `Description.grids`.
        reduction: what a decoder reduces them by.
        times: dates wanted.
    """

    shard: Shape
    window: Window
    index: int
    reduction: int
    times: tuple[int, ...]


_Part = tuple[dict[int, int], np.ndarray]  # which date of the scene is where in cells [t, c, h, w]


@dataclass
class Source:
    """An open store; `open_source` makes and closes it. Threads may share it.

    Attributes:
        description: the store.
        files: its keys.
    """

    description: Description
    files: StoreFiles
    _kept: OrderedDict[tuple[Any, ...], np.ndarray] = field(default_factory=OrderedDict)
    _heads: dict[tuple[Any, ...], tuple[Shard | None, list[Stream]]] = field(default_factory=dict)
    _shards: dict[Shape, Shard | None] = field(default_factory=dict)
    _begun: set[tuple[Any, ...]] = field(
        default_factory=set
    )  # streams of which some dates alone were decoded
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def _levels(self) -> tuple[Level, ...]:
        return levels_of(self.description.facts, self.description.grid)

    def cells(
        self, index: int, times: Sequence[int], rows: slice, columns: slice, reduce: int = 1
    ) -> np.ndarray:
        """Cells of all bands of one grid.

        Args:
            index: position of the grid in `Description.grids`.
            times: dates.
            rows: of cells of the grid, or of what `reduce` makes of them; start and stop.
            columns: likewise.
            reduce: cells of the grid, each way, that are averaged to one; nodata does not count.

        Returns:
            DN [t, c, h, w], bands as `BandGrid.bands` lists them.

        Raises:
            FormatError: a chunk is damaged; the message names it.
        """
        grid = self.description.grids[index]
        times_decoded = self._decoded_reduction(grid, reduce)
        rest = reduce // times_decoded
        scale = grid.factor * times_decoded
        size = [-(-side // scale) for side in self.description.grid.shape[2:]]
        window = [
            slice(part.start * rest, min(part.stop * rest, length))
            for part, length in zip((rows, columns), size, strict=True)
        ]
        found = self._mosaic(index, times, window, times_decoded)
        return block_means(found, rest, self.description.codec.nodata) if rest > 1 else found

    def pixels(
        self, times: Sequence[int], bands: Sequence[int], rows: slice, columns: slice, reduce: int = 1
    ) -> np.ndarray:
        """Bands of any grids on the finest grid, or on one that is `reduce` times coarser.

        Args:
            times: dates.
            bands: positions in the array.
            rows: of that grid; start and stop.
            columns: likewise.
            reduce: pixels of the array, each way, that become one.

        Returns:
            DN [t, c, h, w], bands in the order asked for.
        """
        level = level_for(self._levels, reduce)
        if level is not None:
            like = Overviews((level,), self.description.codec, np.dtype(self.description.dtype))
            return read_level(self.files.get, level, like, times, rows, columns, reduce)[:, list(bands)]
        size = rows.stop - rows.start, columns.stop - columns.start
        out = np.empty((len(times), len(bands), *size), self.description.dtype)
        for index, grid in enumerate(self.description.grids):
            pairs = [(i, grid.bands.index(band)) for i, band in enumerate(bands) if band in grid.bands]
            if pairs:
                found = self._on_grid(index, times, rows, columns, reduce)
                out[:, [i for i, _ in pairs]] = found[:, [own for _, own in pairs]]
        return out

    def _on_grid(
        self, index: int, times: Sequence[int], rows: slice, columns: slice, reduce: int
    ) -> np.ndarray:
        """One grid's bands on a grid of `reduce` pixels of the array."""
        grid = self.description.grids[index]
        if reduce % grid.factor == 0:
            return self.cells(index, times, rows, columns, reduce // grid.factor)
        common = math.gcd(reduce, grid.factor)
        limits = grid.height, grid.width
        cuts = [
            slice(part.start * reduce // grid.factor, min(-(-part.stop * reduce // grid.factor), limit))
            for part, limit in zip((rows, columns), limits, strict=True)
        ]
        cells = self.cells(index, times, cuts[0], cuts[1])
        fine = grid.factor // common
        before = [
            (part.start * reduce - cut.start * grid.factor) // common
            for part, cut in zip((rows, columns), cuts, strict=True)
        ]
        whole = [-(-side // common) for side in self.description.grid.shape[2:]]
        stops = [
            min(part.stop * reduce // common, length) - cut.start * fine
            for part, cut, length in zip((rows, columns), cuts, whole, strict=True)
        ]
        pixels = repeated(cells, fine, (stops[0], stops[1]))[..., before[0] :, before[1] :]
        return block_means(pixels, reduce // common, self.description.codec.nodata)

    def _decoded_reduction(self, grid: BandGrid, reduce: int) -> int:
        """How much of a reduction a decoder does within chunks: a power of 2 after which chunks begin alike."""
        found = 1
        sides = [
            side
            for side, length in zip(
                self.description.grid.chunk[2:], self.description.grid.shape[2:], strict=True
            )
            if side < length
        ]
        while True:
            more = 2 * found
            scale = grid.factor * more
            fits = reduce % more == 0 and all(side % scale == 0 for side in sides)
            if not fits or scale > REDUCTIONS[-1]:
                return found
            found = more

    def _mosaic(
        self, index: int, times: Sequence[int], window: Sequence[slice], reduction: int
    ) -> np.ndarray:
        """Cells of one grid, as far as a decoder reduces them; a window of what that makes."""
        description = self.description
        grid = description.grids[index]
        scale = grid.factor * reduction
        shape = len(times), len(grid.bands), *(part.stop - part.start for part in window)
        out = np.full(shape, description.fill_value, description.dtype)
        tasks = [
            _Task(shard, one, index, reduction, tuple(times))
            for shard in description.grid.shards()
            if _meets(_shard_window(description, shard), times, window, scale)
            for strip in description.grid.strips(shard)
            for one in strip
            if _meets(one, times, window, scale)
        ]
        for task, parts in zip(tasks, self._all(tasks), strict=True):
            for places, dn in parts:
                _paste(out, dn, places, task, window, scale)
        return out

    def _all(self, tasks: Sequence[_Task]) -> Iterator[list[_Part]]:
        network = needs_torch(self.description.codec.codec)
        if threading.current_thread() is threading.main_thread():
            return each(self._chunk, tasks, len(tasks), network=network)
        return map(self._chunk_in_turn, tasks)  # dask has threads of its own

    def _chunk_in_turn(self, task: _Task) -> list[_Part]:
        with DESK.turn(needs_torch(self.description.codec.codec)):
            return self._chunk(task)

    def _chunk(self, task: _Task) -> list[_Part]:
        """Of streams of a chunk with any of the dates wanted, cells of one grid."""
        is_known = task.shard in self._shards
        try:
            return self._parts(task)
        except FormatError:
            if not is_known:
                raise
            self._forget(task.shard)  # an append may have written it anew
            return self._parts(task)

    def _parts(self, task: _Task) -> list[_Part]:
        pixels = StorePixels(self.description, self.files)
        found = []
        with pixels.naming(task.shard, task.window):
            opened, streams = self._streams(pixels, task)
            for stream in streams:
                first = task.window.times[0] + stream.first
                wanted = sorted({t - first for t in task.times if first <= t < first + len(stream.dates)})
                if opened is not None and wanted:
                    dates, cells = self._cells(opened, stream, task, wanted)
                    found.append(({first + t: k for k, t in enumerate(dates)}, cells))
        return found

    def _forget(self, shard: Shape) -> None:
        """Drop what is known of where streams of a shard lie."""
        with self._lock:
            for place in [place for place in self._heads if place[0] == shard]:
                del self._heads[place]
            self._shards.pop(shard, None)

    def _streams(self, pixels: StorePixels, task: _Task) -> tuple[Shard | None, list[Stream]]:
        """The shard and the streams of a chunk, of which only headers are read, and these once."""
        place = task.shard, task.window.position
        with self._lock:
            known = self._heads.get(place)
            opened = self._shards.get(task.shard)
        if known is not None:
            return known
        if opened is None:
            opened = pixels.shard(task.shard)
        is_there = opened is not None and opened.holds(task.window.position)
        found = opened, opened.streams(task.window.position) if opened is not None and is_there else []
        with self._lock:
            if len(self._heads) > _MOST_HEADS:
                self._heads.clear()
                self._shards.clear()
            self._shards[task.shard], self._heads[place] = opened, found
        return found

    def _cells(
        self, shard: Shard, stream: Stream, task: _Task, wanted: list[int]
    ) -> tuple[Sequence[int], np.ndarray]:
        """Cells of some dates of a stream, counted from its first: those wanted if few are, and for the first time.

        Else all of them: one date is read without others, and all of them one by one decode a stream hardly more than once.
        """
        key = task.shard, task.window.position, stream.first, task.index, task.reduction
        every = range(len(stream.dates))
        with self._lock:
            for dates in (every, wanted):
                found = self._kept.get((*key, tuple(dates)))
                if found is not None:
                    self._kept.move_to_end((*key, tuple(dates)))
                    return dates, found
            is_first = stream.header.scales and key not in self._begun  # other codecs decode all dates
            if len(self._begun) > _MOST_HEADS:
                self._begun.clear()
            self._begun.add(key)
        dates = wanted if is_first and 2 * len(wanted) <= len(every) else every
        some = None if dates is every else wanted
        made = self._decode(shard, stream, task.index, task.reduction, some)
        self._keep((*key, tuple(dates)), made)
        return dates, made

    def _decode(
        self, shard: Shard, stream: Stream, index: int, reduction: int, dates: Sequence[int] | None
    ) -> np.ndarray:
        description = self.description
        grid = description.grids[index]
        times = _stream_reduction(grid.factor, reduction)
        groups = [grid.resolution] if stream.header.groups else None
        if stream.header.groups:
            check_grids(stream.header, description.codec.grids)
        layout = read_layout(stream.head)
        needed = bytes_for(selected(stream.header, reduce=times, groups=groups), layout)
        have = len(stream.head)
        more = shard.read(stream.start + have, stream.start + needed) if needed > have else b""
        made = api.decode(stream.head[:needed] + more, reduce=times, groups=groups, dates=dates)
        dn = made[grid.resolution] if isinstance(made, dict) else made
        if not stream.header.groups and description.codec.grids:
            dn = cells_of(dn, description.codec.grids)[grid.resolution]
        if dn.ndim != 4 or dn.dtype != np.dtype(description.dtype) or dn.shape[1] != len(grid.bands):
            raise FormatError(
                f"expected a stream of {len(grid.bands)} bands of {description.dtype}, got {dn.shape} of {dn.dtype}"
            )
        return dn

    def _keep(self, key: tuple[Any, ...], dn: np.ndarray) -> None:
        if dn.nbytes > _KEPT_BYTES // 4:
            return
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = dn
            self._bytes += dn.nbytes
            while self._bytes > _KEPT_BYTES:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes


@contextmanager
def open_source(store: str | Path, **storage_options: Any) -> Iterator[Source]:
    """Open a store for its windows.

    Args:
        store: a `.zarr` directory, a `.zarr.zip` file, or a URL of either that fsspec knows.
        storage_options: for fsspec.

    Raises:
        FormatError: no store, or metadata that this version cannot read.
    """
    with store_files(store, storage_options) as files:
        yield Source(described(files), files)


def chosen_reduction(description: Description, resolution: float | None) -> int:
    """Pixels of the array, each way, that make one of a resolution.

    Args:
        description: the store.
        resolution: side of a pixel in units of the CRS; None: that of the array.

    Raises:
        InputError: no multiple of the array's, or the store does not say what its pixels measure.
    """
    if resolution is None:
        return 1
    transform = description.profile.transform
    if transform is None:
        raise InputError(f"{description.path}: resolution: the store does not say what its pixels measure")
    own, resolution = abs(transform[0]), real("resolution", resolution)
    times = round(resolution / own) if math.isfinite(resolution) else 0
    if times < 1 or abs(times * own - resolution) > 1e-6 * own:
        raise InputError(
            f"{description.path}: resolution: expected a multiple of {own:g}, the pixels of the store, got {resolution}"
        )
    return times


def _stream_reduction(factor: int, reduction: int) -> int:
    """What `eozip.decode` is asked for so that a group of a factor is reduced by so much."""
    return 1 if reduction == 1 else 1 << (factor * reduction - 1).bit_length()


def _shard_window(description: Description, shard: Shape) -> Window:
    grid = description.grid
    ranges = [
        (index * side, min((index + 1) * side, length))
        for index, side, length in zip(shard, grid.shard, grid.shape, strict=True)
    ]
    return Window((0, 0, 0, 0), ranges[0], ranges[2], ranges[3])


def _meets(one: Window, times: Sequence[int], window: Sequence[slice], scale: int) -> bool:
    sides = zip((one.rows, one.columns), window, strict=True)
    return any(one.times[0] <= t < one.times[1] for t in times) and all(
        a < part.stop * scale and part.start * scale < b for (a, b), part in sides
    )


def _paste(
    out: np.ndarray,
    dn: np.ndarray,
    dates: Mapping[int, int],
    task: _Task,
    window: Sequence[slice],
    scale: int,
) -> None:
    """Puts cells of one stream where they belong; cells behind the end of its chunk are none of the scene's."""
    one = task.window
    places = []
    for (start, stop), part, size in zip((one.rows, one.columns), window, dn.shape[2:], strict=True):
        begin = start // scale
        low, high = max(begin, part.start), min(-(-stop // scale), part.stop, begin + size)
        if low >= high:
            return
        places.append((slice(low - part.start, high - part.start), slice(low - begin, high - begin)))
    (rows, own_rows), (columns, own_columns) = places
    for i, t in enumerate(task.times):
        if t in dates and t < one.times[1]:
            out[i, :, rows, columns] = dn[dates[t], :, own_rows, own_columns]
