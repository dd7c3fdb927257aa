"""Other dates whose own holes are filled, for those who weigh them or look for rules between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eozip.inpaint.baselines import calibrated
from eozip.inpaint.predict import Prediction, Series, others
from eozip.inpaint.uncertainty import enough

_PILOT_PIXELS = 4000


@dataclass(frozen=True)
class WeightedFilled:
    """Between the dates before and after, their own holes filled, the nearer one counting more.

    Attributes:
        least_clear: share of clear pixels that a date needs; none being clear enough, all serve.
    """

    least_clear: float = 0.1
    name: str = "weighted-filled"

    def predict(self, series: Series, date: int) -> Prediction:
        order = _beside(usable(series, date, self.least_clear), date)
        weights = np.maximum(np.abs(series.days[order] - series.days[date]), 1e-3) ** -2.0
        filled = filled_references(series, date, order)
        x_hat = np.tensordot((weights / weights.sum()).astype(np.float32), filled, 1)
        count = np.minimum((~series.hidden[order]).sum(axis=0), 250).astype(np.uint8)
        return calibrated(series, date, x_hat, count, self.name)


def _beside(dates: list[int], date: int) -> list[int]:
    """Of dates, the nearest first, the first before and the first after."""
    sides = ([t for t in dates if t < date], [t for t in dates if t > date])
    return [side[0] for side in sides if side]


def usable(series: Series, date: int, least_clear: float) -> list[int]:
    """Other dates that are clear enough, the nearest first; none being so, all that show anything."""
    shown = [t for t in others(series, date) if not series.hidden[t].all()]
    return [t for t in shown if 1 - series.cover(t) >= least_clear] or shown


def filled_references(series: Series, date: int, references: list[int]) -> np.ndarray:
    """The reference dates, their own hidden pixels predicted by an affine map from the next dates that show them.

    Pixels of `date` are not used: they are what is to be predicted.

    Returns:
        float32 [K, C, H, W].
    """
    return np.stack([_filled(series, t, [s for s in others(series, t) if s != date]) for t in references])


def _filled(series: Series, t: int, sources: list[int]) -> np.ndarray:
    out, open_ = series.x[t].copy(), series.hidden[t].copy()
    for s in sources:
        here = open_ & ~series.hidden[s]
        if here.any():
            out[:, here] = _mapped(series, s, t, here)
            open_ &= ~here
    if open_.any():
        shown = ~series.hidden[t]
        out[:, open_] = series.x[t][:, shown].mean(axis=1, keepdims=True)
    return out


def mapped_references(series: Series, date: int, references: list[int]) -> np.ndarray:
    """As `filled_references`, and then as `date` would show them: an affine map fitted to its clear pixels.

    Returns:
        float32 [K, C, H, W].
    """
    clear = ~series.hidden[date]
    found = filled_references(series, date, references)
    flat = [_affine(x, series.x[date], clear, x.reshape(len(x), -1)) for x in found]
    return np.stack(flat).reshape(found.shape)


def _mapped(series: Series, s: int, t: int, here: np.ndarray) -> np.ndarray:
    """Pixels `here` of date s as date t would show them, [C, n]."""
    both = ~series.hidden[s] & ~series.hidden[t]
    return _affine(series.x[s], series.x[t], both, series.x[s][:, here])


def _affine(source: np.ndarray, goal: np.ndarray, both: np.ndarray, x: np.ndarray) -> np.ndarray:
    """x [C, n] by the affine map from source to goal [C, H, W] that fits pixels `both`; as it is where they are too few."""
    if not enough(both):
        return x
    at = sampled(both, _PILOT_PIXELS)
    a, b = (v.reshape(len(v), -1)[:, at].astype(np.float64) for v in (source, goal))
    mean_a, mean_b = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    gram = (a - mean_a) @ (a - mean_a).T
    gram[np.diag_indices(len(gram))] += 1e-3 * np.trace(gram) / len(gram) + at.size
    slope = np.linalg.solve(gram, (a - mean_a) @ (b - mean_b).T)
    return (slope.T @ (x - mean_a) + mean_b).astype(np.float32)


def sampled(known: np.ndarray, most: int) -> np.ndarray:
    """Flat positions of at most so many known pixels, the same every time."""
    at = np.flatnonzero(known)
    return at if at.size <= most else np.sort(np.random.default_rng(0).choice(at, most, replace=False))


def within(x_hat: np.ndarray, series: Series) -> np.ndarray:
    """Cut to what the series shows, with a quarter of its range to spare."""
    seen = ~series.hidden
    low, high = (
        np.array([f(series.x[:, c][seen]) for c in range(len(x_hat))], np.float32) for f in (np.min, np.max)
    )
    spare = 0.25 * (high - low)
    return np.clip(x_hat, (low - spare)[:, None, None], (high + spare)[:, None, None])
