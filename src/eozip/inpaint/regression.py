"""The default: what the clear pixels of a date say about how it differs from the other dates, carried under its clouds.

    other dates, their holes filled > moved onto this one > features per pixel > ridge to its clear pixels > hidden ones
    what remains at clear pixels    > carried into the hidden ones, fading with distance
    details of the picture          > so much of each scale as clear pixels that were held out confirm

The features are the bands of all usable dates, those of the nearest ones as seen around each pixel, and random hinges of
them (extreme learning machine, Huang et al. 2006): a closed form that bends, since a field that was harvested does not
change like the forest beside it. How far the fit may bend is what pixels that were held out say.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from eozip.codecs.pyramid import registration
from eozip.inpaint.filled import filled_references, sampled, within
from eozip.inpaint.kriging import Kriging
from eozip.inpaint.normalized_convolution import blurred, spread
from eozip.inpaint.predict import Prediction, Predictor, Series, others
from eozip.inpaint.uncertainty import enough, sigma_of_errors

_NEAR = 16  # pixels: clear pixels this close to hidden ones count most
_FAR = 0.1  # weight of those far away
_OUTLIER = 8.0  # standard deviations at which a feature is cut: an unseen cloud must not be extrapolated
_MOVED, _AROUND = (
    8,
    4,
)  # nearest references that are moved onto the date, and that are looked at around each pixel
_RADII = (1, 2)  # pixels, of what is seen around
_SCALES = (1, 2, 4)  # radii between which details are told apart
_LARGEST_SHARE = 1.3  # of details
_STEPS = 3  # of the search for how far it is moved; codecs take fewer, as they have many pairs
_FINER = 16  # parts of a DN in which a date is moved


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
        ridges: penalties per sample on standardised features, of which held-out pixels choose one.
        samples: most clear pixels in a fit.
        least_clear: share of clear pixels that a date needs to be a reference.
        fallback: predicts dates that show fewer than `least_pixels`: nothing can be fitted there.
    """

    hinges: int = 512
    ridges: tuple[float, ...] = (0.15, 0.05, 0.015)
    samples: int = 24_000
    least_clear: float = 0.1
    least_pixels: int = 100
    fallback: Predictor = field(default_factory=Kriging)
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
        found = _moved(filled_references(series, date, references), series.x[date], clear)
        basis = self._with_hinges(_standardised(np.concatenate([found, *_seen_around(found)]), clear))
        held = held_out(series.hidden[date])
        judged = held if enough(held) else clear
        x = series.x[date]
        trials = self._carried(basis, x, clear & ~held)
        best = int(np.argmin([np.abs(trial - x)[:, judged].mean() for trial in trials]))
        tried = trials[best]
        x_hat = replace(self, ridges=(self.ridges[best],))._carried(basis, x, clear)[0]
        shares = _shares(tried, x, judged)
        x_hat, tried = (_with_shares(v, shares) for v in (x_hat, tried))
        count = (~series.hidden[references]).sum(axis=0).astype(np.uint8)
        return Draft(within(x_hat, series), tried, judged, held, count)

    def references(self, series: Series, date: int) -> list[int]:
        """Dates that are clear enough, the nearest first; at most 250."""
        return [t for t in others(series, date) if 1 - series.cover(t) >= self.least_clear][:250]

    def _carried(self, basis: np.ndarray, target: np.ndarray, known: np.ndarray) -> list[np.ndarray]:
        """Fits on known pixels [H, W], predicts all, adds what remains nearby: float32 [C, H, W] for each ridge."""
        return [x_hat + spread(target - x_hat, known) for x_hat in self._fitted(basis, target, known)]

    def _fitted(self, basis: np.ndarray, target: np.ndarray, known: np.ndarray) -> list[np.ndarray]:
        at = sampled(known, self.samples)
        goal = target.reshape(len(target), -1)[:, at]
        centre, scale = goal.mean(axis=1, keepdims=True), goal.std(axis=1, keepdims=True) + 1
        weights = np.sqrt(_nearness(known).ravel()[at])
        level = basis[:, at].mean(axis=1, keepdims=True)
        x, y = (basis[:, at] - level) * weights, (goal - centre) / scale * weights
        gram, right = (x @ x.T).astype(np.float64), (x @ y.T).astype(np.float64)
        found = []
        for ridge in self.ridges:
            penalty = ridge * float((weights**2).sum()) * np.eye(len(gram))
            coefficients = np.linalg.solve(gram + penalty, right).astype(np.float32)
            x_hat = (coefficients.T @ basis - coefficients.T @ level) * scale + centre
            found.append(x_hat.reshape(target.shape).astype(np.float32, copy=False))
        return found

    def _with_hinges(self, features: np.ndarray) -> np.ndarray:
        """[D, N] > [D + hinges, N]."""
        random = np.random.default_rng(0)  # the same hinges every time
        directions = random.standard_normal((self.hinges, len(features))) / np.sqrt(len(features))
        offsets = random.standard_normal((self.hinges, 1))
        bent = np.maximum(directions.astype(np.float32) @ features + offsets.astype(np.float32), 0)
        return np.concatenate([features, bent])


def _moved(pictures: np.ndarray, own: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """References [K, C, H, W], the nearest ones moved to where the date [C, H, W] lies, as its clear pixels tell."""
    out = pictures.copy()
    for picture, moved in zip(pictures[:_MOVED], out, strict=False):
        pair = np.stack([np.where(clear, own, picture), picture])  # where it is hidden, nothing is told
        at = registration.positions(pair, ((1,), ()), ((1,), (0,)), steps=_STEPS)[0]
        if at.any():
            fine = np.rint(np.clip(picture, -1e6, 1e6) * _FINER).astype(np.int32)
            moved[:] = registration.moved(fine, int(-at[0]), int(-at[1])) / np.float32(_FINER)
    return out


def _seen_around(pictures: np.ndarray) -> list[np.ndarray]:
    return [_mean_around(pictures[:_AROUND], radius) for radius in _RADII]


def _mean_around(x: np.ndarray, radius: int) -> np.ndarray:
    return blurred(x, radius) / blurred(np.ones(x.shape[-2:], np.float32), radius)


def _scales(x: np.ndarray) -> list[np.ndarray]:
    """Details between neighbouring scales, finest first, and what is left: their sum is the picture."""
    smooth = [x, *(_mean_around(x, radius) for radius in _SCALES)]
    return [*(a - b for a, b in pairwise(smooth)), smooth[-1]]


def _shares(tried: np.ndarray, x: np.ndarray, judged: np.ndarray) -> np.ndarray:
    """How much of each scale of details holds, by band, from pixels where the truth is known: [scales, C]."""
    found = []
    for own, true in zip(_scales(tried)[:-1], _scales(x)[:-1], strict=True):
        a, b = own[:, judged].astype(np.float64), true[:, judged].astype(np.float64)
        found.append((a * b).sum(1) / ((a * a).sum(1) + 1))
    return np.clip(found, 0, _LARGEST_SHARE).astype(np.float32)


def _with_shares(x: np.ndarray, shares: np.ndarray) -> np.ndarray:
    *details, out = _scales(x)
    for share, detail in zip(shares, details, strict=True):
        out = out + share[:, None, None] * detail
    return out


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
