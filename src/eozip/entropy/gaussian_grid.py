"""Integer tables of the temporal networks: Gaussians by scale and by the fractional part of their mean.

The scale is on the published grid of 256. The mean has steps of a tenth of the scale, at least 0.01: a step
of 0.01 throughout, as published, would be 25,600 rows, of which those of wide Gaussians differ by nothing.
Rows are for means in [0, 0.5]; the others are their mirror images, coded with the symbol's sign turned.
`tests/codecs/test_tec_tt.py` measures what this costs: under 0.2 % of the bits of unrounded means.

Which row it is, is decided by comparisons and one division, all correctly rounded: no logarithm is taken of a scale.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from eozip.entropy.gaussian import GRID_SCALE_MIN, GRID_SCALES, grid_scale
from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import GAUSSIAN_REACH, pack_tables

_MEAN_STEP_MIN = 0.01
_MEAN_STEP = 0.1  # of the scale; the loss is about MEAN_STEP**2 / 24 nats a symbol
_CROSSING_UNIT = 2.0**20  # thresholds and steps are multiples of 1 / this: whatever libm, the same
_CENTRE_LIMIT = 1 << 22  # means beyond saturate, so that sums with symbols stay exact in every float


class GaussianGrid:
    """The tables, and the one place where means and scales become rows of them.

    Attributes:
        tables: About 4,400 rows.
    """

    def __init__(self) -> None:
        scales = grid_scale(torch.arange(GRID_SCALES, dtype=torch.float64)).tolist()
        steps = [max(_MEAN_STEP_MIN, _MEAN_STEP * scale) for scale in scales]
        last = [round(0.5 / step) for step in steps]
        masses, first = zip(
            *(
                _masses(j * step, scale)
                for scale, step, most in zip(scales, steps, last)
                for j in range(most + 1)
            )
        )
        self.tables: Tables = pack_tables(masses, first)
        self._steps, self._last = _on_crossing_grid(steps), torch.tensor(last)
        # the published index is rounded, so a level begins half an index below it; `grid_scale` adds 0.01
        begins = [
            float(grid_scale(torch.tensor(i - 0.5, dtype=torch.float64))) for i in range(1, GRID_SCALES)
        ]
        self._thresholds = _on_crossing_grid([begin - GRID_SCALE_MIN for begin in begins])
        self._start = torch.cumsum(self._last + 1, 0) - self._last - 1

    def crossing(self) -> bytes:
        """What decides on rows, for the hash of a codec."""
        return (
            torch.cat([self._thresholds, self._steps]).mul(_CROSSING_UNIT).to(torch.int32).numpy().tobytes()
        )

    def rows(self, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The float > integer crossing.

        Args:
            mean: Any shape, float64.
            scale: The same shape, float64, positive.

        Returns:
            Row of `tables` (int32), centre (the rounded mean, float64 integers) and sign (float64, 1 or -1),
            each of that shape: a value v is coded as the symbol (v - centre) * sign under its row.
        """
        centre = torch.round(mean).clamp(-_CENTRE_LIMIT, _CENTRE_LIMIT)
        fraction = (mean - centre).clamp(-0.5, 0.5)
        level = torch.bucketize(scale.contiguous(), self._thresholds, right=True)
        step = torch.round(fraction.abs() / self._steps[level]).long().minimum(self._last[level])
        sign = torch.where(fraction < 0, -1.0, 1.0).double()
        return (self._start[level] + step).to(torch.int32), centre, sign


def _on_crossing_grid(values: list[float]) -> Tensor:
    return torch.tensor([round(v * _CROSSING_UNIT) / _CROSSING_UNIT for v in values], dtype=torch.float64)


def _masses(mean: float, scale: float) -> tuple[np.ndarray, int]:
    """Probabilities of the integer bins within 4 scales of the mean, and the first of them."""
    low, high = round(mean - GAUSSIAN_REACH * scale), round(mean + GAUSSIAN_REACH * scale)
    masses = [_bin(k - mean, scale) for k in range(low, high + 1)]
    return np.array(masses), low


def _bin(distance: float, scale: float) -> float:
    """Mass of the unit bin at a distance from the mean, from the tail, where erfc keeps its precision."""
    near, far = abs(distance) - 0.5, abs(distance) + 0.5
    unit = 1 / (scale * math.sqrt(2))
    return 0.5 * (math.erfc(near * unit) - math.erfc(far * unit))
