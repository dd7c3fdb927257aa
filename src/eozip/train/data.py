"""Training data in memory: stacks of multispectral images, random crops, augmentation.

A stack is a numpy array uint16 or int16 [N, C, H, W] of digital numbers without offset, 0 = nodata; N counts dates of one
place or places of one kind. Three sources: folders of .npz files, folders of GeoTIFFs, SSL4EO-S12 v1.1 shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from eozip.errors import InputError


@dataclass(frozen=True)
class Augment:
    """Probabilities and sizes of the random changes to a crop."""

    brightness: float = 0.35  # all bands by exp(uniform(-b, b))
    band: float = 0.06  # each band by exp(uniform(-b, b))
    bright_share: float = 0.1  # crops brightened by another 1 to 4 times: snow, sand
    cloud_share: float = 0.1  # crops under a synthetic cloud
    dark_share: float = 0.05  # crops darkened by another 1 to 5 times: water, shadow


@dataclass(frozen=True)
class Stacks:
    """Arrays grouped so that each can give a crop of `size`; `weights` are their chances."""

    arrays: list[np.ndarray]
    weights: np.ndarray
    size: int
    augment: Augment = field(default_factory=Augment)

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        """One crop uint16 [C, size, size] without nodata."""
        for _ in range(100):
            stack = self.arrays[rng.choice(len(self.arrays), p=self.weights)]
            n, _, h, w = stack.shape
            i, j = rng.integers(h - self.size + 1), rng.integers(w - self.size + 1)
            crop = stack[rng.integers(n), :, i : i + self.size, j : j + self.size]
            if crop.all():
                return crop
        raise InputError("No crop without nodata in 100 tries: expected mostly valid stacks, got mostly zeros.")

    def batch(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """float32 [count, C, size, size], augmented digital numbers."""
        crops = (augmented(self.crop(rng), rng, self.augment) for _ in range(count))
        return np.stack(list(crops))


def augmented(crop: np.ndarray, rng: np.random.Generator, a: Augment) -> np.ndarray:
    x = turned(crop, rng).astype(np.float32)
    gain = np.exp(rng.uniform(-a.brightness, a.brightness))
    if rng.random() < a.bright_share:
        gain *= np.exp(rng.uniform(0, np.log(4)))
    elif rng.random() < a.dark_share:
        gain *= np.exp(-rng.uniform(0, np.log(5)))
    x *= gain * np.exp(rng.uniform(-a.band, a.band, (len(x), 1, 1))).astype(np.float32)
    if rng.random() < a.cloud_share:
        x = clouded(x, rng)
    return np.clip(x, 1, 20000)


def turned(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One of the eight symmetries of the square."""
    crop = np.rot90(crop, rng.integers(4), (1, 2))
    return crop[:, :, ::-1] if rng.random() < 0.5 else crop


def clouded(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blend a bright fractal veil over the crop."""
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


def load_npz(folder: Path, bands: int, skip: tuple[str, ...] = ()) -> list[tuple[str, np.ndarray]]:
    """Every [N, bands, H, W] array of every .npz in a folder, as (file:array name, array)."""
    found = []
    for path in sorted(folder.glob("*.npz")):
        if path.stem in skip:
            continue
        with np.load(path) as file:
            found += [(f"{path.stem}:{name}", file[name]) for name in file.files]
    return [(name, a) for name, a in found if a.ndim == 4 and a.shape[1] == bands]


def grouped(stacks: list[tuple[str, np.ndarray]], size: int, augment: Augment) -> Stacks:
    """The stacks large enough for a crop; chances grow with the square root of the pixels of each."""
    arrays = [a for _, a in stacks if min(a.shape[2:]) >= size]
    if not arrays:
        raise InputError(f"No stack of at least {size} x {size} pixels: expected larger data or a smaller crop.")
    pixels = np.array([a.shape[0] * a.shape[2] * a.shape[3] for a in arrays], float)
    chance = pixels**0.75
    return Stacks(arrays, chance / chance.sum(), size, augment)


def batches(sources: list[Stacks], counts: list[int], seed: int, first: int) -> Iterator[Tensor]:
    """Endless batches, the sources in turn; step n depends on (seed, n) alone, so a resumed run sees the same data."""
    step = first
    while True:
        k = step % len(sources)
        rng = np.random.default_rng((seed, step))
        yield torch.from_numpy(sources[k].batch(rng, counts[k]))
        step += 1
