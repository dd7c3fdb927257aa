"""Reading by `intervals.inc`, where the kernel was compiled: range-coded symbols, and planes of details that passes narrow.

The same numbers as `range_coder.DecodePort` and `intervals.Narrowing`, a plane of all dates at once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from eozip.codecs.pyramid.context import GATE
from eozip.codecs.pyramid.intervals import Known, Laws
from eozip.codecs.pyramid.native import library
from eozip.entropy.range_coder import MOST_BITS, SLACK_BITS, DecodePort, Port, ReadPort, Tables
from eozip.errors import FormatError, InputError

_Int, _Long, _Double, _Pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_double, ctypes.c_void_p
_FAULTS = {
    2: "section: bytes that no encoder writes; the data are damaged",
    3: "section: fewer bytes than its symbols need; the data are truncated or damaged",
    4: "section: a symbol beyond int32; the data are damaged",
}


class _Stream(ctypes.Structure):
    _fields_ = (
        ("data", _Pointer),
        ("size", _Long),
        ("at", _Long),
        *((name, ctypes.c_uint64) for name in ("low", "span", "point")),
        ("bits_left", _Double),
        ("started", _Int),
    )


class _Coding(ctypes.Structure):
    _fields_ = (
        ("rows", _Int),
        ("width", _Int),
        *((name, _Pointer) for name in ("bounds", "first", "size", "likely", "least")),
    )


class _Laws(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("tails", "areas", "zones", "shares", "gates")),
        ("symbols", _Coding),
        ("bits", _Coding),
    )


class _Flake(ctypes.Structure):
    _fields_ = tuple(
        (name, _Pointer)
        for name in (
            *("outputs", "predicted", "near", "expected", "alive", "scale"),
            *("low", "high", "value", "is_near", "is_seen", "stream"),
        )
    )


@dataclass(frozen=True, eq=False)
class _Held:
    """A structure, and the arrays that it points to."""

    made: ctypes.Structure
    arrays: tuple[object, ...]


@lru_cache(8)
def _coding(tables: Tables) -> _Held:
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
    return _Held(_Coding(len(sums), sums.shape[1], *(a.ctypes.data for a in arrays)), arrays)


def reading_port(data: bytes) -> ReadPort:
    """What reads a stream: by the kernel where there is one."""
    return DecodePort(data) if library() is None else NativePort(data)


class NativePort:
    """As `DecodePort`."""

    def __init__(self, data: bytes) -> None:
        kernel = library()
        if kernel is None:
            raise InputError("NativePort: no kernel; use `reading_port`")
        self._kernel, self._data = kernel, ctypes.create_string_buffer(data, max(1, len(data)))
        bits = 8.0 * len(data) + SLACK_BITS
        self.stream = _Stream(ctypes.addressof(self._data), len(data), bits_left=bits)
        kernel.eozip_open(ctypes.byref(self.stream))

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `DecodePort.code`."""
        count = len(tables.size)
        if count > 256 or (len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < count):
            raise InputError(f"coder: expected rows in 0..{count - 1} of at most 256, got {rows!r:.80}")
        rows = np.ascontiguousarray(rows, np.uint8)
        out = np.empty(len(rows), np.int32)
        held = _coding(tables)
        check(
            self._kernel.eozip_read(
                *(ctypes.byref(self.stream), ctypes.byref(held.made), len(rows)),
                *(_Pointer(a.ctypes.data) for a in (rows, out)),
            )
        )
        return out

    def finish(self) -> None:
        """As `DecodePort.finish`."""
        if not self.stream.started:
            if self.stream.size:
                raise FormatError("section: expected no bytes, as nothing was coded in it")
            return
        if not self._kernel.eozip_is_over(ctypes.byref(self.stream), MOST_BITS):
            raise FormatError("section: bytes are left after its symbols; the data are damaged")


def check(fault: int) -> None:
    """Refuse what the kernel could not read.

    Raises:
        FormatError: damaged bytes.
        MemoryError: no room.
    """
    if fault == 1:
        raise MemoryError("section: no memory for the details of a plane")
    if fault:
        raise FormatError(_FAULTS[fault])


class Narrower:
    """Reads planes of details as `intervals.Narrowing` narrows them.

    Args:
        laws: tables of intervals.
        symbols: tables of details that are not seen yet.
        tanh: gates, as `context.Functions` has them.
    """

    def __init__(self, laws: Laws, symbols: Tables, tanh: np.ndarray) -> None:
        coded, bits = _coding(symbols), _coding(laws.binary)
        arrays = tuple(
            np.ascontiguousarray(values, kind)
            for values, kind in (
                (laws.tails, np.int32),
                (laws.areas, np.int64),
                (laws.zones, np.int32),
                (laws.shares, np.int32),
                (np.rint(tanh * GATE), np.int32),
            )
        )
        self._kernel = library()
        self._held = _Held(_Laws(*map(_address, arrays), coded.made, bits.made), (*arrays, coded, bits))

    def takes(self, ports: Sequence[Port]) -> bool:
        """Whether there is a kernel, and these ports are its own."""
        return self._kernel is not None and all(isinstance(port, NativePort) for port in ports)

    def narrow(self, view: View, known: Sequence[Known], number: int, ports: Sequence[Port]) -> None:
        """Read one plane of some dates in one colour into what is known of it.

        Args:
            view: what the network says of it.
            known: of each date, arrays [K, 3, h, half], changed.
            number: of the plane.
            ports: of the dates, which it takes.

        Raises:
            FormatError: damaged bytes.
        """
        streams = [port.stream for port in ports if isinstance(port, NativePort)]
        if self._kernel is None:
            raise InputError("narrow: no kernel; see `takes`")
        outputs, near = (
            None if values is None else np.ascontiguousarray(values.swapaxes(1, 2), np.float32)
            for values in (view.outputs, view.near)
        )
        predicted = np.ascontiguousarray(view.predicted, np.float32)
        reference = None if view.reference is None else np.ascontiguousarray(view.reference, np.int32)
        alive, scale = np.ascontiguousarray(view.alive, np.uint8), np.ascontiguousarray(view.scale, np.int32)
        flakes = (_Flake * len(ports))()
        for n, (own, stream) in enumerate(zip(known, streams, strict=True)):
            shared = (outputs, predicted, near, reference, alive, scale)
            fields = (own.low, own.high, own.value, own.near, own.seen)
            flakes[n] = _Flake(
                *(None if values is None else _address(values[n]) for values in shared),
                *(_address(values[number]) for values in fields),
                ctypes.addressof(stream),
            )
        _, _, h, w = predicted.shape
        check(self._kernel.eozip_narrow(ctypes.byref(self._held.made), flakes, len(ports), view.color, h, w))


@dataclass(frozen=True, eq=False)
class View:
    """What the network says of one plane of N dates in one colour; integers in units of `context`.

    Attributes:
        color: of the checkerboard.
        outputs: [N, 12, h, half].
        predicted: [N, 3, h, w], from the picture below.
        near: [N, 3, h, half], from neighbours, or None.
        reference: [N, 3, h, w], or None.
        alive: uint8 [N, 3, h, w]: 1 if there is a detail, 3 if it may be sent.
        scale: [N, 3], log scales that side information tells, in 1/16.
    """

    color: int
    outputs: np.ndarray
    predicted: np.ndarray
    near: np.ndarray | None
    reference: np.ndarray | None
    alive: np.ndarray
    scale: np.ndarray


def _address(array: np.ndarray) -> int:
    return array.ctypes.data
