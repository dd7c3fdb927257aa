"""The parts of TEC-TT and FlexTEC beside the transformer: the past of the first frame, and the dequantiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PadToken(nn.Module):
    """The past of the first frame: one learned value per channel."""

    def __init__(self, m: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, m, 1, 1))

    def forward(self, y: Tensor) -> Tensor:
        """A past frame in the shape of y [B, M, h, w]."""
        return self.weight.expand_as(y)


class _LeakyBlock(nn.Module):
    """conv3x3, LeakyReLU, conv3x3, LeakyReLU, plus the input."""

    def __init__(self, m: int):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(m, m, 3, padding=1), nn.Conv2d(m, m, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x))))


class Dequantiser(nn.Module):
    """Refines y_hat by what the decoder's features say about it."""

    def __init__(self, m: int, d: int):
        super().__init__()
        self.process_conv = nn.Sequential(nn.Conv2d(d, m, 1), nn.LeakyReLU(), _LeakyBlock(m))

    def forward(self, y_hat: Tensor, features: Tensor) -> Tensor:
        """y_hat [B, M, h, w], features [B, d, h, w] > [B, M, h, w] for the synthesis."""
        return y_hat + self.process_conv(features)
