"""What is minimised, over which parameters, at which rate."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

LOSS_EXPONENT = -0.45  # the typical loss grows like lambda**0.45, so a per cent counts the same at every rate
_FLOOR = 0.02  # of the peak rate, at the end
_LAYERS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


def sampled_levels(levels: int, count: int, rng: np.random.Generator) -> Tensor:
    """Stratified levels float32 [count], one per example, uniform in 0 .. levels-1."""
    strata = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy(rng.permutation(strata) * (levels - 1)).float()


def loss_of(model: nn.Module, dn: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R + lambda D of a batch, weighted by lambda**-0.45; D is the squared error with the emphasis that bands have.

    Args:
        model: `forward(x, t)` gives x_hat and bits [B].
        dn: float32 [B, C, H, W] digital numbers.
        t: levels [B].

    Returns:
        loss, bpppb [B], MSE [B] of standardised pixels (all bands alike).
    """
    x = model.standardise(dn)
    x_hat, bits = model(x, t)
    rate = bits / x[0].numel()
    of_bands = (x_hat - x).square().mean((2, 3))
    lmbda = model.config.lmbda(t)
    distortion = (of_bands * model.config.band_weights(t)).mean(1)
    return ((rate + lmbda * distortion) * lmbda**LOSS_EXPONENT).mean(), rate, of_bands.mean(1)
