"""Entropy networks on integers: the same traversal, with weights and activations on dyadic grids in float64.

A float64 holds every integer up to 2**53. When weights are multiples of 2**-14 and activations multiples of 2**-8, every
product and every partial sum of a layer is a multiple of 2**-22 below 2**31, so it is represented exactly and the order of
summation, the number of threads, fused multiply-adds, vector width and device cannot change it. In between only
operations that IEEE 754 rounds correctly are used (divide, round to even, compare), and tables where a function is needed.

docs/bitstream.md defines each step; `tests/reference` decodes with integers and no torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eozip.errors import WeightsError

from .logistic import LOG_SCALE_MAX, LOG_SCALE_MIN, bounded
from .logistic_tables import ROWS, STEP

WEIGHT = 2.0**14  # weights are multiples of 1 / WEIGHT
ACTIVATION = 2.0**8  # activations and log scales
VALUE = 2.0**8  # latents, means and spreads, in quantisation steps
LEVEL = 2.0**12  # the quality level
ACTIVATION_MAX = 2.0**12
VALUE_MAX = 2.0**20
TABLE_MAX = 2**12  # steps; squash and log are constant beyond
SUM_MAX = 2.0**53


@dataclass(frozen=True)
class FunctionTables:
    """Functions of one integer argument, ready for look-up.

    Attributes:
        squash: float64 [n], ln(1 + i / VALUE) on the activation grid.
        log: float64 [n], ln(i / VALUE) on the activation grid (entry 0 as entry 1).
        rows: int64 [m], the coder's table row of the log scale i / ACTIVATION - 2 |LOG_SCALE_MIN|.
    """

    squash: Tensor
    log: Tensor
    rows: Tensor


ROW_OFFSET = -round(2 * LOG_SCALE_MIN * ACTIVATION)
LOG_MIN = -round(math.log(VALUE) * ACTIVATION)  # of 1 / VALUE, in activation units


def function_steps() -> dict[str, Tensor]:
    """The float > integer crossing of the functions: where each staircase rises, int32. Stored with the weights.

    squash, log: entry k is the first argument (in VALUE units) whose function value is k + 1 (log: LOG_MIN + k + 1)
    activation units or more. rows: entry k is the first log scale (in activation units, plus ROW_OFFSET) of row k + 1.
    """
    v = torch.arange(int(TABLE_MAX * VALUE) + 1, dtype=torch.float64) / VALUE
    scale = torch.arange(-ROW_OFFSET, round((LOG_SCALE_MAX + 1) * ACTIVATION), dtype=torch.float64) / ACTIVATION
    return {
        "squash": rises(v.log1p() * ACTIVATION, 0),
        "log": rises(v.clamp_min(1 / VALUE).log() * ACTIVATION, LOG_MIN),
        "rows": rises((bounded(scale) - LOG_SCALE_MIN) / STEP, 0)[: ROWS - 1],
    }


def rises(curve: Tensor, low: int) -> Tensor:
    """First index at which a rising curve, rounded, reaches low + 1, low + 2, ..., its last value."""
    levels = curve.round().long()
    return torch.searchsorted(levels, torch.arange(low + 1, int(levels[-1]) + 1)).to(torch.int32)


def expanded(steps: Mapping[str, Tensor]) -> FunctionTables:
    """Staircases to look-up tables, by integer comparisons alone.

    Raises:
        WeightsError: a function is missing or does not rise.
    """
    if set(steps) != {"squash", "log", "rows"} or any((v.diff() < 0).any() for v in steps.values()):
        raise WeightsError(f"function tables: expected rising squash, log, rows, got {sorted(steps)}")
    index = torch.arange(int(TABLE_MAX * VALUE) + 1, dtype=torch.int32)
    squash, log = (torch.searchsorted(steps[n], index, right=True) for n in ("squash", "log"))
    scales = torch.arange(int(steps["rows"].max()) + 1, dtype=torch.int32)
    rows = torch.searchsorted(steps["rows"], scales, right=True)
    return FunctionTables(squash.double() / ACTIVATION, (log + LOG_MIN).double() / ACTIVATION, rows)


def on_grid(v: Tensor, unit: float) -> Tensor:
    """The nearest multiple of 1 / unit (ties to even); exact, as unit is a power of two."""
    return torch.round(v * unit) / unit


class ExactArithmetic:
    """`eozip.networks.small_entropy.Arithmetic` on the grids."""

    def __init__(self, tables: FunctionTables) -> None:
        self.tables = tables

    def squash(self, v: Tensor) -> Tensor:
        index = (v.abs() * VALUE).clamp_max(len(self.tables.squash) - 1).long()
        return v.sign() * self.tables.squash[index]

    def log(self, v: Tensor) -> Tensor:
        return self.tables.log[(v * VALUE).clamp_max(len(self.tables.log) - 1).long()]

    def positive(self, v: Tensor) -> Tensor:
        return v  # exponentiated at export

    def settle(self, v: Tensor) -> Tensor:
        return on_grid(v, ACTIVATION).clamp(-ACTIVATION_MAX, ACTIVATION_MAX)

    def place(self, v: Tensor) -> Tensor:
        return on_grid(v, VALUE).clamp(-VALUE_MAX, VALUE_MAX)

    def rows(self, log_scale: Tensor) -> Tensor:
        """Table row of settled log scales."""
        index = (log_scale * ACTIVATION).long() + ROW_OFFSET
        return self.tables.rows[index.clamp(0, len(self.tables.rows) - 1)]


def exact_entropy(entropy: nn.Module) -> nn.Module:
    """A float64 copy of a `SmallEntropy` or `LinearEntropy` with every parameter on the weight grid.

    Raises:
        WeightsError: a layer whose sums could leave the exact range.
    """
    twin = copy.deepcopy(entropy).double().eval().requires_grad_(False)
    for name, p in twin.named_parameters():
        p.copy_(on_grid(p.exp() if name in twin.logarithms else p, WEIGHT))
    check_range(twin)
    return twin


def check_range(entropy: nn.Module) -> None:
    """No sum can reach 2**53 grid units: sum |w| * largest input, in units of weight grid times input grid."""
    for name, weight in entropy.named_parameters():
        if weight.ndim < 2:
            continue
        reads_values = ".linear." in name or name in entropy.logarithms  # else activations
        units = VALUE_MAX * VALUE if reads_values else ACTIVATION_MAX * ACTIVATION
        total = float(weight.abs().flatten(1).sum(1).max()) * WEIGHT * units
        if total >= SUM_MAX:
            raise WeightsError(f"entropy weight {name}: expected sums below 2**53, got up to {total:.3g}; retrain with decay")


def grid_level(t: float) -> float:
    """The quality level on its grid."""
    return float(np.round(t * LEVEL) / LEVEL)
