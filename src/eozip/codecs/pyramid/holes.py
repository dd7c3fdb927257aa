"""Pixels whose values nobody needs: no data, or left out on purpose. An encoder's matter alone: a decoder sees none of it.

Where a cell is hidden the encoder sends the symbol 0: the decoder gets what it expects from the picture below, from the
cells around and from the references. So a hole costs next to nothing, and where other dates tell of it, it is forecast.
"""

from __future__ import annotations

import numpy as np

from eozip.codecs.pyramid.layout import Canvas, Group

_OTHERS = 3  # dates that a forecast is made from
LEAST = 100  # pixels that a forecast is fitted to
_MOST = 20_000
_RIDGE = 25.0  # DN squared a pixel


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
        start, stop = first, first + 1
    else:  # interpolation reaches two cells far
        begin = first * group.factor + (group.grid.rows, group.grid.columns)[axis]
        start, stop = begin - 2 * group.factor, begin + 3 * group.factor
    return np.clip(start, 0, size), np.clip(stop, 0, size)


def forecast(x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden pixels as the nearest dates tell of them, each band as a sum of all of theirs.

    Args:
        x: float [T, C, H, W].
        hidden: bool [T, H, W].
    """
    if not hidden.any():
        return x
    filled = _from_nearest(x, hidden)
    out = filled.copy()
    for t in np.flatnonzero(hidden.any((1, 2))):
        others = sorted((k for k in range(len(x)) if k != t), key=lambda k: abs(k - t))[:_OTHERS]
        clear = np.flatnonzero(~hidden[t])
        if others and len(clear) >= LEAST:
            clear = clear[:: -(-len(clear) // _MOST)]
            known = np.concatenate(
                [filled[k].reshape(x.shape[1], -1) for k in others] + [np.ones((1, hidden[t].size))]
            )
            holes = np.flatnonzero(hidden[t])
            out[t].reshape(x.shape[1], -1)[:, holes] = _told(
                known, filled[t].reshape(x.shape[1], -1), clear, holes
            )
    return out


def _told(known: np.ndarray, own: np.ndarray, clear: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """Least squares over clear pixels, applied to holes: [K, n], [C, n] -> [C, holes]."""
    seen = known[:, clear].astype(np.float64)
    ridge = _RIDGE * len(clear) * np.eye(len(seen))
    ridge[-1, -1] = 0
    fit = np.linalg.solve(seen @ seen.T + ridge, seen @ own[:, clear].T.astype(np.float64))
    return fit.T @ known[:, holes]


def _from_nearest(x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Hidden pixels from the nearest date that shows them, else from the mean of those that show anything."""
    out, left = x.copy(), hidden.copy()
    for distance in range(1, len(x)):
        for t in np.flatnonzero(left.any((1, 2))):
            for k in (t - distance, t + distance):
                if 0 <= k < len(x):
                    shown = left[t] & ~hidden[k]
                    out[t][:, shown] = x[k][:, shown]
                    left[t] &= hidden[k]
    for t in np.flatnonzero(left.any((1, 2))):
        seen = ~left[t] if not left[t].all() else np.ones_like(left[t])
        out[t][:, left[t]] = out[t][:, seen].mean(1, keepdims=True)
    return out
