"""Scenes for the pyramid codecs: bands interpolated from coarser cells beside others, and the golden ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eozip.codecs.pyramid.grids import Grid

CODEC = "tec-elic-small-any-v1"
BILINEAR, NEAREST, CUBIC = range(3)


def texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Smooth fields that all bands share, and noise of each: float64 [T, C, H, W] DN."""
    rng = np.random.default_rng(seed)
    i, j = np.arange(shape[2])[:, None], np.arange(shape[3])[None, :]
    shared = np.sin(i / 9.0) * np.cos(j / 7.0) + 0.3 * rng.standard_normal(shape[2:])
    gains = rng.uniform(300, 900, (*shape[:2], 1, 1))
    return np.clip(2000 + gains * shared + 15 * rng.standard_normal(shape), 1, 12000)


def cube(shape: tuple[int, ...], grids: Mapping[int, Grid], seed: int = 0) -> np.ndarray:
    """DN uint16 [T, C, H, W] whose bands are `texture`, those named interpolated from cells on their grid."""
    t, _, height, width = shape
    dn = texture(shape, seed)
    for band, grid in grids.items():
        rows, columns = grid.cells(height, 0)[1], grid.cells(width, 1)[1]
        cells = np.rint(texture((t, 1, rows, columns), seed + 100 + band)).astype(np.int64)
        numerator, denominator = grid.interpolated(cells[:, 0], height, width)
        dn[:, band] = numerator / denominator
    return np.clip(np.rint(dn), 0, 65535).astype(np.uint16)


def with_holes(dn: np.ndarray, nodata: int) -> np.ndarray:
    """The same with a corner, single pixels, and one whole row without data."""
    out = dn.copy()
    out[..., :3, :4], out[0, 0, -1], out[-1, :, 4, 5] = nodata, nodata, nodata
    return out


@dataclass(frozen=True)
class Golden:
    """A golden stream: pixels and how they are encoded."""

    dn: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)

    def encoded(self) -> bytes:
        import eozip

        return eozip.encode(self.dn, CODEC, **self.options)


def goldens() -> dict[str, Golden]:
    """By the name of their file."""
    tens, sixty = Grid(BILINEAR, 2, 1, 1), Grid(CUBIC, 6, 1, 5)
    twelve = {0: sixty, 4: tens, 5: tens, 6: tens, 8: tens, 9: sixty, 10: tens, 11: tens}
    others = {1: Grid(NEAREST, 3, 2, 0), 2: Grid(CUBIC, 2, 0, 1), 3: Grid(BILINEAR, 6, 3, 3)}
    odd = np.rint(texture((2, 5, 7, 61), 3) - 1500).astype(np.int16)
    rgb = np.rint(texture((1, 3, 33, 47), 1)).astype(np.uint16)
    rgb[0, 0, 5:9, 5:9] = 60000
    return {
        CODEC: Golden(cube((2, 12, 24, 40), twelve), {"quality": 62.0}),
        f"{CODEC}-rgb": Golden(rgb, {"quality": 85.0}),
        f"{CODEC}-odd": Golden(with_holes(odd, -9999), {"quality": 30.0, "nodata": -9999}),
        f"{CODEC}-grids": Golden(cube((1, 5, 37, 50), others, 2), {"quality": 95.0}),
        f"{CODEC}-row": Golden(np.rint(texture((2, 2, 1, 90), 4)).astype(np.uint16), {"quality": 50.0}),
    }
