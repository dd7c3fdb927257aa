"""The default: what the clear pixels of a date say about how it differs from the other dates, carried under its clouds.

    other dates, their holes filled > features per pixel > ridge to this date's clear pixels > its hidden pixels
    what remains at clear pixels    > carried into the hidden ones, fading with distance

The features are the bands of all usable dates and random hinges of them (extreme learning machine, Huang et al.
2006): a closed form that bends, since a field that was harvested does not change like the forest beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from eozip.inpaint.baselines import calibrated
from eozip.inpaint.normalized_convolution import blurred, spread
from eozip.inpaint.predict import Prediction, Predictor, Series, others
from eozip.inpaint.uncertainty import enough, sigma_of_errors

_NEAR = 16  # pixels: clear pixels this close to hidden ones count most
_FAR = 0.1  # weight of those far away
_OUTLIER = 8.0  # standard deviations at which a feature is cut: an unseen cloud must not be extrapolated
_PILOT_PIXELS = 4000


@dataclass(frozen=True)
class WeightedFilled:
    """Mean of the other dates after their own holes were filled, each weighted by 1 / its distance in time.

    Attributes:
        least_clear: share of clear pixels that a date needs; none being clear enough, all serve.
    """

    least_clear: float = 0.1
    name: str = "weighted-filled"

    def predict(self, series: Series, date: int) -> Prediction:
        near = others(series, date)
        shown = [t for t in near if not series.hidden[t].all()] or near
        order = [t for t in shown if 1 - series.cover(t) >= self.least_clear] or shown
        weights = 1 / np.maximum(np.abs(series.days[order] - series.days[date]), 1e-3)
        filled = _filled_references(series, date, order)
        x_hat = np.tensordot((weights / weights.sum()).astype(np.float32), filled, 1)
        count = np.minimum((~series.hidden[order]).sum(axis=0), 250).astype(np.uint8)
        return calibrated(series, date, x_hat, count, self.name)


@dataclass(frozen=True)
class Draft:
    """What the regression makes of a date, and of pixels that it was not shown.

    Attributes:
        x_hat: float32 [C, H, W].
        tried: the same from the clear pixels but those in `judged`, which it can be held against.
        judged: bool [H, W], clear pixels that were held out; where there are too few, all clear ones, held out or not.
        held: bool [H, W], those held out.
        references: uint8 [H, W], see `Prediction`.
    """

    x_hat: np.ndarray
    tried: np.ndarray
    judged: np.ndarray
    held: np.ndarray
    references: np.ndarray


@dataclass(frozen=True)
class Regression:
    """Ridge regression on the other dates, and its residual spread into the hole.

    Attributes:
        hinges: random hinge features beside the bands themselves.
        ridge: penalty per sample on standardised features.
        samples: most clear pixels in a fit.
        least_clear: share of clear pixels that a date needs to be a reference.
        fallback: predicts dates that show fewer than `least_pixels`: nothing can be fitted there.
    """

    hinges: int = 256
    ridge: float = 0.05
    samples: int = 12_000
    least_clear: float = 0.1
    least_pixels: int = 100
    fallback: Predictor = field(default_factory=WeightedFilled)
    name: str = "regression"

    def predict(self, series: Series, date: int) -> Prediction:
        draft = self.draft(series, date)
        return self.fallback.predict(series, date) if draft is None else self.settled(series, date, draft)

    def settled(self, series: Series, date: int, draft: Draft) -> Prediction:
        """The draft as it is."""
        sigma = sigma_of_errors(series.x[date] - draft.tried, draft.judged)
        return Prediction(draft.x_hat, sigma, draft.references, self.name, seamless=True)

    def draft(self, series: Series, date: int) -> Draft | None:
        """None where nothing can be fitted: the date shows too little, or no other date is clear enough."""
        clear = ~series.hidden[date]
        references = self.references(series, date)
        if not references or clear.sum() < self.least_pixels:
            return None
        basis = self._with_hinges(_standardised(_filled_references(series, date, references), clear))
        held = held_out(series.hidden[date])
        tried = self._carried(basis, series.x[date], clear & ~held)
        x_hat = _within(self._carried(basis, series.x[date], clear), series)
        count = (~series.hidden[references]).sum(axis=0).astype(np.uint8)
        return Draft(x_hat, tried, held if enough(held) else clear, held, count)

    def references(self, series: Series, date: int) -> list[int]:
        """Dates that are clear enough, the nearest first; at most 250."""
        return [t for t in others(series, date) if 1 - series.cover(t) >= self.least_clear][:250]

    def _carried(self, basis: np.ndarray, target: np.ndarray, known: np.ndarray) -> np.ndarray:
        """Fits on known pixels [H, W], predicts all, adds what remains nearby; float32 [C, H, W]."""
        x_hat = self._fitted(basis, target, known)
        return x_hat + spread(target - x_hat, known)

    def _fitted(self, basis: np.ndarray, target: np.ndarray, known: np.ndarray) -> np.ndarray:
        at = _sample(known, self.samples)
        goal = target.reshape(len(target), -1)[:, at]
        centre, scale = goal.mean(axis=1, keepdims=True), goal.std(axis=1, keepdims=True) + 1
        weights = np.sqrt(_nearness(known).ravel()[at])
        level = basis[:, at].mean(axis=1, keepdims=True)
        x, y = (basis[:, at] - level) * weights, (goal - centre) / scale * weights
        gram = (x @ x.T).astype(np.float64)
        gram[np.diag_indices(len(gram))] += self.ridge * float((weights**2).sum())
        coefficients = np.linalg.solve(gram, (x @ y.T).astype(np.float64)).astype(np.float32)
        x_hat = (coefficients.T @ basis - coefficients.T @ level) * scale + centre
        return x_hat.reshape(target.shape).astype(np.float32, copy=False)

    def _with_hinges(self, features: np.ndarray) -> np.ndarray:
        """[D, N] > [D + hinges, N]."""
        random = np.random.default_rng(0)  # the same hinges every time
        directions = random.standard_normal((self.hinges, len(features))) / np.sqrt(len(features))
        offsets = random.standard_normal((self.hinges, 1))
        bent = np.maximum(directions.astype(np.float32) @ features + offsets.astype(np.float32), 0)
        return np.concatenate([features, bent])


def _filled_references(series: Series, date: int, references: list[int]) -> np.ndarray:
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
    """As `_filled_references`, and then as `date` would show them: an affine map fitted to its clear pixels.

    Returns:
        float32 [K, C, H, W].
    """
    clear = ~series.hidden[date]
    found = _filled_references(series, date, references)
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
    at = _sample(both, _PILOT_PIXELS)
    a, b = (v.reshape(len(v), -1)[:, at].astype(np.float64) for v in (source, goal))
    mean_a, mean_b = a.mean(axis=1, keepdims=True), b.mean(axis=1, keepdims=True)
    gram = (a - mean_a) @ (a - mean_a).T
    gram[np.diag_indices(len(gram))] += 1e-3 * np.trace(gram) / len(gram) + at.size
    slope = np.linalg.solve(gram, (a - mean_a) @ (b - mean_b).T)
    return (slope.T @ (x - mean_a) + mean_b).astype(np.float32)


def held_out(hidden: np.ndarray) -> np.ndarray:
    """Clear pixels to try the prediction on: those under the mirrored mask, which is as large and as ragged.

    Where mirroring leaves too few or takes too many, every fourth of squares an eighth of the image wide.
    """
    clear = ~hidden
    for mirrored in (hidden[::-1, ::-1], hidden[::-1], hidden[:, ::-1]):
        held = mirrored & clear
        if enough(held) and 0.02 * clear.sum() <= held.sum() <= 0.4 * clear.sum():
            return held
    side = max(min(hidden.shape) // 8, 4)
    rows, columns = (np.arange(n) // side % 2 == 0 for n in hidden.shape)
    held = clear & rows[:, None] & columns
    return held if held.sum() < 0.8 * clear.sum() else np.zeros_like(held)


def _standardised(references: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """[K, C, H, W] > float32 [K C, N], mean 0 and deviation 1 over the clear pixels, outliers cut."""
    flat = references.reshape(-1, clear.size)
    shown = flat[:, clear.ravel()]
    centre, scale = shown.mean(axis=1, keepdims=True), shown.std(axis=1, keepdims=True) + 1
    return np.clip((flat - centre) / scale, -_OUTLIER, _OUTLIER)


def _nearness(known: np.ndarray) -> np.ndarray:
    """Weights in (0, 1.1]: high beside unknown pixels."""
    near = blurred((~known).astype(np.float32), _NEAR)
    return _FAR + near / max(float(near.max()), 1e-6)


def _sample(known: np.ndarray, most: int) -> np.ndarray:
    """Flat positions of at most so many known pixels, the same every time."""
    at = np.flatnonzero(known)
    return at if at.size <= most else np.sort(np.random.default_rng(0).choice(at, most, replace=False))


def _within(x_hat: np.ndarray, series: Series) -> np.ndarray:
    """Cut to what the series shows, with a quarter of its range to spare."""
    seen = ~series.hidden
    low, high = (
        np.array([f(series.x[:, c][seen]) for c in range(len(x_hat))], np.float32) for f in (np.min, np.max)
    )
    spare = 0.25 * (high - low)
    return np.clip(x_hat, (low - spare)[:, None, None], (high + spare)[:, None, None])
