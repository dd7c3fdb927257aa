"""Entropy networks of the `small` codecs: they predict a mean and a log scale for every latent symbol.

Order of coding, all frames of a chunk at once:

    z (stride 32)                                                        hyper-latent
    group 0: block averages, 5 passes from coarse to fine lattice        each cell from the known cells around it
    group k: two checkerboard passes                                     from all earlier groups and the other colour

The checkerboard and channel groups follow He et al. 2022 (ELIC). What differs: the block averages, which take most
of the bits at low rates, are coded like an interpolating pyramid, and every mean has a linear part that starts as
the least-squares predictor. Quantities are in units of one quantisation step; inputs of the nonlinear parts are
sign(v) ln(1+|v|). Only ReLU, tables and sums are used, so that an integer form of the same networks is possible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .small import ResidualBlock, SmallConfig, at_level, training_precision, zeroed

PASSES = 5  # lattice passes of group 0
REACH = 2  # cells that group 0 sees each way: a 5x5 neighbourhood


@dataclass(frozen=True)
class Step:
    """One coding step: the channels and cells it covers, and what is predicted for them.

    Attributes:
        channels: slice of the latent's channels (None for z).
        cells: bool [h, w], the positions coded in this step (None for all).
        mean: float [B, K, h, w], in quantisation steps.
        log_scale: float [B, K, h, w], natural logarithm of the logistic scale in steps.
    """

    channels: slice | None
    cells: Tensor | None
    mean: Tensor
    log_scale: Tensor


Code = Callable[[Step], Tensor]  # -> values [B, K, h, w], zero outside the step's cells


def squash(v: Tensor) -> Tensor:
    return v.sign() * v.abs().log1p()


def lattice(h: int, w: int, device: torch.device) -> Tensor:
    """Pass number of every cell for group 0, int [h, w]: spacing 4, its centres, spacing 2, its centres, the rest."""
    i = torch.arange(h, device=device)[:, None] % 4
    j = torch.arange(w, device=device)[None, :] % 4
    odd_i, odd_j = i % 2, j % 2
    even = torch.where((i == 0) & (j == 0), 0, torch.where((i == 2) & (j == 2), 1, 2))
    return torch.where((odd_i + odd_j) == 1, 4, torch.where(odd_i == 1, 3, even))


class HyperAnalysis(nn.Module):
    """h_a: y in steps [B, M, h, w] (h, w multiples of 4) -> z [B, Nz, h/4, w/4]."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(c.latent, c.hyper, 1)
        self.descend = nn.Conv2d(c.hyper * 4, c.hyper, 1)
        self.block = ResidualBlock(c.hyper)
        self.leave = nn.Conv2d(c.hyper * 4, c.hyper_latent, 1)

    def forward(self, y: Tensor) -> Tensor:
        v = F.relu(self.enter(squash(y)))
        v = self.block(F.relu(self.descend(F.pixel_unshuffle(v, 2))))
        return self.leave(F.pixel_unshuffle(F.relu(v), 2))


class HyperSynthesis(nn.Module):
    """h_s: z_hat [B, Nz, h/4, w/4] -> features [B, hyper, h, w]."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(c.hyper_latent, c.hyper * 4, 1)
        self.level = nn.Parameter(torch.zeros(c.levels, c.hyper))
        self.block = ResidualBlock(c.hyper)
        self.rise = nn.Conv2d(c.hyper, c.hyper * 4, 1)
        self.leave = nn.Conv2d(c.hyper, c.hyper, 3, padding=1)

    def forward(self, z_hat: Tensor, t: Tensor) -> Tensor:
        v = F.pixel_shuffle(self.enter(z_hat), 2) + at_level(self.level, t)
        v = F.pixel_shuffle(self.rise(F.relu(self.block(F.relu(v)))), 2)
        return F.relu(self.leave(F.relu(v)))


class AverageContext(nn.Module):
    """Group 0: mean and log scale of block averages from the cells already known around each cell.

    The linear part is a normalised convolution (positive weights over known neighbours), the nonlinear part sees only
    differences from it: adding a constant to a whole scene changes nothing, so clouds are no special case.
    """

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        k, side = c.groups[0], 2 * REACH + 1
        self.register_buffer("taps", neighbour_taps(), persistent=False)
        distance = neighbour_distance()
        self.weight = nn.Parameter((-3.0 * distance.log()).repeat(k, 1))
        self.enter = nn.Conv2d((k + 1) * (side * side - 1) + c.hyper, c.context, 1)
        self.level = nn.Parameter(torch.zeros(c.levels * PASSES, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * k, 1))

    def forward(
        self, value: Tensor, known: Tensor, hyper: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """value [B, k, h, w] (0 where unknown), known [1, 1, h, w] -> mean, log-scale correction, spread."""
        near = self.gather(value)  # [B, k, 24, h, w]
        seen = self.gather(known)  # [1, 1, 24, h, w]
        weight = self.weight.exp()[None, :, :, None, None] * seen
        total = weight.sum(2).clamp_min(1e-6)
        mean = (weight * near).sum(2) / total
        off = (near - mean[:, :, None]) * seen
        spread = ((weight * off.abs()).sum(2) / total).clamp_min(0.5)
        v = torch.cat([squash(off).flatten(1, 2), seen.flatten(1, 2).expand(len(off), -1, -1, -1), hyper], 1)
        v = F.relu(self.middle(F.relu(self.enter(v) + bias)))
        shift, scale = self.leave(v).chunk(2, 1)
        return mean + shift * spread, scale, spread

    def gather(self, v: Tensor) -> Tensor:
        """[B, k, h, w] -> [B, k, 24, h, w]: the 24 neighbours of every cell, zero outside."""
        b, k, h, w = v.shape
        columns = F.unfold(v, 2 * REACH + 1, padding=REACH).view(b, k, -1, h, w)
        return columns[:, :, self.taps]


def neighbour_taps() -> Tensor:
    side = 2 * REACH + 1
    return torch.tensor([i for i in range(side * side) if i != side * side // 2])


def neighbour_distance() -> Tensor:
    offsets = torch.arange(-REACH, REACH + 1).float()
    return torch.hypot(offsets[:, None], offsets[None, :]).flatten()[neighbour_taps()]


class GroupContext(nn.Module):
    """Group k > 0: mean and log scale from earlier groups (3x3 cells), the other colour and the hyper features."""

    def __init__(self, c: SmallConfig, k: int) -> None:
        super().__init__()
        before, size = sum(c.groups[:k]), c.groups[k]
        self.linear = nn.ModuleList(
            nn.Conv2d(before + p * size, size, 3, bias=False) for p in range(2)
        )  # per colour; starts as least squares (see train.start)
        self.shrink = nn.Parameter(torch.ones(c.levels, size))
        self.hyper = nn.Conv2d(c.hyper, c.context, 1)
        self.earlier = nn.Conv2d(before, c.context, 3, padding=1, bias=False)
        self.spatial = nn.Conv2d(size, c.context, 3, padding=1, bias=False)
        self.level = nn.Parameter(torch.zeros(c.levels * 2, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * size, 1))

    def shared(self, hyper: Tensor, y_hat: Tensor) -> Tensor:
        """What both colours use, computed once. y_hat: earlier groups [B, before, h, w]."""
        return self.hyper(hyper) + self.earlier(squash(y_hat))

    def forward(
        self, shared: Tensor, y_hat: Tensor, own: Tensor | None, bias: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor]:
        """own [B, size, h, w]: the first colour's values, or None in the first pass -> mean, log-scale correction."""
        v = shared + bias
        seen = y_hat
        if own is not None:
            v = v + self.spatial(squash(own))
            seen = torch.cat([y_hat, own], 1)
        v = F.relu(self.middle(F.relu(v)))
        shift, scale = self.leave(v).chunk(2, 1)
        with torch.autocast(seen.device.type, enabled=False):  # large values: bfloat16 would lose whole steps
            line = self.linear[own is not None](F.pad(seen, (1, 1, 1, 1), mode="replicate"))
        return line * at_level(self.shrink, t) + shift, scale


class SmallEntropy(nn.Module):
    """The whole entropy model of tec-elic-small: `traverse` visits every symbol once, in coding order."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.config = c
        self.h_a, self.h_s = HyperAnalysis(c), HyperSynthesis(c)
        self.z_mean = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))
        self.z_log_scale = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))
        self.log_scale = nn.Parameter(torch.zeros(c.levels, c.latent))  # starts at log(std of y in steps)
        self.average = AverageContext(c)
        self.groups = nn.ModuleList(GroupContext(c, k) for k in range(1, len(c.groups)))

    def hyper_step(self, t: Tensor, size: tuple[int, int]) -> Step:
        mean = at_level(self.z_mean, t).expand(-1, -1, *size)
        return Step(None, None, mean, at_level(self.z_log_scale, t).expand(-1, -1, *size))

    def traverse(self, code: Code, t: Tensor, size: tuple[int, int]) -> Tensor:
        """Code z, then every group. size: latent h, w, multiples of 4. Returns y_hat [B, M, h, w] in steps."""
        h, w = size
        z_hat = code(self.hyper_step(t, (h // 4, w // 4)))
        with training_precision(z_hat, self.training):
            hyper = self.h_s(z_hat, t)
        y_hat = self.code_averages(code, hyper.float(), t)
        start = self.config.groups[0]
        for context in self.groups:
            y_hat = torch.cat([y_hat, self.code_group(context, start, code, hyper, y_hat, t)], 1)
            start = y_hat.shape[1]
        return y_hat

    def code_averages(self, code: Code, hyper: Tensor, t: Tensor) -> Tensor:
        k = self.config.groups[0]
        order = lattice(*hyper.shape[2:], hyper.device)
        base = at_level(self.log_scale[:, :k], t)
        levels = self.average.level.view(PASSES, -1, self.config.context)
        value = hyper.new_zeros(len(hyper), k, *hyper.shape[2:])
        for p in range(PASSES):
            known = (order < p).to(value)[None, None]
            with training_precision(value, self.training):
                mean, scale, spread = self.average(value, known, hyper, at_level(levels[p], t))
            # without neighbours the marginal scale is the start, with them their spread is
            start = torch.where(known.any() & (p > 0), spread.log(), base.expand_as(scale))
            value = value + code(Step(slice(0, k), order == p, mean.float(), start + scale.float()))
        return value

    def code_group(
        self, context: GroupContext, start: int, code: Code, hyper: Tensor, y_hat: Tensor, t: Tensor
    ) -> Tensor:
        size = context.shrink.shape[1]
        channels = slice(start, start + size)
        base = at_level(self.log_scale[:, channels], t)
        levels = context.level.view(2, -1, self.config.context)
        odd = lattice(*hyper.shape[2:], hyper.device) == 4
        with training_precision(y_hat, self.training):
            shared = context.shared(hyper, y_hat)
            mean, scale = context(shared, y_hat, None, at_level(levels[0], t), t)
        own = code(Step(channels, ~odd, mean.float(), base + scale.float()))
        with training_precision(y_hat, self.training):
            mean, scale = context(shared, y_hat, own, at_level(levels[1], t), t)
        return own + code(Step(channels, odd, mean.float(), base + scale.float()))
