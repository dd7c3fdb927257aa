"""Pixels whose values nobody needs: no data, or left out on purpose.

Where a cell is hidden the encoder sends the symbol 0: the decoder gets what it expects from the picture below, from the
cells around and from the references. So a hole costs next to nothing. Of pixels that were left out on purpose the decoder
knows too (the skip mask), and there are no symbols at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eozip.codecs.pyramid.coarseness import Coarse
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.scales import all_over


@dataclass(frozen=True, eq=False)
class Hidden:
    """Cells of a ladder that no needed pixel depends on.

    Attributes:
        groups: bool [T, h, w] of each group's canvas, finest first.
    """

    groups: Sequence[np.ndarray]

    def of(self, dates: Sequence[int]) -> Hidden:
        """Those of some dates."""
        return Hidden([own[list(dates)] for own in self.groups])

    def at(self, level: int) -> np.ndarray:
        """Details of a level that cover such cells alone, of all groups that have it: bool [T, 1, h, w]."""
        parts = [all_over(own, 2 << (level - k)) for k, own in enumerate(self.groups[: level + 1])]
        return np.logical_and.reduce(parts)[:, None]


def hidden_of(ladder: Sequence[tuple[Group, Canvas]], holes: Sequence[np.ndarray]) -> Hidden:
    """Of a ladder; holes: bool [T, H, W] for each of its groups, see `on_canvas`."""
    return Hidden([on_canvas(*one, own) for one, own in zip(ladder, holes, strict=True)])


def counting(hidden: np.ndarray | None, coarse: Coarse | None) -> np.ndarray | None:
    """How much details count for their strengths, float32 [T, h, w]; all of them of a date that shows nothing."""
    if hidden is None:
        return None if coarse is None else coarse.inverse
    shown = ~(hidden & ~hidden.all((1, 2, 3), keepdims=True))[:, 0]
    return shown.astype(np.float32) if coarse is None else shown * coarse.inverse


def on_canvas(group: Group, place: Canvas, holes: np.ndarray) -> np.ndarray:
    """Cells of a canvas that no needed pixel depends on.

    Args:
        group: whose cells.
        place: its canvas.
        holes: bool [T, H, W], of the chunk's pixels; of a group on its own grid of its cells.

    Returns:
        bool [T, h, w]; what lies beyond the pixels is hidden.
    """
    needed = np.pad(~holes, [(0, 0), (1, 0), (1, 0)]).cumsum(1).cumsum(2)
    (a, b), (c, d) = (_reach(group, place, axis, holes.shape[1 + axis]) for axis in (0, 1))
    rows = needed[:, b] - needed[:, a]
    return rows[:, :, d] == rows[:, :, c]


def _reach(group: Group, place: Canvas, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """For each cell along an axis the pixels from and up to which it shows."""
    first = np.arange(place.shape[axis]) - place.before[axis]
    if group.is_native or group.grid is None:
        return np.clip(first, 0, size), np.clip(first + 1, 0, size)
    factor = group.factor
    begin = first * factor + (group.grid.rows, group.grid.columns)[axis]
    around = (factor // 2, 0, factor + factor // 2)[group.grid.kernel]  # bilinear, nearest, cubic
    return np.clip(begin - around, 0, size), np.clip(begin + factor + around, 0, size)


def filled(x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Pixels with something cheap where they are hidden: smooth, from what is around.

    A date that shows nothing is as the nearest that shows something. What other dates say of the rest of them is better
    left to the decoder: where they do not fit, their seams are dear.

    Args:
        x: float [T, C, H, W].
        hidden: bool [T, H, W].
    """
    out, shows = x.copy(), np.flatnonzero(~hidden.all((1, 2)))
    for t in shows:
        out[t] = _continued(x[t], ~hidden[t])
    for t in np.flatnonzero(hidden.all((1, 2))) if len(shows) else ():
        out[t] = out[min(shows, key=lambda k: abs(k - t))]
    return out


def _continued(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Unknown pixels of [C, H, W] from averages of known ones, the finer the nearer these are."""
    if known.all():
        return x
    height, width = known.shape
    if min(height, width) < 2 or not known.any():
        return np.where(known, x, x.mean((1, 2), where=known, keepdims=True) if known.any() else 0)
    count = _sums(known.astype(np.float32))
    coarse = _continued(_sums(np.where(known, x, 0)) / np.maximum(count, 1), count > 0)
    return np.where(known, x, _enlarged(coarse)[:, :height, :width])


def _sums(v: np.ndarray) -> np.ndarray:
    """Sums of 2 x 2 cells of [..., H, W], of what there is of them."""
    for axis in (-2, -1):
        v = np.add.reduceat(v, np.arange(0, v.shape[axis], 2), axis=axis)
    return v


def _enlarged(x: np.ndarray) -> np.ndarray:
    """Pixels [C, 2 h, 2 w] between cells [C, h, w], bilinear."""
    for _ in range(2):
        around = np.pad(x, [(0, 0), (0, 0), (1, 1)], mode="edge")
        pairs = np.stack([0.75 * x + 0.25 * around[..., :-2], 0.75 * x + 0.25 * around[..., 2:]], -1)
        x = pairs.reshape(*x.shape[:2], -1).swapaxes(1, 2)
    return x
