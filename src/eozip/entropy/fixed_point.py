"""Entropy networks on integers: the same traversal, with weights and activations on dyadic grids.

Every weight and every number that enters a sum is a multiple of a power of two. A float32 holds every integer up to
2**24, a float64 up to 2**53; while all partial sums of a layer, counted in grid units, stay below that, each is represented
exactly, and the order of summation, the number of threads, fused multiply-adds, vector width and device cannot change it.
`exact_entropy` chooses each layer's weight grid so that this holds and refuses a layer where it cannot. Between sums there
are only operations that IEEE 754 rounds correctly (add, multiply, divide, round to even, compare), and tables.

docs/exact.md defines each step; `tests/reference` decodes with integers and no torch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from eozip.entropy.logistic import LOG_SCALE_MAX, LOG_SCALE_MIN, bounded
from eozip.entropy.logistic_tables import ROWS, STEP
from eozip.errors import WeightsError

WEIGHT = 2.0**20  # the finest weight grid: multiples of 1 / WEIGHT
ACTIVATION, _ACTIVATION_MAX = 2.0**5, 2.0**5
_FINE, _FINE_MAX = 2.0**8, 2.0**8  # log scales, biases, factors
VALUE, _VALUE_MAX = 2.0**6, 2.0**14  # latents, means, spreads, in quantisation steps; 20,000 DN need a third
_COARSE, _COARSE_MAX = 2.0**4, 2.0**6  # latents of the later groups, as inputs of large sums
_LEVEL = 2.0**12  # the quality level
_TABLE_MAX = 2**12  # steps; squash and log are constant beyond
_NARROW, WIDE = 2.0**24, 2.0**53  # integers that float32 and float64 hold


@dataclass(frozen=True)
class FunctionTables:
    """Functions of one integer argument, ready for look-up.

    Attributes:
        squash: float32 [n], ln(1 + i / VALUE) on the activation grid.
        log: float32 [n], ln(i / VALUE) on the fine grid (entry 0 as entry 1).
        rows: int64 [m], the coder's table row of the log scale (i - ROW_OFFSET) / FINE.
    """

    squash: Tensor
    log: Tensor
    rows: Tensor


_ROW_OFFSET = -round(2 * LOG_SCALE_MIN * _FINE)
_LOG_MIN = -round(math.log(VALUE) * _FINE)  # of 1 / VALUE, in units of the fine grid


def function_steps() -> dict[str, Tensor]:
    """The float > integer crossing of the functions: where each staircase rises, int32. Stored with the weights.

    squash, log: entry k is the first argument (in VALUE units) at which the function reaches k + 1 (log: LOG_MIN + k + 1)
    units of its grid. rows: entry k is the first log scale (fine grid units, plus ROW_OFFSET) of row k + 1.
    """
    v = torch.arange(int(_TABLE_MAX * VALUE) + 1, dtype=torch.float64) / VALUE
    scale = torch.arange(-_ROW_OFFSET, round((LOG_SCALE_MAX + 1) * _FINE), dtype=torch.float64) / _FINE
    return {
        "squash": rises(v.log1p() * ACTIVATION, 0),
        "log": rises(v.clamp_min(1 / VALUE).log() * _FINE, _LOG_MIN),
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
    index = torch.arange(int(_TABLE_MAX * VALUE) + 1, dtype=torch.int32)
    squash, log = (torch.searchsorted(steps[n], index, right=True) for n in ("squash", "log"))
    scales = torch.arange(int(steps["rows"].max()) + 1, dtype=torch.int32)
    rows = torch.searchsorted(steps["rows"], scales, right=True)
    return FunctionTables(squash.float() / ACTIVATION, (log + _LOG_MIN).float() / _FINE, rows)


def on_grid(v: Tensor, unit: float, most: float) -> Tensor:
    """The nearest multiple of 1 / unit (ties to even), within -most .. most; exact, as unit is a power of two."""
    # in place: these are many and small; 1 / unit is exact
    return (v * unit).round_().clamp_(-most * unit, most * unit).mul_(1 / unit)


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index] for an index of any shape; on a CPU indexing itself takes three times as long."""
    return table.index_select(0, index.flatten()).view(index.shape)


class ExactArithmetic:
    """Arithmetic on the grids.

    Args:
        tables: the functions.
        carrier: dtype of all but the widest sums. float32 is enough and faster, float64 gives the same numbers; it is for
            devices and settings under which a float32 product is not IEEE's (see `carrier_for`).
    """

    def __init__(self, tables: FunctionTables, carrier: torch.dtype = torch.float32) -> None:
        self.carrier = carrier
        self.tables = FunctionTables(tables.squash.to(carrier), tables.log.to(carrier), tables.rows)

    def squash(self, v: Tensor) -> Tensor:
        index = (v.abs() * VALUE).clamp_max_(len(self.tables.squash) - 1).int()
        return looked_up(self.tables.squash, index).copysign_(v)

    def log(self, v: Tensor) -> Tensor:
        return looked_up(self.tables.log, (v * VALUE).clamp_max_(len(self.tables.log) - 1).int())

    def positive(self, v: Tensor) -> Tensor:
        return v  # exponentiated at export

    def settle(self, v: Tensor) -> Tensor:
        return on_grid(v, ACTIVATION, _ACTIVATION_MAX)

    def fine(self, v: Tensor) -> Tensor:
        return on_grid(v, _FINE, _FINE_MAX).to(self.carrier)

    def place(self, v: Tensor) -> Tensor:
        return on_grid(v, VALUE, _VALUE_MAX).to(self.carrier)

    def coarse(self, v: Tensor) -> Tensor:
        return on_grid(v, _COARSE, _COARSE_MAX)

    def wide(self, v: Tensor) -> Tensor:
        return v.double()

    def rows(self, log_scale: Tensor) -> Tensor:
        """Table rows of log scales on the fine grid."""
        index = (log_scale * _FINE).int() + _ROW_OFFSET
        return looked_up(self.tables.rows, index.clamp_(0, len(self.tables.rows) - 1))


def carrier_for(device: torch.device) -> torch.dtype:
    """float32 where its products are IEEE's: on a CPU unless a setting allows bfloat16 or TF32 inside; else float64.

    Without oneDNN torch may give convolutions to NNPACK, whose transforms round.
    """
    relaxed = torch.get_float32_matmul_precision() != "highest" or not _precision_settings() <= {
        "none",
        "ieee",
    }
    mkldnn = torch.backends.mkldnn
    exact = device.type == "cpu" and mkldnn.is_available() and mkldnn.enabled and not relaxed
    return torch.float32 if exact else torch.float64


def _precision_settings() -> set[str]:
    """Precisions that oneDNN may use for float32 (newer torch only)."""
    parts = [torch.backends.mkldnn, *(getattr(torch.backends.mkldnn, n, None) for n in ("conv", "matmul"))]
    return {str(getattr(part, "fp32_precision", "none")) for part in parts} | {
        str(getattr(torch.backends, "fp32_precision", "none"))
    }


# Largest inputs of a narrow sum, in units of their grid (the same for all columns of a weight).
_LIMITS = {
    "activation": _ACTIVATION_MAX * ACTIVATION,
    "squash": math.ceil(math.log1p(_TABLE_MAX) * ACTIVATION),
    "one": ACTIVATION,
    "coarse": _COARSE_MAX * _COARSE,
    "box": _COARSE_MAX * _COARSE,  # the sum is made coarse again
    "wide": 0.0,  # summed apart, in float64
    "unused": 0.0,
}


def exact_entropy(entropy: nn.Module) -> nn.Module:
    """A copy of a `SmallEntropy` or `LinearEntropy` with every parameter on a grid that keeps its sums exact.

    Raises:
        WeightsError: a layer whose sums could leave the exact range.
    """
    twin = copy.deepcopy(entropy).eval().requires_grad_(False)
    units: dict[str, float] = {}
    for name, p in twin.named_parameters():
        if name.startswith("h_a."):
            continue  # the encoder's alone
        value = p.double().exp() if name in twin.logarithms else p.double()
        reads = twin.reads(name)
        layer = name.rpartition(".")[0]
        if reads is None:
            # a bias joins its layer's sum, so it shares its grid
            p.copy_(rounded(name, value, min(WEIGHT, ACTIVATION * units.get(layer, WEIGHT))))
        else:
            matrix = value.flatten(1)
            limits = _column_limits(reads, matrix.shape[1])
            _check_wide(name, matrix)
            units[layer] = _narrow_unit(name, matrix, limits)
            p.copy_(
                torch.where(
                    limits > 0, rounded(name, matrix, units[layer]), rounded(name, matrix, WEIGHT)
                ).view_as(p)
            )
    return twin


def _check_wide(name: str, matrix: Tensor) -> None:
    """A float64 sum over latents, or over boxes of nine, stays exact.

    Raises:
        WeightsError: weights too large.
    """
    most = WIDE / (16 * WEIGHT * VALUE * _VALUE_MAX)
    if float(matrix.abs().sum(1).max()) >= most:
        raise WeightsError(
            f"entropy weight {name}: expected rows of absolute sum below {most:g}; train with weight decay"
        )


def rounded(name: str, value: Tensor, unit: float) -> Tensor:
    grid = torch.round(value * unit) / unit
    if grid.abs().max() * WEIGHT >= _NARROW:
        raise WeightsError(
            f"entropy weight {name}: expected values below 16, got {float(grid.abs().max()):.4g}"
        )
    return grid


def _column_limits(reads: list[tuple[str, int]], columns: int) -> Tensor:
    """Largest input of every column, float64 [columns]."""
    counts = torch.tensor([columns if count < 0 else count for _, count in reads])
    limits = torch.tensor([_LIMITS[kind] for kind, _ in reads], dtype=torch.float64)
    return limits.repeat_interleave(counts)[:columns]


def _narrow_unit(name: str, matrix: Tensor, limits: Tensor) -> float:
    """The finest power of two, at most WEIGHT, on whose grid a float32 sum over these columns stays exact.

    Raises:
        WeightsError: it would be too coarse to be of use.
    """
    largest = max(float((matrix.abs() * limits).sum(1).max()), 2.0**-20)
    # one bit is left for the bias and for weights that are rounded up
    unit = min(WEIGHT, 2.0 ** math.floor(math.log2(_NARROW / 2 / largest)))
    worst = float((torch.round(matrix * unit).abs() * limits).sum(1).max())
    if unit < 2**5 or worst >= _NARROW * 0.75:
        raise WeightsError(
            f"entropy weight {name}: its sums allow a weight grid of 1/{unit:g} only; train with weight decay"
        )
    return unit


def grid_level(t: float) -> float:
    """The quality level on its grid."""
    return float(np.round(t * _LEVEL) / _LEVEL)
