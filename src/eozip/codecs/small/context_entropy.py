"""Entropy model of tec-elic-small: the linear model of `small_linear`, refined by networks and a hyper-latent.

    z (stride 32)      hyper-latent, coded first; its features reach every step
    group 0            the network sees only differences from the linear mean: adding a constant to a whole scene changes
                       nothing, so clouds are no special case
    group k            mean and log scale are the linear ones plus what the network adds

Inputs of the networks are sign(v) ln(1 + |v|). Only ReLU, tables and sums are used, so that an exact form of the same
networks is possible (`eozip.entropy.fixed_point`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.small.arithmetic import Arithmetic
from eozip.codecs.small.checkerboard import PASSES, RING
from eozip.codecs.small.linear_entropy import (
    ALL_TAPS,
    CROSS_TAPS,
    Code,
    Known,
    LinearAverages,
    LinearEntropy,
    LinearGroup,
    Reads,
    Step,
    row_at_level,
    rows,
    tapped,
)
from eozip.codecs.small.networks import ResidualBlock, SmallConfig, at_level, training_precision, zeroed


def dense(layer: nn.Conv2d, v: Tensor) -> Tensor:
    """A 1x1 convolution on cells: v [..., K] -> [..., K']."""
    return F.linear(v, layer.weight.flatten(1), layer.bias)


class HyperAnalysis(nn.Module):
    """h_a: y in steps [B, M, h, w] (h, w multiples of 4) -> z [B, Nz, h/4, w/4]."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.enter = nn.Conv2d(c.latent, c.hyper, 1)
        self.descend = nn.Conv2d(c.hyper * 4, c.hyper, 1)
        self.block = ResidualBlock(c.hyper)
        self.leave = nn.Conv2d(c.hyper * 4, c.hyper_latent, 1)

    def forward(self, y: Tensor) -> Tensor:
        v = F.relu(self.enter(y.sign() * y.abs().log1p()))
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

    def forward(self, z_hat: Tensor, t: Tensor, a: Arithmetic) -> Tensor:
        v = F.pixel_shuffle(a.fine(self.enter(a.settle(z_hat))), 2) + a.fine(at_level(self.level, t))
        v = a.settle(self.block(a.settle(F.relu(v)), a.settle))
        v = F.pixel_shuffle(self.rise(F.relu(v)), 2)
        return a.settle(F.relu(self.leave(a.settle(F.relu(v)))))


class AverageContext(LinearAverages):
    """Group 0: the linear mean and spread, and a network on the differences of the neighbours from that mean."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__(c)
        del self.offset  # the network has it
        k, ring = c.groups[0], len(RING)
        self.enter = nn.Conv2d((k + 1) * ring + c.hyper, c.context, 1)
        self.level = nn.Parameter(torch.zeros(c.levels * PASSES, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * k, 1))

    def forward(
        self, number: int, near: Tensor, seen: Tensor, hyper: Tensor | None, t: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hyper [B, n, hyper] -> mean, log-scale correction, spread of the neighbours; [B, n, k] each."""
        mean, spread, off = self.around(near, seen, a)
        # channels outside, neighbours inside: the order of the 1x1 convolution's inputs
        v = torch.cat(
            [a.squash(off).transpose(2, 3).flatten(2), seen[..., 0].expand(len(off), -1, -1), hyper], 2
        )
        bias = a.fine(row_at_level(self.level.view(PASSES, -1, self.level.shape[1])[number], t))
        with training_precision(v, self.training):
            v = a.settle(F.relu(a.fine(dense(self.enter, v)) + bias))
            v = a.settle(F.relu(dense(self.middle, v)))
            shift, scale = dense(self.leave, v).to(mean).chunk(2, 2)
        return a.place(mean + a.wide(a.fine(shift)) * spread), a.fine(scale), spread


class GroupContext(LinearGroup):
    """Group k > 0: a network on earlier groups (3x3 cells), the other colour and the hyper features adds to both."""

    def __init__(self, c: SmallConfig, k: int) -> None:
        super().__init__(c, k)
        self.hyper = nn.Conv2d(c.hyper, c.context, 1)
        self.earlier = nn.Conv2d(self.before, c.context, 3, padding=1, bias=False)
        self.spatial = nn.Conv2d(self.size, c.context, 3, padding=1, bias=False)  # only its cross is used
        self.level = nn.Parameter(torch.zeros(c.levels * 2, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * self.size, 1))

    def reads(self, part: str, leaf: str) -> Reads | None:
        if part == "spatial":
            return [("squash" if tap in CROSS_TAPS else "unused", 1) for tap in ALL_TAPS] * self.size
        if part == "earlier":
            return [("squash", -1)]
        if part in ("hyper", "middle", "leave"):
            return [("activation", -1)] if leaf == "weight" else None
        return super().reads(part, leaf)

    def context(self, hyper: Tensor, y_hat: Tensor, a: Arithmetic) -> Tensor:
        with training_precision(y_hat, self.training):
            features = a.fine(self.hyper(hyper)) + a.fine(self.earlier(a.squash(y_hat)))
            return rows(features).contiguous()  # gathered cell by cell

    def forward(self, known: Known, t: Tensor, a: Arithmetic) -> tuple[Tensor, Tensor]:
        line, base = self.mean(known, t, a), self.log_scale(known, t, a)
        bias = a.fine(row_at_level(self.level.view(2, -1, self.level.shape[1])[known.colour], t))
        with training_precision(line, self.training):
            v = known.context + bias
            if known.squashed is not None:
                v = v + a.fine(F.linear(known.squashed, tapped(self.spatial.weight, CROSS_TAPS)))
            v = a.settle(F.relu(dense(self.middle, a.settle(F.relu(v)))))
            shift, scale = dense(self.leave, v).to(line).chunk(2, 2)
        return a.place(line + shift), base + a.fine(scale)


class SmallEntropy(LinearEntropy):
    """The whole entropy model of tec-elic-small."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__(c)
        self.h_a, self.h_s = HyperAnalysis(c), HyperSynthesis(c)
        self.z_mean = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))
        self.z_log_scale = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))

    def parts(self, c: SmallConfig) -> tuple[nn.Module, nn.ModuleList]:
        return AverageContext(c), nn.ModuleList(GroupContext(c, k) for k in range(1, len(c.groups)))

    def reads(self, name: str) -> Reads | None:
        part, _, leaf = name.rpartition(".")
        if part == "average.enter" and leaf == "weight":
            ring = len(RING)
            return [
                ("squash", self.config.groups[0] * ring),
                ("one", ring),
                ("activation", self.config.hyper),
            ]
        if part in ("average.middle", "average.leave") or part.startswith("h_s."):
            return [("activation", -1)] if leaf == "weight" else None
        return super().reads(name)

    def hyper_latent(self, y: Tensor) -> Tensor:
        return self.h_a(y)

    def hyper_features(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        h, w = size[0] // 4, size[1] // 4
        cells = torch.arange(h * w, device=t.device)
        mean = a.place(row_at_level(self.z_mean, t)).expand(-1, len(cells), -1)
        log_scale = a.fine(row_at_level(self.z_log_scale, t)).expand_as(mean)
        z_hat = code(Step(None, cells, mean, log_scale)).transpose(1, 2).unflatten(2, (h, w)).contiguous()
        with training_precision(z_hat, self.training):
            return self.h_s(z_hat, t, a).to(z_hat)
