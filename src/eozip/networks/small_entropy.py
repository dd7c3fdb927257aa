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

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .arithmetic import Arithmetic
from .lattice import PASSES, RING, bordered, colours, crosses, pyramid
from .small import ResidualBlock, SmallConfig, at_level, training_precision, zeroed


@dataclass(frozen=True)
class Step:
    """One coding step: the channels and cells it covers, and what is predicted for them.

    Attributes:
        channels: slice of the latent's channels; None for z.
        cells: int64 [n], raster numbers of the cells coded in this step.
        mean: float [B, n, K], in quantisation steps.
        log_scale: float [B, n, K], natural logarithm of the logistic scale in steps.
    """

    channels: slice | None
    cells: Tensor
    mean: Tensor
    log_scale: Tensor


# Runs of columns of a weight matrix, as (kind of input, how many; -1: all); kinds are those of `Arithmetic` and
# "one" (0 or 1), "box" (sum of nine coarse values), "unused".
Reads = list[tuple[str, int]]

Code = Callable[[Step], Tensor]  # -> values [B, n, K] of the step's cells, in steps


def dense(layer: nn.Conv2d, v: Tensor) -> Tensor:
    """A 1x1 convolution on cells: v [..., K] -> [..., K']."""
    return F.linear(v, layer.weight.flatten(1), layer.bias)


def tapped(weight: Tensor, taps: tuple[int, ...]) -> Tensor:
    """The given taps of a 3x3 kernel [K', K, 3, 3] as a matrix [K', taps * K]."""
    return weight.flatten(2)[:, :, list(taps)].transpose(1, 2).flatten(1)


CROSS_TAPS = (1, 3, 5, 7)
CENTRE = 4
ALL_TAPS = tuple(range(9))


def joined(parts: list[Tensor], which: list[int], dim: int = -1) -> Tensor:
    chosen = [parts[i] for i in which if i < len(parts)]
    return torch.cat(chosen, dim) if len(chosen) > 1 else chosen[0]


def rows(v: Tensor) -> Tensor:
    """[B, K, h, w] -> [B, h*w, K]."""
    return v.flatten(2).transpose(1, 2)


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
        v = F.pixel_shuffle(self.enter(a.settle(z_hat)), 2) + a.fine(at_level(self.level, t))
        v = a.settle(self.block(a.settle(F.relu(v)), a.settle))
        v = F.pixel_shuffle(self.rise(F.relu(v)), 2)
        return a.settle(F.relu(self.leave(a.settle(F.relu(v)))))


class AverageContext(nn.Module):
    """Group 0: mean and log scale of block averages from the cells already known around each cell.

    The linear part is a normalised convolution (positive weights over known neighbours), the nonlinear part sees only
    differences from it: adding a constant to a whole scene changes nothing, so clouds are no special case.
    """

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        k, ring = c.groups[0], len(RING)
        distance = torch.tensor([math.hypot(*offset) for offset in RING])
        self.weight = nn.Parameter((-3.0 * distance.log()).repeat(k, 1))  # logarithms
        self.enter = nn.Conv2d((k + 1) * ring + c.hyper, c.context, 1)
        self.level = nn.Parameter(torch.zeros(c.levels * PASSES, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * k, 1))

    def forward(
        self, near: Tensor, seen: Tensor, hyper: Tensor, bias: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor, Tensor]:
        """near [B, n, 24, k]: values of the neighbours (0 where unknown), seen [1, n, 24, 1]: which are known,
        hyper [B, n, hyper] -> mean, log-scale correction, spread of the neighbours; [B, n, k] each."""
        near, weight = a.wide(near), a.wide(a.positive(self.weight)).T * seen
        total = weight.sum(2).clamp_min(2**-14)
        mean = a.place((weight * near).sum(2) / total)
        off = (near - mean[:, :, None]) * seen
        spread = a.place(((weight * off.abs()).sum(2) / total).clamp_min(0.5))
        # channels outside, neighbours inside: the order of the 1x1 convolution's inputs
        v = torch.cat([a.squash(off).transpose(2, 3).flatten(2), seen[..., 0].expand(len(off), -1, -1), hyper], 2)
        v = a.settle(F.relu(dense(self.enter, v) + bias))
        v = a.settle(F.relu(dense(self.middle, v)))
        shift, scale = dense(self.leave, v).to(mean).chunk(2, 2)
        return a.place(mean + a.wide(a.fine(shift)) * spread), scale, spread


class GroupContext(nn.Module):
    """Group k > 0: mean and log scale from earlier groups (3x3 cells), the other colour and the hyper features."""

    def __init__(self, c: SmallConfig, k: int) -> None:
        super().__init__()
        before, size = sum(c.groups[:k]), c.groups[k]
        # block averages and first slopes reach thousands of steps: their sums are carried wide
        self.large = min(before, sum(c.groups[:2]))
        self.before, self.size = before, size
        self.linear = nn.ModuleList(
            nn.Conv2d(before + p * size, size, 3, bias=False) for p in range(2)
        )  # per colour; starts as least squares (see train.start)
        self.shrink = nn.Parameter(torch.ones(c.levels, size))
        self.floor = nn.Parameter(torch.zeros(c.levels, size))  # logarithm of the scale where all is quiet
        self.magnitude = nn.ParameterList(  # logarithms of positive weights, per colour (see train.start)
            torch.full((size, 2 * before + p * 4 * size), -6.0) for p in range(2)
        )
        self.hyper = nn.Conv2d(c.hyper, c.context, 1)
        self.earlier = nn.Conv2d(before, c.context, 3, padding=1, bias=False)
        self.spatial = nn.Conv2d(size, c.context, 3, padding=1, bias=False)
        self.level = nn.Parameter(torch.zeros(c.levels * 2, c.context))
        self.middle = nn.Conv2d(c.context, c.context, 1)
        self.leave = zeroed(nn.Conv2d(c.context, 2 * size, 1))

    def reads(self, part: str, leaf: str) -> Reads | None:
        """See `SmallEntropy.reads`; part is linear, magnitude, earlier, ..., leaf the last part of the name."""
        kind = "coarse" if self.narrow_own else "wide"
        own = [(kind if tap in CROSS_TAPS else "unused", 1) for tap in ALL_TAPS] * self.size
        large, others = self.large, self.before - self.large
        if part == "linear":
            return [("wide", 9 * large), ("coarse", 9 * others), *own]
        if part == "magnitude":
            here, around = [("wide", large), ("coarse", others)], [("wide", large), ("box", others)]
            return [*here, *around, (kind, 4 * self.size)]
        if part == "spatial":
            return [("squash" if kind != "unused" else kind, count) for kind, count in own]
        if leaf != "weight":
            return None
        return {"earlier": [("squash", -1)]}.get(part, [("activation", -1)])

    def shared(self, hyper: Tensor, y_hat: Tensor, a: Arithmetic) -> Tensor:
        """What both colours use. hyper [B, hyper, h, w], y_hat: earlier groups [B, before, h, w] -> [B, h*w, context]."""
        return rows(self.hyper(hyper) + self.earlier(a.squash(y_hat)))

    @property
    def narrow_own(self) -> bool:
        """Whether the group's own values are summed in the narrow carrier."""
        return self.large < self.before

    def line(self, colour: int, near: Tensor, cross: Tensor | None, shrink: Tensor, a: Arithmetic) -> Tensor:
        """The linear mean: near [B, n, 9, before], cross [B, n, 4, size] or None -> [B, n, size]."""
        weight = self.linear[colour].weight
        known = [near[..., : self.large].flatten(2), near[..., self.large :].flatten(2)]
        kernel = [tapped(weight[:, : self.large], ALL_TAPS), tapped(weight[:, self.large : self.before], ALL_TAPS)]
        if cross is not None:
            known.append(cross.flatten(2))
            kernel.append(tapped(weight[:, self.before :], CROSS_TAPS))
        return self.split_sum(known, kernel, a) * shrink

    def log_scale(
        self, colour: int, here: Tensor, around: Tensor, cross: Tensor | None, floor: Tensor, a: Arithmetic
    ) -> Tensor:
        """The linear part of the scale, from magnitudes: here [B, n, before], summed over 3x3 cells around, and of the
        other colour, cross [B, n, 4, size] or None. -> [B, n, size]."""
        large, others = self.large, self.before - self.large
        parts = a.positive(self.magnitude[colour]).split([large, others, large, others, 4 * self.size * colour], 1)
        known = [here[..., :large], here[..., large:], around[..., large:]]
        known[0] = torch.cat([known[0], around[..., :large]], 2)
        known[1:] = [torch.cat(known[1:], 2)]
        kernel = [torch.cat([parts[0], parts[2]], 1), torch.cat([parts[1], parts[3]], 1)]
        if cross is not None:
            known.append(cross.abs().flatten(2))
            kernel.append(parts[4])
        return a.log(a.place(self.split_sum(known, kernel, a) + floor))

    def split_sum(self, known: list[Tensor], kernel: list[Tensor], a: Arithmetic) -> Tensor:
        """Sum of products: the first part wide, the second narrow, a third (the group's own) as `narrow_own` says."""
        wide, narrow = ([0], [1, 2]) if self.narrow_own else ([0, 2], [1])
        total = F.linear(a.wide(joined(known, wide)), a.wide(joined(kernel, wide, 1)))
        if self.narrow_own:
            total = total + F.linear(a.coarse(joined(known, narrow)), joined(kernel, narrow, 1))
        return total

    def predict(
        self, shared: Tensor, line: Tensor, cross: Tensor | None, bias: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        """shared [B, n, context], line [B, n, size], cross: squashed [B, n, 4, size] or None
        -> mean, log-scale correction, [B, n, size] each."""
        v = shared + bias
        if cross is not None:
            v = v + F.linear(cross.flatten(2), tapped(self.spatial.weight, CROSS_TAPS))
        v = a.settle(F.relu(dense(self.middle, a.settle(F.relu(v)))))
        shift, scale = dense(self.leave, v).to(line).chunk(2, 2)
        return a.place(line + shift), scale


class SmallEntropy(nn.Module):
    """The whole entropy model of tec-elic-small: `traverse` visits every symbol once, in coding order."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.config = c
        self.h_a, self.h_s = HyperAnalysis(c), HyperSynthesis(c)
        self.z_mean = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))
        self.z_log_scale = nn.Parameter(torch.zeros(c.levels, c.hyper_latent))
        self.first = nn.Parameter(torch.zeros(c.levels, c.groups[0]))  # log scale where no neighbour is known
        self.average = AverageContext(c)
        self.groups = nn.ModuleList(GroupContext(c, k) for k in range(1, len(c.groups)))

    @property
    def logarithms(self) -> tuple[str, ...]:
        """Parameters stored as logarithms of positive weights."""
        return logarithms(self)

    def reads(self, name: str) -> Reads | None:
        """What the columns of a weight matrix are multiplied with; None for a parameter that enters no large sum."""
        part, _, leaf = name.rpartition(".")
        if part.startswith("groups."):
            group = self.groups[int(part.split(".")[1])]
            return group.reads(part.split(".")[2] if "." in part[7:] else leaf, leaf)
        if part == "average.enter" and leaf == "weight":
            ring = len(RING)
            return [("squash", self.config.groups[0] * ring), ("one", ring), ("activation", self.config.hyper)]
        dense_layer = part in ("average.middle", "average.leave") or part.startswith("h_s.")
        return [("activation", -1)] if dense_layer and leaf == "weight" else None

    def hyper_latent(self, y: Tensor) -> Tensor:
        """y in steps [B, M, h, w] -> z [B, Nz, h/4, w/4], not yet rounded."""
        return self.h_a(y)

    def traverse(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        """Code z, then every group. size: latent h, w, multiples of 4. Returns y_hat [B, M, h, w] in steps."""
        z_hat = self.code_hyper(code, t, (size[0] // 4, size[1] // 4), a)
        with training_precision(z_hat, self.training):
            hyper = self.h_s(z_hat, t, a)
        y_hat = self.code_averages(code, rows(hyper.to(z_hat)), t, size, a)
        for context in self.groups:
            y_hat = torch.cat([y_hat, self.code_group(context, code, hyper, y_hat, t, a)], 1)
        return y_hat

    def code_hyper(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        cells = torch.arange(size[0] * size[1], device=t.device)
        mean = a.place(row_at_level(self.z_mean, t)).expand(-1, len(cells), -1)
        log_scale = a.fine(row_at_level(self.z_log_scale, t)).expand_as(mean)
        return code(Step(None, cells, mean, log_scale)).transpose(1, 2).unflatten(2, size).contiguous()

    def code_averages(self, code: Code, hyper: Tensor, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor:
        k = self.config.groups[0]
        base = a.fine(row_at_level(self.first, t))
        levels = self.average.level.view(PASSES, -1, self.config.context)
        value, known = hyper.new_zeros(len(hyper), hyper.shape[1], k), hyper.new_zeros(1, hyper.shape[1], 1)
        for p, cells in enumerate(pyramid(*size, hyper.device)):
            near = cells.gather(bordered(value, size, cells.reach))
            seen = cells.gather(bordered(known, size, cells.reach))
            with training_precision(value, self.training):
                bias = a.fine(row_at_level(levels[p], t))
                mean, scale, spread = self.average(near, seen, hyper[:, cells.index], bias, a)
            # without neighbours the marginal scale is the start, with them their spread is
            start = a.log(spread) if p else base
            got = code(Step(slice(0, k), cells.index, mean, a.fine(start + scale)))
            value = value.index_copy(1, cells.index, got)
            known = known.index_fill(1, cells.index, 1.0)
        return value.transpose(1, 2).unflatten(2, size)

    def code_group(
        self, context: GroupContext, code: Code, hyper: Tensor, y_hat: Tensor, t: Tensor, a: Arithmetic
    ) -> Tensor:
        size, device = tuple(y_hat.shape[2:]), y_hat.device
        channels = slice(context.before, context.before + context.size)
        shrink, floor = a.fine(row_at_level(context.shrink, t)), row_at_level(a.positive(context.floor), t)
        levels = context.level.view(2, -1, self.config.context)
        with training_precision(y_hat, self.training):
            shared = context.shared(hyper, y_hat, a)
        grid = bordered(rows(y_hat), size, 1, "replicate")
        here = magnitudes(rows(y_hat), context.large, a)
        around = box(bordered(here, size, 1, "replicate"), size)
        value, cross, squashed = y_hat.new_zeros(len(y_hat), shared.shape[1], context.size), None, None
        for colour, cells in enumerate(colours(*size, device)):
            if colour:
                near_other = crosses(*size, device)
                cross = near_other.gather(bordered(value, size, 1))
                squashed = near_other.gather(bordered(a.squash(value), size, 1))
            line = context.line(colour, cells.gather(grid), cross, shrink, a)
            base = context.log_scale(colour, here[:, cells.index], around[:, cells.index], cross, floor, a)
            with training_precision(y_hat, self.training):
                bias = a.fine(row_at_level(levels[colour], t))
                mean, scale = context.predict(shared[:, cells.index], line, squashed, bias, a)
            got = code(Step(channels, cells.index, mean, a.fine(base + scale)))
            value = value.index_copy(1, cells.index, got)
        return value.transpose(1, 2).unflatten(2, size)


def magnitudes(y_hat: Tensor, large: int, a: Arithmetic) -> Tensor:
    """Absolute values of latents [B, h*w, K]; the first `large` channels keep their full range."""
    return torch.cat([y_hat[..., :large], a.coarse(y_hat[..., large:])], 2).abs()


def box(v: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums over 3x3 cells: bordered [B, (h+2)(w+2), K] -> [B, h*w, K]."""
    h, w = size
    grid = v.unflatten(1, (h + 2, w + 2))
    rows_sum = grid[:, :h] + grid[:, 1 : h + 1] + grid[:, 2:]
    return (rows_sum[:, :, :w] + rows_sum[:, :, 1 : w + 1] + rows_sum[:, :, 2:]).flatten(1, 2)


def logarithms(entropy: nn.Module) -> tuple[str, ...]:
    """Names of the parameters stored as logarithms of positive weights."""
    names = (name for name, _ in entropy.named_parameters())
    return tuple(n for n in names if n == "average.weight" or ".magnitude." in n or n.endswith(".floor"))


def row_at_level(table: Tensor, t: Tensor) -> Tensor:
    """Per-level rows [L, K] at levels t [B] -> [B, 1, K], in the dtype of t."""
    return at_level(table, t)[:, :, 0, 0][:, None]
