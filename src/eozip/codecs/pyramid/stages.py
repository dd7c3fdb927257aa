"""The context network by numpy. Torch would be hardly faster in so narrow networks, and takes a second to import.

Values are float32 that hold integers (see `context`): features and activations in 1/16, pictures and details in 1/64 of a
step; weights are divided by 64 once, so that a sum of products has the unit of what comes next and is only rounded. Channels
come last, and work goes on in blocks that fit a core's cache. Each pass of the checkerboard looks at the cells of its own
colour alone, packed to half the width.
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
    functions,
    half,
)

DETAILS = 3
_BLOCK = 2048  # cells whose sums are made at a time
_UP_DOWN_LEFT_RIGHT = ([0, 2, 1, 1], [1, 1, 0, 2])  # the neighbours of the other colour in a 3 x 3 kernel


@dataclass(frozen=True, eq=False)
class Shared:
    """What both passes need.

    Attributes:
        sums: float32 [N, h, 2 * half, width] of features; the last column is void where w is odd.
        constant: float32 [N, width], to be added.
    """

    sums: np.ndarray
    constant: np.ndarray


class NumpyStage:
    """`Stage` by matrix products of float32; see there for arguments."""

    def __init__(self, stored: Mapping[str, np.ndarray], functions: Functions) -> None:
        w = {name: value.astype(np.float32) / WEIGHT for name, value in stored.items()}
        self._functions = functions
        self._w = w
        self._window = np.ascontiguousarray(np.insert(w["window"], WINDOW * WINDOW // 2, 0, 1))
        self._known = _neighbour_weights(w["known"], w["neighbours"])
        self._layers = [
            [(np.ascontiguousarray(w[f"{name}{k}"].T), w[f"{name}{k}_bias"]) for name in ("first", "second")]
            for k in (0, 1)
        ]
        self._out = [(np.ascontiguousarray(w[f"out{k}"].T), w[f"out{k}_bias"][:, None, None]) for k in (0, 1)]

    def start(
        self, below: np.ndarray, features: np.ndarray, constant: np.ndarray
    ) -> tuple[Shared, np.ndarray]:
        n, h, w = below.shape
        channels = BANK + features.shape[1]
        # a ring of zeros, and one more column where the width is odd
        field = np.zeros((n, h + 2, 2 * half(w) + 2, channels), np.float32)
        predicted = self._fill(field[:, 1:-1, 1 : w + 1], below, features)
        weights = self._w["trunk"][:, :channels]
        return Shared(self._convolved(field, weights), constant @ self._w["constant"].T), predicted

    def step(self, shared: Shared, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        n, h, width, units = shared.sums.shape
        color, cells = 0 if known is None else 1, width // 2
        constant = shared.constant + self._w["trunk_bias"]
        around = None if known is None else self._around(known)
        near = None if known is None else np.empty((n, DETAILS, h, cells), np.float32)
        if known is not None:
            constant += self._w["known_bias"]
        out = np.empty((n, OUTPUTS, h, cells), np.float32)
        scratch = np.empty((2, _largest_block(n, h, cells), units), np.float32)
        for dates, rows in _blocks(n, h, cells):
            size = (dates.stop - dates.start, rows.stop - rows.start, cells)
            v, inner = scratch[:, : size[0] * size[1] * cells]
            sums = shared.sums[dates, rows]
            block = v.reshape(*size, units)
            for parity in (0, 1):
                own = sums[:, parity::2, parity ^ color :: 2]
                np.add(own, constant[dates, None, None], out=block[:, parity::2])
            if around is not None and near is not None:
                more = _beside(around, dates, rows) @ self._known
                v += more[:, :units]
                predicted = more[:, units:].reshape(*size, -1).transpose(0, 3, 1, 2)
                _rounded(predicted, PREDICTION_MAX, near[dates, :, rows])
            self._settle(v, inner, color)
            weights, bias = self._out[color]
            made = (v @ weights).reshape(*size, -1).transpose(0, 3, 1, 2)
            _rounded(made + bias, OUTPUT_MAX, out[dates, :, rows])
        return out, near

    def _fill(self, field: np.ndarray, below: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Features of the picture below and others into `field` [N, h, w, channels]; predictions [N, 3, h, w] from it."""
        n, h, w = below.shape
        reach = WINDOW // 2
        padded = np.pad(below.astype(np.float32), ((0, 0), (reach, reach), (reach, reach)), mode="edge")
        predicted = np.empty((n, DETAILS, h, w), np.float32)
        scratch = np.empty((2, WINDOW * WINDOW * _largest_block(n, h, w)), np.float32)
        for dates, rows in _blocks(n, h, w):
            block = padded[dates, rows.start : rows.stop + 2 * reach]
            a, b, c = block.strides
            size = (len(block), rows.stop - rows.start, w)
            count = size[0] * size[1] * w
            windows = as_strided(block, (WINDOW, WINDOW, *size), (b, c, a, b, c), writeable=False)
            differences = scratch[0, : WINDOW * WINDOW * count].reshape(windows.shape)
            np.subtract(windows, block[:, reach:-reach, reach:-reach], out=differences)
            differences.clip(-DIFFERENCE_MAX, DIFFERENCE_MAX, out=differences)
            sums = scratch[1, : len(self._window) * count].reshape(-1, count)
            np.matmul(self._window, differences.reshape(WINDOW * WINDOW, count), out=sums)
            np.rint(sums, out=sums)
            bank = self._functions.features(sums[:BANK]).reshape(BANK, *size)
            for k in range(field.shape[-1]):  # numpy copies long rows faster than many short ones
                field[dates, rows, :, k] = bank[k] if k < BANK else features[dates, k - BANK, rows]
            sums[BANK:].clip(-PREDICTION_MAX, PREDICTION_MAX, out=sums[BANK:])
            predicted[dates, :, rows] = sums[BANK:].reshape(DETAILS, *size).swapaxes(0, 1)
        return predicted

    def _convolved(self, field: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """3 x 3 convolution: [N, h + 2, w + 2, C], [O, C, 3, 3] -> [N, h, w, O]."""
        n, h, w, channels = (size - ring for size, ring in zip(field.shape, (0, 2, 2, 0), strict=True))
        flat = np.ascontiguousarray(weights.transpose(2, 3, 1, 0)).reshape(9 * channels, -1)
        out = np.empty((n, h, w, len(weights)), np.float32)
        scratch = np.empty((_largest_block(n, h, w), 9 * channels), np.float32)
        a, b, c, d = field.strides
        for dates, rows in _blocks(n, h, w):
            block = field[dates, rows.start : rows.stop + 2]
            size = (len(block), rows.stop - rows.start, w)
            columns = scratch[: size[0] * size[1] * w]
            columns.reshape(*size, 3, 3 * channels)[...] = as_strided(
                block, (*size, 3, 3 * channels), (a, b, c, b, d), writeable=False
            )
            np.matmul(columns, flat, out=out[dates, rows].reshape(-1, len(weights)))
        return out

    def _around(self, known: np.ndarray) -> np.ndarray:
        """Details of the first colour as features and as values: [N, 3, h, half] -> [N, h + 2, half + 2, 9]."""
        n, _, h, w = known.shape
        out = np.zeros((n, h + 2, w + 2, 3 * DETAILS), np.float32)
        features = self._functions.features(known)
        values = known.clip(-DIFFERENCE_MAX, DIFFERENCE_MAX)
        for k in range(DETAILS):
            out[:, 1:-1, 1:-1, k] = features[:, k]
            out[:, 1:-1, 1:-1, DETAILS + k] = np.abs(features[:, k])
            out[:, 1:-1, 1:-1, 2 * DETAILS + k] = values[:, k]
        return out

    def _settle(self, v: np.ndarray, inner: np.ndarray, number: int) -> None:
        """Two layers with a way round each, in place: [n, width] sums, and as much to work with."""
        _activate(v)
        for weights, bias in self._layers[number]:
            np.matmul(v, weights, out=inner)
            inner += bias
            _activate(inner)
            v += inner
            v.clip(0, ACTIVATION_MAX, out=v)


def stages(stored: Mapping[str, np.ndarray]) -> list[NumpyStage]:
    """The networks of all levels from their stored integers: tensors named "0.trunk", ..., as `eozip_lab` exports them."""
    f = functions(stored)
    return [NumpyStage(_part(stored, f"{level}."), f) for level in range(LEVELS)]


def _part(stored: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {k.removeprefix(prefix): v for k, v in stored.items() if k.startswith(prefix)}


def _neighbour_weights(known: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """[4 * 9, width + 3]: of features and values of four neighbours, to sums of features and predictions."""
    features, values = (
        weights[:, :, *_UP_DOWN_LEFT_RIGHT].transpose(2, 1, 0) for weights in (known, neighbours)
    )
    count = features.shape[1]
    out = np.zeros((4, count + values.shape[1], features.shape[2] + values.shape[2]), np.float32)
    out[:, :count, : features.shape[2]] = features
    out[:, count:, features.shape[2] :] = values
    return out.reshape(-1, out.shape[2])


def _beside(around: np.ndarray, dates: slice, rows: slice) -> np.ndarray:
    """What the four neighbours of each cell of the second colour hold: [n, rows, half, 4 * 9].

    Row y has the first colour at columns 2 j + y % 2: the cells above and below lie in the same packed column, those to
    the left and right in columns j - y % 2 and j + 1 - y % 2. `around` has a ring of one cell.
    """
    block = around[dates, rows.start : rows.stop + 2]
    n, h, w, channels = (size - ring for size, ring in zip(block.shape, (0, 2, 2, 0), strict=True))
    out = np.empty((n, h, w, 4, channels), np.float32)
    out[..., 0, :], out[..., 1, :] = block[:, :-2, 1:-1], block[:, 2:, 1:-1]
    for parity in (0, 1):
        own = block[:, 1 + parity : -1 : 2]
        out[:, parity::2, :, 2] = own[:, :, 1 - parity : w + 1 - parity]
        out[:, parity::2, :, 3] = own[:, :, 2 - parity : w + 2 - parity]
    return out.reshape(n * h * w, -1)


def _blocks(n: int, h: int, w: int) -> Iterator[tuple[slice, slice]]:
    """Dates and rows that are worked on together; rows begin at an even one."""
    dates, rows = max(1, _BLOCK // max(1, h * w)), max(2, _BLOCK // max(1, w) // 2 * 2)
    for first in range(0, n, dates):
        for top in range(0, h, rows):
            yield slice(first, min(n, first + dates)), slice(top, min(h, top + rows))


def _largest_block(n: int, h: int, w: int) -> int:
    """Cells of the largest of `_blocks`."""
    return max((dates.stop - dates.start) * (rows.stop - rows.start) * w for dates, rows in _blocks(n, h, w))


def _activate(v: np.ndarray) -> None:
    np.rint(v, out=v)
    v.clip(0, ACTIVATION_MAX, out=v)


def _rounded(v: np.ndarray, most: float, out: np.ndarray) -> None:
    np.rint(v, out=out)
    out.clip(-most, most, out=out)
