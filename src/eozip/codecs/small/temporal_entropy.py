"""Entropy model of tec-tt-small: tec-elic-small's, and for every step a network that looks at the dates before.

The published TEC-TT predicts every latent of a date from the two dates before by attention over windows of tokens. Here
space comes first: `SmallEntropy` gives each symbol a mean and a scale from what is known of its own date; what it did not
foresee, the innovation e = value - mean, is what the same cell of other dates may tell. For one step and every past date

    what the network sees     e of the past date in this cell, the scale, and around the cell and in earlier channels how far
                              the innovations of the two dates agree: |e_now - e_past|, |e_now|, |e_past|
    mean  += sum over dates of w * e,    w = s / (1 + sum over dates of |s|), one score s per channel
    mean and log scale += a network on the dates' features, pooled by attention

So a date that does not agree (clouds, a field ploughed) gets little weight, cell by cell, and the first date of a group
costs what tec-elic-small needs: nothing is added to it. Channels of group k see only groups up to k of the past dates, so
that a stream may be cut after any group (flextec-small).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.small.arithmetic import Arithmetic
from eozip.codecs.small.checkerboard import PASSES, Cells, bordered, colours, crosses, pyramid
from eozip.codecs.small.context_entropy import SmallEntropy
from eozip.codecs.small.linear_entropy import Code, Reads, Step, box, row_at_level
from eozip.codecs.small.networks import SmallConfig, training_precision

RANKS = 8  # dates back that the network tells apart; older ones count as the eighth
NEAR, FAR = 1 / 4, 1 / 64  # of sums over neighbours and over WINDOW: keep them inside the activation grid
WINDOW = 9  # cells each way, for what holds over a field or more


@dataclass(frozen=True)
class Hints:
    """What a step knows of past dates, at the n cells it codes.

    Attributes:
        own: innovations of the past dates, [B, D, n, K], in steps.
        around, before: squashed |difference|, |now|, |past|, summed over the neighbours and over a wide window: for the
            group's own channels (known cells), [B, D, n, 6 * K]; None where no cell is known, which stands for zeros; and
            for earlier channels, [B, D, n, A].
        seen: 1 where a past date counts, float [B, D, 1, 1].
    """

    own: Tensor
    around: Tensor | None
    before: Tensor
    seen: Tensor


class TimeStep(nn.Module):
    """Mean and scale of one group's symbols from past dates; the coding passes share all but a bias."""

    def __init__(self, c: SmallConfig, size: int, before: int, passes: int) -> None:
        super().__init__()
        self.size, self.passes = size, passes
        self.enter = nn.Linear(2 * size + 6 * (size + before), c.time)
        self.level = nn.Parameter(torch.zeros(c.levels * passes, c.time))
        self.rank = nn.Parameter(torch.zeros(RANKS, c.time))
        self.middle = nn.Linear(c.time, c.time)
        self.score = nn.Linear(c.time, size)
        self.attend = nn.Linear(c.time, 1)
        self.merge = nn.Linear(c.time + 3 * size, c.time)
        self.leave = nn.Linear(c.time, 2 * size)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)
        nn.init.constant_(self.score.bias, 0.3)
        nn.init.constant_(self.attend.bias, 1.0)

    def reads(self, part: str, leaf: str) -> Reads | None:
        """See `LinearEntropy.reads`."""
        if leaf != "weight":
            return None
        seen = {"enter": [("squash", self.size), ("activation", -1)]}
        return seen.get(part, [("activation", -1)])

    def forward(
        self, number: int, hints: Hints, mean: Tensor, log_scale: Tensor, t: Tensor, a: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        """Pass `number`; mean and log_scale [B, n, K] from space alone -> both, with time."""
        shown = a.settle(log_scale)
        features = self.features(number, hints, shown, t, a)
        # divided in the wide carrier: rounded twice, a quotient near a tie would depend on the first rounding
        score = a.wide(a.settle(self.score(features)) * hints.seen)
        weight = a.wide(a.fine(score / (1 + score.abs().sum(1, keepdim=True))))
        guess = a.place((weight * a.wide(hints.own)).sum(1))
        spread = a.place((weight * (a.wide(hints.own) - a.wide(guess)[:, None])).abs().sum(1))
        pooled = self.pooled(features, hints.seen, a)
        v = torch.cat([pooled, a.squash(guess), a.squash(spread), shown], 2)
        with training_precision(v, self.training):
            v = self.leave(a.settle(F.relu(self.merge(v))))
        shift, scale = v.to(mean).chunk(2, 2)
        return a.place(mean + guess + a.fine(shift)), a.fine(log_scale + a.fine(scale))

    def features(self, number: int, hints: Hints, shown: Tensor, t: Tensor, a: Arithmetic) -> Tensor:
        """Of every past date, [B, D, n, time]."""
        dates = hints.own.shape[1]
        level = a.fine(row_at_level(self.level.view(self.passes, -1, self.level.shape[1])[number], t))
        # the last past date is one back
        back = torch.arange(dates, 0, -1, device=shown.device).clamp_max(RANKS) - 1
        bias = level[:, None] + a.fine(self.rank[back])[:, None]
        repeated = shown[:, None].expand(-1, dates, -1, -1)
        agreement = [v for v in (hints.around, hints.before) if v is not None]
        v = torch.cat([a.squash(hints.own), *agreement, repeated], 3)
        with training_precision(v, self.training):
            v = a.settle(F.relu(a.fine(self.entered(v)) + bias))
            return a.settle(F.relu(self.middle(v))).to(shown)

    def entered(self, v: Tensor) -> Tensor:
        """`enter`; where v has no columns for cells around, their weights are left out (their sums would be zeros)."""
        absent = self.enter.in_features - v.shape[3]
        if not absent:
            return self.enter(v)
        weight = torch.cat([self.enter.weight[:, : self.size], self.enter.weight[:, self.size + absent :]], 1)
        return F.linear(v, weight, self.enter.bias)

    def pooled(self, features: Tensor, seen: Tensor, a: Arithmetic) -> Tensor:
        """Mean over dates, weighted by attention: [B, D, n, time] -> [B, n, time]."""
        weight = a.wide(a.settle(F.relu(self.attend(features))) * seen)
        return a.settle((weight * a.wide(features)).sum(1) / (weight.sum(1) + 1 / 32)).to(features.dtype)


class Date:
    """Innovations of one date, filled in as its symbols are coded; [B, h*w, M]."""

    def __init__(self, innovation: Tensor) -> None:
        self.innovation = innovation

    def note(self, step: Step, value: Tensor) -> None:
        """step: as space alone foresaw it."""
        self.innovation[:, step.cells, step.channels] = (value - step.mean).detach()


class TimeEntropy(SmallEntropy):
    """The whole entropy model of tec-tt-small."""

    def __init__(self, c: SmallConfig) -> None:
        super().__init__(c)
        sizes = [(size, sum(c.groups[:k])) for k, size in enumerate(c.groups)]
        self.time = nn.ModuleList(
            TimeStep(c, size, before, 2 if before else PASSES) for size, before in sizes
        )

    def reads(self, name: str) -> Reads | None:
        parts = name.split(".")
        return (
            self.time[int(parts[1])].reads(parts[2], parts[-1]) if parts[0] == "time" else super().reads(name)
        )

    def date(self, t: Tensor, size: tuple[int, int]) -> Date:
        """A date of which nothing is known yet."""
        return Date(t.new_zeros(len(t), size[0] * size[1], self.config.latent))

    def traverse_after(
        self,
        past: Sequence[Date],
        code: Code,
        t: Tensor,
        size: tuple[int, int],
        a: Arithmetic,
        groups: int | None = None,
        rest: bool = True,
    ) -> tuple[Tensor, Date]:
        """Code every symbol of the next date, see `traverse`. -> y_hat [B, M, h, w] in steps, and what to keep of it."""
        now = self.date(a.fine(t), size)
        if not past:
            return self.traverse(Noted(code, now), t, size, a, groups, rest), now
        before = torch.stack([date.innovation for date in past], 1)
        refined = Refined(code, Foresight(self, before, now, t, size, a))
        return self.traverse(refined, t, size, a, groups, rest), now


class Noted:
    """A `Code` that keeps what space did not foresee."""

    def __init__(self, code: Code, now: Date) -> None:
        self.code, self.now = code, now

    def __call__(self, step: Step) -> Tensor:
        value = self.code(step)
        if step.channels is not None:
            self.now.note(step, value)
        return value


class Refined(Noted):
    """A `Code` that codes each step with what past dates tell."""

    def __init__(self, code: Code, foresight: Foresight) -> None:
        super().__init__(code, foresight.now)
        self.foresight = foresight

    def __call__(self, step: Step) -> Tensor:
        if step.channels is None:
            return self.code(step)
        value = self.code(self.foresight(step))
        self.now.note(step, value)
        return value


class Foresight:
    """Past dates applied to one date's steps, in coding order: a step > the same step with another mean and scale.

    Args:
        entropy: the model.
        past: innovations of the dates coded before, oldest first, [B, D, h*w, M].
        now: the date being coded.
        t: levels [B].
        size: latent h, w.
        a: arithmetic.
        seen: 1 where a past date counts for an example, float [B, D, 1, 1]; None: all do.
    """

    def __init__(
        self,
        entropy: TimeEntropy,
        past: Tensor,
        now: Date,
        t: Tensor,
        size: tuple[int, int],
        a: Arithmetic,
        seen: Tensor | None = None,
    ) -> None:
        self.networks, self.past, self.now, self.t, self.size, self.a = entropy.time, past, now, t, size, a
        self.seen = past.new_ones(*past.shape[:2], 1, 1) if seen is None else seen
        self.loud = a.squash(past.abs())
        self.earlier: tuple[int, Tensor] = (0, past[..., :0])  # of the group last asked for

    def __call__(self, step: Step) -> Step:
        own = self.past[..., step.channels].index_select(2, step.cells)
        network = self.networks[step.group]
        hints = Hints(own, self.around(step), self.before(step), self.seen)
        mean, log_scale = network(step.number, hints, step.mean, step.log_scale, self.t, self.a)
        return replace(step, mean=mean, log_scale=log_scale)

    def before(self, step: Step) -> Tensor:
        """Agreement in earlier channels, over 3x3 cells and the window: [B, D, n, 6 * before]; computed once per group."""
        if self.earlier[0] != step.group:
            maps = self.maps(slice(0, step.channels.start))
            near = box(bordered(maps.flatten(0, 1), self.size, 1), self.size)
            both = torch.cat([near * NEAR, self.wide(maps) * FAR], 2)
            self.earlier = step.group, self.a.settle(both).unflatten(0, maps.shape[:2])
        return self.earlier[1].index_select(2, step.cells)

    def around(self, step: Step) -> Tensor | None:
        """Agreement of the group's own channels over the known cells around: [B, D, n, 6 * K]; None: none is known."""
        cells = self.known_around(step)
        if cells is None:
            return None
        known, near = cells
        maps = self.maps(step.channels) * known
        found = near.gather(bordered(maps.flatten(0, 1), self.size, near.reach)).sum(2)
        wide = self.wide(maps).index_select(1, step.cells)
        return self.a.settle(torch.cat([found * NEAR, wide * FAR], 2)).unflatten(0, maps.shape[:2])

    def wide(self, maps: Tensor) -> Tensor:
        """Sums over the window around every cell: [B, D, h*w, K] -> [B * D, h*w, K]."""
        grid = maps.flatten(0, 1).transpose(1, 2).unflatten(2, self.size)
        # divisor 1: a mean over 81 cells would leave the grid; one axis at a time: 18 additions per cell instead of 81
        reach = WINDOW // 2
        columns = F.avg_pool2d(grid, (WINDOW, 1), 1, (reach, 0), divisor_override=1)
        summed = F.avg_pool2d(columns, (1, WINDOW), 1, (0, reach), divisor_override=1)
        return summed.flatten(2).transpose(1, 2)

    def known_around(self, step: Step) -> tuple[Tensor, Cells] | None:
        """Which cells of the step's group are known, float [h*w, 1], and the step's neighbourhood."""
        if step.number == 0:
            return None
        device = step.cells.device
        if step.group:
            return known_cells(colours(*self.size, device)[:1], self.past), crosses(*self.size, device)
        passes = pyramid(*self.size, device)
        return known_cells(passes[: step.number], self.past), passes[step.number]

    def maps(self, channels: slice) -> Tensor:
        """Squashed |now - past|, |now|, |past| of every cell, [B, D, h*w, 3 * K]."""
        now, past = self.now.innovation[:, None, :, channels], self.past[..., channels]
        apart = self.a.squash(self.a.place(now - past).abs())
        return torch.cat([apart, self.a.squash(now.abs()).expand_as(apart), self.loud[..., channels]], 3)


def known_cells(passes: tuple[Cells, ...], like: Tensor) -> Tensor:
    """1 for the cells of the passes, [h*w, 1]."""
    known = like.new_zeros(like.shape[2], 1)
    for cells in passes:
        known[cells.index] = 1
    return known
