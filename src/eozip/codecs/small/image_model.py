"""The `small` image network as one module: transforms, gains and entropy model, with its differentiable pass.

    x -> g_a -> * gain(t) -> y (steps) -> entropy.traverse(code) -> y_hat -> / gain(t) -> g_s -> x_hat

`code` is what differs between training (noise and straight-through rounding, here), estimating, encoding and decoding
(`eozip.codecs.tec_elic`): all four walk the same traversal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eozip.codecs.small.arithmetic import FloatArithmetic
from eozip.codecs.small.context_entropy import SmallEntropy
from eozip.codecs.small.linear_entropy import LinearEntropy, Step, rows
from eozip.codecs.small.networks import SmallAnalysis, SmallConfig, SmallSynthesis, at_level
from eozip.codecs.small.temporal_entropy import TimeEntropy
from eozip.entropy import logistic

# tec-elic-small, tec-fp-small, tec-tt-small
ENTROPY = {"context": SmallEntropy, "linear": LinearEntropy, "time": TimeEntropy}


class SmallImageModel(nn.Module):
    """tec-elic-small, tec-fp-small or tec-tt-small (each date alone), by `config.entropy`.

    Pixels are (DN - mean of the band) / unit with one unit for all bands, so that the squared error of the network is the
    squared error in DN (the published models standardise each band instead).
    """

    def __init__(self, config: SmallConfig) -> None:
        super().__init__()
        self.config = config
        self.g_a, self.g_s = SmallAnalysis(config), SmallSynthesis(config)
        self.entropy = ENTROPY[config.entropy](config)
        self.log_gain = nn.Parameter(torch.zeros(config.levels, config.latent))
        self.register_buffer("mean", torch.zeros(config.bands))
        self.register_buffer("unit", torch.ones(()))

    def standardise(self, dn: Tensor) -> Tensor:
        return (dn - self.mean[:, None, None]).div_(self.unit)

    def restore(self, x: Tensor) -> Tensor:
        return (x * self.unit).add_(self.mean[:, None, None])

    def analyse(self, x: Tensor, t: Tensor) -> Tensor:
        """x [B, C, H, W] standardised -> y [B, M, H/8, W/8] in quantisation steps of level t [B]."""
        return self.g_a(x, t) * at_level(self.log_gain, t).exp()

    def synthesise(self, y_hat: Tensor, t: Tensor, draft: bool = False) -> Tensor:
        """The inverse of `analyse`; `draft`: in low precision where that is faster."""
        return self.g_s(y_hat * (-at_level(self.log_gain, t)).exp(), t, draft)

    def forward(self, x: Tensor, t: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """Differentiable pass. -> x_hat like x, bits [B] (with `hard`, rounding as in coding: the rate it would have)."""
        y = self.analyse(x, t)
        z = self.entropy.hyper_latent(y)
        code = TrainCode(y, z, hard)
        y_hat = self.entropy.traverse(code, t, tuple(y.shape[2:]), FloatArithmetic())
        return self.synthesise(y_hat, t), code.bits


class TrainCode:
    """Stands where a port stands in coding: likelihoods under uniform noise, values by straight-through rounding."""

    def __init__(self, y: Tensor, z: Tensor | None, hard: bool) -> None:
        self.y, self.z, self.hard = rows(y), None if z is None else rows(z), hard
        self.bits = y.new_zeros(len(y))

    def __call__(self, step: Step) -> Tensor:
        target = self.z if step.channels is None else self.y[:, :, step.channels]
        residual = target[:, step.cells] - step.mean
        rounded = residual + (residual.round() - residual).detach()
        noisy = rounded if self.hard else residual + torch.rand_like(residual) - 0.5
        self.bits = self.bits + logistic.bits(noisy, step.log_scale.float()).flatten(1).sum(1)
        return rounded + step.mean
