"""How much an error matters to purposes at each pixel: an index of dark pixels is off by more than one of bright pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.purpose.formula import parse_formula
from eozip.purpose.purpose import Pixels, Purpose, reflectances, valid_pixels

_LIKE_ALL = ("psnr", "max-error", "agreement", "size", "ratio")  # to these all pixels are alike
_STEP = 1e-3  # of reflectance, over which slopes are measured
_DARKEST = 1e-2  # of reflectance; below it nobody tells spectra apart


def sensitivity(
    purposes: Sequence[Purpose], original: np.ndarray, pixels: Pixels, dropped: np.ndarray | None = None
) -> np.ndarray | None:
    """By how much of its limit a purpose is off for each unit of error, at each pixel: the largest of all purposes.

    Args:
        purposes: all that are to be served.
        original: DN [T, C, h, w].
        pixels: what they are.
        dropped: bool [T, h, w], pixels that do not count; None: none.

    Returns:
        float64 [T, h, w], 0 where pixels do not count; None where all pixels are alike to all purposes.
    """
    some = [one for one in purposes if one.what not in _LIKE_ALL and one.limit > 0]
    valid = valid_pixels(original, pixels, dropped)
    if not some or not valid.any():
        return None
    values = reflectances(original, valid, pixels)
    out = np.zeros(valid.shape)
    out[valid] = np.max([_slope(one, values, pixels.bands) / one.limit for one in some], axis=0)
    return out


def _slope(purpose: Purpose, values: np.ndarray, bands: Sequence[str]) -> np.ndarray:
    """By how much a purpose is off for an error of 1 in all its bands, [C, n] -> [n]."""
    if purpose.what == "angle":
        return np.degrees(1 / np.maximum(np.sqrt(np.square(values).sum(0)), _DARKEST))
    formula = parse_formula(purpose.what, bands)
    known = {name: values[bands.index(name)] for name in formula.bands}
    squares = np.zeros(values.shape[1])
    for name, own in known.items():
        ahead, behind = (formula({**known, name: own + step}) for step in (_STEP, -_STEP))
        squares += np.square((ahead - behind) / (2 * _STEP))
    slopes = np.sqrt(squares)
    finite = np.isfinite(slopes)
    most = np.percentile(slopes[finite], 99) if finite.any() else 0.0  # beside a pole slopes are endless
    return np.where(finite, np.minimum(slopes, most), most)
