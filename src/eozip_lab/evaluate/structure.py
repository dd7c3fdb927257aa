"""SSIM (Wang et al. 2004) and MS-SSIM (Wang et al. 2003) of stacks, in numpy.

As in the papers: 11x11 Gaussian window of sigma 1.5, K1 0.01, K2 0.03, population covariance, only where the
window fits; each band of each date is one grey image, and the results are averaged. Dynamic range: 10,000 DN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.errors import InputError

_WINDOW, SIGMA = 11, 1.5
_C1, _C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Mean SSIM of [T, C, H, W], values 0..10000.

    Raises:
        InputError: frames smaller than 11 x 11.
    """
    _check(x.shape, 1)
    return float(np.mean([_similarity(a, b)[0] for a, b in _pairs(x, x_hat)]))


def ms_ssim(x: np.ndarray, x_hat: np.ndarray) -> float:
    """Mean MS-SSIM of [T, C, H, W], values 0..10000; five scales, negative contrast terms count as 0.

    Raises:
        InputError: frames smaller than 176 x 176.
    """
    return both(x, x_hat)[1]


def both(x: np.ndarray, x_hat: np.ndarray) -> tuple[float, float]:
    """`ssim` and `ms_ssim` in one pass: the first scale serves both.

    Raises:
        InputError: frames smaller than 176 x 176.
    """
    _check(x.shape, len(SCALE_WEIGHTS))
    found = [_multi_scale(a, b) for a, b in _pairs(x, x_hat)]
    means = np.mean(found, 0)
    return float(means[0]), float(means[1])


def ssim_fits(shape: Sequence[int], scales: int) -> bool:
    """Whether the window fits into frames [..., H, W] halved (an odd last row is dropped)."""
    return min(shape[-2:]) >> (scales - 1) >= _WINDOW


def _check(shape: Sequence[int], scales: int) -> None:
    if not ssim_fits(shape, scales):
        least = _WINDOW << (scales - 1)
        raise InputError(
            f"expected frames of at least {least} x {least} pixels, got {shape[-2]} x {shape[-1]}"
        )


def _pairs(x: np.ndarray, x_hat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    shape = (-1, *x.shape[-2:])
    return list(zip(x.reshape(shape).astype(np.float64), x_hat.reshape(shape).astype(np.float64)))


def _multi_scale(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """SSIM and MS-SSIM of two images [H, W]."""
    first, product = 0.0, 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        whole, contrast = _similarity(a, b)
        first = whole if scale == 0 else first
        last = scale == len(SCALE_WEIGHTS) - 1
        product *= max(whole if last else contrast, 0.0) ** weight
        a, b = _halved(a), _halved(b)
    return first, product


def _similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Mean SSIM and its mean contrast-structure part of two images [H, W]."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance = _blurred(a * a) - mean_a**2 + _blurred(b * b) - mean_b**2
    covariance = _blurred(a * b) - mean_a * mean_b
    contrast = (2 * covariance + _C2) / (variance + _C2)
    luminance = (2 * mean_a * mean_b + _C1) / (mean_a**2 + mean_b**2 + _C1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _blurred(a: np.ndarray) -> np.ndarray:
    """Gaussian window means where the window fits: [H, W] > [H-10, W-10]."""
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    taps = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    taps /= taps.sum()
    rows = sum(tap * a[k : len(a) - _WINDOW + 1 + k] for k, tap in enumerate(taps))
    return sum(tap * rows[:, k : a.shape[1] - _WINDOW + 1 + k] for k, tap in enumerate(taps))


def _halved(a: np.ndarray) -> np.ndarray:
    """Means of 2x2 blocks; an odd last row or column is dropped."""
    height, width = (n // 2 for n in a.shape)
    return a[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean((1, 3))
