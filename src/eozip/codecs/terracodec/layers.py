"""Convolutional building blocks of the published networks (parameter names equal the published layout).

Sources: GDN from Balle et al. 2016 (arXiv 1511.06281); residual bottlenecks and attention from Cheng et al.
2020 (arXiv 2001.01568) as ELIC (He et al. 2022, arXiv 2203.10886) uses them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GDN_PEDESTAL = 2.0**-36
_GDN_BETA_MIN = 1e-6


def conv(c_in: int, c_out: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """Convolution with padding kernel // 2: [B, c_in, H, W] > [B, c_out, ceil(H/stride), ceil(W/stride)]."""
    return nn.Conv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2)


def deconv(c_in: int, c_out: int) -> nn.ConvTranspose2d:
    """Transposed 5x5 convolution of stride 2: [B, c_in, H, W] > [B, c_out, 2H, 2W]."""
    return nn.ConvTranspose2d(c_in, c_out, 5, stride=2, padding=2, output_padding=1)


class GDN(nn.Module):
    """Generalised divisive normalisation, or its inverse: [B, N, H, W] > the same shape.

    out_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2); the inverse multiplies. The parameters are stored raw:
    the effective value is max(raw, bound)^2 - 2^-36, which keeps it positive without a projection step.
    """

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + _GDN_PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(0.1 * torch.eye(channels) + _GDN_PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        beta = _effective(self.beta, _GDN_BETA_MIN)
        gamma = _effective(self.gamma, 0.0)
        energy = F.conv2d(x * x, gamma[:, :, None, None], beta)
        return x * (torch.sqrt(energy) if self.inverse else torch.rsqrt(energy))


def _effective(raw: Tensor, minimum: float) -> Tensor:
    """Raw GDN parameter > its effective value, at least `minimum`."""
    bound = (minimum + _GDN_PEDESTAL) ** 0.5
    return raw.clamp_min(bound) ** 2 - _GDN_PEDESTAL


class ResidualBlock(nn.Module):
    """Bottleneck with a skip and no activation after the sum: [B, n, H, W] > the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = conv(channels, channels // 2, 1, 1)
        self.conv2 = conv(channels // 2, channels // 2, 3, 1)
        self.conv3 = conv(channels // 2, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv3(F.relu(self.conv2(F.relu(self.conv1(x)))))


class ResidualUnit(nn.Module):
    """The same bottleneck with a ReLU after the sum: [B, n, H, W] > the same shape, non-negative."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            conv(channels, half, 1, 1),
            nn.ReLU(),
            conv(half, half, 3, 1),
            nn.ReLU(),
            conv(half, channels, 1, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.conv(x))


class AttentionBlock(nn.Module):
    """Gated residual: x + a(x) * sigmoid(b(x)), a and b three units each: [B, n, H, W] > the same shape."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv_a = nn.Sequential(*(ResidualUnit(channels) for _ in range(3)))
        self.conv_b = nn.Sequential(
            *(ResidualUnit(channels) for _ in range(3)), conv(channels, channels, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_a(x) * torch.sigmoid(self.conv_b(x))
