"""Planes of details read by `intervals.inc`, where the kernel was compiled, a plane of all dates at once.

The same numbers as `traverse.Ladder` has, and, of planes that passes narrow, `intervals.Narrowing`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.context import GATE, half
from eozip.codecs.pyramid.intervals import Known, Laws
from eozip.codecs.pyramid.native import library
from eozip.codecs.pyramid.ports import Coding, Held, NativePort, check, coding
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import InputError

_Pointer = ctypes.c_void_p


class _Laws(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("tails", "areas", "zones", "shares", "gates")),
        ("symbols", Coding),
        ("bits", Coding),
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


class PlaneReader:
    """Reads planes of trellis-coded details.

    Args:
        symbols: tables whose rows are meant.
        trellis: tables of both quantisers.
        tanh: gates, as `context.Functions` has them.
    """

    def __init__(self, symbols: Tables, trellis: Tables, tanh: np.ndarray) -> None:
        gates, coded = _gates(tanh), coding(symbols)
        self._kernel, self._trellis = library(), coding(trellis, 2)
        self._held = Held(_Laws(gates=_address(gates), symbols=coded.made), (gates, coded))

    def takes(self, ports: Sequence[Port]) -> bool:
        """Whether there is a kernel, and these ports are its own."""
        return self._kernel is not None and all(isinstance(port, NativePort) for port in ports)

    def read(self, view: View, ports: Sequence[Port], spacing: int) -> np.ndarray:
        """Read one plane of some dates in one colour.

        Args:
            view: what the network says of it.
            ports: of the dates, which it takes.
            spacing: between values, in 1/64 step.

        Returns:
            int32 [N, 3, h, half] in 1/64 step, 0 where there are no details.

        Raises:
            FormatError: damaged bytes.
        """
        _, _, h, w = view.predicted.shape
        values = np.zeros((len(ports), 3, h, half(w)), np.int32)
        flakes, kept = _flakes(view, ports, [(None, None, own, None, None) for own in values])
        if self._kernel is None:
            raise InputError("read: no kernel; see `takes`")
        made = ctypes.byref(self._held.made), ctypes.byref(self._trellis.made)
        check(self._kernel.eozip_detail(*made, flakes, len(ports), view.color, h, w, spacing))
        del kept  # the arrays that flakes point to
        return values


class Narrower:
    """Reads planes of details as `intervals.Narrowing` narrows them.

    Args:
        laws: tables of intervals.
        symbols: tables of details that are not seen yet.
        tanh: gates, as `context.Functions` has them.
    """

    def __init__(self, laws: Laws, symbols: Tables, tanh: np.ndarray) -> None:
        coded, bits = coding(symbols), coding(laws.binary)
        arrays = tuple(
            np.ascontiguousarray(values, kind)
            for values, kind in (
                (laws.tails, np.int32),
                (laws.areas, np.int64),
                (laws.zones, np.int32),
                (laws.shares, np.int32),
                (_gates(tanh), np.int32),
            )
        )
        self._kernel = library()
        self._held = Held(_Laws(*map(_address, arrays), coded.made, bits.made), (*arrays, coded, bits))

    def narrow(self, view: View, known: Sequence[Known], number: int, ports: Sequence[Port]) -> None:
        """Read one plane of some dates in one colour into what is known of it.

        Args:
            view: what the network says of it.
            known: of each date, arrays [K, 3, h, half], changed.
            number: of the plane.
            ports: of the dates, which `PlaneReader` takes.

        Raises:
            FormatError: damaged bytes.
        """
        if self._kernel is None:
            raise InputError("narrow: no kernel; see `PlaneReader.takes`")
        fields = [
            tuple(values[number] for values in (own.low, own.high, own.value, own.near, own.seen))
            for own in known
        ]
        flakes, kept = _flakes(view, ports, fields)
        _, _, h, w = view.predicted.shape
        check(self._kernel.eozip_narrow(ctypes.byref(self._held.made), flakes, len(ports), view.color, h, w))
        del kept  # the arrays that flakes point to


def _gates(tanh: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rint(tanh * GATE), np.int32)


def _flakes(
    view: View, ports: Sequence[Port], fields: Sequence[tuple[np.ndarray | None, ...]]
) -> tuple[ctypes.Array[_Flake], tuple[np.ndarray | None, ...]]:
    """What the kernel is told of each date, and the arrays that it points to."""
    outputs, near = (
        None if values is None else np.ascontiguousarray(values.swapaxes(1, 2), np.float32)
        for values in (view.outputs, view.near)
    )
    predicted = np.ascontiguousarray(view.predicted, np.float32)
    reference = None if view.reference is None else np.ascontiguousarray(view.reference, np.int32)
    alive, scale = np.ascontiguousarray(view.alive, np.uint8), np.ascontiguousarray(view.scale, np.int32)
    shared = (outputs, predicted, near, reference, alive, scale)
    streams = [port.stream for port in ports if isinstance(port, NativePort)]
    found = (_Flake * len(ports))()
    for n, (own, stream) in enumerate(zip(fields, streams, strict=True)):
        given = [None if values is None else _address(values[n]) for values in shared]
        given += [None if values is None else _address(values) for values in own]
        found[n] = _Flake(*given, ctypes.addressof(stream))
    return found, shared


def _address(array: np.ndarray) -> int:
    return array.ctypes.data
