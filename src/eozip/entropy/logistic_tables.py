"""Integer tables of the logistic prior.

One set of rows serves every symbol of a `small` codec: row r has the log scale `LOG_SCALE_MIN + r * STEP`, mean 0.
"""

from __future__ import annotations

import math

import numpy as np

from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import pack_tables

ROWS = 128
LOG_SCALE_MIN = math.log(0.045)  # below it every symbol but 0 is under the 2**-16 grain of the tables
LOG_SCALE_MAX = math.log(6000.0)
STEP = (LOG_SCALE_MAX - LOG_SCALE_MIN) / (ROWS - 1)
REACH = 2000  # symbols farther out are escapes


def logistic_tables() -> Tables:
    """Tables of all rows, symmetric about 0."""
    masses = [logistic_masses(float(np.exp(LOG_SCALE_MIN + r * STEP))) for r in range(ROWS)]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


def logistic_masses(scale: float) -> np.ndarray:
    """P(-n .. n) of a logistic of mean 0 over integer bins, float64; its reach covers all but 1e-5."""
    reach = min(REACH, int(np.ceil(12 * scale)) + 1)
    side = _logistic_bins(np.arange(1, reach + 1), scale)
    return np.concatenate([side[::-1], _logistic_bins(np.zeros(1), scale), side])


def _logistic_bins(s: np.ndarray, scale: float) -> np.ndarray:
    upper, lower = (s + 0.5) / scale, (s - 0.5) / scale
    # S(u) S(-l) (1 - exp(l - u)), without overflow
    return np.exp(-np.logaddexp(0, -upper) - np.logaddexp(0, lower)) * -np.expm1(-1 / scale)
