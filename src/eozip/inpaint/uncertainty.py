"""Standard deviations of predicted pixels: from the errors that a predictor makes where the truth is known.

They are multiplied by calibration factors, learnt from training series by `benchmarks/inpainting.py calibrate`."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np

from eozip.inpaint.normalized_convolution import local_mean
from eozip.inpaint.predict import Series

JOINT = ", "
HELD_OUT = "regression"
"""Whose factors serve where sigma was learnt from pixels held out of the date at hand, whatever predicted them: corrected is
how much farther from clear pixels the hidden ones lie than those."""
CLASSES = (0.1, 0.3, 0.5, 0.9, 1.0)
"""Upper ends of the classes of cloud cover."""
_CENTRES = (0.075, 0.25, 0.5, 0.8, 1.0)  # means of the covers that the factors of each class were learnt at


def class_of(cover: float) -> int:
    """Position in `CLASSES` of a cover of 0..1."""
    return next(i for i, end in enumerate(CLASSES) if cover <= end + 1e-9)


def factor_of(method: str, cover: float) -> float | None:
    """What to multiply sigma by, interpolated between classes.

    Codecs are named by their full id: what was learnt for other weights is never used for these.

    Args:
        method: `Prediction.calibration`; of several joined by `JOINT` (windows of one date) the largest factor counts.
        cover: 0..1.

    Returns:
        the factor; None if one of the methods was never calibrated.
    """
    found = [_factors().get(name) for name in method.split(JOINT)]
    known = [float(np.interp(cover, _CENTRES, factors)) for factors in found if factors is not None]
    return max(known) if known and len(known) == len(found) else None


@cache
def _factors() -> dict[str, list[float]]:
    text = resources.files("eozip.inpaint").joinpath("calibration.json").read_text()
    return json.loads(text)["factors"]


LEVEL, NORMAL = 0.9, 1.6449  # a normal error stays within 1.6449 sigma in 90 of 100 cases
LEAST = 1.0  # DN; below, quantisation of the data is all there is
_RADIUS = 24
_ENOUGH = 50


def sigma_of_errors(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Standard deviation per pixel and band, so that 90 % of the known errors lie within 1.645 of it.

    Its pattern is the local root mean square of the errors, its height the quantile (as in split conformal
    prediction, Papadopoulos et al. 2002): errors of predictions have heavier tails than a normal law.

    Args:
        errors: float32 [C, H, W], DN.
        known: bool [H, W]: where they are known.

    Returns:
        float32 [C, H, W], at least 1 DN.
    """
    pattern = np.sqrt(np.maximum(local_mean(errors**2, known, _RADIUS), LEAST**2))
    return np.maximum(pattern * height_of(errors, pattern, known), np.float32(LEAST))


def height_of(errors: np.ndarray, sigma: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What to multiply sigma by so that 90 % of the known errors of each band lie within 1.645 of it.

    Args:
        errors, sigma: float32 [C, H, W], DN; sigma above 0 where known.
        known: bool [H, W]; where nothing is, there is nothing to learn: 1.

    Returns:
        float32 [C, 1, 1].
    """
    if not known.any():
        return np.ones((len(errors), 1, 1), np.float32)
    ratio = np.abs(errors[:, known]) / sigma[:, known]
    return (np.quantile(ratio, LEVEL, axis=1) / NORMAL)[:, None, None].astype(np.float32)


def enough(known: np.ndarray) -> bool:
    """Whether errors are known at enough pixels to say anything."""
    return int(known.sum()) >= _ENOUGH


def sigma_of_dates(series: Series, date: int) -> np.ndarray:
    """Standard deviation over the other dates, for a date that shows nothing itself.

    Pixels seen on fewer than two other dates take the band's typical value.

    Returns:
        float32 [C, H, W], at least 1 DN.
    """
    kept = [t for t in range(len(series.x)) if t != date]
    seen = ~series.hidden[kept]
    count = seen.sum(axis=0)
    x = series.x[kept]
    total = np.maximum(count, 1)
    mean = x.sum(axis=0) / total
    square = (np.where(seen[:, None], x - mean, 0) ** 2).sum(axis=0) / np.maximum(count - 1, 1)
    twice = count > 1
    typical = square[:, twice].mean(axis=1) if twice.any() else _spatial_variance(series, kept)
    square = np.where(twice, square, typical[:, None, None])
    return np.sqrt(np.maximum(square + typical[:, None, None], LEAST**2)).astype(np.float32)


def _spatial_variance(series: Series, kept: list[int]) -> np.ndarray:
    seen = ~series.hidden[kept]
    return np.array([series.x[kept][:, c][seen].var() for c in range(series.x.shape[1])], np.float32)
