"""Probability tables fitted to counted symbols."""

from __future__ import annotations

import numpy as np

from eozip.entropy.range_coder import TOTAL, Tables

PRIOR = 200.0  # what the tables so far count for, in symbols
NEAR = 40  # symbols farther from 0 keep their law; there are too few to count


def fitted(tables: Tables, row: int, counts: np.ndarray) -> np.ndarray:
    """Probabilities of one row's symbols without its escape; the mass near 0 is shared anew, the rest stays."""
    before = tables.freqs[row, : tables.size[row] - 1] / TOTAL
    symbols = tables.first[row] + np.arange(len(before))
    near = np.abs(symbols) <= NEAR
    share, seen = before[near], counts[symbols[near] + NEAR]
    after = before.copy()
    after[near] = share.sum() * (seen + PRIOR * share) / (seen + PRIOR * share).sum()
    return after
