"""A date of which nothing is seen: all other dates, each weighed by what it foretells of the rest.

Kriging in time (Matheron 1963): what two dates have in common falls with the days between them and comes back after a
year; of weights that add up to 1 those are taken that are off by the least. Each other date is foretold in the same way
without itself (Dubrule 1983 has that in closed form): a date that the others foretell badly, under haze, a flood or snow,
counts less for its neighbours, and how far all of these are off is what sigma is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eozip.inpaint.baselines import calibrated
from eozip.inpaint.filled import WeightedFilled, filled_references, usable, within
from eozip.inpaint.normalized_convolution import local_mean
from eozip.inpaint.predict import Prediction, Predictor, Series
from eozip.inpaint.uncertainty import LEAST, LEVEL, NORMAL, enough

_YEAR = 365.25  # days
_STRANGE = (0.3, 20.0)  # how much surer or less sure a date may be than most are
_ROUNDS = 2
_RADIUS = 2  # pixels over which errors are put together


@dataclass(frozen=True)
class Kriging:
    """The best linear prediction of a date from the others.

    Attributes:
        days: after which what dates have in common has fallen to a third.
        season: variance that comes back every year, over that which fades.
        own: variance of what a date has alone (light, haze), over that which fades.
        least_clear: share of clear pixels that a date needs; none being clear enough, all serve.
        most: dates that are weighed, the nearest.
        undated: predicts series of which nobody knows when they were taken.
    """

    days: float = 60.0
    season: float = 0.3
    own: float = 0.3
    least_clear: float = 0.1
    most: int = 40
    undated: Predictor = field(default_factory=WeightedFilled)
    name: str = "kriging"

    def predict(self, series: Series, date: int) -> Prediction:
        if not series.dated:
            return self.undated.predict(series, date)
        order = usable(series, date, self.least_clear)[: self.most]
        filled = filled_references(series, date, order)
        gaps = series.days[order] - series.days[date]
        weights, told, variances = self._weighed(gaps, filled)
        x_hat = within(np.tensordot(weights, filled, 1), series)
        count = np.minimum((~series.hidden[order]).sum(axis=0), 250).astype(np.uint8)
        if enough(~series.hidden[date]) or len(order) < 2:
            return calibrated(series, date, x_hat, count, self.name)
        errors = np.tensordot(told, filled, 1) / np.sqrt(variances)[:, None, None, None]
        return Prediction(x_hat, _sigma(errors, ~series.hidden[order]), count, self.name)

    def _weighed(self, gaps: np.ndarray, filled: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """How dates [K] away with pictures [K, C, H, W] foretell the date, and each other.

        Returns:
            weights [K]; what makes each date less what the others foretell of it [K, K]; the variance of that over
            the variance of the prediction [K].
        """
        flat = filled.reshape(len(filled), -1)
        square = (flat @ flat.T).astype(np.float64) / flat.shape[1]
        own = np.full(len(gaps), self.own)
        told, left = self._told(gaps, own)
        for _ in range(_ROUNDS if len(gaps) > 2 else 0):
            off = np.einsum("ij,jk,ik->i", told, square, told)
            own = self.own * np.clip(off / max(float(np.median(off)), LEAST**2), *_STRANGE)
            told, left = self._told(gaps, own)
        common = np.append(self._common(gaps), 1)
        solved = np.linalg.solve(self._system(gaps, own), common)
        variance = self._common(np.zeros(1))[0] + self.own - common @ solved
        return (
            solved[:-1].astype(np.float32),
            told.astype(np.float32),
            (left - own + self.own) / variance,  # as if no date were stranger than the others
        )

    def _told(self, gaps: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Each date less what the others foretell of it, as weights [K, K]; its variance [K]."""
        if len(gaps) < 2:
            return np.zeros((1, 1)), np.ones(1)
        inverse = np.linalg.inv(self._system(gaps, own))[:-1, :-1]
        left = 1 / np.diag(inverse)
        return inverse * left[:, None], left

    def _system(self, gaps: np.ndarray, own: np.ndarray) -> np.ndarray:
        """The equations of weights that add up to 1, [K + 1, K + 1]."""
        system = np.ones((len(gaps) + 1, len(gaps) + 1))
        system[:-1, :-1] = self._common(gaps[:, None] - gaps) + np.diag(own)
        system[-1, -1] = 0
        return system

    def _common(self, gaps: np.ndarray) -> np.ndarray:
        return np.asarray(np.exp(-np.abs(gaps) / self.days) + self.season * np.cos(2 * np.pi * gaps / _YEAR))


def _sigma(errors: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Standard deviation [C, H, W] from errors [K, C, H, W] where dates are seen [K, H, W].

    90 % of the errors lie within 1.645 of it, and it is wider the fewer dates there are, as Student has it.
    """
    count = seen.sum(axis=0)
    few = np.float32(np.sqrt(len(errors) / max(len(errors) - 2, 0.5)))
    square = (errors**2 * seen[:, None]).sum(axis=0) / np.maximum(count, 1)
    pattern = np.sqrt(np.maximum(local_mean(square, count > 0, _RADIUS), LEAST**2))
    if not enough(count > 0):
        return pattern * few
    ratios = [
        np.concatenate([np.abs(e[c][s]) / pattern[c][s] for e, s in zip(errors, seen, strict=True)])
        for c in range(len(pattern))
    ]
    height = np.array([np.quantile(ratio, LEVEL) for ratio in ratios], np.float32) / np.float32(NORMAL)
    return np.maximum(pattern * few * height[:, None, None], np.float32(LEAST))
