"""Closed forms that the entropy models start from: linear means, and scales linear in known magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from eozip.codecs.small.linear_entropy import LinearEntropy
from eozip.codecs.small.networks import SmallConfig
from eozip_lab.train.start import LOGISTIC, set_means

SHARE = 0.6  # of a symbol's expected scale that its surroundings explain at the start; the rest is the floor


def set_linear_entropy(entropy: LinearEntropy, y: Tensor, config: SmallConfig, log_gain: Tensor) -> None:
    """Linear means by least squares; scales proportional to the mean relative magnitude of known neighbours.

    Args:
        entropy: the model to fill, linear or refined by networks (which start at no correction).
        y: unquantised latents of training crops before gains, [N, M, h, w].
        config: sizes.
        log_gain: logarithms of the gains, [L, M].
    """
    set_means(entropy, y, config)
    spread, size = y.var((0, 2, 3)).sqrt(), y.abs().mean((0, 2, 3))
    with torch.no_grad():
        entropy.first.copy_(spread[: config.groups[0]].log() + log_gain[:, : config.groups[0]])
        for group in entropy.groups:
            start, stop = group.before, group.before + group.size
            scale = spread[start:stop] * LOGISTIC
            group.floor.copy_((scale * (1 - SHARE)).log() + log_gain[:, start:stop])
            seen = torch.cat([size[:start], 9 * size[:start]])  # a cell, and the sum over 3x3 cells
            set_magnitudes(group.magnitude, scale, [seen, size[start:stop].repeat(4)])


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
