"""Gaussian likelihood of integer bins, in torch, for training and estimates (the coder sees tables)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALE_MIN = 0.11
SCALE_MAX = 256.0
SCALE_LEVELS = 64
LIKELIHOOD_MIN = 1e-9


def gaussian_likelihood(residual: Tensor, scale: Tensor, scale_min: float = SCALE_MIN) -> Tensor:
    """Probability of the unit bin around `residual` under a zero-mean Gaussian.

    Args:
        residual: y_hat - mean, any shape, float.
        scale: Standard deviation, broadcastable to `residual`; values below `scale_min` count as `scale_min`.
        scale_min: Floor of the scale.

    Returns:
        Likelihood in [1e-9, 1], the shape of `residual`.
    """
    sigma = scale.clamp_min(scale_min)
    # the tails are symmetric, and Phi keeps its precision on the negative side only
    distance = residual.abs()
    upper = _phi((0.5 - distance) / sigma)
    lower = _phi((-0.5 - distance) / sigma)
    return (upper - lower).clamp_min(LIKELIHOOD_MIN)


def scale_levels() -> list[float]:
    """The 64 log-spaced standard deviations, 0.11 to 256, for which integer tables exist."""
    step = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)
    return [SCALE_MIN * math.exp(step * i) for i in range(SCALE_LEVELS)]


def bits(likelihood: Tensor) -> Tensor:
    """Likelihoods, any shape > their total information, a scalar in bits."""
    return -torch.log2(likelihood).sum()


def _phi(x: Tensor) -> Tensor:
    """Cumulative distribution of the standard normal."""
    return 0.5 * torch.erfc(-x * math.sqrt(0.5))


# The grid of TEC-TT: fractional means and log-spaced scales, each by an index.
_GRID_MEANS = 100
GRID_SCALES = 256
GRID_SCALE_MIN = 0.01
_GRID_SCALE_MAX = 256.0
_GRID_LOG_RANGE = math.log(1 + _GRID_SCALE_MAX / GRID_SCALE_MIN)


def _grid_scale_rows(scale: Tensor) -> Tensor:
    """Standard deviations, any shape > index 0 to 255 on the scale grid, float."""
    index = (GRID_SCALES - 1) / _GRID_LOG_RANGE * torch.log1p(scale / GRID_SCALE_MIN)
    return torch.round(index.clamp(0, GRID_SCALES - 1))


def grid_scale(index: Tensor) -> Tensor:
    """Index on the scale grid > standard deviation; the published grid gives sigma + 0.01 back, not sigma."""
    return GRID_SCALE_MIN * torch.exp(index * (_GRID_LOG_RANGE / (GRID_SCALES - 1)))


def _grid_mean(mean: Tensor) -> Tensor:
    """Means, any shape > their fractional part in [-0.5, 0.49], as the published mean grid clamps it."""
    index = (mean - torch.round(mean) + 0.5) * _GRID_MEANS
    return index.clamp(0, _GRID_MEANS - 1) / _GRID_MEANS - 0.5


def grid_likelihood(y_hat: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Integer latents under Gaussians put on the grid of TEC-TT > likelihood in [1e-9, 1], the same shape."""
    residual = y_hat - torch.round(mean) - _grid_mean(mean)
    return gaussian_likelihood(residual, grid_scale(_grid_scale_rows(scale)), GRID_SCALE_MIN)
