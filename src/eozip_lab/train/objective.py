"""What is minimised, over which parameters, at which rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

_FLOOR = 0.02  # of the peak rate, at the end
_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def sampled_levels(levels: int, count: int, rng: np.random.Generator) -> Tensor:
    """Stratified levels float32 [count], one per example, uniform in 0 .. levels-1."""
    strata = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy(rng.permutation(strata) * (levels - 1)).float()


@dataclass(frozen=True)
class Rates:
    """Peak learning rates.

    Attributes:
        lr: of everything else.
        matrices: multiple of lr for the matrices that Muon moves; None: it moves none.
    """

    lr: float
    matrices: float | None = None


def matrix_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that Muon moves: weights of layers, which map channels to channels.

    Tables (by level, rank or channel) are none of them: their rows are no outputs of a map.
    """
    return frozenset(
        f"{name}.weight" for name, module in model.named_modules() if isinstance(module, _LAYERS)
    )


def parameter_groups(model: nn.Module, rates: Rates, only: Sequence[str] = ()) -> list[dict]:
    """Groups for an optimiser; `lr` of each is its peak, kept as `peak`; `is_matrix` says whether Muon moves it.

    Args:
        model: the network.
        rates: peak learning rates.
        only: prefixes of the parameters to train; empty trains all. Others are frozen.
    """
    matrices = frozenset() if rates.matrices is None else matrix_names(model)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, p in model.named_parameters():
        p.requires_grad_(not only or name.startswith(tuple(only)))
        if p.requires_grad:
            peak = rates.lr * rates.matrices if name in matrices else rates.lr
            groups.setdefault((peak, name in matrices), []).append(p)
    return [
        {"params": params, "lr": peak, "peak": peak, "is_matrix": is_matrix}
        for (peak, is_matrix), params in groups.items()
    ]


def schedule(done: float, warm_up: float) -> float:
    """Factor of the learning rate: linear over the share `warm_up`, then cosine to 2 %; done in 0 .. 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return min(1.0, done / warm_up) * (_FLOOR + (1 - _FLOOR) * cosine)
