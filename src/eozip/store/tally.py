"""Squared error per date and band, summed chunk by chunk, so that the PSNR of a scene needs no second reading.

PSNR is 10 log10(peak^2 / MSE) of DN without radiometric offset, clipped to 0 .. peak, over valid pixels; the peak is the DN
of reflectance 1, 10,000 for Sentinel-2.
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
        offset: radiometric offset that is taken off before clipping: one, or float [T, C].
        nodata: DN that is left out, or None.
        factors: [C] of bands that are repeated from coarser grids, of which only the samples count; empty: none is.
        peak: DN of reflectance 1 without offset.
        squares: [T, C] sum of squared differences.
        counts: [T, C] valid pixels that are not forecast.
        dropped: [T] forecast pixels (of H x W).
        unequal: pixels that differ at all, nodata included, forecast ones not.
    """

    dates: int
    bands: int
    offset: float | np.ndarray = 0
    nodata: int | None = None
    factors: tuple[int, ...] = ()
    peak: float = PEAK
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
                place = first + t, band
                factor = self.factors[band] if self.factors else 1
                planes = (original[t, band], decoded[t, band], coded[t])
                self._add_plane(place, *(plane[::factor, ::factor] for plane in planes))

    def _add_plane(
        self, where: tuple[int, int], original: np.ndarray, decoded: np.ndarray, coded: np.ndarray
    ) -> None:
        valid = coded if self.nodata is None else coded & (original != self.nodata)
        offset = self._offsets[where]
        error = self._clipped(original, offset) - self._clipped(decoded, offset)
        self.squares[where] += float(np.sum(np.square(error), where=valid, dtype=np.float64))
        self.counts[where] += int(valid.sum())
        self.unequal += int(np.count_nonzero((original != decoded) & coded))

    @property
    def _offsets(self) -> np.ndarray:
        return np.broadcast_to(self.offset, (self.dates, self.bands))

    def _clipped(self, dn: np.ndarray, offset: float) -> np.ndarray:
        return np.clip(dn.astype(np.float32) - np.float32(offset), 0, np.float32(self.peak))

    def psnr(self) -> float | None:
        """Over all dates and bands, dB; None where all valid pixels are equal (or none is valid)."""
        return psnr_of(float(self.squares.sum()), int(self.counts.sum()), self.peak)

    def band_psnr(self) -> list[float | None]:
        """[C] dB, None as above."""
        return _each(self.squares.sum(0), self.counts.sum(0), self.peak)

    def date_psnr(self) -> list[float | None]:
        """[T] dB, None as above."""
        return _each(self.squares.sum(1), self.counts.sum(1), self.peak)


def _each(squares: np.ndarray, counts: np.ndarray, peak: float) -> list[float | None]:
    return [psnr_of(float(s), int(n), peak) for s, n in zip(squares, counts)]


def psnr_of(square: float, count: int, peak: float = PEAK) -> float | None:
    """dB of a sum of squared differences over `count` pixels; None where it is 0 or there are none."""
    if count == 0 or square == 0:
        return None
    return 10 * math.log10(peak**2 * count / square)


def squares_of(psnr: Sequence[float | None], counts: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """The inverse of `psnr_of` for each band: float64 [C] sums of squared differences.

    Args:
        psnr: [C] dB, None for no difference.
        counts: [C] pixels.
        peak: see `Tally`.
    """
    means = [0.0 if value is None else peak**2 / 10 ** (value / 10) for value in psnr]
    return np.array(means) * counts
