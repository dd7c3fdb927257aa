"""Layout of one chunk; ``docs/bitstream.md`` specifies every field.

    fixed part (18 bytes) | [offset] | [weights hash] | [nodata] | codec id | sensor id | [checks] | [budgets]
    | [groups] | [band names] | section table | CRC-32C | sections

The sections are the nodata mask and the exceptions (see `eozip.bitstream.nodata_mask`), the skip mask and the level map (see
`eozip.codecs`: skip_mask, level_map), then the codec's own, then the residual layer (see `eozip.bitstream.residual`); all
but the codec's only if their flag is set. All integers are little-endian. Sizes are checked before anything is allocated.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import google_crc32c
import numpy as np

from eozip.bitstream.arrays import MAX_GROUPS, Group, groups_problem, shapes_of
from eozip.bitstream.integers import packed_length, read_length
from eozip.errors import ChecksumError, FormatError, InputError, LimitError

MAGIC = b"\x89EOZ"
_VERSION = 1

_PREFIX = 9  # bytes that say how long the header is

MAX_DATES = 4096
MAX_BANDS = 64
MAX_SIDE = 32768
MAX_SAMPLES = 1 << 31  # of the format; a process may be content with fewer, see `samples_problem`
_DEFAULT_SAMPLES = 1 << 28
_LIMIT_VARIABLE = "EOZIP_MAX_SAMPLES"
MAX_SECTIONS = 4096
_MAX_SECTION_BYTES = (1 << 32) - 1
_MAX_NAME = 64
_QUALITY_STEPS = 100  # quality is stored in hundredths

_FIXED = struct.Struct("<4sBHHHBHHH")  # up to and including quality
_WORD = struct.Struct("<i")  # offset and nodata
_HASH_BYTES = 8
_GROUP = struct.Struct("<HB")  # resolution and number of bands
_CRC = struct.Struct("<I")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_BAND_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DTYPES = ("uint16", "int16")
_KNOWN_NAME = 128  # and more: one byte for a name, its position here
_KNOWN_NAMES = (
    "lossless",
    "near-lossless",
    "tec-elic-small-any-v1",
    "tec-tt-small-any-v1",
    "tec-fp-small-any-v1",
    "flextec-small-any-v1",
    "any",
    "s2-l2a",
    "s2-l1c",
    "hls",
    "landsat-c2-l2",
)

(
    _SQUEEZED,
    _INT16,
    _NODATA,
    _CHECKS,
    _BUDGETS,
    _MASK,
    _EXCEPTIONS,
    _SKIP,
    _RESIDUAL,
    _SCALES,
    _GROUPS,
    _NAMES,
    _LEVELS,
    _OFFSET,
    _WEIGHTS,
) = (1 << bit for bit in range(15))
_KNOWN = (1 << 15) - 1
_BEFORE = (_MASK, _EXCEPTIONS, _SKIP, _LEVELS)  # flags of the sections before the codec's own, in their order


@dataclass(frozen=True)
class Header:
    """Facts about one chunk.

    Attributes:
        codec: full codec id, such as ``tec-elic-small-any-v1``, or ``lossless``.
        dtype: ``uint16`` or ``int16``.
        shape: T, C, H, W before any padding.
        squeezed: the caller gave [C, H, W] (then T is 1).
        sensor: sensor id, such as ``s2-l2a``.
        offset: radiometric offset of the DN, taken off before coding.
        nodata: the nodata value, or None.
        quality: quality used, 0..100 in hundredths.
        weights_hash: 8 bytes, zero where there are no weights.
        checks: u32 per frame over decoded symbols, or empty.
        budgets: u8 per frame, or empty.
        skip: some latent cells were not coded; a skip mask before the codec's sections says which.
        residual: a residual layer follows the codec's sections.
        scales: the codec's sections are scales, the coarsest first, so that a reduced picture needs the first few.
        groups: bands on grids of their own, the finest first; then H, W are those of the finest. Empty: all on one grid.
        names: of the bands, C of them, or empty.
        levels: some cells are coded more coarsely than others; a level map before the codec's sections says which.
    """

    codec: str
    dtype: str
    shape: tuple[int, int, int, int]
    squeezed: bool = False
    sensor: str = "s2-l2a"
    offset: int = 0
    nodata: int | None = None
    quality: float = 0.0
    weights_hash: bytes = bytes(8)
    checks: tuple[int, ...] = ()
    budgets: tuple[int, ...] = ()
    skip: bool = False
    residual: bool = False
    scales: bool = False
    groups: tuple[Group, ...] = ()
    names: tuple[str, ...] = ()
    levels: bool = False

    @property
    def factors(self) -> tuple[int, ...]:
        """For each array of the chunk, cells of the finest grid along one of its own."""
        return tuple(group.resolution // self.groups[0].resolution for group in self.groups) or (1,)

    @property
    def shapes(self) -> tuple[tuple[int, int, int, int], ...]:
        """T, C, H, W of each array of the chunk: one for each group, or the only one."""
        return shapes_of(self.shape, self.groups)

    @property
    def samples(self) -> int:
        """Samples of all arrays: what was measured."""
        return sum(map(math.prod, self.shapes))


@dataclass(frozen=True)
class Chunk:
    """The parts of one chunk.

    Attributes:
        header: its facts.
        mask: coded nodata mask, empty if no pixel is nodata.
        exceptions: coded out-of-range pixels, empty if there are none.
        sections: the codec's sections; fewer than ``declared`` if the chunk was cut.
        residual: coded residual layer; empty if there is none or the chunk was cut before its end.
        skip: coded skip mask; empty if all cells were coded.
        declared: how many sections the chunk had when it was written; as many as `sections` where nothing is said.
        levels: coded level map; empty if all cells are alike.
    """

    header: Header
    mask: bytes
    exceptions: bytes
    sections: tuple[bytes, ...]
    residual: bytes = b""
    skip: bytes = b""
    declared: int = -1
    levels: bytes = b""

    def __post_init__(self) -> None:
        if self.declared < 0:
            object.__setattr__(self, "declared", len(self.sections))

    @property
    def parts(self) -> list[bytes]:
        """All sections in the order of the bytes."""
        before = [part for part in (self.mask, self.exceptions, self.skip, self.levels) if part]
        return [*before, *self.sections, *([self.residual] if self.residual else [])]


@dataclass(frozen=True)
class Layout:
    """Where the parts of a chunk lie, as its header says.

    Attributes:
        header: its facts.
        size: bytes of the header.
        flags: as stored.
        table: length and CRC-32C of each section, in the order of the bytes.
    """

    header: Header
    size: int
    flags: int
    table: tuple[tuple[int, int], ...]

    @property
    def before(self) -> int:
        """Number of sections before the codec's own."""
        return sum(bool(self.flags & flag) for flag in _BEFORE)

    @property
    def declared(self) -> int:
        """Number of the codec's own sections."""
        return len(self.table) - self.before - self.header.residual

    @property
    def ends(self) -> tuple[int, ...]:
        """Position behind the header and behind each section, in bytes from the chunk's start."""
        return tuple(accumulate((length for length, _ in self.table), initial=self.size))


def frame_check(symbols: np.ndarray) -> int:
    """CRC-32C of one frame's decoded symbols.

    Args:
        symbols: any shape, values within int32.
    """
    return int(google_crc32c.value(np.ascontiguousarray(symbols, dtype="<i4").tobytes()))


def size_problem(shape: tuple[int, int, int, int]) -> str | None:
    """What is wrong with a shape T, C, H, W under the limits of the format; None if nothing is."""
    for name, value, most in zip("TCHW", shape, (MAX_DATES, MAX_BANDS, MAX_SIDE, MAX_SIDE)):
        if not 1 <= value <= most:
            return f"{name} = {value}, allowed are 1..{most}"
    samples = shape[0] * shape[1] * shape[2] * shape[3]
    return f"T*C*H*W = {samples}, allowed are {MAX_SAMPLES}" if samples > MAX_SAMPLES else None


def samples_problem(shape: Sequence[int]) -> str | None:
    """What is wrong with a shape T, C, H, W under the limit of this process; None if nothing is.

    The environment variable EOZIP_MAX_SAMPLES sets the limit; coding takes up to about 70 bytes of memory a sample.

    Raises:
        InputError: the variable holds no number.
    """
    text = os.environ.get(_LIMIT_VARIABLE, "")
    if text and not (text.isascii() and text.isdigit() and int(text) > 0):
        raise InputError(
            f"{_LIMIT_VARIABLE}: expected a number of samples, got {text!r:.80}; set or unset it"
        )
    most, samples = int(text) if text else _DEFAULT_SAMPLES, math.prod(shape)
    if samples <= most:
        return None
    return (
        f"T*C*H*W = {samples}, this process codes at most {most}, about {70 * most // 10**9} GB of memory (set "
        f"{_LIMIT_VARIABLE} to change that)"
    )


def fits(value: int, dtype: str) -> bool:
    """Whether ``value`` is one that pixels of ``dtype`` can have."""
    limits = np.iinfo(dtype)
    return bool(limits.min <= value <= limits.max)


def pack(chunk: Chunk) -> bytes:
    """One chunk as bytes.

    Raises:
        InputError: a field that the format cannot hold.
    """
    header, parts = chunk.header, chunk.parts
    _check_packable(chunk)
    tail = b"".join(
        [
            _WORD.pack(header.offset) if header.offset else b"",
            header.weights_hash if any(header.weights_hash) else b"",
            b"" if header.nodata is None else _WORD.pack(header.nodata),
            _pack_name(header.codec),
            _pack_name(header.sensor),
            struct.pack(f"<{len(header.checks)}I", *header.checks),
            bytes(header.budgets),
            _pack_groups(header.groups),
            *(_pack_band(name) for name in header.names),
            packed_length(len(chunk.sections)),
            *(packed_length(len(part)) + _CRC.pack(google_crc32c.value(part)) for part in parts),
        ]
    )
    flags = _flags(header, chunk.mask, chunk.exceptions)
    head = _pack_fixed(header, flags, _FIXED.size + len(tail) + _CRC.size) + tail
    return b"".join([head, _CRC.pack(google_crc32c.value(head)), *parts])


def packed_size(chunk: Chunk) -> int:
    """Count the bytes that `pack` would make of a chunk, without making them."""
    header, parts = chunk.header, chunk.parts
    optional = _WORD.size * (bool(header.offset) + (header.nodata is not None))
    optional += _HASH_BYTES * any(header.weights_hash)
    names = len(_pack_name(header.codec)) + len(_pack_name(header.sensor))
    names += sum(1 + len(name) for name in header.names)
    lists = 4 * len(header.checks) + len(header.budgets) + len(_pack_groups(header.groups))
    table = len(packed_length(len(chunk.sections)))
    table += sum(len(packed_length(len(part))) + _CRC.size for part in parts)
    return _FIXED.size + optional + names + lists + table + _CRC.size + sum(map(len, parts))


def unpack(data: bytes, *, allow_truncated: bool = False) -> Chunk:
    """Parse one chunk and check every checksum.

    Args:
        data: the bytes of `pack`.
        allow_truncated: accept data that end early, with those of the codec's sections that are whole.

    Raises:
        FormatError: not a chunk, a newer version, truncated, or trailing bytes.
        LimitError: a declared size beyond the limits; nothing was allocated.
        ChecksumError: bytes changed after they were written.
    """
    data = bytes(data)
    layout = read_layout(data)
    total = layout.ends[-1]
    if len(data) > total:
        raise FormatError(f"chunk: expected {total} bytes, got {len(data)}; remove what follows the chunk")
    if len(data) < total and not allow_truncated:
        raise FormatError(f"chunk: expected {total} bytes, got {len(data)}; it is truncated")
    return _collect(layout, _read_sections(data, layout))


def read_header(data: bytes) -> tuple[Header, tuple[int, ...]]:
    """Header of a chunk, and the length of each of its sections (mask and exceptions first, where present).

    Reads nothing behind the header, so the first few hundred bytes of a chunk are enough.

    Raises:
        FormatError: as `unpack`, for the header.
    """
    layout = read_layout(data)
    return layout.header, tuple(length for length, _ in layout.table)


def _check_packable(chunk: Chunk) -> None:
    header, sections = chunk.header, chunk.sections
    said, there = (header.residual, header.skip, header.levels), (chunk.residual, chunk.skip, chunk.levels)
    if said != tuple(map(bool, there)):
        raise InputError(
            f"header: residual, skip, levels: expected {tuple(map(bool, there))}, as sections are, got {said}"
        )
    if max((len(part) for part in chunk.parts), default=0) > _MAX_SECTION_BYTES:
        raise InputError(f"a section is longer than {_MAX_SECTION_BYTES} bytes; use smaller chunks")
    problem = size_problem(header.shape)
    dates = header.shape[0]
    if problem:
        raise InputError(f"chunk too large or empty: {problem}; use smaller chunks")
    if header.dtype not in _DTYPES:
        raise InputError(f"dtype: expected one of {_DTYPES}, got {header.dtype}")
    if len(header.checks) not in (0, dates) or len(header.budgets) not in (0, dates):
        raise InputError(f"expected {dates} or no checks and budgets, got {header.checks}, {header.budgets}")
    if len(sections) > MAX_SECTIONS:
        raise InputError(f"expected at most {MAX_SECTIONS} sections, got {len(sections)}")
    if header.names and len(header.names) != header.shape[1]:
        raise InputError(f"band names: expected {header.shape[1]} or none, got {len(header.names)}")
    problem = groups_problem(header.groups, header.shape[1]) if header.groups else None
    if problem or (header.groups and header.skip):
        raise InputError(f"groups: {problem or 'cells of groups cannot be skipped'}")
    if not 0 <= header.quality <= 100 or not -(1 << 31) <= header.offset < 1 << 31:
        raise InputError(
            f"expected quality 0..100 and an int32 offset, got {header.quality}, {header.offset}"
        )
    if header.nodata is not None and not fits(header.nodata, header.dtype):
        raise InputError(f"nodata: expected a value of {header.dtype}, got {header.nodata}")
    if len(header.weights_hash) != 8 or (header.squeezed and dates != 1):
        raise InputError("expected an 8-byte weights hash, and one date in a [C, H, W] chunk")


def _flags(header: Header, mask: bytes, exceptions: bytes) -> int:
    there = (
        header.squeezed,
        header.dtype == "int16",
        header.nodata is not None,
        *map(bool, (header.checks, header.budgets, mask, exceptions)),
        header.skip,
        header.residual,
        header.scales,
        *map(bool, (header.groups, header.names)),
        header.levels,
        bool(header.offset),
        any(header.weights_hash),
    )
    return sum(1 << bit for bit, is_set in enumerate(there) if is_set)


def _pack_fixed(header: Header, flags: int, size: int) -> bytes:
    t, c, h, w = header.shape
    quality = round(header.quality * _QUALITY_STEPS)
    return _FIXED.pack(MAGIC, _VERSION, flags, size, t, c, h, w, quality)


def _pack_name(name: str) -> bytes:
    if not _NAME.fullmatch(name):
        raise InputError(f"name: expected 1..{_MAX_NAME} of a-z 0-9 . _ -, got {name!r}")
    if name in _KNOWN_NAMES:
        return bytes([_KNOWN_NAME + _KNOWN_NAMES.index(name)])
    return bytes([len(name)]) + name.encode("ascii")


def _pack_groups(groups: Sequence[Group]) -> bytes:
    if not groups:
        return b""
    return bytes([len(groups)]) + b"".join(_GROUP.pack(g.resolution, g.bands) for g in groups)


def _pack_band(name: str) -> bytes:
    if not is_band_name(name):
        raise InputError(f"band name: expected 1..{_MAX_NAME} of A-Z a-z 0-9 . _ -, got {name!r:.80}")
    return bytes([len(name)]) + name.encode("ascii")


def is_band_name(name: str) -> bool:
    """Whether a header can hold this name of a band."""
    return bool(_BAND_NAME.fullmatch(name))


class _Reader:
    """Takes fields off the front of the header, never beyond its end."""

    def __init__(self, data: bytes, start: int, stop: int) -> None:
        self._data, self._at, self._stop = data, start, stop

    def take(self, size: int) -> bytes:
        if self._at + size > self._stop:
            raise FormatError("chunk: the header is shorter than its fields")
        self._at += size
        return self._data[self._at - size : self._at]

    def name(self) -> str:
        size = self.take(1)[0]
        if size >= _KNOWN_NAME:
            if size - _KNOWN_NAME >= len(_KNOWN_NAMES):
                raise FormatError(
                    f"chunk: name number {size - _KNOWN_NAME} is not known; install a newer eozip"
                )
            return _KNOWN_NAMES[size - _KNOWN_NAME]
        text = self.take(size).decode("latin-1")
        if not _NAME.fullmatch(text):
            raise FormatError(f"chunk: expected a name of a-z 0-9 . _ -, got {text[:80]!r}")
        return text

    def word(self) -> int:
        return int(_WORD.unpack(self.take(_WORD.size))[0])

    def length(self) -> int:
        length, self._at = read_length(self._data[: self._stop], self._at, "chunk header")
        return length

    def groups(self) -> tuple[Group, ...]:
        count = self.take(1)[0]
        if count > MAX_GROUPS:
            raise LimitError(f"chunk: {count} groups of bands, allowed are {MAX_GROUPS}")
        return tuple(Group(*fields) for fields in _GROUP.iter_unpack(self.take(_GROUP.size * count)))

    def band_name(self) -> str:
        text = self.take(self.take(1)[0]).decode("latin-1")
        if not is_band_name(text):
            raise FormatError(f"chunk: expected a band name of A-Z a-z 0-9 . _ -, got {text[:80]!r}")
        return text

    def finish(self) -> None:
        if self._at != self._stop:
            raise FormatError("chunk: the header is longer than its fields")


def read_layout(data: bytes) -> Layout:
    """Parse the header of a chunk; read nothing behind it.

    Raises:
        FormatError: as `unpack`, for the header.
    """
    data = bytes(data)
    size = _checked_header_size(data)
    _, _, flags, _, t, c, h, w, quality = _FIXED.unpack_from(data)
    shape = (t, c, h, w)
    if flags & ~_KNOWN:
        raise FormatError(f"chunk: unknown flags {flags:#06x}; install a newer eozip")
    _check_declared(flags, shape, quality)
    reader = _Reader(data, _FIXED.size, size - _CRC.size)
    offset = reader.word() if flags & _OFFSET else 0
    weights_hash = reader.take(_HASH_BYTES) if flags & _WEIGHTS else bytes(_HASH_BYTES)
    nodata = _read_nodata(reader, flags) if flags & _NODATA else None
    codec, sensor = reader.name(), reader.name()
    checks = struct.unpack(f"<{t}I", reader.take(4 * t)) if flags & _CHECKS else ()
    budgets = tuple(reader.take(t)) if flags & _BUDGETS else ()
    groups = _read_groups(reader, c, flags)
    bands = tuple(reader.band_name() for _ in range(c)) if flags & _NAMES else ()
    declared = reader.length()
    if declared > MAX_SECTIONS:
        raise LimitError(f"chunk: {declared} sections, allowed are {MAX_SECTIONS}")
    count = declared + sum(bool(flags & flag) for flag in (*_BEFORE, _RESIDUAL))
    table = tuple(_read_entry(reader) for _ in range(count))
    reader.finish()
    header = Header(
        codec=codec,
        dtype=_DTYPES[bool(flags & _INT16)],
        shape=shape,
        squeezed=bool(flags & _SQUEEZED),
        sensor=sensor,
        offset=offset,
        nodata=nodata,
        quality=quality / _QUALITY_STEPS,
        weights_hash=weights_hash,
        checks=checks,
        budgets=budgets,
        skip=bool(flags & _SKIP),
        residual=bool(flags & _RESIDUAL),
        scales=bool(flags & _SCALES),
        groups=groups,
        names=bands,
        levels=bool(flags & _LEVELS),
    )
    return Layout(header, size, flags, table)


def header_size(head: bytes) -> int:
    """Size of a chunk's header in bytes, from its first `_PREFIX` bytes.

    Raises:
        FormatError: not the beginning of a chunk of this version.
    """
    if head[: len(MAGIC)] != MAGIC or len(head) < _PREFIX:
        raise FormatError(f"not an eozip chunk: expected it to start with {MAGIC!r}, got {head[:4]!r}")
    if head[4] != _VERSION:
        raise FormatError(
            f"chunk: version {head[4]}; this eozip reads version {_VERSION}: install a newer one"
        )
    return int.from_bytes(head[7:_PREFIX], "little")


def _checked_header_size(data: bytes) -> int:
    """Size of the header, after its magic, version and checksum were found right."""
    size = header_size(data)
    if len(data) < _FIXED.size:
        raise FormatError(f"chunk: expected at least {_FIXED.size} bytes, got {len(data)}; it is truncated")
    if not _FIXED.size + _CRC.size <= size <= len(data):
        raise FormatError(f"chunk: a header of {size} bytes in {len(data)} bytes; it is truncated or damaged")
    (expected,) = _CRC.unpack_from(data, size - _CRC.size)
    got = google_crc32c.value(data[: size - _CRC.size])
    if got != expected:
        raise ChecksumError(f"chunk header: expected CRC-32C {expected:08x}, got {got:08x}; it is damaged")
    return size


def _check_declared(flags: int, shape: tuple[int, int, int, int], quality: int) -> None:
    problem = size_problem(shape)
    if problem:
        raise LimitError(f"chunk: declares {problem}")
    if quality > 100 * _QUALITY_STEPS:
        raise FormatError(f"chunk: expected a quality of at most 100.00, got {quality / _QUALITY_STEPS}")
    if flags & _SQUEEZED and shape[0] != 1:
        raise FormatError(f"chunk: [C, H, W] with {shape[0]} dates")


def _read_groups(reader: _Reader, bands: int, flags: int) -> tuple[Group, ...]:
    if not flags & _GROUPS:
        return ()
    groups = reader.groups()
    problem = groups_problem(groups, bands)
    if problem or flags & _SKIP:
        raise FormatError(f"chunk: {problem or 'a skip mask over groups of bands'}; the data are damaged")
    return groups


def _read_nodata(reader: _Reader, flags: int) -> int:
    value = reader.word()
    if not fits(value, _DTYPES[bool(flags & _INT16)]):
        raise FormatError(f"chunk: nodata {value} does not fit its dtype")
    return value


def _read_entry(reader: _Reader) -> tuple[int, int]:
    """Length and CRC-32C of a section."""
    length = reader.length()
    if length > _MAX_SECTION_BYTES:
        raise LimitError(f"chunk: a section of {length} bytes, allowed are {_MAX_SECTION_BYTES}")
    return length, int(_CRC.unpack(reader.take(_CRC.size))[0])


def _read_sections(data: bytes, layout: Layout) -> list[bytes]:
    parts, at = [], layout.size
    for index, (length, crc) in enumerate(layout.table):
        if at + length > len(data):
            break
        part = data[at : at + length]
        if google_crc32c.value(part) != crc:
            raise ChecksumError(f"chunk section {index}: its CRC-32C differs; the data are damaged")
        parts.append(part)
        at += length
    return parts


def _collect(layout: Layout, parts: list[bytes]) -> Chunk:
    before, declared = layout.before, layout.declared
    if len(parts) < before:
        raise FormatError("chunk: cut before its masks and exceptions were whole; nothing can be decoded")
    first = iter(parts[:before])
    mask, exceptions, skip, levels = (next(first) if layout.flags & flag else b"" for flag in _BEFORE)
    sections, after = parts[before : before + declared], parts[before + declared :]
    residual = after[0] if after else b""
    return Chunk(layout.header, mask, exceptions, tuple(sections), residual, skip, declared, levels)
