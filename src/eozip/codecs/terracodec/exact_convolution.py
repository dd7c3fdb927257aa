"""Exact convolutions: float64 sums of weights and inputs on dyadic grids, rounded to the grid again behind each layer.

One grid serves latents, activations, means and scales. Weights are as fine as float64 allows for the largest inputs, so
nothing depends on the order of summation; ReLU between the layers keeps the grid. docs/exact.md, section 6.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from eozip.codecs.terracodec.exact_transformer import Entering, Grid, wide_units
from eozip.entropy.gaussian import SCALE_LEVELS, SCALE_MAX, SCALE_MIN

VALUE = Grid(2.0**14, 2.0**16)  # latents beyond (pixels far out of range) saturate
SCALE_UNIT = 2.0**20  # thresholds of scales are multiples of 1 / this


def exact_convolutions(name: str, module: nn.Module) -> nn.Module:
    """A float64 twin of a module of convolutions and ReLUs whose sums are exact, inputs and outputs on `VALUE`.

    Raises:
        WeightsError: weights so large that float64 cannot hold the sums.
    """
    twin = copy.deepcopy(module).double().eval().requires_grad_(False)
    for part, layer in twin.named_modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            _place(f"{name}.{part}", layer)
            layer.register_forward_hook(lambda _layer, _inputs, total: VALUE.of(total))
    return twin


def _place(name: str, layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    """Weights and bias to the grids of their output channels, in place."""
    axis = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
    rows = layer.weight.transpose(0, axis)  # a transposed convolution has its outputs second
    unit = wide_units(name, rows.flatten(1), layer.bias, Entering(VALUE))
    per_row = unit.view(-1, 1, 1, 1)
    rows.copy_(torch.round(rows * per_row) / per_row)
    layer.bias.copy_(torch.round(layer.bias * unit * VALUE.unit) / (unit * VALUE.unit))


def scale_thresholds() -> Tensor:
    """The scale from which each row but the first serves: half way, in the logarithm, between two of `scale_levels`."""
    step = math.log(SCALE_MAX / SCALE_MIN) / (SCALE_LEVELS - 1)
    begins = [SCALE_MIN * math.exp(step * (i - 0.5)) for i in range(1, SCALE_LEVELS)]
    return torch.tensor([round(v * SCALE_UNIT) / SCALE_UNIT for v in begins], dtype=torch.float64)


def state_hash(parts: Mapping[str, nn.Module]) -> str:
    """Hash of exact weights: a machine on which they come out otherwise must have another codec id."""
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        for key, tensor in sorted(part.state_dict().items()):
            digest.update(f"{name}.{key}\n".encode())
            digest.update(np.ascontiguousarray(tensor.numpy(), "<f8"))
    return digest.hexdigest()
