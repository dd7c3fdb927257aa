"""How training turns residuals into what is decoded: as the codec does, or by rounding to whole steps.

The codec's encoder looks for the symbols of least bits and error together. What a small change of a mean gains is then
told by the error of what was chosen alone (the envelope theorem), so choosing as it does, and not by rounding, gives means
the right gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from eozip.codecs.pyramid.coarseness import SPACING, THRIFT
from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.ports import chosen
from eozip.codecs.pyramid.side import ROWS, ROWS_PER_NAT, SCALE_MIN
from eozip.codecs.pyramid.traverse import CERTAIN
from eozip.entropy.logistic_tables import trellis_masses
from eozip.entropy.range_coder import Tables
from eozip.entropy.tables import pack_tables
from eozip.entropy.trellis import points, turns_under

_STEP = SPACING / VALUE  # of a spacing
_DEAD_ZONE = 0.38  # a residual of so much less than a step more than a whole one becomes that whole one
_WITHIN_ROW = 0.25  # of a row's width: where its law lies, for scales that are rounded down to a row


@dataclass(frozen=True, eq=False)
class Quantised:
    """What residuals became, in steps.

    Attributes:
        values: which are decoded.
        near, far: between which magnitudes a residual has that value, as tables have it; near is -far for 0.
    """

    values: Tensor
    near: Tensor
    far: Tensor


# residuals in steps, log scales, and where there are symbols (1, else 0), of one shape
Quantise = Callable[[Tensor, Tensor, Tensor], Quantised]


def in_steps(symbols: Tensor) -> Quantised:
    """Whole steps."""
    size = symbols.abs()
    return Quantised(symbols, size - 0.5, size + 0.5)


def in_dead_zone(residual: Tensor) -> Tensor:
    """Whole steps, towards zero where it is about as near."""
    return torch.sign(residual) * torch.floor(residual.abs() + _DEAD_ZONE)


def rows_of(scale: Tensor) -> Tensor:
    """The table rows of log scales, int64."""
    return torch.floor((scale - SCALE_MIN) * ROWS_PER_NAT).long().clamp(0, ROWS - 1)


def scales_of_rows() -> np.ndarray:
    """In steps, where the law of each row lies."""
    return np.asarray(np.exp(SCALE_MIN + (np.arange(ROWS) + _WITHIN_ROW) / ROWS_PER_NAT))


@cache
def logistic_trellis() -> Tables:
    """Tables of both quantisers, each row a logistic law."""
    scales = scales_of_rows() / _STEP
    masses = [trellis_masses(float(scale), turn) for turn in range(2) for scale in scales]
    return pack_tables(masses, [-(len(m) // 2) for m in masses])


def by_trellis(tables: Tables) -> Quantise:
    """The codec's choice under these tables, all residuals of a call together."""

    def quantise(residual: Tensor, scale: Tensor, sent: Tensor) -> Quantised:
        rows = rows_of(scale).numpy().astype(np.uint8).ravel()
        some = np.flatnonzero((rows >= CERTAIN) & (sent.expand_as(residual).numpy().ravel() > 0))
        own = rows[some]
        symbols = chosen(residual.numpy().ravel()[some] / np.float32(_STEP), own, tables, THRIFT)
        turns, size = turns_under(symbols, own, tables), np.abs(symbols)
        values, near, far = (np.full(rows.shape, fill, np.float32) for fill in (0, -1, 1))
        values[some] = points(symbols, turns)
        near[some] = np.where(turns == 0, 2 * size - 1, np.maximum(2 * size - 2, 0.5))
        far[some] = np.where(turns == 0, 2 * size + 1, np.maximum(2 * size, 0.5))
        near[some[symbols == 0]] = -far[some[symbols == 0]]
        return Quantised(
            *(torch.from_numpy(v * np.float32(_STEP)).view_as(residual) for v in (values, near, far))
        )

    return quantise
