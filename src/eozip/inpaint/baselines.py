"""Predictors that copy, average or interpolate other dates, pixel by pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.inpaint.predict import Prediction, Series, others
from eozip.inpaint.uncertainty import enough, sigma_of_dates, sigma_of_errors

_YEAR = 365.25  # days


@dataclass(frozen=True)
class LeastCloudyFilled:
    """The other date with the fewest hidden pixels; its own holes from the next, and so on."""

    name: str = "least-cloudy-filled"

    def predict(self, series: Series, date: int) -> Prediction:
        order = sorted(others(series, date), key=series.cover)
        return calibrated(series, date, *_first_clear(series, order), self.name)


@dataclass(frozen=True)
class NearestClear:
    """Each pixel from the nearest date, past or future, that shows it."""

    name: str = "nearest-clear"

    def predict(self, series: Series, date: int) -> Prediction:
        return calibrated(series, date, *_first_clear(series, others(series, date)), self.name)


@dataclass(frozen=True)
class MeanClear:
    """Each pixel's mean over all dates that show it."""

    name: str = "mean-clear"

    def predict(self, series: Series, date: int) -> Prediction:
        return calibrated(series, date, *_mean_clear(series, others(series, date)), self.name)


@dataclass(frozen=True)
class LinearInTime:
    """Each pixel between the last date before and the first after that show it; one alone is copied."""

    name: str = "linear-in-time"

    def predict(self, series: Series, date: int) -> Prediction:
        x_hat, count = _first_clear(series, others(series, date))
        before, after = _neighbours(series.hidden, date)
        rows, columns = np.nonzero((before >= 0) & (after >= 0))
        p, n = before[rows, columns], after[rows, columns]
        span = np.maximum(series.days[n] - series.days[p], 1e-6)
        share = ((series.days[date] - series.days[p]) / span)[:, None].astype(np.float32)
        between = (1 - share) * series.x[p, :, rows, columns] + share * series.x[n, :, rows, columns]
        x_hat[:, rows, columns] = between.T
        count[rows, columns] = 2
        return calibrated(series, date, x_hat, count, self.name)


@dataclass(frozen=True)
class Harmonic:
    """Each pixel's mean, yearly cosine and sine, fitted to the dates that show it (ridge towards the mean).

    Roy & Yan (2020) review such fits. Where fewer than `least` dates show a pixel, their mean.

    Attributes:
        least: dates that a fit needs.
        ridge: weight of the penalty on cosine and sine, in dates.
    """

    least: int = 6
    ridge: float = 0.5
    name: str = "harmonic"

    def predict(self, series: Series, date: int) -> Prediction:
        order = others(series, date)
        x_hat, count = _mean_clear(series, order)
        fitted = count >= self.least
        if fitted.any():
            x_hat[:, fitted] = self._fit(series, order, date, fitted)
        return calibrated(series, date, x_hat, count, self.name)

    def _fit(self, series: Series, order: list[int], date: int, fitted: np.ndarray) -> np.ndarray:
        seen = (~series.hidden[order][:, fitted]).T.astype(np.float64)  # [n, t]
        basis = _yearly(series.days[order])  # [t, 3]
        gram = np.einsum("nt,ti,tj->nij", seen, basis, basis) + np.diag([0, self.ridge, self.ridge])
        right = np.einsum("nt,ti,tcn->nic", seen, basis, series.x[order][:, :, fitted])
        coefficients = np.linalg.solve(gram, right)
        return np.einsum("i,nic->cn", _yearly(series.days[[date]])[0], coefficients)


def _first_clear(series: Series, order: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel from the first date in `order` that shows it; else the mean of all clear pixels of its band.

    Returns:
        float32 [C, H, W], and uint8 [H, W]: 1 where a date shows it, else 0.
    """
    out = _everywhere(series, order)
    open_ = np.ones(series.hidden.shape[1:], bool)
    for t in order:
        here = open_ & ~series.hidden[t]
        out[:, here] = series.x[t][:, here]
        open_ &= ~here
    return out, (~open_).astype(np.uint8)


def _mean_clear(series: Series, order: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel's mean over the dates that show it; else as in `_first_clear`. And how many do, uint8."""
    count = (~series.hidden[order]).sum(axis=0)
    mean = series.x[order].sum(axis=0) / np.maximum(count, 1).astype(np.float32)
    return np.where(count > 0, mean, _everywhere(series, order)), np.minimum(count, 250).astype(np.uint8)


def _everywhere(series: Series, order: Sequence[int]) -> np.ndarray:
    """The mean of all clear pixels of these dates, per band, as an image."""
    count = max(int((~series.hidden[order]).sum()), 1)
    mean = series.x[order].sum(axis=(0, 2, 3), dtype=np.float64) / count
    shape = series.x.shape[1:]
    return np.broadcast_to(mean[:, None, None].astype(np.float32), shape).copy()


def _neighbours(hidden: np.ndarray, date: int) -> tuple[np.ndarray, np.ndarray]:
    """Last clear date before and first after, int [H, W]; -1 for none."""
    before = np.full(hidden.shape[1:], -1)
    after = before.copy()
    for t in range(date):
        before[~hidden[t]] = t
    for t in range(len(hidden) - 1, date, -1):
        after[~hidden[t]] = t
    return before, after


def _yearly(days: np.ndarray) -> np.ndarray:
    angle = 2 * np.pi * days / _YEAR
    return np.stack([np.ones_like(angle), np.cos(angle), np.sin(angle)], axis=1)


def calibrated(series: Series, date: int, x_hat: np.ndarray, count: np.ndarray, name: str) -> Prediction:
    """With a sigma: these predictors use no pixel of the date itself, so its clear pixels show their errors."""
    clear = ~series.hidden[date]
    sigma = sigma_of_errors(series.x[date] - x_hat, clear) if enough(clear) else sigma_of_dates(series, date)
    return Prediction(x_hat, sigma, count, name)
