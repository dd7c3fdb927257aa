"""Numbers on dyadic grids, whose sums are the same on every machine.

Every weight and every number that enters a sum is a multiple of a power of two. A float32 holds every integer up to
2**24, a float64 up to 2**53; while all partial sums of a layer, counted in grid units, stay below that, each is represented
exactly, and the order of summation, the number of threads, fused multiply-adds, vector width and device cannot change it.
Between sums there are only operations that IEEE 754 rounds correctly (add, multiply, divide, round to even, compare), and
tables. docs/exact.md defines each step.
"""

from __future__ import annotations

import torch
from torch import Tensor

WIDE = 2.0**53  # integers up to it are exact in float64


def on_grid(v: Tensor, unit: float, most: float) -> Tensor:
    """The nearest multiple of 1 / unit (ties to even), within -most .. most; exact, as unit is a power of two."""
    # in place: these are many and small; 1 / unit is exact
    return (v * unit).round_().clamp_(-most * unit, most * unit).mul_(1 / unit)


def looked_up(table: Tensor, index: Tensor) -> Tensor:
    """table[index] for an index of any shape; on a CPU indexing itself takes three times as long."""
    return table.index_select(0, index.flatten()).view(index.shape)


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
