"""Entropy model of tec-fp-small, and what tec-elic-small refines: one linear form for the mean and one for the scale.

The published TEC-FP has a fully factorised prior: one table per channel. Ours keeps its spirit (no hyper-latent, no layers,
decoding is a few sums and table look-ups) but lets a symbol's table depend on what is already known around it:

    mean  = weights * known values           starts as least squares
    scale = level vector + positive weights * |known values|

Order of coding, all frames of a chunk at once:

    group 0: block averages, 5 passes from coarse to fine lattice        each cell from the known cells around it
    group k: two checkerboard colours                                    from all earlier groups and the other colour

Checkerboard and channel groups follow He et al. 2022 (ELIC). What differs: the block averages, which take most of the bits
at low rates, are coded like an interpolating pyramid. Quantities are in units of one quantisation step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.small.arithmetic import Arithmetic
from eozip.codecs.small.checkerboard import PASSES, RING, bordered, colours, crosses, extended, pyramid
from eozip.codecs.small.networks import SmallConfig, at_level

# Runs of columns of a weight matrix, as (kind of input, how many; -1: all); kinds are those of `Arithmetic` and
# "one" (0 or 1), "box" (sum of nine coarse values), "unused".
Reads = list[tuple[str, int]]

ALL_TAPS, CROSS_TAPS = tuple(range(9)), (1, 3, 5, 7)


@dataclass(frozen=True)
class Step:
    """One coding step: the channels and cells it covers, and what is predicted for them.

    Attributes:
        channels: slice of the latent's channels; None for z.
        cells: int64 [n], raster numbers of the cells coded in this step.
        mean: float [B, n, K], in quantisation steps.
        log_scale: float [B, n, K], natural logarithm of the logistic scale in steps.
        group: of channels.
        number: of the pass within its group.
    """

    channels: slice | None
    cells: Tensor
    mean: Tensor
    log_scale: Tensor
    group: int = 0
    number: int = 0


Code = Callable[[Step], Tensor]  # -> values [B, n, K] of the step's cells, in steps


@dataclass(frozen=True)
class Known:
    """What a checkerboard step of a group may use, at the n cells it codes.

    Earlier channels come in two parts: the first ones, which reach thousands of steps, for the wide carrier, the others for
    the narrow one.

    Attributes:
        colour: 0 for even cells, which come first, 1 for odd ones.
        near: the two parts at the 3x3 cells around, [B, n, 9 * channels] each.
        sizes: their magnitudes in the cell and summed over 3x3 cells, [B, n, 2 * channels] each.
        cross: the group's own values at the four neighbours, [B, n, 4 * size]; None for colour 0.
        squashed: `cross`, squashed.
        context: features of the refining network, [B, n, context]; None in a linear model.
    """

    colour: int
    near: tuple[Tensor, Tensor]
    sizes: tuple[Tensor, Tensor]
    cross: Tensor | None
    squashed: Tensor | None
    context: Tensor | None


class LinearAverages(nn.Module):
    """Group 0: a normalised convolution (positive weights over known neighbours) for the mean, the neighbours' spread
    around it for the scale."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        distance = torch.tensor([math.hypot(*offset) for offset in RING])
        self.weight = nn.Parameter((-3.0 * distance.log()).repeat(c.groups[0], 1))  # logarithms
        self.offset = nn.Parameter(torch.zeros(c.levels * PASSES, c.groups[0]))

    def around(self, near: Tensor, seen: Tensor, a: Arithmetic) -> tuple[Tensor, Tensor, Tensor]:
        """near [B, n, 24, k]: values of the neighbours (0 where unknown), seen [1, n, 24, 1]: which are known
        -> mean, spread [B, n, k], differences from the mean [B, n, 24, k]."""
        near, weight = a.wide(near), a.wide(a.positive(self.weight)).T * seen
        total = weight.sum(2).clamp_min(2**-14)
        mean = a.place((weight * near).sum(2) / total)
        off = (near - mean[:, :, None]) * seen
        spread = a.place(((weight * off.abs()).sum(2) / total).clamp_min(0.5))
        return mean, spread, off

    def forward(
        self, number: int, near: Tensor, seen: Tensor, hyper: Tensor | None, t: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pass `number` -> mean, log-scale correction, spread, [B, n, k] each. hyper is for networks that refine."""
        mean, spread, _ = self.around(near, seen, a)
        return mean, a.fine(row_at_level(self.offset.view(PASSES, -1, mean.shape[2])[number], t)), spread


class LinearGroup(nn.Module):
    """Group k > 0: linear mean and linear magnitude from earlier groups (3x3 cells) and the other colour."""

    def __init__(self, c: SmallConfig, k: int) -> None:
        super().__init__()
        before, size = sum(c.groups[:k]), c.groups[k]
        self.before, self.size = before, size
        # block averages and first slopes reach thousands of steps: their sums are carried wide
        self.large = min(before, sum(c.groups[:2]))
        self.linear = nn.ModuleList(nn.Conv2d(before + p * size, size, 3, bias=False) for p in range(2))
        self.shrink = nn.Parameter(torch.ones(c.levels, size))
        self.floor = nn.Parameter(torch.zeros(c.levels, size))  # logarithm of the scale where all is quiet
        self.magnitude = nn.ParameterList(  # logarithms of positive weights, per colour (see train.start)
            torch.full((size, 2 * before + p * 4 * size), -6.0) for p in range(2)
        )

    @property
    def narrow_own(self) -> bool:
        """Whether the group's own values are summed in the narrow carrier."""
        return self.large < self.before

    def reads(self, part: str, leaf: str) -> Reads | None:
        """See `LinearEntropy.reads`; part is linear, magnitude, ..., leaf the last part of the name."""
        kind = "coarse" if self.narrow_own else "wide"
        large, others = self.large, self.before - self.large
        if part == "linear":
            own = [(kind if tap in CROSS_TAPS else "unused", 1) for tap in ALL_TAPS] * self.size
            return [("wide", 9 * large), ("coarse", 9 * others), *own]
        if part == "magnitude":
            here, around = [("wide", large), ("coarse", others)], [("wide", large), ("box", others)]
            return [*here, *around, (kind, 4 * self.size)]
        return None

    def context(self, hyper: Tensor | None, y_hat: Tensor, a: Arithmetic) -> Tensor | None:
        """Features that both colours of a refining network share, [B, h*w, context]; none in a linear model."""
        return None

    def forward(self, known: Known, t: Tensor, a: Arithmetic) -> tuple[Tensor, Tensor]:
        """-> mean, log scale of the step's cells, [B, n, size] each."""
        return a.place(self.mean(known, t, a)), self.log_scale(known, t, a)

    def mean(self, known: Known, t: Tensor, a: Arithmetic) -> Tensor:
        weight, large = self.linear[known.colour].weight, self.large
        kernels = tapped(weight[:, :large], ALL_TAPS), tapped(weight[:, large : self.before], ALL_TAPS)
        total = products(known.near, kernels)
        if known.cross is not None:
            total = total + product(known.cross, tapped(weight[:, self.before :], CROSS_TAPS))
        return total * a.fine(row_at_level(self.shrink, t))

    def log_scale(self, known: Known, t: Tensor, a: Arithmetic) -> Tensor:
        large, others, colour = self.large, self.before - self.large, known.colour
        columns = [large, others, large, others, 4 * self.size * colour]
        here, here_rest, around, around_rest, own = a.positive(self.magnitude[colour]).split(columns, 1)
        total = products(known.sizes, (torch.cat([here, around], 1), torch.cat([here_rest, around_rest], 1)))
        if known.cross is not None:
            total = total + product(known.cross.abs(), own)
        return a.log(a.place(total + row_at_level(a.positive(self.floor), t)))


class LinearEntropy(nn.Module):
    """The whole entropy model of tec-fp-small: `traverse` visits every symbol once, in coding order."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__()
        self.config = c
        self.first = nn.Parameter(torch.zeros(c.levels, c.groups[0]))  # log scale where no neighbour is known
        self.average, self.groups = self.parts(c)

    def parts(self, c: SmallConfig) -> tuple[nn.Module, nn.ModuleList]:
        return LinearAverages(c), nn.ModuleList(LinearGroup(c, k) for k in range(1, len(c.groups)))

    @property
    def logarithms(self) -> tuple[str, ...]:
        """Names of the parameters stored as logarithms of positive weights."""
        names = (name for name, _ in self.named_parameters())
        return tuple(n for n in names if n == "average.weight" or ".magnitude." in n or n.endswith(".floor"))

    def reads(self, name: str) -> Reads | None:
        """What the columns of a weight matrix are multiplied with; None for a parameter that enters no large sum."""
        parts = name.split(".")
        return self.groups[int(parts[1])].reads(parts[2], parts[-1]) if parts[0] == "groups" else None

    def hyper_latent(self, y: Tensor) -> Tensor | None:
        """y in steps [B, M, h, w] -> z, not yet rounded; None: this model has no hyper-latent."""
        return None

    def hyper_features(self, code: Code, t: Tensor, size: tuple[int, int], a: Arithmetic) -> Tensor | None:
        """Code z, if there is one -> features [B, hyper, h, w] for the networks that refine."""
        return None

    def traverse(
        self,
        code: Code,
        t: Tensor,
        size: tuple[int, int],
        a: Arithmetic,
        groups: int | None = None,
        rest: bool = True,
    ) -> Tensor:
        """Code every symbol. size: latent h, w, multiples of 4. Returns y_hat [B, M, h, w] in steps.

        With `groups`, only the first so many groups of channels are coded; the others are what they are expected to be, or
        without `rest` not there.
        """
        hyper = self.hyper_features(code, t, size, a)
        y_hat = self.code_averages(code, None if hyper is None else rows(hyper), t, size, a)
        for k, group in enumerate(self.groups if rest else self.groups[: groups - 1], 1):
            coded = code if groups is None or k < groups else expected
            y_hat = torch.cat([y_hat, self.code_group(k, group, coded, hyper, y_hat, t, a)], 1)
        return y_hat

    def code_averages(
        self, code: Code, hyper: Tensor | None, t: Tensor, size: tuple[int, int], a: Arithmetic
    ) -> Tensor:
        k, cells_count = self.config.groups[0], size[0] * size[1]
        base = a.fine(row_at_level(self.first, t))
        value, known = base.new_zeros(len(t), cells_count, k), base.new_zeros(1, cells_count, 1)
        for p, cells in enumerate(pyramid(*size, t.device)):
            near = cells.gather(bordered(value, size, cells.reach))
            seen = cells.gather(bordered(known, size, cells.reach))
            features = None if hyper is None else hyper[:, cells.index]
            mean, scale, spread = self.average(p, near, seen, features, t, a)
            # without neighbours the marginal scale is the start, with them their spread is
            start = a.log(spread) if p else base
            log_scale = a.fine(start + scale).expand_as(mean)
            got = code(Step(slice(0, k), cells.index, mean, log_scale, 0, p))
            value, known = value.index_copy(1, cells.index, got), known.index_fill(1, cells.index, 1.0)
        return value.transpose(1, 2).unflatten(2, size)

    def code_group(
        self,
        k: int,
        group: LinearGroup,
        code: Code,
        hyper: Tensor | None,
        y_hat: Tensor,
        t: Tensor,
        a: Arithmetic,
    ) -> Tensor:
        size, before = (
            tuple(y_hat.shape[2:]),
            rows(y_hat).contiguous(),
        )  # cells are gathered as runs of channels
        channels = slice(group.before, group.before + group.size)
        context = group.context(hyper, y_hat, a)
        parts = a.wide(before[..., : group.large]), a.coarse(before[..., group.large :])
        grids = [extended(v, size, 1) for v in parts]
        boxes = [box(grid.abs(), size) for grid in grids]
        sizes = [torch.cat([v.abs(), b], 2) for v, b in zip(parts, (boxes[0], a.coarse(boxes[1])))]
        other = crosses(*size, t.device)
        value, cross, squashed = before.new_zeros(len(t), before.shape[1], group.size), None, None
        for colour, cells in enumerate(colours(*size, t.device)):
            if colour:
                own = a.coarse(value) if group.narrow_own else a.wide(value)
                cross = other.gather(bordered(own, size, 1)).flatten(2)
                if context is not None:
                    squashed = other.gather(bordered(a.squash(value), size, 1)).flatten(2)
            i = cells.index
            near = tuple(cells.gather(grid).flatten(2) for grid in grids)
            features = None if context is None else context.index_select(1, i)
            known = Known(colour, near, tuple(v.index_select(1, i) for v in sizes), cross, squashed, features)
            mean, log_scale = group(known, t, a)
            value = value.index_copy(1, i, code(Step(channels, i, mean, a.fine(log_scale), k, colour)))
        return value.transpose(1, 2).unflatten(2, size)


def expected(step: Step) -> Tensor:
    """A `Code` that codes nothing."""
    return step.mean


def product(v: Tensor, weight: Tensor) -> Tensor:
    """v [B, n, K] times weight [K', K], in the carrier of v; never in the low precision that training uses elsewhere."""
    with torch.autocast(v.device.type, enabled=False):  # large values: bfloat16 would lose whole steps
        return F.linear(v, weight.to(v.dtype))


def products(parts: tuple[Tensor, Tensor], kernels: tuple[Tensor, Tensor]) -> Tensor:
    """Sum over a wide and a narrow part; the narrow one may have no channels."""
    total = product(parts[0], kernels[0])
    return total + product(parts[1], kernels[1]) if kernels[1].shape[1] else total


def rows(v: Tensor) -> Tensor:
    """[B, K, h, w] -> [B, h*w, K]."""
    return v.flatten(2).transpose(1, 2)


def row_at_level(table: Tensor, t: Tensor) -> Tensor:
    """Per-level rows [L, K] at levels t [B] -> [B, 1, K], in the dtype of t."""
    return at_level(table, t)[:, :, 0, 0][:, None]


def tapped(weight: Tensor, taps: tuple[int, ...]) -> Tensor:
    """The given taps of a 3x3 kernel [K', K, 3, 3] as a matrix [K', taps * K]."""
    return weight.flatten(2)[:, :, list(taps)].transpose(1, 2).flatten(1)


def box(v: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums over 3x3 cells: bordered [B, (h+2)(w+2), K] -> [B, h*w, K]."""
    h, w = size
    grid = v.unflatten(1, (h + 2, w + 2))
    over_rows = grid[:, :h] + grid[:, 1 : h + 1] + grid[:, 2:]
    return (over_rows[:, :, :w] + over_rows[:, :, 1 : w + 1] + over_rows[:, :, 2:]).flatten(1, 2)
