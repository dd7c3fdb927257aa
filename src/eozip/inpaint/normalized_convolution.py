"""Means over neighbourhoods where only some pixels are known (normalised convolution, Knutsson & Westin 1993)."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType

import numpy as np

_RADII = (1, 2, 4, 8, 16)
_SHRINK = 0.05  # a neighbourhood with this share of known pixels is believed by half


def blurred(a: np.ndarray, radius: int) -> np.ndarray:
    """Two passes of a box of side 2 radius + 1 over the last two axes; zero outside; float32."""
    for axis in (-1, -2, -1, -2):
        a = _box(a, radius, axis)
    return a


def spread(residual: np.ndarray, known: np.ndarray, radii: Sequence[int] = _RADII) -> np.ndarray:
    """Carry a residual from known pixels to the others, fine neighbourhoods first.

    Far from every known pixel the result goes to 0.

    Args:
        residual: float32 [C, H, W]; only known pixels count.
        known: bool [H, W].
        radii: of the neighbourhoods, rising, in pixels.

    Returns:
        float32 [C, H, W], smooth, at known pixels too.
    """
    weighted = np.where(known, residual, np.float32(0))
    out = np.zeros_like(weighted)
    left = np.ones(known.shape, np.float32)
    for radius in radii:
        weight = blurred(known.astype(np.float32), radius)
        belief = left * weight / (weight + _SHRINK)
        out += belief / np.maximum(weight, 1e-6) * blurred(weighted, radius)
        left -= belief
    return out


def local_mean(values: np.ndarray, known: np.ndarray, radius: int) -> np.ndarray:
    """Mean of known values near each pixel, drawn to the overall mean where few are known.

    Args:
        values: float32 [C, H, W].
        known: bool [H, W], at least one.
        radius: in pixels.
    """
    overall = values[:, known].mean(axis=1, dtype=np.float64)[:, None, None].astype(np.float32)
    weight = blurred(known.astype(np.float32), radius)
    total = blurred(np.where(known, values, np.float32(0)), radius)
    return (total + _SHRINK * overall) / (weight + _SHRINK)


def grown(mask: np.ndarray, radius: int) -> np.ndarray:
    """Bool [..., H, W] with every True spread `radius` pixels in both directions (a square)."""
    if radius == 0:
        return mask.copy()
    return _box(_box(mask.astype(np.float32), radius, -1), radius, -2) > 0.5 / (2 * radius + 1) ** 2


def _box(a: np.ndarray, radius: int, axis: int) -> np.ndarray:
    side = 2 * radius + 1
    shape = list(a.shape)
    shape[axis] += side
    # zeros before and behind, so that every window is a difference of two running sums; float64, because sums
    # over thousands of pixels lose digits in float32
    sums = np.zeros(shape)
    size = a.shape[axis]
    inside, behind = (slice(radius + 1, radius + 1 + size), slice(radius + 1 + size, None))
    np.cumsum(a, axis=axis, dtype=np.float64, out=sums[_at(inside, axis)])
    sums[_at(behind, axis)] = sums[_at(slice(radius + size, radius + size + 1), axis)]
    means = sums[_at(slice(side, None), axis)] - sums[_at(slice(None, -side), axis)]
    means /= side
    return means.astype(np.float32)


def _at(part: slice, axis: int) -> tuple[EllipsisType | slice, ...]:
    """Index of a part along one of the last two axes."""
    return (..., part) if axis == -1 else (..., part, slice(None))
