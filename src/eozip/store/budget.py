"""A store of zarr that shows only the first sections of every stream, and fetches no more of it.

    xr.open_zarr(budget_store("scene.zarr.zip", 3))

Offsets and lengths stay those of the shards: what the budget leaves out reads as zeros, which nobody looks at, because the
metadata tell the codec of the same budget. So it does not matter in which ranges zarr asks for its bytes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import LocalStore, WrapperStore, ZipStore

from eozip.errors import FormatError, InputError
from eozip.store.codec import NAME, budget_entry
from eozip.store.documents import ShardedDocument, checked, parsed
from eozip.store.files import is_zip_name
from eozip.store.pixels import check_budget
from eozip.store.shards import MISSING, Position, Read, Shard, fetch, index_bytes, read_index

Result = TypeVar("Result")
_METADATA = "zarr.json"


def budget_store(store: str | Path | Store, budget: int) -> BudgetStore:
    """Open a store for reading its first `budget` sections.

    Args:
        store: a `.zarr` directory, a `.zarr.zip` file, or any store of zarr (`zarr.storage.FsspecStore`, ...).
        budget: sections of each stream, at least 1; streams with fewer are read whole.

    Raises:
        InputError: a budget below 1.
    """
    check_budget(budget)
    if isinstance(store, Store):
        return BudgetStore(store, budget)
    path = Path(store)
    plain = ZipStore(path, mode="r") if is_zip_name(path) else LocalStore(path, read_only=True)
    return BudgetStore(plain, budget)


class BudgetStore(WrapperStore[Store]):
    """Reads as far as a budget of sections needs; `budget_store` makes it.

    Attributes:
        budget: sections of each stream.
    """

    supports_writes = False
    supports_deletes = False

    def __init__(self, store: Store, budget: int) -> None:
        super().__init__(store)
        self.budget = budget

    def _with_store(self, store: Store) -> BudgetStore:
        return type(self)(store, self.budget)

    @property
    def read_only(self) -> bool:
        """Always: what is written would be cut."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(f"expected no writes with budget {self.budget}, got {key}; open the store itself")

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a key; metadata with the budget in it, shards with zeros for what it leaves out."""
        if key.rsplit("/", 1)[-1] == _METADATA:
            return await self._metadata(key, prototype)
        grid = await self._grid(key)
        if grid is None:
            return await self._store.get(key, prototype, byte_range)
        tail = await self._store.get(key, default_buffer_prototype(), SuffixByteRequest(index_bytes(grid)))
        if tail is None:
            return None
        return prototype.buffer.from_bytes(await self._cut(key, _shard(tail.to_bytes(), grid), byte_range))

    async def _metadata(self, key: str, prototype: BufferPrototype) -> Buffer | None:
        data = await self._store.get(key, prototype)
        if data is None:
            return None
        document = parsed(data.to_bytes(), key)
        _tell(document, self.budget)
        return prototype.buffer.from_bytes(json.dumps(document).encode())

    async def _grid(self, key: str) -> tuple[int, ...] | None:
        """Chunks per shard along each axis; None if the key is no shard of streams."""
        array, found, _ = key.rpartition("/c/")
        data = await self._store.get(f"{array}/{_METADATA}", default_buffer_prototype()) if found else None
        return None if data is None else _chunks_per_shard(parsed(data.to_bytes(), key))

    async def _cut(self, key: str, shard: Shard, byte_range: ByteRequest | None) -> bytes:
        start, stop = _bounds(byte_range, shard.size)
        touched = [p for p in shard.positions() if shard.span(p)[0] < stop and start < shard.span(p)[1]]
        parts = [(shard.size - len(shard.tail), shard.tail)]
        for found in await asyncio.gather(*(self._prefixes(key, shard, position) for position in touched)):
            parts += found
        return _pasted(parts, start, stop)

    async def _prefixes(self, key: str, shard: Shard, position: Position) -> list[tuple[int, bytes]]:
        """Where the streams of a chunk begin, and their bytes as far as they are needed."""

        def plan(read: Read) -> list[tuple[int, bytes]]:
            streams = replace(shard, read=read).streams(position)
            return [(stream.start, fetch(read, stream, self.budget).data) for stream in streams]

        return await self._planned(key, plan)

    async def _planned(self, key: str, plan: Callable[[Read], Result]) -> Result:
        """Runs a reader of ranges that knows nothing of asyncio: again, with one more range, until it has all."""
        ranges: dict[tuple[int, int], bytes] = {}

        def read(start: int, stop: int) -> bytes:
            if (start, stop) not in ranges:
                raise _MissingError(start, stop)
            return ranges[start, stop]

        while True:
            try:
                return plan(read)
            except _MissingError as missing:
                wanted = RangeByteRequest(missing.start, missing.stop)
            data = await self._store.get(key, default_buffer_prototype(), wanted)
            if data is None:
                raise FormatError(f"{key}: it was removed while it was read")
            ranges[wanted.start, wanted.end] = data.to_bytes()


class _MissingError(Exception):
    """A range that a plan needs and has not yet; never leaves this module."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(start, stop)
        self.start, self.stop = start, stop


def _tell(document: Any, budget: int) -> None:
    """Puts the budget into every configuration of our codec within a document."""
    if isinstance(document, dict):
        if document.get("name") == NAME and isinstance(document.get("configuration"), dict):
            document["configuration"]["budget"] = budget_entry(budget)
        for value in document.values():
            _tell(value, budget)
    elif isinstance(document, list):
        for value in document:
            _tell(value, budget)


def _chunks_per_shard(array: dict[str, Any]) -> tuple[int, ...] | None:
    try:
        document = checked(ShardedDocument, array, _METADATA)
    except FormatError:
        return None  # an array of another kind
    inner, shard = document.codecs[0].configuration, document.chunk_grid.configuration.chunk_shape
    if [codec.get("name") for codec in inner.codecs] != [NAME]:
        return None
    return tuple(s // c for s, c in zip(shard, inner.chunk_shape))


def _shard(tail: bytes, grid: tuple[int, ...]) -> Shard:
    """A shard that ends where its last chunk and then its index do; few stores can tell the size of a key."""
    index = read_index(tail, grid)
    offsets, lengths = index[..., 0], index[..., 1]
    ends = (offsets + lengths)[lengths != MISSING]
    size = int(ends.max(initial=0)) + len(tail)

    def read(start: int, stop: int) -> bytes:
        raise _MissingError(start, stop)

    return Shard(read, size, index, tail)


def _bounds(byte_range: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(byte_range, RangeByteRequest):
        return byte_range.start, min(byte_range.end, size)
    if isinstance(byte_range, OffsetByteRequest):
        return byte_range.offset, size
    return (
        (max(0, size - byte_range.suffix), size) if isinstance(byte_range, SuffixByteRequest) else (0, size)
    )


def _pasted(parts: list[tuple[int, bytes]], start: int, stop: int) -> bytes:
    """Bytes from start up to stop; zeros where no part is."""
    out = bytearray(max(0, stop - start))
    for at, data in parts:
        low, high = max(at, start), min(at + len(data), stop)
        if low < high:
            out[low - start : high - start] = data[low - at : high - at]
    return bytes(out)
