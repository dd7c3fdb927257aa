"""Squared error per band, summed chunk by chunk, so that the PSNR of a scene needs no second reading.

PSNR is 10 log10(10000^2 / MSE) of DN without radiometric offset, clipped to 0 .. 10000, over valid pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from eozip.pixels import PEAK


@dataclass
class Tally:
    """Running sums of one comparison.

    Attributes:
        offset: radiometric offset that is taken off before clipping.
        nodata: DN that is left out, or None.
        squares: [C] sum of squared differences.
        counts: [C] valid pixels.
        unequal: pixels that differ at all, nodata included.
    """

    bands: int
    offset: float = 0
    nodata: int | None = None
    squares: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)
    unequal: int = 0

    def __post_init__(self) -> None:
        self.squares = np.zeros(self.bands)
        self.counts = np.zeros(self.bands, dtype=np.int64)

    def add(self, original: np.ndarray, decoded: np.ndarray) -> None:
        """Counts one pair of stacks.

        Args:
            original: DN [T, C, h, w].
            decoded: DN of the same shape and dtype.
        """
        for band in range(self.bands):
            self._add_band(band, original[:, band], decoded[:, band])

    def _add_band(self, band: int, original: np.ndarray, decoded: np.ndarray) -> None:
        valid = np.ones(original.shape, bool) if self.nodata is None else original != self.nodata
        error = self._clipped(original) - self._clipped(decoded)
        self.squares[band] += float(np.sum(np.square(error), where=valid, dtype=np.float64))
        self.counts[band] += int(valid.sum())
        self.unequal += int(np.count_nonzero(original != decoded))

    def _clipped(self, dn: np.ndarray) -> np.ndarray:
        return np.clip(dn.astype(np.float32) - np.float32(self.offset), 0, PEAK)

    def psnr(self) -> float | None:
        """Over all bands, dB; None where all valid pixels are equal (or none is valid)."""
        return _psnr(float(self.squares.sum()), int(self.counts.sum()))

    def band_psnr(self) -> list[float | None]:
        """[C] dB, None as above."""
        return [_psnr(float(s), int(n)) for s, n in zip(self.squares, self.counts)]


def _psnr(square: float, count: int) -> float | None:
    if count == 0 or square == 0:
        return None
    return 10 * math.log10(PEAK**2 * count / square)
