"""Zarr's `sharding_indexed` layout: chunk streams one after the other, then an index.

Index: for each chunk of the shard in C order two little-endian uint64, offset and length (both all ones where
the chunk is not stored), followed by the CRC-32C of these bytes (uint32). Source: Zarr v3 sharding codec,
version 1.0, with index codecs `bytes` (little) and `crc32c`, `index_location` end.

We assemble shards here instead of assigning arrays through zarr, because the writer needs what zarr does not
hand over: the report of each chunk, and edge chunks in their true extent instead of padded with fill values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import google_crc32c
import numpy as np

from eozip.errors import ChecksumError, FormatError

MISSING = np.uint64(2**64 - 1)
CRC_BYTES = 4

Position = tuple[int, ...]


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
    index = _read_index(data, grid)
    streams = data[: len(data) - _index_bytes(grid)]
    stored = {position: index[position] for position in np.ndindex(grid) if index[position][1] != MISSING}
    return {position: _slice(streams, position, entry) for position, entry in stored.items()}


def _index_bytes(grid: tuple[int, ...]) -> int:
    return math.prod(grid) * 16 + CRC_BYTES


def _read_index(data: bytes, grid: tuple[int, ...]) -> np.ndarray:
    length = _index_bytes(grid)
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


def _slice(streams: bytes, position: Position, entry: np.ndarray) -> bytes:
    start, end = int(entry[0]), int(entry[0]) + int(entry[1])
    if end > len(streams):
        raise FormatError(
            f"chunk {position}: expected bytes {start} to {end}, got {len(streams)} in the shard"
        )
    return streams[start:end]
