"""Noise as a function of absolute pixel coordinates, so that any window can be made on its own.

Only integer arithmetic, + - * /, square roots and table look-ups touch pixels: these round alike everywhere,
so a scene is the same on every machine. (The last bit of exp or of a matrix product depends on the library.)
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# A cubic B-spline over uniform values in [-1, 1): variance 1/3 times (151/315)**2, brought to 1.
_TO_UNIT_VARIANCE = np.float32((3**0.5) * 315 / 151)


def hash32(a: Array | int, b: Array | int, salt: int) -> Array:
    """Scrambled uint32 of two integer coordinates (broadcast) and a salt; lowbias32 by C. Wellons."""
    first = np.asarray(a).astype(np.uint32) * np.uint32(0x9E3779B1)
    second = np.asarray(b).astype(np.uint32) * np.uint32(0x85EBCA77)
    h = (first ^ np.uint32(salt & 0xFFFFFFFF)) + second
    return scramble(h)


def scramble(h: Array) -> Array:
    """lowbias32: every input bit reaches every output bit. Works in place on uint32."""
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x21F0AAAD)
    h ^= h >> np.uint32(15)
    h *= np.uint32(0xD35A2D97)
    h ^= h >> np.uint32(15)
    return h


def unit(h: Array) -> Array:
    """float32 in [0, 1) from uint32."""
    return (h >> np.uint32(8)).astype(np.float32) * np.float32(2**-24)


def salted(*parts: int) -> int:
    """One 32-bit salt from several integers."""
    value = np.zeros(1, np.uint32)
    for part in parts:
        value = scramble(value * np.uint32(31) + np.uint32(part & 0xFFFFFFFF) + np.uint32(0x9E3779B9))
    return int(value[0])


def smooth(salt: int, cell: int, rows: Array, columns: Array) -> Array:
    """Smooth noise of unit variance whose features are about `cell` pixels wide.

    Args:
        salt: which noise.
        cell: lattice spacing in pixels.
        rows: int64 [h] absolute, consecutive; columns: int64 [w] likewise.

    Returns:
        float32 [h, w].
    """
    return smooth_aniso(salt, cell, cell, rows, columns)


def smooth_aniso(salt: int, cell_y: int, cell_x: int, rows: Array, columns: Array) -> Array:
    """As `smooth`, with different spacings down and across."""
    iy, wy = _taps(cell_y, rows)
    ix, wx = _taps(cell_x, columns)
    y0, x0 = int(iy[0]), int(ix[0])
    ys = np.arange(y0, int(iy[-1]) + 4)
    xs = np.arange(x0, int(ix[-1]) + 4)
    values = unit(hash32(ys[:, None], xs[None, :], salt)) * np.float32(2) - np.float32(1)
    across = _weighted(values.T, ix - x0, wx).T
    return _weighted(np.ascontiguousarray(across), iy - y0, wy) * _TO_UNIT_VARIANCE


def fractal(salt: int, cell: int, octaves: int, rows: Array, columns: Array, gain: float = 0.5) -> Array:
    """Octaves of `smooth`, each half as wide and `gain` times as strong; float32 [h, w] of unit variance."""
    total, power, weight = np.zeros((len(rows), len(columns)), np.float32), 0.0, 1.0
    for octave in range(octaves):
        total += smooth(salt + octave * 7919, max(1, cell >> octave), rows, columns) * np.float32(weight)
        power += weight * weight
        weight *= gain
    return total * np.float32(power**-0.5)


def _taps(cell: int, coordinates: Array) -> tuple[Array, Array]:
    """First lattice index [n] and the four spline weights [4, n] of each coordinate."""
    index = coordinates // cell
    return index, _spline(cell)[:, coordinates - index * cell]


@cache
def _spline(cell: int) -> Array:
    f = (np.arange(cell) + 0.5) / cell
    weights = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, -3 * f**3 + 3 * f**2 + 3 * f + 1, f**3)
    return (np.stack(weights) / 6).astype(np.float32)


def _weighted(values: Array, index: Array, weights: Array) -> Array:
    """[n, w]: for each i the sum over k of weights[k, i] * values[index[i] + k]."""
    out = values[index] * weights[0][:, None]
    for k in range(1, len(weights)):
        out += values[index + k] * weights[k][:, None]
    return out
