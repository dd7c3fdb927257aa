"""The Zarr v3 codec `eozip.chunk`: one chunk [T, C, h, w] of integers to one eozip stream and back.

Found by zarr through the entry point group `zarr.codecs`. The pixels go through `eozip.chunk.api`, imported at
the first chunk: opening a store and reading its coordinates needs no torch.

    configuration: {"codec": "tec-elic-small-any-v1", "quality": 60.0, "target_psnr": null, "max_error": null,
                    "sensor": "s2-l2a", "nodata": 0, "offset": 0, "bitstream": 1}

A stream may be smaller than its chunk in T, H and W (the edge of the scene, the last dates): it then fills
the leading corner and the rest of the chunk is `fill_value`. Several streams one after the other are dates that
were appended. Source: zarr.abc.codec.ArrayBytesCodec; zarr calls by keyword, so parameter names are part of the contract.

xarray hands the codec of an opened array on to every copy (`ds.sel(band=[...]).to_zarr(...)`), and zarr tells a codec
neither the names of an array's axes nor its bands. A copy with other bands, or with the bands in another order, would be
coded as what it is not, at a much lower quality and without a message. But the codec has decoded the pixels that it is now
asked to encode: it remembers some of them (`Seen`), and checks that their bands still stand in the same places.
In another process, of dask say, the codec that reads and the one that writes are no longer one object, as zarr sends both
as JSON: so codecs that were read from metadata with one configuration share what they have seen, and it goes along where
a dataset is pickled."""

from __future__ import annotations

import asyncio
import importlib
import json
import math
import os
import secrets
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from hashlib import blake2b
from types import NoneType
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.core.buffer.cpu import NDBuffer as CpuNDBuffer

from eozip.bitstream import Group, arrays, shapes_of
from eozip.chunk.encoding import EncodedChunk, encode_chunk, encode_group_chunk
from eozip.chunk.growing import Before
from eozip.chunk.options import EncodeOptions
from eozip.codecs.registry import needs_torch
from eozip.errors import FormatError, InputError
from eozip.store.grid import NativeGrid, cells_of, check_repeated, decode_joint, joint, read_grids
from eozip.store.shards import split
from eozip.threads import MOST_AT_ONCE, ArrayCache, Desk

_EVERY = (
    61  # of the pixels: chosen by the sum of their bands, which is the same in any order and at any place
)
_MOST_PIXELS = 256  # of a chunk
_MOST_REMEMBERED = 1 << 16
_MOST_PICKLED = 1 << 10
_TWIN_STEP = 4  # of the rows and columns in which two bands must be equal to be taken for one
_LEAST_MOVED = 3
_HINT = "to save decoded pixels, drop the encoding first: ds.drop_encoding().to_zarr(...); to copy a store, copy its files"


@dataclass
class Seen:
    """What one codec has decoded so far; threads may share it.

    Attributes:
        spectra: pixels by their sorted bands.
        bands: bool [C], bands in which anything but the fill value was seen; None: nothing was decoded yet.
        dates: most dates in one chunk.
        extents: (axis, length) of chunks that hold fill values behind `length`.
        twins: pairs of bands that had equal pixels, more than two values of them, in some chunk.
        used: for each chunk, in which bands there was anything but the fill value, as bytes of bool [C].
        name: what objects that share it are found by.
    """

    spectra: dict[bytes, bytes] = field(default_factory=dict)
    bands: np.ndarray | None = None
    dates: int = 0
    extents: set[tuple[int, int]] = field(default_factory=set)
    twins: set[tuple[int, int]] = field(default_factory=set)
    used: set[bytes] = field(default_factory=set)
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __deepcopy__(self, memo: object) -> Seen:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        with self.lock:
            spectra = dict(list(self.spectra.items())[-_MOST_PICKLED:])
            facts = self.bands, self.dates, set(self.extents), set(self.twins), set(self.used)
            return _again, (self.name, spectra, *facts)

    def add(self, dn: np.ndarray, fill: int) -> None:
        """Remembers a chunk that was decoded, [T, C, h, w]."""
        used = dn != fill
        with self.lock:
            bands = used.any(axis=(0, 2, 3))
            extents = {(axis, _extent(used, axis)) for axis in (2, 3)}
            self._join(bands, _extent(used, 0), extents, _twins(dn), {bands.tobytes()})
            if len(self.spectra) > _MOST_REMEMBERED:
                self.spectra.clear()
            self.spectra.update((key, spectrum) for key, spectrum in _spectra(dn))

    def _join(
        self,
        bands: np.ndarray | None,
        dates: int,
        extents: set[tuple[int, int]],
        twins: set[tuple[int, int]],
        used: set[bytes],
    ) -> None:
        if bands is not None:
            is_first = self.bands is None or len(self.bands) != len(bands)
            self.bands = bands if is_first else self.bands | bands
        self.dates = max(self.dates, dates)
        self.extents |= extents
        self.twins |= twins
        self.used |= used

    def check(self, dn: np.ndarray, fill: int) -> None:
        """Look at a chunk that is to be encoded, [T, C, h, w].

        Raises:
            InputError: some bands are missing or there twice, other axes are where the bands were, or bands have changed
                places.
        """
        used = dn != fill
        if self.bands is None or not used.any():
            return
        bands, have = len(self.bands), used.any(axis=(0, 2, 3))
        is_missing = bool((self.bands & ~have).any()) if len(have) == bands else True
        if is_missing and have.tobytes() not in self.used:
            raise InputError(
                f"expected an array [time, band, y, x] of all {bands} bands, as it was opened, got values in {have.sum()} "
                f"of {len(have)}: it has fewer bands, or its axes are in another order; {_HINT}"
            )
        for axis in (2, 3):
            length = _extent(used, axis)
            is_other = length == bands or length == self.dates > 1
            if is_other and length < dn.shape[axis] and (axis, length) not in self.extents:
                raise InputError(
                    f"expected an array [time, band, y, x], as it was opened, got one that ends after {length} along axis "
                    f"{axis}, as bands or dates do; {_HINT}"
                )
        doubled = sorted(_twins(dn) - self.twins)
        if doubled:
            raise InputError(
                f"expected an array of all {bands} bands, as it was opened, got one in which bands {doubled[0][0] + 1} and "
                f"{doubled[0][1] + 1} are the same pixels; {_HINT}"
            )
        self._check_order(dn)

    def _check_order(self, dn: np.ndarray) -> None:
        with self.lock:
            known = [(self.spectra[key], spectrum) for key, spectrum in _spectra(dn) if key in self.spectra]
        moved = sum(was != now for was, now in known)
        if moved >= _LEAST_MOVED and 2 * moved > len(known):
            raise InputError(
                f"expected the bands in the order in which they were opened, got {moved} of {len(known)} known pixels with "
                f"their bands in another order; {_HINT}"
            )


_KNOWN: weakref.WeakValueDictionary[str, Seen] = weakref.WeakValueDictionary()  # of this process, by name


def _seen_by(name: str) -> Seen:
    """What all codecs of this process that share a name have seen."""
    return _KNOWN.setdefault(name, Seen(name=name))


def _again(
    name: str,
    spectra: dict[bytes, bytes],
    bands: np.ndarray | None,
    dates: int,
    extents: set[tuple[int, int]],
    twins: set[tuple[int, int]],
    used: set[bytes],
) -> Seen:
    """What another process, or this one, pickled: joined to what is known here under the same name."""
    seen = _seen_by(name)
    with seen.lock:
        seen._join(bands, dates, extents, twins, used)
        seen.spectra.update(spectra)
    return seen


def _twins(dn: np.ndarray) -> set[tuple[int, int]]:
    """Pairs of bands [T, C, h, w] that hold the same pixels, if these have more than two values."""
    some = np.ascontiguousarray(dn[:, :, ::_TWIN_STEP, ::_TWIN_STEP].swapaxes(0, 1)).reshape(dn.shape[1], -1)
    first: dict[bytes, int] = {}
    found = set()
    for band, pixels in enumerate(some):
        before = first.setdefault(pixels.tobytes(), band)
        if before != band and len(np.unique(pixels)) > 2 and (dn[:, before] == dn[:, band]).all():
            found.add((before, band))
    return found


def _extent(used: np.ndarray, axis: int) -> int:
    """Where the last value along an axis is that is not fill, plus 1."""
    along = used.any(axis=tuple(i for i in range(used.ndim) if i != axis))
    return int(np.max(np.flatnonzero(along), initial=-1)) + 1


def _spectra(dn: np.ndarray) -> list[tuple[bytes, bytes]]:
    """Some pixels of a chunk: their bands sorted, and in their order. Which ones depends on the pixels alone."""
    sums = dn.sum(axis=1, dtype=np.int64)
    chosen = np.argwhere((sums % _EVERY == 0) & (dn.max(axis=1) != dn.min(axis=1)))[:_MOST_PIXELS]
    spectra = dn[chosen[:, 0], :, chosen[:, 1], chosen[:, 2]]
    return [(np.sort(one).tobytes(), one.tobytes()) for one in spectra]


NAME = "eozip.chunk"
BITSTREAM = 1
_DTYPES = ("uint16", "int16")
_KINDS: dict[str, tuple[type, ...]] = {
    "codec": (str,),
    "quality": (int, float, NoneType),
    "target_psnr": (int, float, NoneType),
    "sensor": (str,),
    "nodata": (int, NoneType),
    "offset": (int,),
    "bitstream": (int,),
    "budget": (int, NoneType),
    "max_error": (int, NoneType),
    "budgets": (list, tuple, NoneType),
    "grids": (list, tuple),
}
_OPTIONAL = ("budget", "budgets", "grids")  # written only where set
_RANGES: dict[str, tuple[float, float]] = {
    "quality": (0, 100),
    "target_psnr": (0, 1000),
    "nodata": (-32768, 65535),
    "offset": (-(1 << 31), (1 << 31) - 1),
    "budget": (1, 4096),
    "max_error": (0, 65535),
}
_MAX_NAME = 256
MAX_BUDGET, _MAX_GROUP = 255, 4096  # sections of a date; dates of a group
_OWN = secrets.token_hex(8)
"""Marks what this process wrote into metadata for itself: a budget that is read without it came from a file."""
DESK = Desk(min(MOST_AT_ONCE, max(2, os.cpu_count() or 1)))  # zarr sends up to 10 chunks at once
_KEPT = ArrayCache(0)


def keep_chunks(most: int) -> None:
    """Keep decoded chunks for readers of many windows: each is decoded once, however often zarr or xarray ask for it.

    Of this process, for all arrays; the chunks used last stay. Nothing is kept unless this is called. Stores opened by
    `engine="eozip"` or `open_source` keep 128 MiB of their own.

    Args:
        most: bytes of pixels that are kept at most; 0: none.

    Raises:
        InputError: no whole number, or less than 0.
    """
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise InputError(f"keep_chunks: expected bytes, a whole number from 0, got {most!r}")
    _KEPT.hold(most)


class _DecodedBuffer(CpuNDBuffer):
    """A buffer that remembers that it came out of a lossy stream.

    On a partial write zarr decodes the old chunk, copies this buffer, changes a part of it, and encodes it
    again: pixels that nobody meant to touch would lose quality without a word. The class survives that copy,
    so encoding can refuse.
    """


@dataclass(frozen=True)
class EozipChunkCodec(ArrayBytesCodec):
    """Codes chunks [T, C, h, w] of uint16 or int16 DN with a codec of eozip.

    Attributes:
        codec: full id of the codec, such as `tec-elic-small-any-v1` or `lossless`.
        quality: 0 to 100, or None.
        target_psnr: dB at peak 10,000 DN for each chunk, or None. At most one of the two is given.
        sensor: id of the sensor whose bands these are.
        nodata: the DN that means "no measurement" and comes back exactly, or None.
        offset: radiometric offset of the DN (1000 for Sentinel-2 baseline 04.00 and later).
        bitstream: version of the chunk format.
        budget: sections of each stream to decode, or None for all. A reader's wish (`eozip.store.BudgetStore`): it is
            never written.
        max_error: largest absolute error of any pixel in DN, or None.
        budgets: sections that are sent of each date of a group, where a codec has sections of rising detail; a single one
            is for every date. None: as many as the quality asks for.
        grids: bands on grids of their own (`eozip.store.grid`), finest first; empty: all on that of the array.
        seen: what it decoded; see `eozip.store.codec`.
    """

    codec: str
    quality: float | None = None
    target_psnr: float | None = None
    sensor: str = "s2-l2a"
    nodata: int | None = None
    offset: int = 0
    bitstream: int = BITSTREAM
    budget: int | None = None
    max_error: int | None = None
    budgets: tuple[int, ...] | None = None
    grids: tuple[NativeGrid, ...] = ()
    seen: Seen = field(default_factory=Seen, init=False, repr=False, compare=False)

    is_fixed_size = False

    def __post_init__(self) -> None:
        for name, kinds in _KINDS.items():
            _check_field(name, getattr(self, name), kinds)
        if sum(asked is not None for asked in (self.quality, self.target_psnr, self.budgets)) > 1:
            raise InputError("expected quality, target_psnr or budgets, got two of them; give one")
        if self.bitstream != BITSTREAM:
            raise FormatError(
                f"expected bitstream version {BITSTREAM}, got {self.bitstream}; install a newer eozip"
            )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> EozipChunkCodec:
        """Read the codec's entry in zarr.json.

        Raises:
            FormatError: another name, or fields that are missing or unknown.
        """
        if "xarray" in sys.modules:  # it may be opening a store, and `ds.eozip` is to be there
            importlib.import_module("eozip.accessor")
        configuration = data.get("configuration")
        if data.get("name") != NAME or not isinstance(configuration, dict):
            raise FormatError(f"expected a codec named {NAME!r} with a configuration, got {data!r}")
        unknown = set(configuration) - set(_KINDS)
        if unknown or "codec" not in configuration:
            raise FormatError(
                f"{NAME}: expected a 'codec' id and known fields, got {configuration!r} "
                f"(unknown: {sorted(unknown)}); install a newer eozip if a newer one wrote this"
            )
        budget = configuration.get("budget")
        if budget is not None and not (isinstance(budget, dict) and budget.get("reader") == _OWN):
            raise FormatError(
                f"{NAME}: expected no budget, which only a reader may ask for (eozip.store.budget_store), got "
                f"{budget!r:.80}; a worse picture must not come unasked: take it out of zarr.json"
            )
        own = {"budget": budget and budget.get("sections")}
        if "budgets" in configuration:
            own["budgets"] = _as_tuple(configuration["budgets"])
        if "grids" in configuration:
            own["grids"] = read_grids(configuration["grids"])
        read = cls(**{**configuration, **own})
        object.__setattr__(read, "seen", _seen_by(json.dumps(configuration, sort_keys=True)))
        return read

    def to_dict(self) -> dict[str, Any]:
        """The codec's entry in zarr.json, every parameter explicit; but budgets and grids only where set."""
        configuration = {name: getattr(self, name) for name in _KINDS}
        configuration["budget"] = None if self.budget is None else budget_entry(self.budget)
        if self.budgets is not None:
            configuration["budgets"] = list(self.budgets)
        configuration["grids"] = [grid.to_dict() for grid in self.grids] or None
        for name in _OPTIONAL:
            if configuration[name] is None:
                del configuration[name]
        return {"name": NAME, "configuration": configuration}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse arrays that are not [T, C, H, W] of uint16 or int16.

        Raises:
            InputError: see above.
        """
        check_array(tuple(shape), np.dtype(dtype.to_native_dtype()))
        bands = sum(len(grid.bands) for grid in self.grids)
        if self.grids and shape[1] != bands:
            raise InputError(f"{NAME}: expected an array of the {bands} bands of its grids, got {shape[1]}")

    def evolve_from_array_spec(self, array_spec: Any) -> EozipChunkCodec:
        """Nothing is inferred: every parameter stands in the metadata."""
        return self

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Unknown before encoding.

        Raises:
            NotImplementedError: always, as zarr asks of codecs with variable size.
        """
        raise NotImplementedError(f"{NAME} streams have no fixed size")

    def encode_options(self, dates: int, offset: int | None = None) -> EncodeOptions:
        """What this configuration asks for, of a chunk of so many dates.

        Args:
            dates: T; the last group of a store may be shorter, and takes the first of the budgets.
            offset: radiometric offset of these dates; None: the configuration's.
        """
        own = {one.name: getattr(self, one.name) for one in fields(EncodeOptions) if one.name in _KINDS}
        if self.budgets is not None:
            own["budgets"] = self.budgets[0] if len(self.budgets) == 1 else self.budgets[:dates]
        return EncodeOptions(**{**own, **({} if offset is None else {"offset": offset})})

    def encoded(
        self,
        dn: np.ndarray,
        *,
        drop: np.ndarray | None = None,
        offset: int | None = None,
        level_map: np.ndarray | None = None,
        before: Before | None = None,
    ) -> EncodedChunk:
        """Code one chunk of an array as this configuration asks for.

        Args:
            dn: [T, C, h, w]; bands on coarser grids are repeated samples.
            drop: see `eozip.encode`.
            offset: radiometric offset of these dates; None: the configuration's.
            level_map: see `eozip.encode`; of bands on several grids it is of the finest.
            before: a stream that these dates join if they can.
        """
        options = self.encode_options(len(dn), offset)
        if not self.grids:
            return encode_chunk(dn, options, drop=drop, level_map=level_map, before=before)
        if options.budgets is not None or drop is not None:
            raise InputError(
                "expected bands on one grid where budgets are given or pixels are dropped, got several grids"
            )
        made = encode_group_chunk(cells_of(dn, self.grids), options, level_map=level_map, before=before)
        return replace(made, pixels=None if made.pixels is None else self._joint(made.pixels, dn.shape))

    def decoded(self, data: bytes) -> np.ndarray:
        """Pixels [T, C, h, w] of one stream, as far as the budget goes."""
        return decode_joint(data, self.grids, self.budget)

    def _joint(self, flat: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The joint cube of samples that an encoder laid flat."""
        t, c, h, w = shape
        groups = [Group(grid.resolution, len(grid.bands)) for grid in self.grids]
        parts = arrays.parts(flat, shapes_of((t, c, h, w), groups))
        return joint(dict(zip((g.resolution for g in groups), parts, strict=True)), self.grids, (h, w))

    def _encode_sync(self, chunk_array: NDBuffer, chunk_spec: Any) -> Buffer:
        if isinstance(chunk_array, _DecodedBuffer):
            raise InputError(
                "expected a write of whole chunks, got a partial one, which would decode and re-encode the "
                "rest of the chunk and so lose quality; write whole chunks, or encode the changed scene into "
                "a new store"
            )
        if self.budget is not None:
            raise InputError(f"expected no writes with budget {self.budget}, got one; open the store itself")
        dn = np.ascontiguousarray(chunk_array.as_numpy_array())
        if not self._is_exact:
            self.seen.check(dn, chunk_spec.fill_value)
        if self.grids:
            check_repeated(dn, self.grids, chunk_spec.fill_value)
        with DESK.turn(self._needs_torch):
            stream = self.encoded(dn).blob
        return chunk_spec.prototype.buffer.from_bytes(stream)

    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: Any) -> NDBuffer:
        data, kind = chunk_bytes.to_bytes(), CpuNDBuffer if self._is_exact else _DecodedBuffer
        if not _KEPT.most:
            return kind.from_numpy_array(self._chunk(data, chunk_spec))
        spec = str(chunk_spec.shape), str(chunk_spec.dtype), repr(chunk_spec.fill_value)
        key = blake2b(data, digest_size=16).digest(), json.dumps(self.to_dict()), self.seen.name, spec
        return kind.from_numpy_array(_KEPT.get(key, partial(self._chunk, data, chunk_spec)))

    def _chunk(self, data: bytes, chunk_spec: Any) -> np.ndarray:
        """A chunk [T, C, H, W] from its streams."""
        with DESK.turn(self._needs_torch):
            dn = _join_dates([self.decoded(piece.data) for piece in split(data, self.budget)])
        fill = chunk_spec.fill_value
        chunk = _fit_to_chunk(dn, tuple(chunk_spec.shape), np.dtype(chunk_spec.dtype.to_native_dtype()), fill)
        if not self._is_exact:
            self.seen.add(chunk, fill)
        return chunk

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: Any) -> Buffer:
        with DESK.announced():
            await asyncio.sleep(0)  # those that come with it are announced first
            return await asyncio.to_thread(self._encode_sync, chunk_array, chunk_spec)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: Any) -> NDBuffer:
        with DESK.announced():
            await asyncio.sleep(0)
            return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)

    @property
    def _is_exact(self) -> bool:
        return self.codec == "lossless" and not self.max_error

    @property
    def _needs_torch(self) -> bool:
        return needs_torch(self.codec)


def budget_entry(sections: int) -> dict[str, Any]:
    """A budget as this process, and no file, may put it into a configuration."""
    return {"sections": sections, "reader": _OWN}


def _check_field(name: str, value: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise FormatError(f"{NAME}: {name} has the wrong type, got {value!r:.80}")
    if name == "budgets" and isinstance(value, list | tuple):
        _check_budgets(value)
    if isinstance(value, str) and not 0 < len(value) <= _MAX_NAME:
        raise FormatError(f"{NAME}: {name}: expected 1 to {_MAX_NAME} characters, got {len(value)}")
    if name in _RANGES and isinstance(value, int | float):
        low, high = _RANGES[name]
        if not (math.isfinite(value) and low <= value <= high):
            raise FormatError(f"{NAME}: {name}: expected {low:g} to {high:g}, got {value:g}")


def _check_budgets(value: Sequence[Any]) -> None:
    whole = all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k <= MAX_BUDGET for k in value)
    if not whole or not 0 < len(value) <= _MAX_GROUP or value[0] < 1:
        raise FormatError(
            f"{NAME}: budgets: expected whole numbers up to {MAX_BUDGET}, the first from 1, got {value!r:.80}"
        )


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def check_array(shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse arrays that are not [T, C, H, W] of uint16 or int16.

    Raises:
        InputError: see above.
    """
    if len(shape) != 4:
        raise InputError(f"{NAME}: expected an array [T, C, H, W], got shape {shape}")
    if dtype.name not in _DTYPES:
        raise InputError(f"{NAME}: expected dtype uint16 or int16, got {dtype}; scale and round to DN")


def _join_dates(stacks: list[np.ndarray]) -> np.ndarray:
    """Stacks [t, C, h, w] of one chunk's streams > one stack.

    Raises:
        FormatError: there are none, or they differ in anything but their dates.
    """
    if len({(dn.shape[1:], dn.dtype) for dn in stacks}) != 1:
        raise FormatError(
            f"expected streams that differ in dates only, got {[(dn.shape, dn.dtype.name) for dn in stacks]}"
        )
    return stacks[0] if len(stacks) == 1 else np.concatenate(stacks)


def _fit_to_chunk(dn: np.ndarray, shape: tuple[int, ...], dtype: np.dtype, fill: Any) -> np.ndarray:
    """Puts a decoded stack into the leading corner of its chunk.

    Args:
        dn: decoded pixels [t, C, h, w].
        shape: the chunk's (T, C, H, W), each at least as large.
        dtype: the array's dtype.
        fill: value of the rest of the chunk.

    Returns:
        the chunk [T, C, H, W].

    Raises:
        FormatError: the stream does not belong into this array.
    """
    fits = dn.ndim == 4 and dn.shape[1] == shape[1] and all(a <= b for a, b in zip(dn.shape, shape))
    if not fits or dn.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise FormatError(f"expected a stream that fits {shape} of {dtype}, got {dn.shape} of {dn.dtype}")
    if dn.shape == shape:
        return dn
    chunk = np.full(shape, fill, dtype=dtype)
    chunk[tuple(slice(n) for n in dn.shape)] = dn
    return chunk
