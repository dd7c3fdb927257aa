"""tec-tt-small in training: transforms as they are, networks over past dates learning, the spatial model too where asked.

Coding visits the dates one after the other; training looks at all at once. What a date's symbols are under the spatial
model alone (`Observed`) stands for what the earlier dates decode to: decoded values differ by less than a step.
"""

from __future__ import annotations

import torch
from torch import Tensor

from eozip.codecs.small.arithmetic import FloatArithmetic
from eozip.codecs.small.image_model import SmallImageModel
from eozip.codecs.small.linear_entropy import Step, rows
from eozip.codecs.small.networks import at_level
from eozip.codecs.small.temporal_entropy import Date, Foresight
from eozip.entropy import logistic


class Observed:
    """Stands where a port stands: rounds, and keeps every step as space alone foresaw it."""

    def __init__(self, y: Tensor, z: Tensor, now: Date) -> None:
        self.y, self.z, self.now = rows(y), rows(z), now
        self.steps: list[Step] = []
        self.bits = y.new_zeros(len(y))  # of z

    def __call__(self, step: Step) -> Tensor:
        if step.channels is None:
            rest = self.z[:, step.cells] - step.mean
            self.bits = logistic.bits(rest.round(), step.log_scale.float()).flatten(1).sum(1)
            return (rest.round() + step.mean).detach()
        self.steps.append(step)
        rest = self.y[:, step.cells, step.channels] - step.mean
        value = (rest.round() + step.mean).detach()
        self.now.note(step, value)
        return value


class SeriesModel(SmallImageModel):
    """tec-tt-small with a differentiable pass over series of dates."""

    def forward(self, x: Tensor, t: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """x [T, C, H, W] as one series, t [T] -> x_hat like x, bits [T] (estimates; see the module)."""
        y_hat, bits, _ = self.series(x[None], t[:1], hard)
        return self.synthesise(y_hat, t), bits[0]

    def series(self, x: Tensor, t: Tensor, hard: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, C, H, W], t [B] -> y_hat [B*T, M, h, w], bits [B, T], MSE [B, T] that rounding leaves in the latents."""
        dates = x.shape[1]
        every = t.repeat_interleave(dates)
        with torch.no_grad():
            y = self.analyse(x.flatten(0, 1), every)
            z = self.entropy.hyper_latent(y)
        now = Date(y.new_zeros(len(y), y.shape[2] * y.shape[3], y.shape[1]))
        seen = Observed(y, z, now)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.space_learns()):
            y_hat = self.entropy.traverse(seen, every, tuple(y.shape[2:]), FloatArithmetic())
        error = ((y_hat - y) * (-at_level(self.log_gain, every)).exp()).square().flatten(1).sum(1).detach()
        bits = seen.bits + self.coded(seen, y, t, dates, hard)
        pixels = x[0, 0].numel()
        return y_hat, bits.unflatten(0, (-1, dates)), (error / pixels).unflatten(0, (-1, dates))

    def space_learns(self) -> bool:
        """Whether the spatial entropy model is being trained too (`train_only` of the recipe)."""
        return any(p.requires_grad for n, p in self.entropy.named_parameters() if not n.startswith("time."))

    def coded(self, seen: Observed, y: Tensor, t: Tensor, dates: int, hard: bool) -> Tensor:
        """Bits of the latents [B*T]: first dates from space, the others with the dates before."""
        first = torch.arange(len(y), device=y.device) % dates == 0
        bits = y.new_zeros(len(y))
        foresight = None if dates == 1 else self.foresight(seen.now, first, t, dates, tuple(y.shape[2:]))
        cells = rows(y)
        for step in seen.steps:
            target = cells[:, step.cells, step.channels]
            bits = bits.index_add(0, first.nonzero()[:, 0], likelihood(of(step, first), target[first], hard))
            if foresight is not None:
                foreseen = foresight(of(step, ~first))
                bits = bits.index_add(0, (~first).nonzero()[:, 0], likelihood(foreseen, target[~first], hard))
        return bits

    def foresight(self, now: Date, first: Tensor, t: Tensor, dates: int, size: tuple[int, int]) -> Foresight:
        """Every date but the first as a target, its past dates before it; right-aligned, as the last one is one back."""
        innovation = now.innovation.unflatten(0, (-1, dates))
        target = torch.arange(1, dates, device=t.device)
        index = target[:, None] - (dates - 1) + torch.arange(dates - 1, device=t.device)
        past = innovation[:, index.clamp_min(0)].flatten(0, 1)
        seen = (index >= 0).to(past).repeat(len(innovation), 1)[:, :, None, None]
        level = t.repeat_interleave(dates - 1)
        return Foresight(
            self.entropy, past, Date(now.innovation[~first]), level, size, FloatArithmetic(), seen
        )


def of(step: Step, which: Tensor) -> Step:
    """The step of some examples."""
    return Step(step.channels, step.cells, step.mean[which], step.log_scale[which], step.group, step.number)


def likelihood(step: Step, target: Tensor, hard: bool) -> Tensor:
    """Bits [B] of a step's symbols, with noise for rounding or (hard) rounded."""
    rest = target - step.mean
    rest = rest.round() if hard else rest + torch.rand_like(rest) - 0.5
    return logistic.bits(rest, step.log_scale.float()).flatten(1).sum(1)
