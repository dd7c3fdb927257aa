"""How strong the details of a plane are: side information of every level."""

from __future__ import annotations

import numpy as np

from eozip.codecs.pyramid.coarseness import Coarse
from eozip.codecs.pyramid.side import row_of

SIDE_MIN, SIDE_MAX, DEAD = -4, 14, -5  # of 2 log2 rms; DEAD: every detail is 0
AFTER_DEAD, AFTER_ALIVE = row_of(0.4), (row_of(1.6), row_of(0.9), row_of(0.9))


def strengths_of(
    wanted: np.ndarray, coded: np.ndarray, exists: np.ndarray, coarse: Coarse | None = None
) -> np.ndarray:
    """Strengths of details [T, K, 3, h, w]: int32 [T, K, 3].

    Those that are coded more coarsely cost less, and count as much less.
    """
    shares: np.ndarray = np.maximum(1, coded.sum((1, 2)))
    if coarse is not None:
        weights = coarse.inverse[:, None, None]
        wanted = wanted * weights
        shares = np.maximum((coded * np.square(weights[:, 0])).sum((2, 3)), 1e-9)[:, None]
    rms = np.sqrt(np.einsum("tkohw,tkohw->tko", wanted, wanted) / shares)
    found = np.clip(np.rint(2 * np.log2(np.maximum(rms, 0.2))), SIDE_MIN, SIDE_MAX).astype(np.int32)
    found[~exists | (np.maximum(wanted.max((3, 4)), -wanted.min((3, 4))) < 0.6)] = DEAD
    return found


def between(last: np.ndarray, other: np.ndarray | None) -> np.ndarray:
    """Of strengths of the level below and of a reference at this one, int32 [K, 3], which counts twice."""
    if other is None or other.shape != last.shape:
        return last
    mixed = np.where(last > DEAD, (last + 2 * other + 1) // 3, other)
    return np.where(other > DEAD, mixed, np.minimum(last, SIDE_MIN)).astype(np.int32)


def guess(found: np.ndarray, before: np.ndarray, k: int) -> np.ndarray:
    """What orientation k is likely to have: as one level below; the second and third follow the one before them."""
    if k == 0:
        return before[:, :, 0]
    alive = (found[:, :, k - 1] > DEAD) & (before[:, :, k - 1] > DEAD) & (before[:, :, k] > DEAD)
    steps = found[:, :, k - 1] + np.where(alive, before[:, :, k] - before[:, :, k - 1], 0)
    return np.clip(steps, DEAD, SIDE_MAX)
