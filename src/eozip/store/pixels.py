"""Streams and pixels of a finished store, a row of chunks at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eozip.errors import EozipError, FormatError
from eozip.store.codec import CHUNKS_AT_ONCE
from eozip.store.container import StoreFiles
from eozip.store.description import Description
from eozip.store.grid import Shape, Window
from eozip.store.metadata import ARRAY
from eozip.store.shards import unpack_shard


@dataclass(frozen=True)
class Strip:
    """Decoded pixels of one row of chunks within one shard.

    Attributes:
        times, rows, columns: half-open ranges in the scene.
        pixels: DN [T, C, h, w], bands in the array's order.
    """

    times: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    pixels: np.ndarray


class StorePixels:
    """Reads one store; `open_pixels` makes and closes it."""

    def __init__(self, description: Description, files: StoreFiles, pool: ThreadPoolExecutor) -> None:
        self.description = description
        self._files = files
        self._pool = pool

    def streams(self, shard: Shape) -> dict[Shape, bytes]:
        """Chunk streams of one shard by position; none where the shard is not stored.

        Raises:
            FormatError: the shard is damaged; the message names it.
        """
        grid = self.description.grid
        data = self._files.get(f"{ARRAY}/{grid.key(shard)}")
        if data is None:
            return {}
        try:
            return unpack_shard(data, grid.per_shard)
        except FormatError as error:
            raise type(error)(f"{self.description.path}, shard {grid.key(shard)}: {error}") from error

    def strips(self, times: Sequence[int] | None = None) -> Iterator[Strip]:
        """All pixels in shard order.

        Args:
            times: dates wanted; None for all. Groups of dates with none of them are not decoded.

        Raises:
            FormatError: a chunk is damaged; the message names it.
        """
        for shard in self.description.grid.shards():
            streams: dict[Shape, bytes] | None = None
            for windows in self.description.grid.strips(shard):
                if times is None or any(windows[0].times[0] <= t < windows[0].times[1] for t in times):
                    streams = self.streams(shard) if streams is None else streams
                    yield self._strip(shard, windows, streams)

    def _strip(self, shard: Shape, windows: list[Window], streams: dict[Shape, bytes]) -> Strip:
        first, last = windows[0], windows[-1]
        parts = self._pool.map(lambda w: self.decode(shard, w, streams.get(w.position)), windows)
        pixels = np.concatenate(list(parts), axis=3)
        return Strip(first.times, first.rows, (first.columns[0], last.columns[1]), pixels)

    def decode(self, shard: Shape, window: Window, stream: bytes | None) -> np.ndarray:
        """One chunk in its true extent.

        Args:
            shard: index of its shard, for messages.
            window: the chunk.
            stream: its bytes; None where it is not stored.

        Returns:
            DN [T, C, h, w].

        Raises:
            FormatError: damaged bytes, or a stream of another size than this place has.
        """
        from eozip import api

        shape, dtype = self._extent(window), np.dtype(self.description.dtype)
        if stream is None:
            return np.full(shape, self.description.fill_value, dtype)
        with self.naming(shard, window):
            return self._checked(api.decode(stream), shape, dtype)

    def _checked(self, dn: np.ndarray, shape: Shape, dtype: np.dtype) -> np.ndarray:
        """Streams have the true extent of their place, or the full chunk where plain zarr wrote them."""
        inside = dn.ndim == 4 and all(a >= b for a, b in zip(dn.shape, shape))
        whole = dn.shape == self.description.grid.chunk
        if dn.dtype != dtype or not inside or not (whole or dn.shape == shape):
            raise FormatError(f"expected a stream of {shape} {dtype}, got {dn.shape} {dn.dtype}")
        return dn[tuple(slice(n) for n in shape)]

    def _extent(self, window: Window) -> Shape:
        (t0, t1), (y0, y1), (x0, x1) = window.times, window.rows, window.columns
        return t1 - t0, self.description.grid.shape[1], y1 - y0, x1 - x0

    @contextmanager
    def naming(self, shard: Shape, window: Window) -> Iterator[None]:
        """Errors raised in the block say which chunk they are about."""
        try:
            yield
        except EozipError as error:
            raise type(error)(f"{self.place(shard, window)}: {error}") from error

    def place(self, shard: Shape, window: Window) -> str:
        """Names a chunk for people: key of its shard, dates, rows and columns."""
        ranges = (f"{a}:{b}" for a, b in (window.times, window.rows, window.columns))
        t, y, x = ranges
        return f"shard {self.description.grid.key(shard)}, dates {t}, rows {y}, columns {x}"


@contextmanager
def open_pixels(description: Description) -> Iterator[StorePixels]:
    """Opens a described store for its pixels."""
    with StoreFiles(Path(description.path)) as files, ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
        yield StorePixels(description, files, pool)


def read_pixels(description: Description, times: slice, rows: slice, columns: slice) -> np.ndarray:
    """One window of the array; decodes only the chunks it touches.

    Args:
        description: the store.
        times, rows, columns: start and stop within the scene.

    Returns:
        DN [T, C, h, w], bands in the array's order.

    Raises:
        FormatError: a chunk is damaged; the message names it.
    """
    shape = (
        times.stop - times.start,
        description.grid.shape[1],
        rows.stop - rows.start,
        columns.stop - columns.start,
    )
    out = np.empty(shape, description.dtype)
    wanted = (times, rows, columns)
    with open_pixels(description) as pixels:
        for shard in description.grid.shards():
            streams: dict[Shape, bytes] | None = None
            for window in (
                w for strip in description.grid.strips(shard) for w in strip if _touches(w, wanted)
            ):
                streams = pixels.streams(shard) if streams is None else streams
                _paste(out, pixels.decode(shard, window, streams.get(window.position)), window, wanted)
    return out


def _ranges(window: Window) -> tuple[tuple[int, int], ...]:
    return window.times, window.rows, window.columns


def _touches(window: Window, wanted: tuple[slice, ...]) -> bool:
    return all(a < part.stop and part.start < b for (a, b), part in zip(_ranges(window), wanted))


def _paste(out: np.ndarray, dn: np.ndarray, window: Window, wanted: tuple[slice, ...]) -> None:
    common = [(max(a, p.start), min(b, p.stop)) for (a, b), p in zip(_ranges(window), wanted)]
    t, y, x = (slice(a - p.start, b - p.start) for (a, b), p in zip(common, wanted))
    u, v, w = (slice(a - first, b - first) for (a, b), (first, _) in zip(common, _ranges(window)))
    out[t, :, y, x] = dn[u, :, v, w]
