"""Closed forms that the entropy models start from: linear means, and scales linear in known magnitudes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from eozip.networks.small import SmallConfig
from eozip.networks.small_linear import LinearEntropy

from .start import LOGISTIC, set_means

SHARE = 0.6  # of a symbol's expected scale that its surroundings explain at the start; the rest is the floor


def set_linear_entropy(entropy: LinearEntropy, y: Tensor, config: SmallConfig, log_gain: Tensor) -> None:
    """Linear means by least squares; scales proportional to the mean relative magnitude of known neighbours.

    Args:
        entropy: the model to fill.
        y: unquantised latents of training crops before gains, [N, M, h, w].
        config: sizes.
        log_gain: logarithms of the gains, [L, M].
    """
    set_means(entropy, y, config)
    _set_scales(entropy, y, config, log_gain, lambda size: size.repeat(9))


def set_context_entropy(entropy: torch.nn.Module, y: Tensor, config: SmallConfig, log_gain: Tensor) -> None:
    """As `set_linear_entropy` for tec-elic-small, whose scales see each cell, its 3x3 sum, and the cross."""
    set_means(entropy, y, config)
    _set_scales(entropy, y, config, log_gain, lambda size: torch.cat([size, 9 * size]))


def _set_scales(
    entropy: torch.nn.Module,
    y: Tensor,
    config: SmallConfig,
    log_gain: Tensor,
    seen: Callable[[Tensor], Tensor],
) -> None:
    """seen: mean magnitudes of earlier channels -> mean magnitudes of what the first colour sees of them."""
    spread, size = y.var((0, 2, 3)).sqrt(), y.abs().mean((0, 2, 3))
    with torch.no_grad():
        entropy.first.copy_(spread[: config.groups[0]].log() + log_gain[:, : config.groups[0]])
        for group in entropy.groups:
            start, stop = group.before, group.before + group.size
            scale = spread[start:stop] * LOGISTIC
            group.floor.copy_((scale * (1 - SHARE)).log() + log_gain[:, start:stop])
            set_magnitudes(group.magnitude, scale, [seen(size[:start]), size[start:stop].repeat(4)])


def set_magnitudes(weights: torch.nn.ParameterList, scale: Tensor, inputs: list[Tensor]) -> None:
    """Every input's share of the expected scale is the same.

    Args:
        weights: logarithms to fill, [K, inputs] for either colour.
        scale: expected scales [K].
        inputs: mean magnitudes of what the first colour sees, and of what the second sees besides.
    """
    for colour, weight in enumerate(weights):
        sizes = torch.cat(inputs[: colour + 1])
        weight.copy_((SHARE * scale[:, None] / (len(sizes) * sizes)).log())
