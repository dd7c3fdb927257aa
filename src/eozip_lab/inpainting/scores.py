"""How far predicted pixels are from true ones, over those that count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eozip.chunk.pixels import PEAK
from eozip.inpaint.uncertainty import NORMAL
from eozip_lab.evaluate.metrics import spectral_angle, to_db

_TAPS = 11
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2  # dynamic range 1


@dataclass(frozen=True)
class _Score:
    """Over the scored pixels and all bands.

    Attributes:
        mae, rmse: DN.
        psnr: dB, peak 10,000 DN.
        sam: degrees, mean over pixels.
        ssim: mean over pixels and bands, 11 x 11 Gaussian windows, range 10,000 DN.
        inside: share of true values within 1.645 sigma of the prediction (0.9 is what is promised); None without
            a sigma.
    """

    mae: float
    rmse: float
    psnr: float
    sam: float
    ssim: float
    inside: float | None = None


def score(x: np.ndarray, x_hat: np.ndarray, scored: np.ndarray, sigma: np.ndarray | None = None) -> _Score:
    """Score one date.

    Args:
        x: float32 [C, H, W], the truth, DN without offset; elsewhere than `scored` it may hold anything.
        x_hat: float32 [C, H, W].
        scored: bool [H, W], at least one.
        sigma: float32 [C, H, W], or None.
    """
    truth, found = (np.clip(a[:, scored], 0, PEAK) for a in (x, x_hat))
    error = found - truth
    square = float(np.square(error, dtype=np.float64).mean())
    shown = np.where(scored, x_hat, x)  # what a reader of the filled date sees
    everywhere = np.ones_like(scored)
    similarity = ssim_map(_unit(shown), _unit(x), everywhere)[:, scored].mean()
    inside = None if sigma is None else float((np.abs(x - x_hat) <= NORMAL * sigma)[:, scored].mean())
    return _Score(
        float(np.abs(error).mean()),
        square**0.5,
        to_db(square),
        _angle(truth, found),
        float(similarity),
        inside,
    )


def ssim_map(output: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """SSIM per pixel as AllClear's benchmark computes it: window sums over masked pixels, zeros around them.

    Args:
        output, target: float32 [C, H, W] in 0..1.
        mask: bool [H, W].

    Returns:
        float32 [C, H, W].
    """
    mean_x, mean_y = (_windowed(a * mask) for a in (output, target))
    square_x, square_y = (_windowed(a * a * mask) for a in (output, target))
    cross = _windowed(output * target * mask) - mean_x * mean_y
    square_x, square_y = square_x - mean_x**2, square_y - mean_y**2
    top = (2 * mean_x * mean_y + _C1) * (2 * cross + _C2)
    return top / ((mean_x**2 + mean_y**2 + _C1) * (square_x + square_y + _C2))


def _windowed(a: np.ndarray) -> np.ndarray:
    """Gaussian window sums, the same size, zeros outside."""
    offsets = np.arange(_TAPS, dtype=np.float32) - _TAPS // 2
    taps = np.exp(-(offsets**2) / np.float32(2 * _SIGMA**2))
    taps /= taps.sum()
    half = _TAPS // 2
    height, width = a.shape[-2:]
    padded = np.pad(a, ((0, 0), (half, half), (half, half)))
    rows = sum(tap * padded[:, k : k + height] for k, tap in enumerate(taps))
    return sum(tap * rows[:, :, k : k + width] for k, tap in enumerate(taps))


def _unit(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0, PEAK) / np.float32(PEAK)


def _angle(x: np.ndarray, x_hat: np.ndarray) -> float:
    return float(spectral_angle(x[None, :, None], x_hat[None, :, None]).mean())
