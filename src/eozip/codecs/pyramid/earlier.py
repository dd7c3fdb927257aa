"""What networks of later passes are told of the pass before: all of it is known at once, also what lies ahead in this pass.

    features     details around a cell and their magnitudes; how far those off their mean lay from it; and the strongest of
                 the planes that are still to come
    prediction   of a cell from the details around it, but for its own, whose interval says all that they tell of it

The networks were trained to say what is likely *within* an interval, so it is not counted twice. `earlier.inc` makes the
same numbers where levels are read by the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.context import DIFFERENCE_MAX, PREDICTION_MAX, WEIGHT, Functions
from eozip.codecs.pyramid.model import Model

_DETAILS = 3
CHANNELS = 4 * _DETAILS  # of features
_TAPS = [(y, x) for y in range(3) for x in range(3) if (y, x) != (1, 1)]


@dataclass(frozen=True, eq=False)
class Later:
    """Networks of later passes.

    Attributes:
        model: of `CHANNELS` features more.
        around: of each stage, weights of the prediction, float32 [3, 3, 3, 3]: to, from, row, column.
        source: makes them again, as of `Model`.
    """

    model: Model
    around: Sequence[np.ndarray]
    source: Callable[[], Later]

    def __reduce__(self) -> tuple[Callable[[], Later], tuple[()]]:
        """As of `Model`."""
        return self.source, ()


@dataclass(frozen=True, eq=False)
class Earlier:
    """Of all planes of a level of some dates.

    Attributes:
        values: details, int32 [T, K, 3, h, w] in 1/64 of this pass's step.
        own: their features, float32 alike.
        off: magnitudes of features of how far they lie off their mean, where they are not near it.
        ahead: the strongest magnitudes of the planes to come.
        around: weights, see `Later`.
    """

    values: np.ndarray
    own: np.ndarray
    off: np.ndarray
    ahead: np.ndarray
    around: np.ndarray

    def features(self, dates: np.ndarray, plane: int | np.ndarray) -> tuple[np.ndarray, ...]:
        """Those of a plane, float32 [N, CHANNELS, h, w] in parts."""
        own = self.own[dates, plane]
        return own, np.abs(own), self.off[dates, plane], self.ahead[dates, plane]

    def predicted(self, dates: np.ndarray, plane: int | np.ndarray) -> np.ndarray:
        """What details around let expect, float32 [N, 3, h, w] in 1/64 step."""
        values = self.values[dates, plane]
        n, _, h, w = values.shape
        padded = np.zeros((n, _DETAILS, h + 2, w + 2), np.float32)
        values.clip(-DIFFERENCE_MAX, DIFFERENCE_MAX, out=padded[:, :, 1:-1, 1:-1], casting="unsafe")
        parts = np.stack([padded[:, :, y : y + h, x : x + w] for y, x in _TAPS], 1).reshape(n, -1, h * w)
        weights = np.stack([self.around[:, :, y, x] for y, x in _TAPS], 1).reshape(_DETAILS, -1)
        sums = ((weights / WEIGHT) @ parts).reshape(values.shape)
        np.rint(sums, out=sums)
        return np.clip(sums, -PREDICTION_MAX, PREDICTION_MAX, out=sums)


def earlier(functions: Functions, around: np.ndarray, values: np.ndarray, off: np.ndarray) -> Earlier:
    """What a pass is told of a level.

    Args:
        functions: staircases.
        around: weights of the level's stage.
        values: details, int32 [T, K, 3, h, w] in 1/64 step.
        off: by how far they lie off their mean, where they are not near it, alike.
    """
    own, far = (np.zeros(values.shape, np.float32) for _ in range(2))
    alive = np.flatnonzero(
        values.any((0, 2, 3, 4)) | off.any((0, 2, 3, 4))
    )  # of weak planes nothing was sent yet
    own[:, alive], far[:, alive] = (
        functions.features(values[:, alive]),
        np.abs(functions.features(off[:, alive])),
    )
    ahead = np.zeros(values.shape, np.float32)
    for k in range(values.shape[1] - 2, -1, -1):
        np.maximum(np.rint(ahead[:, k + 1] * np.float32(0.75)), np.abs(own[:, k + 1]), out=ahead[:, k])
    return Earlier(values, own, far, ahead, around)
