"""Side information: small integers through the same port as everything else; and how strong the details of a plane are."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from eozip.codecs.pyramid.context import FEATURE
from eozip.entropy.range_coder import Port, Tables
from eozip.errors import FormatError

SCALE_MIN, ROWS_PER_NAT, ROWS = -5.0, 8, 104  # log scales of the rows of the tables: -5, -4.875, ... 7.875


@lru_cache(1 << 12)
def row_of(spread: float) -> int:
    """The table row for integers of about this standard deviation."""
    scale = math.log(max(spread, 0.1) * math.sqrt(3) / math.pi)  # of a logistic
    return min(ROWS - 1, max(0, round((scale - SCALE_MIN) * ROWS_PER_NAT)))


class Side:
    """Sends integers (an encoder's) or reads them (a decoder's).

    Args:
        port: of the coder.
        tables: rows of `ROWS` scales.
    """

    def __init__(self, port: Port, tables: Tables) -> None:
        self.port, self.tables = port, tables

    def integers(self, wanted: np.ndarray | None, count: int, spread: float) -> np.ndarray:
        """int32 [count], under the row for their spread."""
        return self.rows(wanted, np.full(count, row_of(spread), np.uint8))

    def rows(self, wanted: np.ndarray | None, rows: np.ndarray) -> np.ndarray:
        """int32 [n], each under its row."""
        symbols = None if wanted is None else np.asarray(wanted, np.int32).ravel()
        return self.port.code(symbols, rows, self.tables)

    def bounded(
        self, wanted: np.ndarray | None, count: int, *, spread: float, first: int, last: int, middle: int = 0
    ) -> np.ndarray:
        """int32 [count] in first..last, about `middle`.

        Raises:
            FormatError: other values, which no encoder writes.
        """
        values = (
            self.integers(None if wanted is None else np.asarray(wanted) - middle, count, spread).astype(
                np.int64
            )
            + middle
        )
        if count and (values.min() < first or values.max() > last):
            raise FormatError(
                f"side information: expected {first}..{last}, got {values.min()}..{values.max()}; the bytes are damaged"
            )
        return values.astype(np.int32)


SIDE_MIN, SIDE_MAX, DEAD = -4, 14, -5  # of 2 log2 rms; DEAD: every detail is 0
_LN2_HALF = math.log(2) / 2
_WEAKEST = 0.3  # steps: a plane without symbols still gains by what is expected of it
AFTER_DEAD, AFTER_ALIVE = row_of(0.4), (row_of(1.6), row_of(0.9), row_of(0.9))


def brightness_of(side: Side, step: int | None) -> float:
    """Send or read what the networks are told of the step, in 1/16 DN: (ln step - 4) / 2, a whole sixteenth within 4."""
    sent = None if step is None else np.array([round((math.log(step / 16) - 4) / 2 * FEATURE)]).clip(-64, 64)
    return float(side.bounded(sent, 1, spread=20, first=-64, last=64)[0]) / FEATURE


def strengths_of(
    wanted: np.ndarray, coded: np.ndarray, exists: np.ndarray, counts: np.ndarray | None = None
) -> np.ndarray:
    """Strengths of details [T, K, 3, h, w]: int32 [T, K, 3].

    Those that are coded more coarsely cost less, and count as much less, those of which nothing is sent not at all.

    Args:
        wanted: the details in steps.
        coded: which there are, bool [3, h, w].
        exists: of which planes and orientations, bool [T, K, 3].
        counts: how much, float32 [T, h, w]; None: all alike.
    """
    shares: np.ndarray = np.maximum(1, coded.sum((1, 2)))
    if counts is not None:
        wanted = wanted * counts[:, None, None]
        shares = np.maximum((coded * np.square(counts[:, None])).sum((2, 3)), 1e-9)[:, None]
    rms = np.sqrt(np.einsum("tkohw,tkohw->tko", wanted, wanted) / shares)
    found = np.clip(np.rint(2 * np.log2(np.maximum(rms, 0.2))), SIDE_MIN, SIDE_MAX).astype(np.int32)
    found[~exists | (np.maximum(wanted.max((3, 4)), -wanted.min((3, 4))) < _WEAKEST)] = DEAD
    return found


def log_scales(strengths: np.ndarray) -> np.ndarray:
    """What strengths tell of log scales, in 1/16: float32."""
    return np.rint(np.maximum(strengths, SIDE_MIN) * (_LN2_HALF * FEATURE)).astype(np.float32)


def constants(
    scales: np.ndarray, number: np.ndarray, level: int, has_references: bool, brightness: float
) -> np.ndarray:
    """From log scales [..., 3] of planes of these numbers [..., 1] what the network is told of them: float32 [..., 8]."""
    out = np.empty((*scales.shape[:-1], 8), np.float32)
    out[..., :3] = scales
    out[..., 3] = FEATURE * has_references
    out[..., 4:5] = FEATURE * number / 4
    out[..., 5] = FEATURE * brightness
    out[..., 6] = FEATURE
    out[..., 7] = FEATURE * min(level, 6) / 2
    return out


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
    return np.minimum(np.maximum(steps, DEAD), SIDE_MAX)
