"""The factorised prior of Balle et al. 2018 (arXiv 1802.01436): one learned distribution per channel."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.entropy.gaussian import LIKELIHOOD_MIN

_WIDTHS = (1, 3, 3, 3, 3, 1)


class FactorizedPrior(nn.Module):
    """A univariate cumulative distribution per channel, as a small monotone network of five layers.

    Parameter names equal the published `entropy_bottleneck`. Values are quantised around the channel's
    median, the middle entry of `quantiles`.
    """

    def __init__(self, channels: int):
        super().__init__()
        pairs = list(pairwise(_WIDTHS))
        self.quantiles = nn.Parameter(torch.tensor([-10.0, 0.0, 10.0]).repeat(channels, 1, 1))
        self.matrices = nn.ParameterList(
            nn.Parameter(torch.full((channels, d_out, d_in), 0.5)) for d_in, d_out in pairs
        )
        self.biases = nn.ParameterList(
            nn.Parameter(torch.empty(channels, d_out, 1).uniform_(-0.5, 0.5)) for _, d_out in pairs
        )
        self.factors = nn.ParameterList(
            nn.Parameter(torch.zeros(channels, d_out, 1)) for _, d_out in pairs[:-1]
        )

    @property
    def medians(self) -> Tensor:
        """Float [M], the offset of the quantiser of each channel."""
        return self.quantiles[:, 0, 1]

    def quantise(self, y: Tensor) -> Tensor:
        """y [B, M, h, w] > y_hat = round(y - median) + median, the same shape."""
        median = self.medians[:, None, None]
        return torch.round(y - median) + median

    def logits(self, values: Tensor) -> Tensor:
        """Values [M, 1, n] > logits of the cumulative distribution of each channel, [M, 1, n]."""
        t = values
        for i, (matrix, bias) in enumerate(zip(self.matrices, self.biases)):
            t = F.softplus(matrix) @ t + bias
            if i < len(self.factors):
                t = t + torch.tanh(self.factors[i]) * torch.tanh(t)
        return t

    def likelihood(self, y_hat: Tensor) -> Tensor:
        """y_hat [B, M, h, w] > probability of the unit bin around each value, at least 1e-9, same shape."""
        values = y_hat.transpose(0, 1).flatten(1)[:, None]  # [M, 1, B h w]
        lower, upper = self.logits(values - 0.5), self.logits(values + 0.5)
        # A plain difference loses precision above the median (steps of 6e-8 in float32). The published
        # networks estimate this way and their vectors hold it; the coder's tables are computed in float64.
        mass = torch.sigmoid(upper) - torch.sigmoid(lower)
        shape = (y_hat.shape[1], y_hat.shape[0], *y_hat.shape[2:])
        return mass.clamp_min(LIKELIHOOD_MIN).reshape(shape).transpose(0, 1)
