"""Pictures for tests: smooth fields with texture, alone and as series of dates."""

from __future__ import annotations

import numpy as np


def scene(frames: int, height: int, width: int, seed: int = 0, bands: int = 12) -> np.ndarray:
    """Smooth fields with texture, float32 [T, C, H, W] DN."""
    rng = np.random.default_rng(seed)
    i, j = np.arange(height)[:, None], np.arange(width)[None, :]
    fields = np.sin(i / 9.0) * np.cos(j / 7.0) + 0.3 * rng.standard_normal((height, width))
    gains = rng.uniform(300, 900, (frames, bands, 1, 1))
    dn = 2000 + gains * fields + 15 * rng.standard_normal((frames, bands, height, width))
    return dn.clip(1, 12000).astype(np.float32)


def series_scene(frames: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """One place on several dates: `scene` with a change of brightness, new noise and a patch that is another each date."""
    rng = np.random.default_rng(seed)
    dates = np.repeat(scene(1, height, width, seed), frames, 0)
    for date in dates[1:]:
        top, left = rng.integers(height), rng.integers(width)
        date *= rng.uniform(0.9, 1.1)
        date[:, top : top + 16, left : left + 24] *= rng.uniform(0.5, 2)
    return (dates + 20 * rng.standard_normal(dates.shape)).clip(1, 12000).astype(np.float32)
