"""The streams of one Zarr chunk: found by their headers, read whole or only as far as a budget needs.

A Zarr chunk holds one eozip stream, or several one after the other, each of the dates behind those before it
(an append never touches the streams that are there). A header says where its stream ends and where each of its
sections ends (docs/bitstream.md, 1.2 and 1.5), so a reader that may fetch byte ranges needs only headers and prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from eozip.bitstream import Header, header_size, read_layout
from eozip.errors import FormatError

HEAD = 512
"""Bytes fetched at once for a header; that of 16 sections and 4 dates with long names takes about 260."""

Read = Callable[[int, int], bytes]
"""Bytes from start up to stop; fewer where the source ends."""


@dataclass(frozen=True)
class Stream:
    """One stream of a chunk, its body not read.

    Attributes:
        first: its first date, counted from the chunk's.
        header: its facts.
        start: position of its first byte.
        exact: end of header, masks and exceptions, in bytes from its start.
        ends: ends of the codec's own sections, likewise.
        total: bytes of all of it.
        head: its first bytes, at least the header.
    """

    first: int
    header: Header
    start: int
    exact: int
    ends: tuple[int, ...]
    total: int
    head: bytes

    @property
    def dates(self) -> range:
        """Its dates, counted from the chunk's first."""
        return range(self.first, self.first + self.header.shape[0])

    def needed(self, budget: int | None) -> int:
        """Bytes that decoding its first `budget` sections needs; None: all."""
        return self.total if budget is None or budget >= len(self.ends) else self.ends[budget - 1]


@dataclass(frozen=True)
class Piece:
    """Bytes of one stream, cut behind the sections asked for.

    Attributes:
        dates: its dates, counted from the chunk's first.
        data: the bytes.
    """

    dates: range
    data: bytes


def locate(read: Read, start: int, stop: int) -> Iterator[Stream]:
    """The streams between two positions; reads their headers alone.

    Raises:
        FormatError: what lies there is no stream, or a header is damaged.
    """
    first = 0
    while start < stop:
        stream = _stream(read, first, start, stop)
        if start + stream.total > stop:
            raise FormatError(f"chunk: expected {stream.total} bytes, got {stop - start}; it is truncated")
        yield stream
        first, start = stream.dates.stop, start + stream.total


def fetch(read: Read, stream: Stream, budget: int | None = None) -> Piece:
    """The bytes of a stream as far as `budget` sections need; those of its head are not read again."""
    needed, have = stream.needed(budget), len(stream.head)
    rest = read(stream.start + have, stream.start + needed) if needed > have else b""
    return Piece(stream.dates, stream.head[:needed] + rest)


def pieces(
    read: Read, start: int, stop: int, budget: int | None = None, wanted: Sequence[int] | None = None
) -> list[Piece]:
    """The streams of a chunk that hold any of the dates wanted, as far as the budget needs them.

    Args:
        read: the source.
        start: position of the chunk's first byte; `stop` of the byte behind its last.
        stop: see `start`.
        budget: sections; None for all.
        wanted: dates counted from the chunk's first; None for all.

    Raises:
        FormatError: as `locate`.
    """
    if budget is None and wanted is None:  # all of it: one reading
        read, start, stop = reader_of(read(start, stop)), 0, stop - start
    found = locate(read, start, stop)
    if wanted is not None:
        last = max(wanted, default=-1)  # no header behind it is looked at
        found = (s for s in _up_to(found, last) if any(t in s.dates for t in wanted))
    return [fetch(read, stream, budget) for stream in found]


def _up_to(streams: Iterator[Stream], last: int) -> Iterator[Stream]:
    for stream in streams:
        yield stream
        if stream.dates.stop > last:
            return


def reader_of(data: bytes) -> Read:
    """`Read` of bytes in memory."""
    return lambda start, stop: data[start:stop]


def split(data: bytes, budget: int | None = None) -> list[Piece]:
    """The streams of a chunk in memory."""
    return pieces(reader_of(data), 0, len(data), budget)


def _stream(read: Read, first: int, start: int, stop: int) -> Stream:
    head = _head(read, start, stop)
    layout = read_layout(head)
    ends, before = layout.ends, layout.before
    sections = ends[before + 1 : before + 1 + layout.declared]
    return Stream(first, layout.header, start, ends[before], sections, ends[-1], head)


def _head(read: Read, start: int, stop: int) -> bytes:
    head = read(start, min(start + HEAD, stop))
    size = header_size(head)
    return head if size <= len(head) else head + read(start + len(head), min(start + size, stop))
