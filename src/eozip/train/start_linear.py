"""Closed forms that the linear entropy model of tec-fp-small starts from."""

from __future__ import annotations

import torch
from torch import Tensor

from eozip.networks.small import SmallConfig
from eozip.networks.small_linear import LinearEntropy

from .start import ALL, CROSS, LOGISTIC, least_squares, steps

SHARE = 0.6  # of a symbol's expected scale that its surroundings explain at the start; the rest is the floor


def set_linear_entropy(entropy: LinearEntropy, y: Tensor, config: SmallConfig, log_gain: Tensor) -> None:
    """Linear means by least squares; scales proportional to the mean relative magnitude of known neighbours.

    Args:
        entropy: the model to fill.
        y: unquantised latents of training crops before gains, [N, M, h, w].
        config: sizes.
        log_gain: logarithms of the gains, [L, M].
    """
    noise = float(steps(config)[config.levels // 2] ** 2 / 12)  # predictors will see quantised values
    spread, size = y.var((0, 2, 3)).sqrt(), y.abs().mean((0, 2, 3))
    with torch.no_grad():
        entropy.first.copy_(spread[: config.groups[0]].log() + log_gain[:, : config.groups[0]])
        for group in entropy.groups:
            start, stop = group.before, group.before + group.size
            before, now = y[:, :start], y[:, start:stop]
            group.linear[0].weight.copy_(least_squares(now, [(before, ALL)], noise))
            group.linear[1].weight.copy_(least_squares(now, [(before, ALL), (now, CROSS)], noise))
            scale = spread[start:stop] * LOGISTIC
            group.floor.copy_((scale * (1 - SHARE)).log() + log_gain[:, start:stop])
            set_magnitudes(group.magnitude, scale, [size[:start].repeat(9), size[start:stop].repeat(4)])


def set_magnitudes(weights: torch.nn.ParameterList, scale: Tensor, inputs: list[Tensor]) -> None:
    """Every input's share of the expected scale is the same. scale [K], inputs: mean magnitudes, by colour cumulative."""
    for colour, weight in enumerate(weights):
        sizes = torch.cat(inputs[: colour + 1])
        weight.copy_((SHARE * scale[:, None] / (len(sizes) * sizes)).log())


def set_context_scales(entropy: torch.nn.Module, y: Tensor, config: SmallConfig, log_gain: Tensor) -> None:
    """The linear scales of tec-elic-small, from the same rule: cell, 3x3 sum, and the cross of the other colour."""
    spread, size = y.var((0, 2, 3)).sqrt(), y.abs().mean((0, 2, 3))
    with torch.no_grad():
        entropy.first.copy_(spread[: config.groups[0]].log() + log_gain[:, : config.groups[0]])
        for group in entropy.groups:
            start, stop = group.before, group.before + group.size
            scale = spread[start:stop] * LOGISTIC
            group.floor.copy_((scale * (1 - SHARE)).log() + log_gain[:, start:stop])
            known = torch.cat([size[:start], 9 * size[:start]])
            set_magnitudes(group.magnitude, scale, [known, size[start:stop].repeat(4)])
