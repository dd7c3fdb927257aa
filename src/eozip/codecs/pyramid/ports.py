"""The range coder by `coder.inc`, where the kernel was compiled: reads and writes the same bytes as `range_coder`.

`writing_port`, `reading_port` and `chosen` take what this machine has.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eozip.codecs.pyramid.native import address, library
from eozip.entropy import trellis
from eozip.entropy.range_coder import (
    MOST_BITS,
    SLACK_BITS,
    DecodePort,
    EncodePort,
    ReadPort,
    Tables,
    WritePort,
    sealed_string,
)
from eozip.errors import FormatError, InputError

_Int, _Long, _Double, _Float = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_float
_Pointer, _Word = ctypes.c_void_p, ctypes.c_uint64
_ESCAPE_WORDS = 36  # at most
_FAULTS = {
    2: "section: bytes that no encoder writes; the data are damaged",
    3: "section: fewer bytes than its symbols need; the data are truncated or damaged",
    4: "section: a symbol beyond int32; the data are damaged",
    5: "section: bytes are left after its symbols; the data are damaged",
}


class Stream(ctypes.Structure):
    """What is read."""

    _fields_ = (
        ("data", _Pointer),
        ("size", _Long),
        ("at", _Long),
        *((name, _Word) for name in ("low", "span", "point")),
        ("bits_left", _Double),
        ("started", _Int),
    )


class Coding(ctypes.Structure):
    """Tables."""

    _fields_ = (
        ("rows", _Int),
        ("width", _Int),
        *((name, _Pointer) for name in ("bounds", "first", "size", "likely", "least")),
        ("turns", _Int),
    )


class _Sink(ctypes.Structure):
    _fields_ = (("low", _Word), ("span", _Word), ("words", _Pointer), ("count", _Long))


class _Prices(ctypes.Structure):
    _fields_ = (
        *(("rows", _Int), ("width", _Int)),
        *(("bits", _Pointer), ("reach", _Pointer)),
        ("thrift", _Float),
    )


@dataclass(frozen=True, eq=False)
class Held:
    """A structure, and the arrays that it points to."""

    made: ctypes.Structure
    arrays: tuple[object, ...]


@lru_cache(16)
def coding(tables: Tables, turns: int = 1) -> Held:
    """Tables as the kernel takes them; turns: 2 if they are those of quantiser 0, then of 1."""
    used = np.arange(tables.freqs.shape[1]) < tables.size[:, None]
    sums = np.where(used, tables.freqs, 0).astype(np.int64).cumsum(1)
    before = np.concatenate([np.zeros((len(sums), 1), np.int64), sums], 1)
    counts = np.minimum(np.arange(before.shape[1]), tables.size[:, None])
    bounds = ((before * ((1 << 24) - tables.size[:, None].astype(np.int64))) >> 16) + counts
    likely = np.where(used, tables.freqs, 0).argmax(1)
    arrays = (
        np.ascontiguousarray(bounds, np.int32),
        tables.first,
        tables.size,
        likely.astype(np.int32),
        tables.least_bits,
    )
    return Held(Coding(len(sums), sums.shape[1], *(a.ctypes.data for a in arrays), turns), arrays)


@lru_cache(4)
def _prices(tables: Tables, thrift: float) -> Held:
    arrays = trellis.costs_of(tables)
    return Held(_Prices(*arrays[0].shape[1:], *(a.ctypes.data for a in arrays), thrift), arrays)


def reading_port(data: bytes) -> ReadPort:
    """What reads a stream: by the kernel where there is one."""
    return DecodePort(data) if library() is None else NativePort(data)


def writing_port() -> WritePort:
    """What writes a stream: by the kernel where there is one."""
    return EncodePort() if library() is None else NativeWriter()


def chosen(residual: np.ndarray, rows: np.ndarray, tables: Tables, thrift: float) -> np.ndarray:
    """As `trellis.chosen`: by the kernel where there is one."""
    kernel, residual = library(), np.ascontiguousarray(residual, np.float32)
    if kernel is None:
        return trellis.chosen(residual, rows, tables, thrift)
    rows, out = _wide(rows, len(tables.size) // 2), np.empty(len(rows), np.int32)
    held = _prices(tables, thrift)
    check(kernel.eozip_choose(ctypes.byref(held.made), len(rows), *map(_address, (residual, rows, out))))
    return out


class NativePort:
    """As `DecodePort`."""

    def __init__(self, data: bytes) -> None:
        kernel = library()
        if kernel is None:
            raise InputError("NativePort: no kernel; use `reading_port`")
        self._kernel, self._data = kernel, ctypes.create_string_buffer(data, max(1, len(data)))
        bits = 8.0 * len(data) + SLACK_BITS
        self.stream = Stream(ctypes.addressof(self._data), len(data), bits_left=bits)
        kernel.eozip_open(ctypes.byref(self.stream))

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `DecodePort.code`."""
        rows, held = _rows(rows, len(tables.size)), coding(tables)
        out = np.empty(len(rows), np.int32)
        check(self._kernel.eozip_read(*self._call(held, len(rows)), *map(_address, (rows, out))))
        return out

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `DecodePort.code_trellis`."""
        rows, held = _wide(rows, len(tables.size) // 2), coding(tables, 2)
        out, turns = np.empty(len(rows), np.int32), np.empty(len(rows), np.uint8)
        arrays = map(_address, (rows, out, turns))
        check(self._kernel.eozip_read_trellis(*self._call(held, len(rows)), *arrays))
        return _values(out, turns)

    def _call(self, held: Held, count: int) -> tuple[object, ...]:
        return ctypes.byref(self.stream), ctypes.byref(held.made), count

    def finish(self) -> None:
        """As `DecodePort.finish`."""
        if not self.stream.started:
            if self.stream.size:
                raise FormatError("section: expected no bytes, as nothing was coded in it")
            return
        check(self._kernel.eozip_finish(ctypes.byref(self.stream), MOST_BITS))


class NativeWriter:
    """As `EncodePort`."""

    def __init__(self) -> None:
        kernel = library()
        if kernel is None:
            raise InputError("NativeWriter: no kernel; use `writing_port`")
        self._kernel, self._words, self._sink = kernel, np.empty(256, np.uint32), _Sink()
        self._started = False
        kernel.eozip_begin(ctypes.byref(self._sink))

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `EncodePort.code`."""
        return self._written(symbols, rows, tables, 1)[0]

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `EncodePort.code_trellis`."""
        return _values(*self._written(symbols, rows, tables, 2))

    def _written(
        self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables, turns: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The symbols, and which quantiser each has."""
        if symbols is None or len(symbols) != len(rows):
            raise InputError(f"coder: expected a symbol for each of {len(rows)} rows, got {symbols!r:.80}")
        rows, held = _wide(rows, len(tables.size) // turns), coding(tables, turns)
        symbols = np.ascontiguousarray(symbols, np.int32)
        beyond = symbols.astype(np.int64) - tables.first[rows]
        escapes = np.count_nonzero((beyond < 0) | (beyond >= tables.size[rows] - 1))
        needed = self._sink.count + len(rows) + _ESCAPE_WORDS * escapes + 2
        if needed > len(self._words):
            self._words = np.resize(self._words, 2 * needed)
        self._sink.words = self._words.ctypes.data
        which = np.empty(len(rows), np.uint8)
        arrays = map(_address, (rows, symbols, which))
        check(self._kernel.eozip_write(ctypes.byref(self._sink), ctypes.byref(held.made), len(rows), *arrays))
        self._started |= len(rows) > 0
        return symbols, which

    def finish(self) -> bytes:
        """As `EncodePort.finish`."""
        if not self._started:
            return b""
        words = int(self._sink.count)
        low = int.from_bytes(self._words[:words].astype(">u4").tobytes(), "big") << 64 | self._sink.low
        return sealed_string(words, low, self._sink.span)


def check(fault: int) -> None:
    """Refuse what the kernel could not do.

    Raises:
        FormatError: damaged bytes.
        MemoryError: no room.
    """
    if fault == 1:
        raise MemoryError("section: no memory for the details of a plane")
    if fault:
        raise FormatError(_FAULTS[fault])


def _values(symbols: np.ndarray, turns: np.ndarray) -> np.ndarray:
    return trellis.points(np.clip(symbols, -trellis.FARTHEST, trellis.FARTHEST), turns.astype(np.int32))


def _rows(rows: np.ndarray, count: int) -> np.ndarray:
    return np.ascontiguousarray(_checked(rows, count, 1 << 8), np.uint8)


def _wide(rows: np.ndarray, count: int) -> np.ndarray:
    return np.ascontiguousarray(_checked(rows, count, 1 << 16), np.uint16)


def _checked(rows: np.ndarray, count: int, most: int) -> np.ndarray:
    if count > most or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count):
        raise InputError(f"coder: expected rows in 0..{count - 1} of at most {most}, got {rows!r:.80}")
    return rows


def _address(array: np.ndarray) -> ctypes.c_void_p:
    return _Pointer(address(array))
