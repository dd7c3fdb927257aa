"""The published image networks, TEC-FP and TEC-ELIC, as kinds that can be trained: one network per lambda.

    loss = R + lambda MSE    R in bits per pixel per band, MSE on bands standardised each by itself

Rates are likelihoods under uniform noise, values pass by straight-through rounding. The medians that the quantiser of a
factorised prior needs follow its distribution by a loss of their own, which reaches nothing else (Balle et al. 2018).
Published checkpoints: lambda 0.5, 2, 10, 40, 200 (arXiv 2510.12670); their training code is not public.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from eozip import hub, sensors
from eozip.codecs import sources
from eozip.codecs.terracodec.models import ElicModel, FactorizedModel
from eozip.entropy.factorized import FactorizedPrior
from eozip.entropy.gaussian import LIKELIHOOD_MIN, SCALE_MIN, gaussian_likelihood
from eozip_lab.train.kind import Kind

FILE = "model.safetensors"
SENSOR = "s2-l2a"
_PRIOR_WIDTH = 10.0


@dataclass(frozen=True)
class _PublishedConfig:
    """Sizes of one published image network: width of the transforms, latent channels, and its one lambda."""

    bands: int = 12
    n: int = 128
    m: int = 192
    one_lmbda: float = 40.0
    levels: int = 2  # the loop asks for two or more; they are alike
    sensor: str = SENSOR


class Standardised(nn.Module):
    """Pixels standardised band by band with the sensor's statistics, as the published networks take them."""

    def __init__(self, sensor: str) -> None:
        super().__init__()
        statistics = sensors.get(sensor)
        self.register_buffer("mean", torch.tensor(statistics.mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(statistics.std, dtype=torch.float32))

    @property
    def unit(self) -> Tensor:
        """DN that one standardised unit means on average, for what the log says."""
        return self.std.square().mean().sqrt()

    def standardise(self, dn: Tensor) -> Tensor:
        """DN [..., C, H, W] > standardised, float32."""
        return (dn - self.mean[:, None, None]) / self.std[:, None, None]

    def restore(self, x: Tensor) -> Tensor:
        """The inverse of `standardise`."""
        return x * self.std[:, None, None] + self.mean[:, None, None]


class _PublishedTraining(Standardised):
    """A published network with its differentiable pass; `network` holds the names of the checkpoints."""

    def __init__(self, network: type[FactorizedModel | ElicModel], config: _PublishedConfig) -> None:
        super().__init__(config.sensor)
        self.config = config
        self.network = network(config.bands, config.n, config.m)
        _widen(self.prior)

    @property
    def g_a(self) -> nn.Module:
        return self.network.g_a

    @property
    def g_s(self) -> nn.Module:
        return self.network.g_s

    @property
    def prior(self) -> FactorizedPrior:
        """The factorised prior: of y, or with a hyperprior of z."""
        return self.network.prior if isinstance(self.network, ElicModel) else self.network.entropy_bottleneck

    def forward(self, x: Tensor, t: Tensor, hard: bool = False) -> tuple[Tensor, Tensor]:
        """x [B, C, H, W] standardised, sides multiples of 64 > x_hat like x, bits [B]; `hard`: rates of rounded values."""
        y = self.g_a(x)
        if not isinstance(self.network, ElicModel):
            y_hat, bits = self._factorised(y, hard)
            return self.g_s(y_hat), bits
        z_hat, bits_z = self._factorised(self.network.h_a(y), hard)
        y_hat, bits_y = self._in_context(y, self.network.h_s(z_hat), hard)
        return self.g_s(y_hat), bits_y + bits_z

    def median_loss(self) -> Tensor:
        """How far the medians are from those of the prior's distributions; only `quantiles` learn from it."""
        others = [p for name, p in self.prior.named_parameters() if name != "quantiles"]
        wanted = [p.requires_grad for p in others]
        for p in others:
            p.requires_grad_(False)
        loss = self.prior.logits(self.prior.quantiles[:, :, 1:2]).abs().sum()
        for p, is_wanted in zip(others, wanted, strict=True):
            p.requires_grad_(is_wanted)
        return loss

    def _factorised(self, values: Tensor, hard: bool) -> tuple[Tensor, Tensor]:
        median = self.prior.medians.detach()[:, None, None]
        rounded = straight_through(values - median) + median
        return rounded, information(_bin_mass(self.prior, rounded if hard else noisy(values)))

    def _in_context(self, y: Tensor, hyper: Tensor, hard: bool) -> tuple[Tensor, Tensor]:
        counted: list[Tensor] = []

        def settle(channels: slice, now: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            residual = y[:, channels] - means
            rounded = straight_through(residual)
            sigma = _LowerBound.apply(scales, SCALE_MIN)
            likelihood = gaussian_likelihood(rounded if hard else noisy(residual), sigma)
            counted.append(information(torch.where(now, likelihood, torch.ones_like(likelihood))))
            return rounded + means

        y_hat = self.network.context.walk(hyper, settle)
        return y_hat, torch.stack(counted).sum(0)


@torch.no_grad()
def _widen(prior: FactorizedPrior) -> None:
    """Distributions about `_PRIOR_WIDTH` wide to begin with (Balle et al. 2018): outside of them no gradient is left."""
    scale = _PRIOR_WIDTH ** (1 / len(prior.matrices))
    for matrix in prior.matrices:
        matrix.fill_(math.log(math.expm1(1 / scale / matrix.shape[1])))


class _LowerBound(torch.autograd.Function):
    """max(x, bound), whose gradient still passes below the bound where it would raise x (Balle et al. 2018)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bound = bound
        return x.clamp_min(bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * ((x >= ctx.bound) | (gradient < 0)), None


def straight_through(x: Tensor) -> Tensor:
    """Rounded values, gradient of the identity."""
    return x + (x.round() - x).detach()


def noisy(x: Tensor) -> Tensor:
    return x + torch.rand_like(x) - 0.5


def information(likelihood: Tensor) -> Tensor:
    """Bits [B] of likelihoods [B, ...]."""
    return -_LowerBound.apply(likelihood, LIKELIHOOD_MIN).log2().flatten(1).sum(1)


def _bin_mass(prior: FactorizedPrior, values: Tensor) -> Tensor:
    """Probability of the unit bin around values [B, M, h, w], precise in both tails."""
    flat = values.transpose(0, 1).flatten(1)[:, None]
    lower, upper = prior.logits(flat - 0.5), prior.logits(flat + 0.5)
    side = -(lower + upper).sign().detach()
    mass = (torch.sigmoid(side * upper) - torch.sigmoid(side * lower)).abs()
    return mass.reshape(values.shape[1], values.shape[0], *values.shape[2:]).transpose(0, 1)


def _published_loss(model: _PublishedTraining, dn: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """R + lambda D as published, and the loss of the medians.

    Args:
        model: the network.
        dn: float32 [B, C, H, W] digital numbers.
        t: levels [B]; all mean the one lambda.

    Returns:
        loss, bpppb [B], MSE [B] of standardised pixels.
    """
    x = model.standardise(dn)
    x_hat, bits = model(x, t)
    rate, mse = bits / x[0].numel(), (x_hat - x).square().flatten(1).mean(1)
    return (rate + model.config.one_lmbda * mse).mean() + model.median_loss(), rate, mse


def begin(model: nn.Module, given: Mapping[str, Tensor]) -> None:
    """Random weights, as published; tensors of an earlier run where name and shape fit."""
    own = model.state_dict()
    fitting = {name: t for name, t in given.items() if name in own and own[name].shape == t.shape}
    model.load_state_dict({**own, **fitting})


def save(folder: Path, model: nn.Module, full_id: str, sensor: str, card: str) -> None:
    """The layout of published checkpoints, which `eozip.load` takes."""
    kind = hub.recognise(model.network.state_dict(), full_id).kind
    hub.write_folder(
        folder, model.network.state_dict(), {"kind": kind, "name": full_id, "sensor": sensor}, card
    )


def load(folder: Path) -> Any:
    return sources.load(folder)


def _given_tensors(folder: Path) -> Mapping[str, Tensor]:
    return {f"network.{name}": t for name, t in load_file(folder / FILE).items()}


FILES = (save, load, _given_tensors)


def _image(network: type[FactorizedModel | ElicModel]) -> Kind:
    build = partial(_PublishedTraining, network)
    return Kind(_PublishedConfig, build, begin, *FILES, loss=_published_loss, sensor=SENSOR)


PUBLISHED: dict[str, Kind] = {"tec-fp": _image(FactorizedModel), "tec-elic": _image(ElicModel)}
