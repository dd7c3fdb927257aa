"""Random changes to training crops: symmetries, brightness, clouds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DN_MIN, DN_MAX = 1, 20000  # valid digital numbers after augmentation


@dataclass(frozen=True)
class Augment:
    """Probabilities and sizes of the random changes to a crop.

    Attributes:
        brightness: all bands are multiplied by exp(uniform(-b, b)).
        band: each band by exp(uniform(-b, b)).
        bright_share: share of crops brightened by another 1 to 4 times: snow, sand.
        cloud_share: share of crops under a synthetic cloud.
        dark_share: share of crops darkened by another 1 to 5 times: water, shadow.
    """

    brightness: float = 0.35
    band: float = 0.06
    bright_share: float = 0.1
    cloud_share: float = 0.1
    dark_share: float = 0.05


def augmented(crop: np.ndarray, rng: np.random.Generator, a: Augment) -> np.ndarray:
    """One crop [C, s, s] of digital numbers -> float32 [C, s, s] in 1 .. 20000."""
    x = _turned(crop, rng).astype(np.float32)
    gain = np.exp(rng.uniform(-a.brightness, a.brightness))
    if rng.random() < a.bright_share:
        gain *= np.exp(rng.uniform(0, np.log(4)))
    elif rng.random() < a.dark_share:
        gain *= np.exp(-rng.uniform(0, np.log(5)))
    x *= gain * np.exp(rng.uniform(-a.band, a.band, (len(x), 1, 1))).astype(np.float32)
    if rng.random() < a.cloud_share:
        x = clouded(x, rng)
    return np.clip(x, DN_MIN, DN_MAX)


def _turned(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the eight symmetries of the square."""
    crop = np.rot90(crop, rng.integers(4), (1, 2))
    return crop[:, :, ::-1] if rng.random() < 0.5 else crop


def clouded(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blends a bright fractal veil over the crop."""
    cover = fractal(x.shape[1], rng)
    alpha = np.clip((cover - rng.uniform(-1.0, 1.0)) * rng.uniform(0.3, 1.5), 0, 1)
    white = rng.uniform(3000, 12000) * np.exp(rng.normal(0, 0.15, (len(x), 1, 1)))
    return (x * (1 - alpha) + white * alpha * (1 + 0.08 * fractal(x.shape[1], rng))).astype(np.float32)


def fractal(size: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with a 1/f**1.5 amplitude spectrum, zero mean and unit variance, float32 [size, size]."""
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    f[0, 0] = np.inf
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * f**-1.5, s=(size, size))
    return (noise / noise.std()).astype(np.float32)
