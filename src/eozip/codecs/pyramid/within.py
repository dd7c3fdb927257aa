"""Trellis-coded details that are known to lie between bounds: those of the last pass of flextec, which no other narrows.

The values of both quantisers (`eozip.entropy.trellis`) lie a spacing apart. Those of a detail are the ones within its
bounds and a little beyond, up to `REACH` spacings on either side of its mean; their frequencies are those of the
row, made to fill the table again. So nothing is spent on what the passes before have ruled out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from eozip.codecs.pyramid.coarseness import SPACING
from eozip.codecs.pyramid.side import ROWS
from eozip.entropy.range_coder import TOTAL, Tables

REACH = 8  # spacings
BEYOND = 5  # 1/64 step by which values may lie outside of the bounds
_SIDES = REACH + 1


def rows_within(rows: np.ndarray, below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Rows of `tables_within`.

    Args:
        rows: of the scale, below `ROWS`.
        below, above: how far the bounds lie below and above the mean, in 1/64 step, 0 or more.

    Returns:
        int64, as the arguments.
    """
    down, up = (np.minimum((far + BEYOND) // SPACING, REACH) for far in (below, above))
    return (rows.astype(np.int64) * _SIDES + down) * _SIDES + up


@lru_cache(4)
def tables_within(trellis: Tables) -> Tables:
    """For each row, and spacings below and above the mean, a row of quantiser 0; then those of quantiser 1."""
    most = (REACH + 1) // 2  # of symbols
    symbols = np.arange(-most, most + 1)
    turn, down, up = (v[..., None] for v in np.indices((2, _SIDES, _SIDES)))
    least, last = -((down + 1) // 2), (up + 1) // 2  # of quantiser 1, whose row that of quantiser 0 is like
    is_there = (symbols >= least) & (symbols <= last)
    is_within = (symbols >= -((down + turn) // 2)) & (symbols <= (up + turn) // 2)
    entries = symbols - trellis.first[:, None]
    known = np.take_along_axis(trellis.freqs, entries.clip(0, trellis.freqs.shape[1] - 1), 1).astype(np.int64)
    known[(entries < 0) | (entries >= trellis.size[:, None] - 1)] = 0
    known = known.reshape(2, ROWS, 1, 1, -1) * is_within[:, None]
    count = is_there.sum(-1, keepdims=True) + 1  # and the escape
    freqs = is_there[:, None] + known * (TOTAL - count)[:, None] // known.sum(-1, keepdims=True)
    freqs[..., most] += TOTAL - 1 - freqs.sum(-1)
    first = np.broadcast_to(least[:, None, ..., 0], freqs.shape[:-1]).reshape(-1)
    size = np.broadcast_to(count[:, None, ..., 0], freqs.shape[:-1]).reshape(-1)
    freqs, places = freqs.reshape(len(first), -1), np.arange(2 * most + 2)
    moved = np.take_along_axis(freqs, (first[:, None] + most + places).clip(0, 2 * most), 1)
    moved[places >= size[:, None] - 1] = 0
    moved[np.arange(len(size)), size - 1] = 1
    return Tables(moved, first, size)
