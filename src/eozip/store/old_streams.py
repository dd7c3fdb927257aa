"""Streams of a store's last group of dates, where that does not fill its chunks: new dates join them, or follow.

An append that was killed may have left streams with dates that the store does not show. They are taken for what they hold
of the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from eozip.chunk.growing import Before, shortened
from eozip.codecs.registry import LOSSLESS
from eozip.errors import FormatError
from eozip.store.grid import Grid, Shape, Window
from eozip.store.pixels import StorePixels
from eozip.store.shards import Shard, Stream

_AT_HAND = 2  # shards: that of the chunks being coded, and the one before


@dataclass
class OldStreams:
    """The streams of a store that is appended to.

    Attributes:
        pixels: the store before.
        grid: with its new dates.
        first: the first of these.
    """

    pixels: StorePixels
    grid: Grid
    first: int
    _opened: dict[Shape, Shard | None] = field(default_factory=dict)

    def dates_in(self, shard: Shape, position: Shape) -> int:
        """How many dates of a chunk the store shows."""
        return min(max(0, self.first - self._first_of(shard, position)), self.grid.chunk[0])

    def holds(self, shard: Shape, window: Window) -> bool:
        """Whether a chunk has anything of these dates; an append that was killed may have left a stream of nothing."""
        found = self._streams(shard, window, self.dates_in(shard, window.position))
        return len(found) > 1 or any(not self._is_nothing(stream, data) for stream, data in found)

    def last(self, shard: Shape, window: Window) -> Before | None:
        """The stream that new dates of a chunk may join, up to the store's last date; None: there is none."""
        dates = self.dates_in(shard, window.position)
        found = self._streams(shard, window, dates)
        return Before(found[-1][1], dates - found[-1][0].first) if found else None

    def until(self, shard: Shape, window: Window, dates: int) -> bytes:
        """Bytes of the first dates of a chunk; empty where it is not stored."""
        found = self._streams(shard, window, dates)
        if found and found[-1][0].dates.stop > dates:
            stream, data = found.pop()
            with self.naming(shard, window):
                found.append((stream, shortened(Before(data, dates - stream.first))))
        return b"".join(data for _, data in found)

    @contextmanager
    def naming(self, shard: Shape, window: Window) -> Iterator[None]:
        """Errors raised in the block say which old dates they are about."""
        times = self._first_of(shard, window.position), self.first
        with self.pixels.naming(shard, replace(window, times=times)):
            yield

    def _at_hand(self, shard: Shape) -> Shard | None:
        if shard[0] * self.grid.shard[0] >= self.first:
            return None  # a shard behind the last date is of an append that never finished
        if shard not in self._opened:
            while len(self._opened) >= _AT_HAND:
                del self._opened[next(iter(self._opened))]
            self._opened[shard] = self.pixels.at_hand(shard)
        return self._opened[shard]

    def _first_of(self, shard: Shape, position: Shape) -> int:
        return (shard[0] * self.grid.per_shard[0] + position[0]) * self.grid.chunk[0]

    def _streams(self, shard: Shape, window: Window, dates: int) -> list[tuple[Stream, bytes]]:
        """Those that hold any of the first dates of a chunk, the last one perhaps more; none where it is not stored.

        Raises:
            FormatError: fewer dates, or damaged headers.
        """
        opened = self._at_hand(shard)
        if not dates or opened is None or not opened.holds(window.position):
            return []
        with self.naming(shard, window):
            found = [one for one in opened.streams(window.position) if one.first < dates]
            there = found[-1].dates.stop if found else 0
            if there < dates:
                raise FormatError(
                    f"expected streams of {dates} dates, got {there}: the store was changed after writing; encode the "
                    "scene into a new one"
                )
            return [(one, opened.read(one.start, one.start + one.total)) for one in found]

    def _is_nothing(self, stream: Stream, data: bytes) -> bool:
        found = self.pixels.description
        if stream.header.codec != LOSSLESS:
            return False
        return bool(np.all(found.codec.decoded(data) == found.fill_value))
