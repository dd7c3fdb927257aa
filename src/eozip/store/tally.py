"""Squared error per date and band, summed chunk by chunk, so that the PSNR of a scene needs no second reading.

PSNR is 10 log10(10000^2 / MSE) of DN without radiometric offset, clipped to 0 .. 10000, over valid pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from eozip.chunk.pixels import PEAK


@dataclass
class Tally:
    """Running sums of one comparison.

    Attributes:
        dates: T.
        bands: C.
        offset: radiometric offset that is taken off before clipping.
        nodata: DN that is left out, or None.
        squares: [T, C] sum of squared differences.
        counts: [T, C] valid pixels that are not forecast.
        dropped: [T] forecast pixels (of H x W).
        unequal: pixels that differ at all, nodata included, forecast ones not.
    """

    dates: int
    bands: int
    offset: float = 0
    nodata: int | None = None
    squares: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)
    dropped: np.ndarray = field(init=False)
    unequal: int = 0

    def __post_init__(self) -> None:
        self.squares = np.zeros((self.dates, self.bands))
        self.counts = np.zeros((self.dates, self.bands), dtype=np.int64)
        self.dropped = np.zeros(self.dates, dtype=np.int64)

    def add(
        self, original: np.ndarray, decoded: np.ndarray, first: int = 0, dropped: np.ndarray | None = None
    ) -> None:
        """Counts one pair of stacks.

        Args:
            original: DN [t, C, h, w].
            decoded: DN of the same shape and dtype.
            first: date of the tally that the stacks begin with.
            dropped: bool [t, h, w], forecast pixels, which nothing is said about; None: there are none.
        """
        coded = np.ones((len(original), *original.shape[2:]), bool) if dropped is None else ~dropped
        self.dropped[first : first + len(original)] += (~coded).sum((1, 2))
        for t in range(len(original)):
            for band in range(self.bands):
                self._add_plane((first + t, band), original[t, band], decoded[t, band], coded[t])

    def _add_plane(
        self, where: tuple[int, int], original: np.ndarray, decoded: np.ndarray, coded: np.ndarray
    ) -> None:
        valid = coded if self.nodata is None else coded & (original != self.nodata)
        error = self._clipped(original) - self._clipped(decoded)
        self.squares[where] += float(np.sum(np.square(error), where=valid, dtype=np.float64))
        self.counts[where] += int(valid.sum())
        self.unequal += int(np.count_nonzero((original != decoded) & coded))

    def _clipped(self, dn: np.ndarray) -> np.ndarray:
        return np.clip(dn.astype(np.float32) - np.float32(self.offset), 0, PEAK)

    def psnr(self) -> float | None:
        """Over all dates and bands, dB; None where all valid pixels are equal (or none is valid)."""
        return psnr_of(float(self.squares.sum()), int(self.counts.sum()))

    def band_psnr(self) -> list[float | None]:
        """[C] dB, None as above."""
        return _each(self.squares.sum(0), self.counts.sum(0))

    def date_psnr(self) -> list[float | None]:
        """[T] dB, None as above."""
        return _each(self.squares.sum(1), self.counts.sum(1))


def _each(squares: np.ndarray, counts: np.ndarray) -> list[float | None]:
    return [psnr_of(float(s), int(n)) for s, n in zip(squares, counts)]


def psnr_of(square: float, count: int) -> float | None:
    """dB of a sum of squared differences over `count` pixels; None where it is 0 or there are none."""
    if count == 0 or square == 0:
        return None
    return 10 * math.log10(PEAK**2 * count / square)


def squares_of(psnr: Sequence[float | None], counts: np.ndarray) -> np.ndarray:
    """The inverse of `psnr_of` for each band: float64 [C] sums of squared differences.

    Args:
        psnr: [C] dB, None for no difference.
        counts: [C] pixels.
    """
    means = [0.0 if value is None else PEAK**2 / 10 ** (value / 10) for value in psnr]
    return np.array(means) * counts
