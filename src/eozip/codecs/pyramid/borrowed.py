"""What a ladder may expect from one decoded before it: the planes of that one's picture at 1/8, interpolated and mixed.

The 60 m bands of Sentinel-2 fit no grid that halves 10 or 20 m. They are predicted from the first section's picture of the
other bands, each as a sum of its strongest planes whose weights the encoder fits and sends; what is left is coded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.side import Side, row_of
from eozip.codecs.pyramid.spectral import LARGEST

_SCALE = 8  # of the picture that is lent, in pixels of the finest grid
_PLANES = 6  # the strongest
_PRECISION = 12  # bits of a weight, at most
_SLACK = 1  # bits
_STEP_BITS = 14  # of a step: 1/64, and _UNITS squared
_LARGEST = 1 << 15  # steps
_UNITS = 16  # of positions between cells
_SPREAD = 0.06  # of weights, about: the picture at 1/8 is 8 times as strong as pixels
_RIDGE = 0.05  # steps squared


@dataclass(frozen=True, eq=False)
class Lent:
    """The picture that a ladder lends.

    Attributes:
        planes: int32 [T, K, h, w] in 1/64 step, by falling strength.
        before: pixels of the finest grid before the chunk's first one, down and across.
    """

    planes: np.ndarray
    before: tuple[int, int]

    def at(self, group: Group, place: Canvas) -> np.ndarray:
        """The strongest planes on a group's canvas, int64 [T, K, h, w] in 1/64 step times _UNITS squared."""
        down, across = (
            _positions(group, place, self.before[axis], axis, self.planes.shape[2 + axis]) for axis in (0, 1)
        )
        lent = self.planes[:, :_PLANES].astype(np.int64)
        tall = _between(lent.swapaxes(2, 3), *down).swapaxes(2, 3)
        return _between(tall, *across)


def _positions(
    group: Group, place: Canvas, before: int, axis: int, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each cell of a canvas the lent cell before it, and the distance from that one's centre in 1/_UNITS."""
    phase = 0 if group.grid is None else (group.grid.rows, group.grid.columns)[axis]
    first = np.arange(place.shape[axis]) - place.before[axis]
    doubled = (
        2 * (first * group.factor + phase + before) + group.factor - _SCALE
    )  # twice the distance of centres, in pixels
    units = np.clip(doubled * (_UNITS // (2 * _SCALE)), 0, (size - 1) * _UNITS)
    return np.minimum(units // _UNITS, max(0, size - 2)), units - np.minimum(
        units // _UNITS, max(0, size - 2)
    ) * _UNITS


def _between(lent: np.ndarray, cell: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Linear interpolation along the last axis, times _UNITS."""
    after = np.minimum(cell + 1, lent.shape[-1] - 1)
    return lent[..., cell] * (_UNITS - part) + lent[..., after] * part


def code_prediction(
    sides: Sequence[Side], lent: np.ndarray, wanted: np.ndarray | None, bands: int
) -> np.ndarray:
    """Send or read the weights, and give the prediction.

    Args:
        sides: where to, for each date.
        lent: int64 [T, K, h, w] of `Lent.at`.
        wanted: float [T, C, h, w] in steps, or None to read.
        bands: C.

    Returns:
        int32 [T, C, h, w] in 1/64 step.
    """
    planes = lent.shape[1]
    out = np.empty((len(sides), bands, *lent.shape[2:]), np.int32)
    for t, side in enumerate(sides):
        flat = lent[t].reshape(planes, -1)
        bits = _bits(flat)
        sent = None
        if wanted is not None:
            exact = _fitted(flat / (64 * _UNITS**2), wanted[t].reshape(bands, -1))
            sent = np.rint(exact * 2.0**bits).astype(np.int64)
        rows = np.array([row_of(_SPREAD * (1 << bit)) for bit in bits.tolist()], np.uint8)
        weights = side.rows(sent, np.tile(rows, bands)).reshape(bands, planes).astype(np.int64)
        weights = np.clip(weights << _PRECISION - bits, -(8 << _PRECISION), 8 << _PRECISION)
        total = (weights @ flat + (1 << (_PRECISION + 7))) >> (_PRECISION + 8)
        out[t] = np.clip(total, -LARGEST, LARGEST).reshape(out.shape[1:])
    return out


def _bits(flat: np.ndarray) -> np.ndarray:
    """Bits of each plane's weights, int64 [K]: what rounding leaves grows with how strong it is and its cells."""
    steps = np.clip((flat + (1 << _STEP_BITS - 1)) >> _STEP_BITS, -_LARGEST, _LARGEST)
    lengths = [int(one).bit_length() // 2 for one in np.square(steps).sum(1)]
    return np.clip(np.array(lengths, np.int64) - _SLACK, 0, _PRECISION)


def _fitted(lent: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares: [K, n], [C, n] in steps -> float [C, K]."""
    centred, goal = (v - v.mean(1, keepdims=True) for v in (lent, wanted))
    count = centred.shape[1]
    square = centred @ centred.T / count + _RIDGE * np.eye(len(centred))
    return np.asarray(np.linalg.solve(square, centred @ goal.T / count).T)
