"""Integer tables of a factorised prior, which torch evaluates; see `eozip.entropy.tables`."""

from __future__ import annotations

import copy

import numpy as np
import torch

from eozip.entropy.factorized import FactorizedPrior
from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import pack_tables

_TAIL = 2e-5  # mass left to the escape on each side of a row
_FACTORIZED_REACH = 2048  # a row never covers more symbols than this on either side


def factorized_tables(prior: FactorizedPrior) -> Tables:
    """Tables of a factorised prior: row = channel, symbol s stands for the value s + its channel's median."""
    first, masses = [], []
    for low, cdf in _factorized_cdfs(prior):
        inside = np.flatnonzero((cdf[1:] > _TAIL) & (cdf[:-1] < 1 - _TAIL))
        if not len(inside):  # a prior whose mass lies beyond our reach: the median alone, the rest escapes
            inside = np.array([-low])
        start, stop = inside[0], inside[-1] + 1
        first.append(low + int(start))
        masses.append(np.diff(cdf[start : stop + 1]))
    return pack_tables(masses, first)


def _factorized_cdfs(prior: FactorizedPrior) -> list[tuple[int, np.ndarray]]:
    """Per channel: the lowest symbol looked at, and the cumulative probability at the lower edge of each."""
    exact = copy.deepcopy(prior).double().cpu()
    reach = 32
    with torch.no_grad():
        while True:
            edges = torch.arange(-reach, reach + 1, dtype=torch.float64) - 0.5
            cdf = torch.sigmoid(exact.logits(exact.medians[:, None, None] + edges))[:, 0].numpy()
            if reach >= _FACTORIZED_REACH or (cdf[:, 0].max() < _TAIL and cdf[:, -1].min() > 1 - _TAIL):
                return [(-reach, row) for row in cdf]
            reach *= 2
