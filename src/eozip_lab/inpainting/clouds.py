"""Masks of clouds and their shadows, seeded, with the cover asked for."""

from __future__ import annotations

import numpy as np

SHAPES = {"cumulus": (0.10, 5, 0.65), "broken": (0.25, 5, 0.55), "front": (0.9, 4, 0.45)}
"""Kind > size of its largest blobs as a share of the image, octaves of detail, roughness."""


def cloud_mask(
    shape: tuple[int, int], cover: float, random: np.random.Generator, kind: str = "broken"
) -> np.ndarray:
    """Fractal clouds above a threshold and their shadows, the same shapes some pixels away.

    Args:
        shape: H, W.
        cover: share of hidden pixels wanted, 0..1; met to about a pixel in a thousand.
        random: its state decides everything.
        kind: one of `SHAPES`.

    Returns:
        bool [H, W].
    """
    size, octaves, roughness = SHAPES[kind]
    scales = [max(size * max(shape) / 2**k, 2.0) for k in range(octaves)]
    height = sum(roughness**k * _noise(shape, scale, random) for k, scale in enumerate(scales))
    shift = random.integers(3, max(4, max(shape) // 12), 2) * random.choice([-1, 1], 2)
    if cover >= 1:
        return np.ones(shape, bool)
    low, high = float(height.min()) - 1, float(height.max()) + 1
    for _ in range(30):  # bisection: cover falls as the threshold rises
        middle = (low + high) / 2
        wide = _with_shadow(height > middle, shift).mean() > cover
        low, high = (middle, high) if wide else (low, middle)
    return _with_shadow(height > high, shift)


def _with_shadow(cloud: np.ndarray, shift: np.ndarray) -> np.ndarray:
    return cloud | np.roll(cloud, shift, (0, 1))


def _noise(shape: tuple[int, int], scale: float, random: np.random.Generator) -> np.ndarray:
    """Value noise: random numbers on a lattice of `scale` pixels, smoothly interpolated."""
    lattice = random.standard_normal([int(n / scale) + 3 for n in shape])
    at = [np.arange(n) / scale + random.random() for n in shape]
    return _along(_along(lattice, at[0]).T, at[1]).T


def _along(lattice: np.ndarray, at: np.ndarray) -> np.ndarray:
    whole = at.astype(int)
    part = (at - whole)[:, None]
    part = part * part * (3 - 2 * part)
    return lattice[whole] * (1 - part) + lattice[whole + 1] * part
