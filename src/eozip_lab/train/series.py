"""Series of dates as training examples: real ones, and made-up seasons of single images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip_lab.train.augment import DN_MAX, DN_MIN, Augment, clouded, fractal
from eozip_lab.train.data import Draw, Stacks, open_stacks, without_nodata
from eozip_lab.train.recipe import DataSource

_COARSE = 6  # 60 m in 10 m pixels
_WITHOUT_60M = 10  # bands: B02 B03 B04 B05 B06 B07 B08 B8A B11 B12
REACH = 3  # dates of a series are at most this many times as far apart as they could be


@dataclass(frozen=True)
class SeriesStacks:
    """Crops [T, C, s, s] of arrays [N, C, H, W].

    Attributes:
        stacks: the arrays.
        dates: T.
        is_made_up: every image is a place of its own and gets made-up dates; else the first axis is time.
    """

    stacks: Stacks
    dates: int
    is_made_up: bool

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.stacks.facts, "kind": "seasons" if self.is_made_up else "series", "dates": self.dates}

    def files(self) -> tuple[Path, ...]:
        return self.stacks.files()

    def crops(self, draw: Draw, rng: np.random.Generator) -> Iterator[np.ndarray]:
        while True:
            yield without_nodata(lambda: self._crop(rng), lambda c: bool(c.all()), self.stacks.offset)

    def _crop(self, rng: np.random.Generator) -> np.ndarray:
        s, size = self.stacks, self.stacks.size
        stack = s.arrays[rng.choice(len(s.arrays), p=s.chances)]
        n, _, h, w = stack.shape
        i, j = rng.integers(h - size + 1), rng.integers(w - size + 1)
        if self.is_made_up:
            crop = twelve_bands(stack[rng.integers(n), :, i : i + size, j : j + size][None])[0]
            return seasons(crop, self.dates, rng) if crop.all() else crop[None]
        return twelve_bands(stack[_chosen_dates(n, self.dates, rng), :, i : i + size, j : j + size])

    def share(self, other: Any) -> None:
        """Maps are in common as it is."""

    def close(self) -> None:
        """Nothing is held open."""


def open_series(source: DataSource, bands: int) -> SeriesStacks:
    """Arrays [N, C, H, W] of an .npz, a folder of them or packs, those without the 60 m bands too.

    Raises:
        InputError: none fits.
    """
    found = []
    least = 1 if source.kind == "seasons" else source.dates
    for count in (bands, _WITHOUT_60M):
        try:
            found.append(open_stacks(source, count, least))
        except InputError:
            if count == _WITHOUT_60M and not found:
                raise
    return SeriesStacks(merged(found), source.dates, source.kind == "seasons")


def merged(found: Sequence[Stacks]) -> Stacks:
    first = found[0]
    if len(found) == 1:
        return first
    arrays = [a for s in found for a in s.arrays]
    pixels = np.concatenate([s.chances * sum(a.size for a in s.arrays) for s in found])
    return Stacks(
        [n for s in found for n in s.names],
        arrays,
        pixels / pixels.sum(),
        first.size,
        first.offset,
        first.paths,
        first.facts,
    )


def _chosen_dates(n: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rising indices of `count` of n dates, close together or far apart."""
    span = int(rng.integers(count, min(n, REACH * count) + 1))
    first = int(rng.integers(n - span + 1))
    return first + np.sort(rng.choice(span, count, replace=False))


def twelve_bands(stack: np.ndarray) -> np.ndarray:
    """[T, C, s, s] with B01 and B09 made up where they lack: B02 and B8A, smoothed to 60 m."""
    if stack.shape[1] != _WITHOUT_60M:
        return stack
    coastal, vapour = _smoothed(stack[:, 0], 0.9), _smoothed(stack[:, 7], 1.0)
    return np.concatenate([coastal[:, None], stack[:, :8], vapour[:, None], stack[:, 8:]], 1)


def _smoothed(band: np.ndarray, factor: float) -> np.ndarray:
    """Means over about 60 m, sliding."""
    kernel = np.ones(_COARSE) / _COARSE
    padded = np.pad(band.astype(np.float32), ((0, 0), (3, 2), (3, 2)), mode="edge")
    rows = np.apply_along_axis(np.convolve, 1, padded, kernel, "valid")
    mean = np.apply_along_axis(np.convolve, 2, rows, kernel, "valid")
    return np.where(band == 0, 0, np.maximum(np.rint(mean * factor), 1)).astype(band.dtype)


def seasons(crop: np.ndarray, dates: int, rng: np.random.Generator) -> np.ndarray:
    """Made-up dates of one image: classes of pixels change colour, contrast and content, each in its own way.

    Args:
        crop: [C, s, s] DN.
        dates: T.
        rng: decides everything.

    Returns:
        float32 [T, C, s, s] in 1 .. 20000.
    """
    x = crop.astype(np.float32)
    classes = _soft_classes(x, int(rng.integers(2, 7)), rng)
    other = np.rot90(x, 2, (1, 2))  # what a change of use may put there
    drift = [season(x, other, classes, rng) for _ in range(dates)]
    return np.clip(np.stack(drift), DN_MIN, DN_MAX)


def _soft_classes(x: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Memberships [K, s, s] by random directions in the spectrum and smooth regions."""
    spectra = np.log(x)
    spectra = (spectra - spectra.mean((1, 2), keepdims=True)) / (spectra.std((1, 2), keepdims=True) + 0.02)
    direction = rng.standard_normal((count, len(x))) / np.sqrt(len(x))
    score = np.einsum("kc,chw->khw", direction, spectra) * rng.uniform(1, 4)
    score += rng.uniform(0, 2) * np.stack([fractal(x.shape[1], rng) for _ in range(count)])
    power = np.exp(score - score.max(0))
    return (power / power.sum(0)).astype(np.float32)


def season(x: np.ndarray, other: np.ndarray, classes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One date: per class a gain per band and a contrast; somewhere other content; a shift and noise."""
    strength = rng.uniform(0.0, 0.4)
    k, bands = len(classes), len(x)
    gain = strength * (rng.standard_normal((k, 1)) + 0.5 * rng.standard_normal((k, bands)))
    gain = np.einsum("kc,khw->chw", gain, classes)
    mean = x.mean((1, 2), keepdims=True)
    contrast = np.einsum("k,khw->hw", rng.uniform(1 - 2 * strength, 1 + strength / 2, k), classes)
    seen = (mean + (x - mean) * contrast) * np.exp(gain)
    changed = np.clip(3 * (fractal(x.shape[1], rng) - rng.uniform(0.8, 3.0)), 0, 1)
    seen = seen * (1 - changed) + other * changed
    noise = rng.standard_normal(x.shape) * (5 + 0.01 * rng.random() * seen)
    return _shifted(seen, rng) + noise


def _shifted(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Moved by up to half a pixel each way: dates are not registered better."""
    for axis in (1, 2):
        part = rng.uniform(-0.5, 0.5)
        moved = np.roll(x, int(np.sign(part)), axis)
        x = x * (1 - abs(part)) + moved * abs(part)
    return x


def augmented_series(crop: np.ndarray, rng: np.random.Generator, a: Augment) -> np.ndarray:
    """One series [T, C, s, s] -> float32 like it: symmetries and brightness in common, clouds on single dates."""
    turn, mirror = rng.integers(4), rng.random() < 0.5
    x = np.rot90(crop, turn, (2, 3)).astype(np.float32)
    x = x[..., ::-1] if mirror else x
    gain = np.exp(rng.uniform(-a.brightness, a.brightness))
    gain *= np.exp(rng.uniform(0, np.log(4))) if rng.random() < a.bright_share / 2 else 1.0
    bands = np.exp(rng.uniform(-a.band, a.band, (len(x), x.shape[1], 1, 1)))
    x = x * (gain * bands).astype(np.float32)
    dates = [clouded(date, rng) if rng.random() < a.cloud_share else date for date in x]
    return np.clip(np.stack(dates), DN_MIN, DN_MAX).astype(np.float32)
