"""Levels read by the kernel, where it was compiled for this machine: all planes of one date by `levels.inc`.

The same numbers as `traverse.Ladder` has, and, of planes that passes narrow, `intervals.Narrowing`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.context import GATE, PASSES, Stage
from eozip.codecs.pyramid.intervals import SHARE_BITS, Known, Laws
from eozip.codecs.pyramid.native import NativeStage, address, library
from eozip.codecs.pyramid.ports import Coding, Held, NativePort, check, coding
from eozip.codecs.pyramid.references import Told
from eozip.codecs.pyramid.within import tables_within
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import InputError

_Pointer = ctypes.c_void_p
_HINT_BITS = 8  # of shares whose rows the kernel looks up


class _Laws(ctypes.Structure):
    _fields_ = (
        *((name, _Pointer) for name in ("tails", "areas", "zones", "shares", "rows", "gates")),
        *((name, Coding) for name in ("symbols", "bits", "trellis", "within")),
    )


class _Bounds(ctypes.Structure):
    _fields_ = tuple((name, _Pointer) for name in ("low", "high", "value", "off", "is_near", "is_seen"))


class _Level(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("planes", "h", "w", "features")),
        *((name, _Pointer) for name in ("below", "parents", "predicted", "remainders", "missed", "activity")),
        *((name, _Pointer) for name in ("alive", "there", "scales", "biases", "known", "out", "stream")),
        ("around", _Pointer),
        *((name, ctypes.c_int32) for name in ("is_corrected", "bands")),
        *((name, _Pointer) for name in ("strengths", "here", "turns", "share")),
    )


def bounds_of(known: Sequence[Known]) -> ctypes.Array[_Bounds]:
    """Where the kernel finds what is known of both colours; the arrays have to be kept."""
    return (_Bounds * PASSES)(
        *(_Bounds(*map(_address, (c.low, c.high, c.value, c.off, c.near, c.seen))) for c in known)
    )


@dataclass(frozen=True, eq=False)
class Level:
    """What is known of one level of one date with K planes before its details are read, without a map.

    Attributes:
        stage: its network.
        below: picture, int32 [K, h, w].
        parents: details below, int32 [K, 3, h / 2, w / 2], or None.
        told: by references, or None.
        is_corrected: whether corrections are sent.
        strengths: the greatest of each plane, int32 [K].
        alive: orientations that have details, bool [K, 3].
        there: uint8 [3, h, w]: 1 if there is a detail, 3 if it may be sent.
        scales: [K, 3], log scales that side information tells, in 1/16.
        constants: [K, 8], what the network is told.
        out: details, int32 [K, 3, h, w] in 1/64 step, all 0 before.
    """

    stage: Stage
    below: np.ndarray
    parents: np.ndarray | None
    told: Told | None
    is_corrected: bool
    strengths: np.ndarray
    alive: np.ndarray
    there: np.ndarray
    scales: np.ndarray
    constants: np.ndarray
    out: np.ndarray

    def read(
        self,
        laws: Held,
        port: Port,
        known: ctypes.Array[_Bounds] | None,
        trellis: Held | None = None,
        spacing: int = 0,
        around: np.ndarray | None = None,
    ) -> None:
        """See `LevelReader.read` and `Narrower.read`."""
        kernel, told, around = library(), self.told, _whole(around)
        if kernel is None or not isinstance(self.stage, NativeStage) or not isinstance(port, NativePort):
            raise InputError("read: no kernel; see `LevelReader.takes`")
        variant, stage, features = self.stage.made(told is not None)
        parts = () if told is None else (told.predicted, told.remainders, told.missed, told.activity)
        own = [[_whole(one) for one in some] for some in ((self.below, self.parents), parts)]
        marks = [np.ascontiguousarray(one, np.uint8) for one in (self.alive, self.there)]
        strengths = _whole(self.strengths)
        map_: tuple[np.ndarray | None, ...] = (None, None, None)
        if told is not None:
            bands = [np.ascontiguousarray(one, np.int32) for one in told.here]
            map_ = np.array([one.ctypes.data for one in bands], np.uintp), told.turns, told.share
        given = (
            *own[0],
            *(own[1] or [None] * 4),
            *marks,
            _whole(self.scales),
            self.stage.biases(self.constants),
        )
        what = _Level(
            *self.below.shape,
            features,
            *map(_address, given),
            None if known is None else ctypes.addressof(known),
            _address(self.out),
            ctypes.addressof(port.stream),
            _address(around),
            self.is_corrected,
            0 if told is None else len(told.here),
            *map(_address, (strengths, *map_)),
        )
        rows = None if trellis is None else ctypes.byref(trellis.made)
        made = (ctypes.byref(one) for one in (stage, laws.made))
        check(kernel.eozip_level(variant, *made, rows, spacing, ctypes.byref(what)))


class LevelReader:
    """Reads levels of trellis-coded details.

    Args:
        symbols: tables whose rows are meant.
        trellis: tables of both quantisers.
        tanh: gates, as `context.Functions` has them.
    """

    def __init__(self, symbols: Tables, trellis: Tables, tanh: np.ndarray) -> None:
        gates, coded = _gates(tanh), coding(symbols)
        self._trellis = coding(trellis, 2)
        self._held = Held(_Laws(gates=_address(gates), symbols=coded.made), (gates, coded))

    def takes(self, stage: Stage, ports: Sequence[Port]) -> bool:
        """Whether there is a kernel, and these are its own."""
        return isinstance(stage, NativeStage) and all(isinstance(port, NativePort) for port in ports)

    def read(self, level: Level, port: Port, spacing: int) -> None:
        """Read one level of one date.

        Args:
            level: what is known of it.
            port: of the date, which it takes.
            spacing: between values, in 1/64 step.

        Raises:
            FormatError: damaged bytes.
        """
        level.read(self._held, port, None, self._trellis, spacing)


class Narrower:
    """Reads levels of details as `intervals.Narrowing` narrows them.

    Args:
        laws: tables of intervals.
        symbols: tables of details that are not seen yet.
        trellis: of those in the last pass.
        tanh: gates, as `context.Functions` has them.
    """

    def __init__(self, laws: Laws, symbols: Tables, trellis: Tables, tanh: np.ndarray) -> None:
        coded = coding(symbols), coding(laws.binary), coding(trellis, 2), coding(tables_within(trellis), 2)
        hints = np.searchsorted(laws.shares, np.arange(0, (1 << SHARE_BITS) + 1, 1 << _HINT_BITS), "right")
        arrays = tuple(
            np.ascontiguousarray(values, kind)
            for values, kind in (
                (laws.tails, np.int32),
                (laws.areas, np.int64),
                (laws.zones, np.int32),
                (np.append(laws.shares, 2 << SHARE_BITS), np.int32),
                (hints, np.uint8),
                (_gates(tanh), np.int32),
            )
        )
        self._held = Held(_Laws(*map(_address, arrays), *(one.made for one in coded)), (*arrays, *coded))

    def read(
        self,
        level: Level,
        port: Port,
        known: ctypes.Array[_Bounds],
        around: np.ndarray | None,
        spacing: int,
    ) -> None:
        """Read one level of one date into what is known of it.

        Args:
            level: what is known of it beside that.
            port: of the date, which `LevelReader` takes.
            known: `bounds_of` both colours, whose arrays [K, 3, h, half] are changed.
            around: where there is a pass before, weights [3, 3, 3, 3] of `earlier.Later`; else None.
            spacing: of trellis-coded values in the last pass; 0 in others.

        Raises:
            FormatError: damaged bytes.
        """
        level.read(self._held, port, known, spacing=spacing, around=around)


def _gates(tanh: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.rint(tanh * GATE), np.int32)


def _whole(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else np.ascontiguousarray(values, np.int32)


def _address(array: np.ndarray | None) -> int | None:
    return None if array is None else address(array)
