"""Reduced pictures of a store as arrays of Zarr: virtual levels by the GeoZarr convention, of which no byte is stored.

Levels that a store has as ordinary arrays (`eozip.store.overviews`) are passed on as they are.

    xr.open_dataset(level_store("scene.zarr"), engine="zarr", group="levels/8")         # 1/8 of the resolution
    zarr.open_group(level_store("s3://bucket/scene.zarr"))["levels/16/reflectance"]

A chunk of a level is made, as it is asked for, from the first sections of the chunks that it covers (docs/bitstream.md,
1.5): a codec whose sections are scales decodes no more than the level needs. The root says `multiscales`, each level where
it lies.
"""

from __future__ import annotations

import asyncio
import json
import re

import numpy as np
import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import MemoryStore, WrapperStore

from eozip.arguments import PlaceLike, place
from eozip.errors import InputError
from eozip.store.description import Description, described
from eozip.store.documents import ARRAY
from eozip.store.files import GROUP, plain_store, store_files
from eozip.store.geozarr import grid_attributes, pyramid
from eozip.store.overviews import FACT, LEVELS, add_axes
from eozip.store.windows import Source

FACTORS = (2, 4, 8, 16, 32)
SIDE = 256  # of a chunk of a level
_SMALLEST = 16  # pixels of the longer side of a level
_CHUNK = re.compile(rf"{LEVELS}/(\d+)/{ARRAY}/c/(\d+)/0/(\d+)/(\d+)")


def level_store(store: PlaceLike) -> LevelStore:
    """Open a store with its virtual levels, for reading.

    Args:
        store: a `.zarr` directory, a `.zarr.zip` file, or a URL of fsspec.

    Raises:
        FormatError: there is no store.
    """
    where = place("store", store, reading=True)
    files = store_files(where)
    return LevelStore(plain_store(where), Source(described(files), files))


def factors_of(description: Description) -> list[int]:
    """How much coarser the virtual levels of a store are: those that it does not have."""
    longer, stored = max(description.grid.shape[2:]), description.facts.get(FACT) or ()
    return [factor for factor in FACTORS if longer // factor >= _SMALLEST and factor not in stored]


class LevelStore(WrapperStore[Store]):
    """Shows a group for each level beside what a store has; `level_store` makes it."""

    supports_writes = False
    supports_deletes = False

    def __init__(self, store: Store, source: Source) -> None:
        super().__init__(store)
        self._source = source
        self._documents = _documents(source.description)

    def _with_store(self, store: Store) -> LevelStore:
        return type(self)(store, self._source)

    @property
    def read_only(self) -> bool:
        """Always."""
        return True

    async def set(self, key: str, value: Buffer) -> None:
        """Refused.

        Raises:
            InputError: always.
        """
        raise InputError(f"expected no writes into virtual levels, got {key}; open the store itself")

    async def exists(self, key: str) -> bool:
        """Whether there is such a key, stored or virtual."""
        return key in self._documents or self._virtual(key) is not None or await self._store.exists(key)

    def _virtual(self, key: str) -> re.Match[str] | None:
        """A chunk of a level that is not stored."""
        found = _CHUNK.fullmatch(key)
        return found if found and int(found[1]) in factors_of(self._source.description) else None

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Bytes of a key; of a level, made now."""
        chunk = self._virtual(key)
        if chunk is None and key not in self._documents:
            data = await self._store.get(key, prototype, None if key == GROUP else byte_range)
            if key != GROUP or data is None:
                return data
            made = self._root(data.to_bytes())
        elif chunk is None:
            made = self._documents[key]
        else:
            made = await asyncio.to_thread(self._pixels, *map(int, chunk.groups()))
        return prototype.buffer.from_bytes(_part(made, byte_range))

    def _root(self, data: bytes) -> bytes:
        """The group's document, which names the levels."""
        document = json.loads(data)
        found = self._source.description
        factors = [1, *sorted([*factors_of(found), *(found.facts.get(FACT) or ())])]
        names = [".", *(f"{LEVELS}/{factor}" for factor in factors[1:])]
        shapes = [[-(-side // factor) for side in found.grid.shape[2:]] for factor in factors]
        document.setdefault("attributes", {}).update(pyramid(names, factors, shapes))
        inner = document.get("consolidated_metadata")
        if inner is not None:
            inner["metadata"] |= {
                key.removesuffix(f"/{GROUP}"): json.loads(text)
                for key, text in self._documents.items()
                if key.endswith(f"/{GROUP}")
            }
        return json.dumps(document).encode()

    def _pixels(self, factor: int, group: int, row: int, column: int) -> bytes:
        """One chunk of a level, whole; beyond the edge it is fill value."""
        found = self._source.description
        (dates, bands, *sides), gop = found.grid.shape, found.grid.chunk[0]
        height, width = (-(-side // factor) for side in sides)
        times = range(group * gop, min((group + 1) * gop, dates))
        rows = slice(row * SIDE, min((row + 1) * SIDE, height))
        columns = slice(column * SIDE, min((column + 1) * SIDE, width))
        out = np.full((gop, bands, SIDE, SIDE), found.fill_value, np.dtype(found.dtype).newbyteorder("<"))
        dn = self._source.pixels(list(times), list(range(bands)), rows, columns, factor)
        out[: len(times), :, : dn.shape[2], : dn.shape[3]] = dn
        return out.tobytes()


def _documents(found: Description) -> dict[str, bytes]:
    """Metadata and coordinates of all levels by key."""
    memory = MemoryStore()
    with zarr.config.set({"json_indent": None}):
        root = zarr.create_group(memory).create_group(LEVELS)
        for factor in factors_of(found):
            _add_level(root.create_group(str(factor)), found, factor)
    made = {key: value.to_bytes() for key, value in memory._store_dict.items()}
    return {key: data for key, data in made.items() if key.startswith(f"{LEVELS}/")}


def _add_level(group: zarr.Group, found: Description, factor: int) -> None:
    dates, bands, *sides = found.grid.shape
    height, width = (-(-side // factor) for side in sides)
    suffix = f"_{factor}"
    group.attrs.update(grid_attributes(found.profile, factor, suffix))
    group.create_array(
        ARRAY,
        shape=(dates, bands, height, width),
        chunks=(found.grid.chunk[0], bands, SIDE, SIDE),
        dtype=found.dtype,
        compressors=None,
        filters=None,
        fill_value=found.fill_value,
        dimension_names=["time", "band", f"y{suffix}", f"x{suffix}"],
        attributes={
            "comment": f"averages of {factor} x {factor} pixels, made from the first sections of the streams"
        },
    )
    add_axes(group, found.profile, factor, (height, width), suffix)


def _part(data: bytes, wanted: ByteRequest | None) -> bytes:
    if isinstance(wanted, RangeByteRequest):
        return data[wanted.start : wanted.end]
    if isinstance(wanted, OffsetByteRequest):
        return data[wanted.offset :]
    return data[-wanted.suffix :] if isinstance(wanted, SuffixByteRequest) else data
