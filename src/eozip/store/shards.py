"""Shards of a store, and the eozip streams within their chunks.

A shard has Zarr's `sharding_indexed` layout: chunks one after the other, then an index. The index holds, for each chunk
of the shard in C order, two little-endian uint64, offset and length (both all ones where the chunk is not stored), followed
by the CRC-32C of these bytes (uint32). Source: Zarr v3 sharding codec, version 1.0, with index codecs `bytes` (little) and
`crc32c`, `index_location` end. Shards are assembled here instead of by zarr, because the writer needs what zarr does
not hand over: the report of each chunk, and edge chunks in their true extent instead of padded with fill values.

A chunk holds one eozip stream, or several one after the other: appended dates follow those before them, and an append
never touches the streams that are there. A stream's header says where the stream and each of its sections end
(docs/bitstream.md, 1.2 and 1.5), so a reader that may fetch byte ranges needs only headers and prefixes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np

from eozip.bitstream import Header, header_size, read_layout
from eozip.errors import ChecksumError, FormatError

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


def _locate(read: Read, start: int, stop: int) -> Iterator[Stream]:
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


def _pieces(
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
        FormatError: as `_locate`.
    """
    if budget is None and wanted is None:  # all of it: one reading
        read, start, stop = _reader_of(read(start, stop)), 0, stop - start
    found = _locate(read, start, stop)
    if wanted is not None:
        last = max(wanted, default=-1)  # no header behind it is looked at
        found = (s for s in _up_to(found, last) if any(t in s.dates for t in wanted))
    return [fetch(read, stream, budget) for stream in found]


def _up_to(streams: Iterator[Stream], last: int) -> Iterator[Stream]:
    for stream in streams:
        yield stream
        if stream.dates.stop > last:
            return


def _reader_of(data: bytes) -> Read:
    """`Read` of bytes in memory."""
    return lambda start, stop: data[start:stop]


def split(data: bytes, budget: int | None = None) -> list[Piece]:
    """The streams of a chunk in memory."""
    return _pieces(_reader_of(data), 0, len(data), budget)


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


MISSING = np.uint64(2**64 - 1)
_CRC_BYTES = 4

Position = tuple[int, int, int, int]


def pack_shard(streams: Mapping[Position, bytes], grid: tuple[int, ...]) -> bytes:
    """Join the chunk streams of one shard.

    Args:
        streams: bytes of each stored chunk by its position within the shard.
        grid: chunks per shard along each axis.

    Returns:
        the shard's bytes.
    """
    index = np.full((*grid, 2), MISSING, dtype="<u8")
    offset = 0
    for position, stream in streams.items():
        index[position] = offset, len(stream)
        offset += len(stream)
    table = index.tobytes()
    return b"".join([*streams.values(), table, google_crc32c.value(table).to_bytes(_CRC_BYTES, "little")])


def _unpack_shard(data: bytes, grid: tuple[int, ...]) -> dict[Position, bytes]:
    """Splits a shard into its chunk streams, after checking the index.

    Args:
        data: the shard's bytes.
        grid: chunks per shard along each axis.

    Returns:
        bytes of each stored chunk by its position within the shard.

    Raises:
        FormatError: the shard is shorter than its index, or an entry points outside.
        ChecksumError: the index was changed after writing.
    """
    shard = _open_shard(lambda start, stop: data[start:stop], len(data), grid)
    return {position: data[slice(*shard.span(position))] for position in shard.positions()}


@dataclass(frozen=True)
class Shard:
    """A shard of which only the index was read.

    Attributes:
        read: gives its bytes from start up to stop.
        size: bytes of all of it.
        index: uint64 [*grid, 2], offset and length of each chunk.
        tail: the bytes that the index was read from.
    """

    read: Callable[[int, int], bytes]
    size: int
    index: np.ndarray
    tail: bytes

    def positions(self) -> list[Position]:
        """The chunks that are stored, in C order."""
        every = ((t, c, y, x) for t, c, y, x in np.ndindex(self.index.shape[:-1]))
        return [position for position in every if self.holds(position)]

    def holds(self, position: Position) -> bool:
        """Whether a chunk is stored."""
        return bool(self.index[position][1] != MISSING)

    def span(self, position: Position) -> tuple[int, int]:
        """First byte of a stored chunk, and the one behind its last.

        Raises:
            FormatError: the index points outside.
        """
        offset, length = (int(n) for n in self.index[position])
        end = self.size - index_bytes(self.index.shape[:-1])
        if offset + length > end:
            raise FormatError(
                f"chunk {position}: expected bytes {offset} to {offset + length}, got {end} in the shard"
            )
        return offset, offset + length

    def streams(self, position: Position) -> list[Stream]:
        """The streams of a stored chunk, of which only the headers are read."""
        return list(_locate(self.read, *self.span(position)))

    def pieces(
        self, position: Position, budget: int | None = None, wanted: Sequence[int] | None = None
    ) -> list[Piece]:
        """Bytes of a stored chunk; see `eozip.store.shards.pieces`."""
        return _pieces(self.read, *self.span(position), budget, wanted)


def _open_shard(read: Callable[[int, int], bytes], size: int, grid: tuple[int, ...]) -> Shard:
    """Reads and checks the index of a shard, and nothing else of it.

    Raises:
        FormatError: the shard is shorter than its index.
        ChecksumError: the index was changed after writing.
    """
    return shard_of(read(max(0, size - index_bytes(grid)), size), read, grid, size)


def shard_of(
    tail: bytes, read: Callable[[int, int], bytes], grid: tuple[int, ...], size: int | None = None
) -> Shard:
    """A shard from the bytes of its index.

    Args:
        tail: its last bytes.
        read: gives its bytes from start up to stop.
        grid: chunks per shard along each axis.
        size: bytes of all of it; None: it ends where its last chunk and then its index do.

    Raises:
        FormatError: the shard is shorter than its index.
        ChecksumError: the index was changed after writing.
    """
    index = read_index(tail, grid)
    if size is None:
        offsets, lengths = index[..., 0], index[..., 1]
        size = int((offsets + lengths)[lengths != MISSING].max(initial=0)) + len(tail)
    return Shard(read, size, index, tail)


def index_bytes(grid: tuple[int, ...]) -> int:
    """Bytes of the index of a shard with so many chunks along each axis."""
    return math.prod(grid) * 16 + _CRC_BYTES


def read_index(data: bytes, grid: tuple[int, ...]) -> np.ndarray:
    """The index at the end of some bytes: uint64 [*grid, 2].

    Raises:
        FormatError: fewer bytes than an index has.
        ChecksumError: it was changed after writing.
    """
    length = index_bytes(grid)
    if len(data) < length:
        raise FormatError(
            f"expected a shard of at least {length} bytes, got {len(data)}; the file is cut short"
        )
    table, crc = data[-length:-_CRC_BYTES], int.from_bytes(data[-_CRC_BYTES:], "little")
    if google_crc32c.value(table) != crc:
        raise ChecksumError(
            "the index of the shard does not match its checksum; the file was changed after writing"
        )
    return np.frombuffer(table, dtype="<u8").reshape(*grid, 2)
