"""Zarr's `sharding_indexed` layout: chunk streams one after the other, then an index.

Index: for each chunk of the shard in C order two little-endian uint64, offset and length (both all ones where
the chunk is not stored), followed by the CRC-32C of these bytes (uint32). Source: Zarr v3 sharding codec,
version 1.0, with index codecs `bytes` (little) and `crc32c`, `index_location` end.

We assemble shards here instead of assigning arrays through zarr, because the writer needs what zarr does not
hand over: the report of each chunk, and edge chunks in their true extent instead of padded with fill values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np

from eozip.errors import ChecksumError, FormatError
from eozip.store.streams import Piece, Stream, locate, pieces

MISSING = np.uint64(2**64 - 1)
CRC_BYTES = 4

Position = tuple[int, int, int, int]


def pack_shard(streams: Mapping[Position, bytes], grid: tuple[int, ...]) -> bytes:
    """Joins the chunk streams of one shard.

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
    return b"".join([*streams.values(), table, google_crc32c.value(table).to_bytes(CRC_BYTES, "little")])


def unpack_shard(data: bytes, grid: tuple[int, ...]) -> dict[Position, bytes]:
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
    shard = open_shard(lambda start, stop: data[start:stop], len(data), grid)
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
        return list(locate(self.read, *self.span(position)))

    def pieces(
        self, position: Position, budget: int | None = None, wanted: Sequence[int] | None = None
    ) -> list[Piece]:
        """Bytes of a stored chunk; see `eozip.store.streams.pieces`."""
        return pieces(self.read, *self.span(position), budget, wanted)


def open_shard(read: Callable[[int, int], bytes], size: int, grid: tuple[int, ...]) -> Shard:
    """Reads and checks the index of a shard, and nothing else of it.

    Raises:
        FormatError: the shard is shorter than its index.
        ChecksumError: the index was changed after writing.
    """
    length = index_bytes(grid)
    tail = read(max(0, size - length), size)
    return Shard(read, size, read_index(tail, grid), tail)


def index_bytes(grid: tuple[int, ...]) -> int:
    """Bytes of the index of a shard with so many chunks along each axis."""
    return math.prod(grid) * 16 + CRC_BYTES


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
    table, crc = data[-length:-CRC_BYTES], int.from_bytes(data[-CRC_BYTES:], "little")
    if google_crc32c.value(table) != crc:
        raise ChecksumError(
            "the index of the shard does not match its checksum; the file was changed after writing"
        )
    return np.frombuffer(table, dtype="<u8").reshape(*grid, 2)
