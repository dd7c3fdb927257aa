"""Series of dates as training examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip_lab.train.augment import DN_MAX, DN_MIN, Augment, clouded
from eozip_lab.train.data import Draw, Stacks, open_stacks, without_nodata
from eozip_lab.train.recipe import DataSource

_COARSE = 6  # 60 m in 10 m pixels
_WITHOUT_60M = 10  # bands: B02 B03 B04 B05 B06 B07 B08 B8A B11 B12
REACH = 3  # dates of a series are at most this many times as far apart as they could be


@dataclass(frozen=True)
class SeriesStacks:
    """Crops [T, C, s, s] of arrays [N, C, H, W] whose first axis is time.

    Attributes:
        stacks: the arrays.
        dates: T.
    """

    stacks: Stacks
    dates: int

    @property
    def facts(self) -> dict[str, Any]:
        return {**self.stacks.facts, "kind": "series", "dates": self.dates}

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
    for count in (bands, _WITHOUT_60M):
        try:
            found.append(open_stacks(source, count, source.dates))
        except InputError:
            if count == _WITHOUT_60M and not found:
                raise
    return SeriesStacks(merged(found), source.dates)


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
