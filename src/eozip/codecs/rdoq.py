"""Thrifty quantisation: a symbol may be smaller than the nearest one where that saves more than it costs."""

from __future__ import annotations

import math

import numpy as np

from eozip.entropy.logistic_tables import REACH
from eozip.entropy.range_coder import Tables

# lambda times a squared step, in bits, in the high-rate theory that the gains start from
BITS_PER_SQUARED_STEP = 6 / math.log(2)


def thrifty(
    symbols: np.ndarray, residual: np.ndarray, rows: np.ndarray, tables: Tables, thrift: float
) -> np.ndarray:
    """Move a symbol one step towards 0 where the bits saved are worth more than the error added.

    Rate-distortion optimised quantisation; effects on later predictions are not looked at.

    Args:
        symbols: int32 [n], nearest to residual.
        residual: float [n], in steps.
        rows: [n] table rows.
        tables: the coder's, for what symbols cost.
        thrift: bits that a squared step of error is worth; infinite: nothing moves.
    """
    if math.isinf(thrift):
        return symbols
    some = np.flatnonzero((symbols != 0) & (np.abs(symbols) < REACH))
    here, row, r = symbols[some], rows[some], residual[some]
    closer = here - np.sign(here)
    bits = tables.bits
    last = tables.size[row] - 1
    entry, other = (np.clip(s - tables.first[row], 0, last) for s in (here, closer))
    saved = bits[row, entry] - bits[row, other]
    added = (r - closer) ** 2 - (r - here) ** 2
    symbols = symbols.copy()
    symbols[some] = np.where(saved > thrift * added, closer, here)
    return symbols
