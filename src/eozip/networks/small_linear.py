"""Entropy model of tec-fp-small: no network, one linear form for the mean and one for the scale of every symbol.

The published TEC-FP has a fully factorised prior: one table per channel. Ours keeps its spirit (no hyper-latent, no layers,
decoding is a few sums and table lookups) but lets a symbol's table depend on what is already known around it:

    mean  = weights * known values           least squares at the start
    scale = level vector + positive weights * |known values|

Group 0 is coded as the pyramid of `small_entropy`, later groups in two checkerboard colours.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arithmetic import Arithmetic
from .lattice import PASSES, RING, bordered, colours, crosses, pyramid
from .small import SmallConfig
from .small_entropy import ALL_TAPS, CROSS_TAPS, Code, Step, logarithms, row_at_level, rows, tapped


class LinearAverages(nn.Module):
    """Group 0: normalised convolution for the mean, spread of the known neighbours for the scale."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        distance = torch.tensor([math.hypot(*offset) for offset in RING])
        self.weight = nn.Parameter((-3.0 * distance.log()).repeat(c.groups[0], 1))  # logarithms
        self.offset = nn.Parameter(torch.zeros(c.levels * PASSES, c.groups[0]))

    def forward(self, near: Tensor, seen: Tensor, offset: Tensor, a: Arithmetic) -> tuple[Tensor, Tensor]:
        """near [B, n, 24, k] (0 where unknown), seen [1, n, 24, 1] -> mean, log scale [B, n, k]."""
        weight = a.positive(self.weight).T * seen
        total = weight.sum(2)
        mean = a.place((weight * near).sum(2) / total)
        off = (near - mean[:, :, None]).abs() * seen
        spread = a.place(((weight * off).sum(2) / total).clamp_min(0.25))
        return mean, a.log(spread) + offset


class LinearGroup(nn.Module):
    """Group k > 0: linear mean and linear magnitude from earlier groups (3x3 cells) and the other colour."""

    def __init__(self, c: SmallConfig, k: int) -> None:
        super().__init__()
        before, size = sum(c.groups[:k]), c.groups[k]
        self.before, self.size = before, size
        self.linear = nn.ModuleList(nn.Conv2d(before + p * size, size, 3, bias=False) for p in range(2))
        self.shrink = nn.Parameter(torch.ones(c.levels, size))
        self.magnitude = nn.ParameterList(  # logarithms of positive weights, see train.start
            torch.full((size, 9 * before + p * 4 * size), -6.0) for p in range(2)
        )
        self.floor = nn.Parameter(torch.zeros(c.levels, size))  # logarithm of the scale where all is quiet

    def forward(
        self, colour: int, near: Tensor, cross: Tensor | None, shrink: Tensor, floor: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        """near [B, n, 9, before], cross [B, n, 4, size] or None -> mean, log scale [B, n, size]."""
        weight = self.linear[colour].weight
        kernel = tapped(weight[:, : self.before], ALL_TAPS)
        known = near.flatten(2)
        if cross is not None:
            kernel = torch.cat([kernel, tapped(weight[:, self.before :], CROSS_TAPS)], 1)
            known = torch.cat([known, cross.flatten(2)], 2)
        mean = a.place(F.linear(known, kernel) * shrink)
        scale = F.linear(known.abs(), a.positive(self.magnitude[colour])) + floor
        return mean, a.log(a.place(scale))


class LinearEntropy(nn.Module):
    """The whole entropy model of tec-fp-small; `traverse` as in `SmallEntropy`, without a hyper-latent."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.config = c
        self.first = nn.Parameter(torch.zeros(c.levels, c.groups[0]))  # log scale where no neighbour is known
        self.average = LinearAverages(c)
        self.groups = nn.ModuleList(LinearGroup(c, k) for k in range(1, len(c.groups)))

    @property
    def logarithms(self) -> tuple[str, ...]:
        """Parameters stored as logarithms of positive weights."""
        return logarithms(self)

    def hyper_latent(self, y: Tensor) -> None:
        """There is none."""

    def traverse(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        """Code every group. size: latent h, w. Returns y_hat [B, M, h, w] in steps."""
        y_hat = self.code_averages(code, t, size, a)
        for group in self.groups:
            y_hat = torch.cat([y_hat, self.code_group(group, code, y_hat, t, a)], 1)
        return y_hat

    def code_averages(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        k = self.config.groups[0]
        base = row_at_level(self.first, t)
        offsets = self.average.offset.view(PASSES, -1, k)
        value, known = base.new_zeros(len(t), size[0] * size[1], k), base.new_zeros(1, size[0] * size[1], 1)
        for p, cells in enumerate(pyramid(*size, t.device)):
            mean, log_scale = base.new_zeros(len(t), len(cells.index), k), base.expand(-1, len(cells.index), -1)
            if p:
                near = cells.gather(bordered(value, size, cells.reach))
                seen = cells.gather(bordered(known, size, cells.reach))
                mean, log_scale = self.average(near, seen, row_at_level(offsets[p], t), a)
            got = code(Step(slice(0, k), cells.index, mean, a.settle(log_scale)))
            value, known = value.index_copy(1, cells.index, got), known.index_fill(1, cells.index, 1.0)
        return value.transpose(1, 2).unflatten(2, size)

    def code_group(self, group: LinearGroup, code: Code, y_hat: Tensor, t: Tensor, a: Arithmetic) -> Tensor:
        size, channels = tuple(y_hat.shape[2:]), slice(group.before, group.before + group.size)
        shrink = a.settle(row_at_level(group.shrink, t))
        floor = row_at_level(a.positive(group.floor), t)
        around = bordered(rows(y_hat), size, 1, "replicate")
        value, cross = y_hat.new_zeros(len(y_hat), size[0] * size[1], group.size), None
        for colour, cells in enumerate(colours(*size, t.device)):
            if colour:
                cross = crosses(*size, t.device).gather(bordered(value, size, 1))
            mean, log_scale = group(colour, cells.gather(around), cross, shrink, floor, a)
            got = code(Step(channels, cells.index, mean, a.settle(log_scale)))
            value = value.index_copy(1, cells.index, got)
        return value.transpose(1, 2).unflatten(2, size)
