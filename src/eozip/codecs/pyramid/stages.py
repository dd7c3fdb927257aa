"""The context network by numpy; `native` is faster where it was compiled. Torch, hardly faster in networks so narrow, takes
a second to import.

Values are float32 that hold integers (see `context`): features and activations in 1/16, pictures and details in 1/64 of a
step; weights are divided by 64 once, so that a sum of products has the unit of what comes next and is only rounded.

Memory is in lines: [dates, rows, channels, columns]. So the channels of three rows are one matrix whose lines have equal
distances, and a 3 x 3 convolution is one product for each row, without a copy of each cell's neighbourhood. Work goes on in
blocks of rows that fit a core's cache. Each pass of the checkerboard looks at the cells of its own colour alone, packed to
half the width. A channel of ones at the end takes the biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import as_strided

from eozip.codecs.pyramid.context import (
    ACTIVATION_MAX,
    BANK,
    DIFFERENCE_MAX,
    LEVELS,
    OUTPUT_MAX,
    OUTPUTS,
    PREDICTION_MAX,
    WEIGHT,
    WINDOW,
    Functions,
    Stage,
    functions,
    half,
)
from eozip.codecs.pyramid.native import NativeStage, library

_DETAILS = 3
_BLOCK = 4096  # cells whose sums are made at a time
_REACH = WINDOW // 2
_KNOWN = 3 * _DETAILS  # channels of details that are known: features, their magnitudes, values


@dataclass(frozen=True, eq=False)
class _Shared:
    """What `start` makes for both passes.

    Attributes:
        outputs: float32 [N, h, 12, half] of the first pass.
        sums: float32 [N, h, width + 1, half] of features for the second one, the last channel ones.
    """

    outputs: np.ndarray
    sums: np.ndarray


class _NumpyStage:
    """`Stage` by matrix products of float32; see there for arguments."""

    def __init__(self, stored: Mapping[str, np.ndarray], functions: Functions) -> None:
        w = {name: value.astype(np.float32) / WEIGHT for name, value in stored.items()}
        self._functions = functions
        self._window = np.insert(w["window"], WINDOW * WINDOW // 2, 0, 1)
        self._trunk = w["trunk"]
        self._constant = w["constant"].T
        self._bias = (w["trunk_bias"], w["trunk_bias"] + w["known_bias"])
        self._known, self._neighbours = (
            _around_weights(w["known"], 0, 1),
            _around_weights(w["neighbours"], 6, 0),
        )
        self._layers = [[_biased(w, f"{name}{k}", 1) for name in ("first", "second")] for k in (0, 1)]
        self._out = [_biased(w, f"out{k}", 0) for k in (0, 1)]

    def start(
        self,
        below: np.ndarray,
        features: np.ndarray,
        constant: np.ndarray,
        octaves: np.ndarray | None = None,
    ) -> tuple[_Shared, np.ndarray]:
        n, h, w = below.shape
        units, channels = len(self._trunk), BANK + features.shape[1]
        weights = self._trunk[:, :channels].transpose(0, 2, 1, 3).reshape(units, -1)
        constants = [constant @ self._constant + bias for bias in self._bias]
        scale = None if octaves is None else np.ldexp(np.float32(1), -octaves.astype(np.int32))
        lines, padded = features.swapaxes(1, 2), _bordered(below)
        outputs = np.empty((n, h, OUTPUTS, half(w)), np.float32)
        later = np.ones((n, h, units + 1, half(w)), np.float32)
        predicted = np.empty((n, h, _DETAILS, w), np.float32)
        for dates, rows in _blocks(n, h, w):
            # channels of the block and of a row on either side, each in its place and moved right and left; zeros around
            size = (dates.stop - dates.start, rows.stop - rows.start)
            field = np.zeros((size[0], size[1] + 2, channels, 3, 2 * half(w)), np.float32)
            first, last = max(0, rows.start - 1), min(h, rows.stop + 1)
            own = field[:, first - rows.start + 1 : last - rows.start + 1]
            finer = None if scale is None else scale[dates, first:last]
            self._fill(own, padded[dates, first : last + 2 * _REACH], predicted[dates, first:last], finer)
            own[:, :, BANK:, 1, :w] = lines[dates, first:last]
            own[..., 0, 1:] = own[..., 1, :-1]
            own[..., 2, :-1] = own[..., 1, 1:]
            sums = weights @ _threes(field)
            now = np.ones((*size, units + 1, half(w)), np.float32)
            for color, v in enumerate((now, later[dates, rows])):
                told = constants[color][dates][:, None, :, None]
                if octaves is not None:
                    told = _by_cell(constants[color][dates], octaves[dates, rows], 2 * half(w))
                for parity in (0, 1):
                    own_told = told if octaves is None else told[:, parity::2, :, parity ^ color :: 2]
                    np.add(sums[:, parity::2, :, parity ^ color :: 2], own_told, out=v[:, parity::2, :units])
            outputs[dates, rows] = self._settled(now, 0)
        return _Shared(outputs, later), predicted.swapaxes(1, 2)

    def step(
        self, shared: _Shared, known: np.ndarray | None, seen: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        if known is None:
            return shared.outputs.swapaxes(1, 2), None
        n, h, _, w = shared.sums.shape
        around = self._around(known, known if seen is None else seen)
        near = np.empty((n, h, _DETAILS, w), np.float32)
        out = np.empty((n, h, OUTPUTS, w), np.float32)
        for dates, rows in _blocks(n, h, w):
            beside = _beside(around[dates, rows.start : rows.stop + 2])
            v = shared.sums[dates, rows].copy()
            predicted = near[dates, rows]
            for parity in (0, 1):
                v[:, parity::2] += self._known[parity] @ beside[:, parity::2]
                np.matmul(self._neighbours[parity], beside[:, parity::2], out=predicted[:, parity::2])
            _rounded(predicted, PREDICTION_MAX)
            out[dates, rows] = self._settled(v, 1)
        return out.swapaxes(1, 2), near.swapaxes(1, 2)

    def _fill(
        self, field: np.ndarray, padded: np.ndarray, predicted: np.ndarray, scale: np.ndarray | None
    ) -> None:
        """Features of the picture below into lines [n, rows, channels, 3, >= w], and predictions from it [n, rows, 3, w].

        Differences are multiplied by `scale` [n, rows, w] and rounded, if there is any.
        """
        n, rows, _, w = predicted.shape
        a, b, c = padded.strides
        windows = as_strided(padded, (n, rows, WINDOW, WINDOW, w), (a, b, b, c, c), writeable=False)
        differences = windows - padded[:, _REACH:-_REACH, None, None, _REACH:-_REACH]
        if scale is not None:
            differences *= scale[:, :, None, None]
            np.rint(differences, out=differences)
        differences.clip(-DIFFERENCE_MAX, DIFFERENCE_MAX, out=differences)
        sums = self._window @ differences.reshape(n, rows, WINDOW * WINDOW, w)
        np.rint(sums, out=sums)
        field[:, :, :BANK, 1, :w] = self._functions.features(sums[:, :, :BANK])
        sums[:, :, BANK:].clip(-PREDICTION_MAX, PREDICTION_MAX, out=predicted)

    def _around(self, known: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Details of the first colour in lines with a row of zeros around: [N, 3, h, half] -> [N, h + 2, 2 * 9, half].

        Row y has the first colour at columns 2 j + y % 2 and the second one between: of a cell of the second colour, one
        neighbour beside it lies in the same packed column, the other in the next (even rows) or in the one before. The first
        nine channels are that other neighbour, the last nine what lies in place.
        """
        n, _, h, w = known.shape
        out = np.zeros((n, h + 2, 2 * _KNOWN, w), np.float32)
        own = out[:, 1:-1, _KNOWN:].swapaxes(1, 2)
        own[:, :_DETAILS] = self._functions.features(seen)
        np.abs(own[:, :_DETAILS], out=own[:, _DETAILS : 2 * _DETAILS])
        np.clip(known, -DIFFERENCE_MAX, DIFFERENCE_MAX, out=own[:, 2 * _DETAILS :], casting="unsafe")
        lines, beside = out[:, 1:-1, _KNOWN:], out[:, 1:-1, :_KNOWN]
        beside[:, ::2, :, :-1] = lines[:, ::2, :, 1:]
        beside[:, 1::2, :, 1:] = lines[:, 1::2, :, :-1]
        return out

    def _settled(self, v: np.ndarray, number: int) -> np.ndarray:
        """Outputs of sums [n, rows, width + 1, columns], which it changes: two layers with a way round each, and one."""
        _activate(v)
        for weights in self._layers[number]:
            inner = weights @ v
            _activate(inner)
            v += inner
            v.clip(0, ACTIVATION_MAX, out=v)
        out: np.ndarray = self._out[number] @ v
        _rounded(out, OUTPUT_MAX)
        return out


def stages(stored: Mapping[str, np.ndarray], prefix: str = "") -> list[Stage]:
    """The networks of all levels from their stored integers: tensors named "0.trunk", ..., as `eozip_lab` exports them."""
    f, kernel = functions(stored), library()
    parts = [_part(stored, f"{prefix}{level}.") for level in range(LEVELS)]
    by_numpy = [_NumpyStage(part, f) for part in parts]
    if kernel is None or not kernel.eozip_best():
        return [*by_numpy]
    return [NativeStage(part, f, kernel, one) for part, one in zip(parts, by_numpy, strict=True)]


def _part(stored: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def _biased(w: Mapping[str, np.ndarray], name: str, ones: int) -> np.ndarray:
    """Weights [out + ones, in + 1]: the last column is for a channel of ones, the last row, if there is one, makes zeros."""
    return np.pad(np.concatenate([w[name], w[f"{name}_bias"][:, None]], 1), ((0, ones), (0, 0)))


def _around_weights(kernels: np.ndarray, first: int, ones: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernels [out, in, 3, 3] as [out + ones, 5 * 9] of what `_beside` gives, for even and odd rows; the rest are zeros.

    Args:
        kernels: of some of the known channels.
        first: the first one of these.
        ones: rows of zeros at the end.
    """
    wide = np.zeros((len(kernels) + ones, _KNOWN, 3, 3), np.float32)
    wide[: len(kernels), first : first + kernels.shape[1]] = kernels
    up, left, right, down = (wide[:, :, y, x] for y, x in ((0, 1), (1, 0), (1, 2), (2, 1)))
    none = np.zeros_like(up)
    return np.hstack([up, right, left, none, down]), np.hstack([up, left, right, none, down])


def _beside(block: np.ndarray) -> np.ndarray:
    """Of each row the channels in place above, beside, in place, beside below (of no weight) and in place below.

    [n, rows + 2, 2 * 9, w] of `_around` -> [n, rows, 5 * 9, w], not copied.
    """
    n, rows, _, w = block.shape
    return as_strided(block[:, :, _KNOWN:], (n, rows - 2, 5 * _KNOWN, w), block.strides, writeable=False)


def _bordered(below: np.ndarray) -> np.ndarray:
    """A picture [N, h, w] as float32, its border repeated as far as the window reaches."""
    n, h, w = below.shape
    out = np.empty((n, h + 2 * _REACH, w + 2 * _REACH), np.float32)
    out[:, _REACH:-_REACH, _REACH:-_REACH] = below
    out[:, :_REACH], out[:, -_REACH:] = out[:, _REACH, None], out[:, -_REACH - 1, None]
    out[..., :_REACH], out[..., -_REACH:] = out[..., _REACH, None], out[..., -_REACH - 1, None]
    return out


def _by_cell(values: np.ndarray, octaves: np.ndarray, width: int) -> np.ndarray:
    """From values by octave [n, 8, C] those of cells [n, rows, w]: [n, rows, C, width], 0 beyond."""
    n, rows, w = octaves.shape
    out = np.zeros((n, rows, values.shape[2], width), np.float32)
    out[..., :w] = values[np.arange(n)[:, None, None], octaves].swapaxes(2, 3)
    return out


def _threes(field: np.ndarray) -> np.ndarray:
    """What the rows above, of and below each row hold: [n, rows + 2, C, 3, w] -> [n, rows, 3 * C * 3, w], not copied."""
    n, rows, channels, taps, w = field.shape
    a, b, _, d, e = field.strides
    return as_strided(field, (n, rows - 2, 3 * channels * taps, w), (a, b, d, e), writeable=False)


def _blocks(n: int, h: int, w: int) -> Iterator[tuple[slice, slice]]:
    """Dates and rows that are worked on together; rows begin at an even one."""
    dates, rows = max(1, _BLOCK // max(1, h * w)), max(2, _BLOCK // max(1, w) // 2 * 2)
    for first in range(0, n, dates):
        for top in range(0, h, rows):
            yield slice(first, min(n, first + dates)), slice(top, min(h, top + rows))


def _activate(v: np.ndarray) -> None:
    np.rint(v, out=v)
    v.clip(0, ACTIVATION_MAX, out=v)


def _rounded(v: np.ndarray, most: float) -> None:
    np.rint(v, out=v)
    v.clip(-most, most, out=v)
