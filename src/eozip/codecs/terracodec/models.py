"""The published networks as whole models: transforms, context and prior under the names of the checkpoints.

A model is pure torch; `estimate` is its parallel likelihood pass. Coding with it is `eozip.codecs.terracodec.published`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from eozip.codecs.terracodec import transforms
from eozip.codecs.terracodec.context import ChannelGroups
from eozip.entropy.factorized import FactorizedPrior
from eozip.entropy.gaussian import bits, gaussian_likelihood


@dataclass(frozen=True)
class _Estimate:
    """What one likelihood pass gives.

    Attributes:
        y: Latent [B, M, h, w], float32, before quantisation.
        y_hat: Quantised latent [B, M, h, w].
        x_hat: Standardised pixels [B, C, H, W], unclamped.
        y_likelihood: Likelihood of each value of y_hat, [B, M, h, w].
        z: Hyper latent [B, N, h/4, w/4] or None.
        z_likelihood: Likelihood of each value of z_hat, or None.
    """

    y: Tensor
    y_hat: Tensor
    x_hat: Tensor
    y_likelihood: Tensor
    z: Tensor | None = None
    z_likelihood: Tensor | None = None

    @property
    def bits_y(self) -> Tensor:
        """Estimated bits of y, a scalar."""
        return bits(self.y_likelihood)

    @property
    def bits_z(self) -> Tensor:
        """Estimated bits of z, a scalar (0 without hyperprior)."""
        return torch.zeros(()) if self.z_likelihood is None else bits(self.z_likelihood)


class FactorizedModel(nn.Module):
    """TEC-FP: x > g_a > y > round > g_s > x_hat, y under a factorised prior (Balle et al. 2018).

    Args:
        bands: C, 12 or 13.
        n: Width of the transforms.
        m: Latent channels.
    """

    def __init__(self, bands: int, n: int, m: int):
        super().__init__()
        self.entropy_bottleneck = FactorizedPrior(m)
        self.g_a = transforms.fp_analysis(bands, n, m)
        self.g_s = transforms.fp_synthesis(bands, n, m)

    def estimate(self, x: Tensor) -> _Estimate:
        """Standardised pixels [B, C, H, W], sides multiples of 16 > latents, likelihoods, reconstruction."""
        y = self.g_a(x)
        y_hat = self.entropy_bottleneck.quantise(y)
        return _Estimate(y, y_hat, self.g_s(y_hat), self.entropy_bottleneck.likelihood(y_hat))


class ElicModel(nn.Module):
    """TEC-ELIC: a hyperprior, channel groups and a two-pass checkerboard (He et al. 2022).

        x > g_a > y ---------------> round around the means > y_hat > g_s > x_hat
                  y > h_a > z > round > h_s > hyper --^
                            channel and checkerboard context --^

    Args:
        bands: C, 12 or 13.
        n: Width of the transforms.
        m: Latent channels, more than 128.
    """

    def __init__(self, bands: int, n: int, m: int):
        super().__init__()
        self.g_a = transforms.elic_analysis(bands, n, m)
        self.g_s = transforms.elic_synthesis(bands, n, m)
        hyper = {
            "entropy_bottleneck": FactorizedPrior(n),
            "h_a": transforms.elic_hyper_analysis(n, m),
            "h_s": transforms.elic_hyper_synthesis(n, m),
        }
        self.latent_codec = nn.ModuleDict({"y": ChannelGroups(m), "hyper": nn.ModuleDict(hyper)})

    @property
    def prior(self) -> FactorizedPrior:
        """Prior of z."""
        return self.latent_codec["hyper"]["entropy_bottleneck"]

    @property
    def h_a(self) -> nn.Module:
        """y > z."""
        return self.latent_codec["hyper"]["h_a"]

    @property
    def h_s(self) -> nn.Module:
        """z_hat > hyper parameters."""
        return self.latent_codec["hyper"]["h_s"]

    @property
    def context(self) -> ChannelGroups:
        """Context model of y."""
        return self.latent_codec["y"]

    def estimate(self, x: Tensor) -> _Estimate:
        """Standardised pixels [B, C, H, W], sides multiples of 64 > latents, likelihoods, reconstruction."""
        y = self.g_a(x)
        z = self.h_a(y)
        z_hat = self.prior.quantise(z)
        y_hat, likelihood = self._estimate_y(y, self.h_s(z_hat))
        return _Estimate(y, y_hat, self.g_s(y_hat), likelihood, z, self.prior.likelihood(z_hat))

    def _estimate_y(self, y: Tensor, hyper: Tensor) -> tuple[Tensor, Tensor]:
        likelihood = torch.ones_like(y)

        def settle(channels: slice, now: Tensor, means: Tensor, scales: Tensor) -> Tensor:
            residual = torch.round(y[:, channels] - means)
            here = gaussian_likelihood(residual, scales)
            likelihood[:, channels] = torch.where(now, here, likelihood[:, channels])
            return residual + means

        return self.context.walk(hyper, settle), likelihood
