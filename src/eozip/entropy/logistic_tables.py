"""The logistic law over integer bins."""

from __future__ import annotations

import numpy as np

REACH = 2000  # symbols farther out are escapes
_FAR = 400  # likewise, of details, which never are so large but where they are damaged


def logistic_masses(scale: float) -> np.ndarray:
    """P(-n .. n) of a logistic of mean 0 over integer bins, float64; its reach covers all but 1e-5."""
    reach = min(REACH, int(np.ceil(12 * scale)) + 1)
    side = _logistic_bins(np.arange(1, reach + 1), scale)
    return np.concatenate([side[::-1], _logistic_bins(np.zeros(1), scale), side])


def trellis_masses(scale: float, turn: int) -> np.ndarray:
    """P(-n .. n) of symbols of one of the two quantisers of trellis.py, spacing 1, each value taking what is nearest."""
    reach = min(_FAR, int(np.ceil(6 * scale)) + 1)
    size = np.arange(reach + 2)
    values = 2 * size - turn * (size > 0)
    beyond = np.exp(-np.logaddexp(0, (values[:-1] + values[1:]) / 2 / scale))  # of the upper edge of each
    side = beyond[:-1] - beyond[1:]
    return np.concatenate([side[::-1], [1 - 2 * beyond[0]], side])


def _logistic_bins(s: np.ndarray, scale: float) -> np.ndarray:
    upper, lower = (s + 0.5) / scale, (s - 0.5) / scale
    # S(u) S(-l) (1 - exp(l - u)), without overflow
    return np.exp(-np.logaddexp(0, -upper) - np.logaddexp(0, lower)) * -np.expm1(-1 / scale)
