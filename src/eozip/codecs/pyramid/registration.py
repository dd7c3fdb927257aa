"""How far the pictures of one place lie from each other: a fraction of a pixel, found by encoders, sent for each date.

Satellites come back with up to a pixel of error, and fine details a third of a pixel away tell nothing of each other. A date
says where it lies beside the first one, in eighths of a pixel; whoever predicts it from another date moves that one first,
by cubic interpolation in whole numbers.

Source: the search for the distance is that of Lucas & Kanade 1981 ("An iterative image registration technique"), between
pictures whose spectra are mapped onto each other first, as seasons change colours.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.codecs.pyramid.native import call, library
from eozip.codecs.pyramid.spectral import LARGEST

UNITS = 8  # of a pixel of the finest grid
FARTHEST = 4 * UNITS
_PRECISION = 10  # bits of a tap
_STEPS = 2  # of the search, at half resolution and in full
_LEAST_GAIN = 0.004  # of the squared error, more for long ways: less is chance
_MOST = 256  # pixels a side that the search looks at


def units_at(distance: int, factor: int) -> int:
    """A distance in units of pixels that are so many times larger, to the nearest, halves up."""
    return (2 * distance + factor) // (2 * factor)


def moved(picture: np.ndarray, down: int, across: int) -> np.ndarray:
    """A picture as it is so far below and to the right of each of its pixels; its border is repeated.

    Args:
        picture: int32 [C, H, W], within LARGEST.
        down, across: in 1 / UNITS of its pixels.

    Returns:
        int32 [C, H, W], within LARGEST.
    """
    kernel = library()
    if kernel is not None:
        picture = np.ascontiguousarray(picture, np.int32)
        out = np.empty_like(picture)
        call(kernel, "eozip_moved", picture, *picture.shape, down, across, out)
        return out
    tall = _along(picture, down, 1)
    return np.clip(_along(tall, across, 2), -LARGEST, LARGEST).astype(np.int32)


def _along(picture: np.ndarray, distance: int, axis: int) -> np.ndarray:
    whole, part = divmod(distance, UNITS)
    size = picture.shape[axis]
    if not part:
        return picture if not whole else picture.take(np.arange(size) + whole, axis, mode="clip")
    padded = picture.take(np.arange(-1, size + 2) + whole, axis, mode="clip").astype(np.float64)
    lines: list[slice | int] = [slice(None)] * picture.ndim
    out, one = np.zeros(picture.shape), np.empty(picture.shape)
    for k, weight in enumerate(_taps(part)):
        lines[axis] = slice(k, k + size)
        np.multiply(padded[tuple(lines)], weight / (1 << _PRECISION), out=one)
        out += one
    return np.rint(out, out=out)


def _taps(part: int) -> list[float]:
    """Catmull and Rom's weights of four pixels at a part of the way from the second to the third, in 2**-_PRECISION."""
    t = part / UNITS
    cubic = (-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2)
    return [w / 2 * (1 << _PRECISION) for w in cubic]


def positions(
    pictures: np.ndarray,
    known: Sequence[Sequence[int]],
    waves: Sequence[Sequence[int]],
    settled: np.ndarray | None = None,
    steps: int = _STEPS,
) -> np.ndarray:
    """Where dates lie beside the one that has no references, int64 [T, 2] in 1 / UNITS of a pixel; an encoder's guess.

    Args:
        pictures: float32 [T, C, H, W], the bands of the finest grid.
        known: for each date those that predict it.
        waves: the order of dates.
        settled: those of the first dates, which were sent; None: of none.
        steps: of the search, at half resolution and in full.
    """
    shown, before = _middle(pictures), 0 if settled is None else len(settled)
    out = np.zeros((len(shown), 2))
    if settled is not None:
        out[:before] = settled / UNITS
    for t in (t for wave in waves for t in wave if known[t] and t >= before):
        weights, sums = np.full((2, 2), 1e-9) * np.eye(2), np.zeros(2)
        for r in known[t][:2]:
            distance, sure = _distance(shown[t], shown[r], steps)
            weights, sums = weights + sure, sums + sure @ (out[r] - distance)
        out[t] = np.linalg.solve(weights, sums)
    return np.rint(out * UNITS).clip(-FARTHEST, FARTHEST).astype(np.int64)


def _middle(x: np.ndarray) -> np.ndarray:
    rows, columns = (slice(max(0, (n - _MOST) // 2), max(0, (n - _MOST) // 2) + _MOST) for n in x.shape[2:])
    return x[:, :, rows, columns].astype(np.float32)


def _distance(own: np.ndarray, other: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Where one picture [C, h, w] shows what another does, in pixels down and across, and how sure that is [2, 2]."""
    if min(own.shape[1:]) < 16:
        return np.zeros(2), np.zeros((2, 2))
    start = 2 * _refined(_goal(_halved(own)), _halved(other), np.zeros(2), steps)[0]
    goal = _goal(own)
    distance, sure, error = _refined(goal, other, start, steps)
    _, still, unmoved = _refined(goal, other, np.zeros(2), steps=0)
    least = _LEAST_GAIN * (1 + 4 * float(distance @ distance))
    return (distance, sure) if error < (1 - least) * unmoved else (np.zeros(2), still)


def _halved(x: np.ndarray) -> np.ndarray:
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def _goal(picture: np.ndarray) -> np.ndarray:
    """Details of a picture along their strongest plane, [h, w]."""
    details = _details(picture)
    return np.asarray(np.einsum("c,chw->hw", _strongest(details), details))


def _refined(
    goal: np.ndarray, other: np.ndarray, distance: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """A better distance, how sure it is, and the squared error of a goal there as the other picture tells it."""
    for step in range(steps + 1):
        at = np.rint(distance * UNITS).astype(int)
        seen = _details(_along(_along(other, at[0], 1), at[1], 2).astype(np.float32, copy=False))
        flat = seen.reshape(len(seen), -1)
        square = flat @ flat.T
        square[np.diag_indices_from(square)] *= 1.001
        square[np.diag_indices_from(square)] += 1e-3
        told = np.einsum("c,chw->hw", np.linalg.solve(square, flat @ goal.ravel()), seen)
        error = goal - told
        slopes = np.stack([np.gradient(told, axis=0).ravel(), np.gradient(told, axis=1).ravel()])
        e = error.ravel()
        weight = 1 / (1 + e**2 / (4 * np.median(np.abs(e)) ** 2 + 1e-6))
        sure = (slopes * weight) @ slopes.T
        if step < steps:
            sure[np.diag_indices(2)] += 1e-6 + 1e-3 * np.trace(sure)
            better = np.linalg.solve(sure, (slopes * weight) @ e).clip(-0.7, 0.7)
            distance = (at / UNITS + better).clip(-3, 3)
    return distance, sure / max(1e-6, float(np.average(e**2, weights=weight))), float((weight * e**2).sum())


def _details(x: np.ndarray) -> np.ndarray:
    """What is finer than 5 pixels, roughly, without the border."""
    h, w = x.shape[1:]
    rows = x[:, : h - 4] + x[:, 4:]
    for k in (1, 2, 3):
        rows += x[:, k : h - 4 + k]
    box = rows[:, :, : w - 4] + rows[:, :, 4:]
    for k in (1, 2, 3):
        box += rows[:, :, k : w - 4 + k]
    box *= np.float32(-1 / 25)
    box += x[:, 2:-2, 2:-2]
    return box


def _strongest(details: np.ndarray) -> np.ndarray:
    flat = details.reshape(len(details), -1)
    return np.linalg.eigh(flat @ flat.T)[1][:, -1].astype(np.float32)
