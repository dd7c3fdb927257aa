"""The context network by `kernel.c`, where the package was built with a C compiler at hand; the same numbers as `stages`."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from eozip.codecs.pyramid.context import (
    BANK,
    OUTPUTS,
    PASSES,
    SQUASH_REACH,
    WINDOW,
    Functions,
    Stage,
    half,
)
from eozip.errors import WeightsError

_SOURCES = (
    Path(__file__).with_name("kernel.c"),
    *sorted(Path(__file__).parent.glob("*.inc")),
)  # as hatch_build.py has them
_LIBRARY = Path(__file__).with_name("kernel.so")
_VARIANTS = ("", "avx2", "vnni")  # by the number that kernel.c gives them
_GROUP = 8
_DETAILS = 3
_REFERENCES = 10  # channels of references, the last ones
_FEWEST = BANK + 9 + _REFERENCES  # channels of a trunk; networks of later passes have more
_BESIDE = ((0, 1), (1, 0), (1, 2), (2, 1))  # taps of a 3 x 3 kernel: above, left, right, below

_Int, _Pointer = ctypes.c_int32, ctypes.c_void_p


class _Layer(ctypes.Structure):
    _fields_ = (("units", _Int), ("lines", _Int), ("weights", _Pointer), ("bias", _Pointer))


class _Stage(ctypes.Structure):
    _fields_ = (
        ("window", _Layer),
        ("known", _Layer),
        ("neighbours", _Layer),
        ("first", _Layer * PASSES),
        ("second", _Layer * PASSES),
        ("out", _Layer * PASSES),
        ("trunk", _Layer),
        ("squash", _Pointer),
    )


class _Beginning(ctypes.Structure):
    _fields_ = (
        *((name, _Int) for name in ("n", "h", "w", "features")),
        *((name, _Pointer) for name in ("below", "given", "biases", "outputs", "predicted", "sums")),
    )


class _Second(ctypes.Structure):
    _fields_ = (
        *((name, _Int) for name in ("n", "h", "half", "units")),
        *((name, _Pointer) for name in ("known", "sums", "outputs", "near")),
    )


def _stamp() -> int:
    """What a library says that was compiled from these very sources."""
    return crc32(b"".join(path.read_bytes() for path in _SOURCES)) & 0x7FFFFFFF


@cache
def library(path: Path = _LIBRARY) -> ctypes.CDLL | None:
    """The compiled kernel; None where there is none, or one of other sources."""
    try:
        found = ctypes.CDLL(str(path))
        return found if found.eozip_stamp() == _stamp() else None
    except (OSError, AttributeError):  # no such file, of another machine, or no kernel of ours
        return None


def call(kernel: ctypes.CDLL, name: str, *given: np.ndarray | int) -> None:
    """Run a function of the kernel on contiguous arrays and whole numbers.

    Raises:
        MemoryError: it found no room.
    """
    pointers = (_Pointer(address(one)) if isinstance(one, np.ndarray) else one for one in given)
    if getattr(kernel, name)(*pointers):
        raise MemoryError(f"{name}: no memory for a picture")


@dataclass(frozen=True, eq=False)
class _Shared:
    """What `start` makes for both passes.

    Attributes:
        outputs: float32 [N, h, 12, half] of the first pass.
        sums: int32 [N, h, units, padded half] of the trunk at cells of the second one.
    """

    outputs: np.ndarray
    sums: np.ndarray


class NativeStage:
    """`Stage` by `kernel.c`; see there for arguments.

    Args:
        stored: integers, as `stages.NumpyStage` takes them.
        functions: staircases.
        kernel: of `library`.
        others: does what the kernel does not know, which is planes with octaves.
        variant: of `_VARIANTS`; None: the best that this machine has.
    """

    def __init__(
        self,
        stored: Mapping[str, np.ndarray],
        functions: Functions,
        kernel: ctypes.CDLL,
        others: Stage,
        variant: str | None = None,
    ) -> None:
        self._kernel, self._others = kernel, others
        self.variant = kernel.eozip_best() if variant is None else _VARIANTS.index(variant)
        self._held: list[np.ndarray] = []  # what pointers point to
        _check(stored, functions)
        w = {name: value.astype(np.int32) for name, value in stored.items()}
        self._constant = w["constant"].T
        self._biases = [w["trunk_bias"], w["trunk_bias"] + w["known_bias"]]
        self._units = -(-len(w["trunk"]) // _GROUP) * _GROUP
        squash = functions.squash.astype(np.int8)
        most = stored["trunk"].shape[1] - BANK
        self._stages = {count: self._stage(w, count, squash) for count in (most - _REFERENCES, most)}

    def start(
        self,
        below: np.ndarray,
        features: np.ndarray,
        constant: np.ndarray,
        octaves: np.ndarray | None = None,
    ) -> tuple[Any, np.ndarray]:
        if octaves is not None:
            return self._others.start(below, features, constant, octaves)
        n, h, w = below.shape
        biases = np.ascontiguousarray(self.biases(constant).swapaxes(0, 1))
        outputs = np.empty((n, h, OUTPUTS, half(w)), np.float32)
        predicted = np.empty((n, _DETAILS, h, w), np.float32)
        later = np.empty((n, h, self._units, self._kernel.eozip_padded(half(w))), np.int32)
        below, features = np.ascontiguousarray(below, np.int32), features.astype(np.int8)
        count = features.shape[1]
        given = (below, features, biases, outputs, predicted, later)
        self._run("eozip_start", count, _Beginning(n, h, w, count, *map(address, given)))
        return _Shared(outputs, later), predicted

    def step(
        self, shared: Any, known: np.ndarray | None, seen: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if not isinstance(shared, _Shared):
            return self._others.step(shared, known, seen)
        if known is None:
            return shared.outputs.swapaxes(1, 2), None
        n, _, h, w = known.shape
        known = np.ascontiguousarray(known, np.int32)
        outputs, near = (np.empty((n, h, count, w), np.float32) for count in (OUTPUTS, _DETAILS))
        given = (known, shared.sums, outputs, near)
        self._run("eozip_step", max(self._stages), _Second(n, h, w, self._units, *map(address, given)))
        return outputs.swapaxes(1, 2), near.swapaxes(1, 2)

    def biases(self, constant: np.ndarray) -> np.ndarray:
        """Those of the trunk in both passes, with constants [N, 8]: int32 [N, 2, units]."""
        sums = constant.astype(np.int32) @ self._constant
        out = np.zeros((len(constant), PASSES, self._units), np.int32)
        for color in range(PASSES):
            out[:, color, : sums.shape[1]] = sums + self._biases[color]
        return out

    def made(self, has_references: bool) -> tuple[int, ctypes.Structure, int]:
        """Which instructions, the network as the kernel takes it, and how many features it is given."""
        count = (min if not has_references else max)(self._stages)
        return self.variant, self._stages[count], count

    def _run(self, name: str, count: int, what: ctypes.Structure) -> None:
        stage = self._stages[count]
        if getattr(self._kernel, name)(self.variant, ctypes.byref(stage), ctypes.byref(what)):
            raise MemoryError("context network: no memory for a few rows of a picture")

    def _stage(self, w: Mapping[str, np.ndarray], count: int, squash: np.ndarray) -> _Stage:
        lanes = 4 if _VARIANTS[self.variant] == "vnni" else 2
        trunk = w["trunk"][:, : BANK + count].transpose(0, 2, 3, 1)
        lifted = -128 * trunk.sum((1, 2, 3)) if lanes == 4 else None  # what bytes that count from -128 add
        known, neighbours = (_beside(w[name]) for name in ("known", "neighbours"))
        dense = {
            name: [self._layer(w[f"{name}{k}"], w[f"{name}{k}_bias"], lanes) for k in range(PASSES)]
            for name in ("first", "second", "out")
        }
        self._held.append(squash)
        return _Stage(
            self._layer(w["window"]),
            self._layer(known),
            self._layer(neighbours),
            *((_Layer * PASSES)(*dense[name]) for name in ("first", "second", "out")),
            self._layer(trunk, lifted, lanes),
            address(squash),
        )

    def _layer(self, weights: np.ndarray, bias: np.ndarray | None = None, lanes: int = 2) -> _Layer:
        """Of weights [out, ..., in], the last axis in pairs or fours."""
        out, channels = len(weights), weights.shape[-1]
        pad = [(0, -out % _GROUP), *[(0, 0)] * (weights.ndim - 2), (0, -channels % lanes)]
        kind = np.int16 if lanes == 2 else np.int8
        pairs = np.pad(weights, pad).astype(kind).reshape(-(-out // _GROUP), _GROUP, -1, lanes)
        packed = np.ascontiguousarray(pairs.swapaxes(1, 2)).view(np.int32)
        start = np.zeros(pairs.shape[0] * _GROUP, np.int32)
        if bias is not None:
            start[:out] = bias
        self._held += [packed, start]
        return _Layer(len(start), pairs.shape[2], address(packed), address(start))


def _check(stored: Mapping[str, np.ndarray], functions: Functions) -> None:
    """Shapes and functions as the kernel expects them, which looks at no lengths.

    Raises:
        WeightsError: others.
    """
    width = len(stored["trunk"])
    expected: dict[str, tuple[int, ...]] = {
        "window": (BANK + _DETAILS, WINDOW**2 - 1),
        "trunk": (width, max(stored["trunk"].shape[1], _FEWEST), 3, 3),
        "known": (width, 2 * _DETAILS, 3, 3),
        "neighbours": (_DETAILS, _DETAILS, 3, 3),
    }
    for k in range(PASSES):
        for name, count in (("first", width), ("second", width), ("out", OUTPUTS)):
            expected |= {f"{name}{k}": (count, width), f"{name}{k}_bias": (count,)}
    for name, shape in expected.items():
        if stored[name].shape != shape:
            raise WeightsError(f"pyramid weights: {name}: expected {shape}, got {stored[name].shape}")
    reach = len(functions.squash), float(np.abs(functions.squash).max())
    if reach[0] != 2 * SQUASH_REACH + 1 or reach[1] > 127:
        raise WeightsError(
            f"pyramid weights: squash: expected {2 * SQUASH_REACH + 1} values to 127, got {reach}"
        )


def _beside(kernels: np.ndarray) -> np.ndarray:
    """Kernels [out, in, 3, 3] at the cells of the other colour: [out, 4, in]."""
    return np.stack([kernels[:, :, y, x] for y, x in _BESIDE], 1)


def address(array: np.ndarray) -> int:
    """Where the first number of an array lies; what its own attribute says takes four times as long."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]  # it is a buffer
    except (TypeError, ValueError):  # not to be written, not in one piece, or empty
        return array.ctypes.data
