"""What is minimised, over which parameters, at which rate."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

LOSS_EXPONENT = -0.45  # the typical loss grows like lambda**0.45, so a per cent counts the same at every rate
WARM_UP, FLOOR = 0.01, 0.02  # of the budget; of the peak rate


def sampled_levels(levels: int, count: int, rng: np.random.Generator) -> Tensor:
    """Stratified levels float32 [count], one per example, uniform in 0 .. levels-1."""
    strata = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy(rng.permutation(strata) * (levels - 1)).float()


def loss_of(model: nn.Module, dn: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R + lambda D of a batch, weighted by lambda**-0.45.

    Args:
        model: `forward(x, t)` gives x_hat and bits [B].
        dn: float32 [B, C, H, W] digital numbers.
        t: levels [B].

    Returns:
        loss, bpppb [B], MSE [B] of standardised pixels.
    """
    x = model.standardise(dn)
    x_hat, bits = model(x, t)
    rate = bits / x[0].numel()
    mse = (x_hat - x).square().flatten(1).mean(1)
    lmbda = model.config.lmbda(t)
    return ((rate + lmbda * mse) * lmbda**LOSS_EXPONENT).mean(), rate, mse


def parameter_groups(model: nn.Module, lr: float, slow: float) -> list[dict]:
    """Closed-form parts learn at `slow` times the rate, or Adam would rewrite them within a hundred steps."""
    held, free = [], []
    for name, p in model.named_parameters():
        (held if ".linear." in name or name.endswith("linear.weight") else free).append(p)
    return [{"params": free, "lr": lr, "scale": 1.0}, {"params": held, "lr": lr * slow, "scale": slow}]


def schedule(done: float) -> float:
    """Factor of the learning rate: warm-up over 1 %, then cosine to 2 %; done in 0 .. 1."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return min(1.0, done / WARM_UP) * (FLOOR + (1 - FLOOR) * cosine)
