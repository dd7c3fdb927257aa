"""Exact convolutions: sums of integers, rounded to one grid behind each layer.

The grid serves latents, activations, means and scales; ReLU between the layers keeps it. Most convolutions multiply 8-bit
integers: 15 bits of each weight and each input, in two pieces (`products`), without the product of both second pieces.
Transposed ones add in float64, with weights as fine as that holds for the largest inputs. Nothing depends on the order of
summation. docs/exact.md, section 3.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eozip.codecs.terracodec.exact_transformer import LARGEST, Grid, wide_units
from eozip.entropy import products
from eozip.entropy.gaussian import SCALE_LEVELS, SCALE_MAX, SCALE_MIN
from eozip.errors import WeightsError

VALUE = Grid(2.0**14, 2.0**16)  # latents beyond (pixels far out of range) saturate
SCALE_UNIT = 2.0**20  # thresholds of scales are multiples of 1 / this


def exact_convolutions(name: str, module: nn.Module) -> nn.Module:
    """A float64 twin of a module of convolutions and ReLUs whose sums are exact, inputs and outputs on `VALUE`.

    Raises:
        WeightsError: weights that are too large.
    """
    twin = copy.deepcopy(module).double().eval().requires_grad_(False)
    for part, layer in list(twin.named_modules()):
        if isinstance(layer, nn.ConvTranspose2d):
            _place(f"{name}.{part}", layer)
            layer.register_forward_hook(lambda _layer, _inputs, total: VALUE.of(total))
        elif isinstance(layer, nn.Conv2d):
            parent, _, leaf = part.rpartition(".")
            setattr(twin.get_submodule(parent), leaf, _scaled_convolution(f"{name}.{part}", layer))
    return twin


class _ScaledConvolution(nn.Module):
    """A convolution of stride 1 on 8-bit integers, two pieces of each weight and each input.

    Args:
        weight: float64 [out, in, side, side].
        bias: float64 [out].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.side = weight.shape[-1]
        whole, unit = products.counted(weight.permute(0, 2, 3, 1).flatten(1), 2)
        self.register_buffer("weight", whole)
        self.register_buffer("unit", unit[:, 0])
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """float64 [B, in, h, w] > [B, out, h, w] on `VALUE`; every image counts in a unit of its own."""
        b, _, h, w = x.shape
        whole, unit = products.counted(x, 2, (1, 2, 3))
        first, second = self._windows(whole).chunk(2)
        high, cross = products.multiply(first, self.weight).split(len(self.unit), 1)
        cross = cross + products.multiply(second, self.weight[: len(self.unit)])
        total = high.double().mul_(2.0**products.BITS).add_(cross).mul_(2.0**products.BITS)
        total = total.view(b, h * w, -1).mul_(self.unit).mul_(unit[:, 0]).add_(self.bias)
        return VALUE.of(total).transpose(1, 2).reshape(b, -1, h, w)

    def _windows(self, whole: Tensor) -> Tensor:
        """int8 [n, in, h, w] > [n h w, side side in]: what each output cell sees, channels innermost."""
        reach, cells = self.side // 2, whole.permute(0, 2, 3, 1)
        if reach == 0:
            return cells.flatten(0, 2).contiguous()
        cells = F.pad(cells, (0, 0, reach, reach, reach, reach))
        seen = cells.unfold(1, self.side, 1).unfold(2, self.side, 1)  # [n, h, w, in, side, side]
        return seen.permute(0, 1, 2, 4, 5, 3).reshape(-1, self.weight.shape[1])


def _scaled_convolution(name: str, layer: nn.Conv2d) -> _ScaledConvolution:
    """The exact form of a convolution with weights in float64; one that sees part of its window has zeros in the rest.

    Raises:
        WeightsError: weights that are too large.
    """
    colour = dict(layer.named_buffers()).get("colour")
    weight = layer.weight if colour is None else layer.weight * colour
    largest = max(float(weight.abs().max()), float(layer.bias.abs().max()))
    if not largest < LARGEST:
        raise WeightsError(
            f"{name}: expected weights below {LARGEST:g}, got {largest:.3g}; these weights cannot be computed exactly"
        )
    return _ScaledConvolution(weight, layer.bias)


def _place(name: str, layer: nn.ConvTranspose2d) -> None:
    """Weights and bias to the grids of their output channels, in place."""
    rows = layer.weight.transpose(0, 1)  # a transposed convolution has its outputs second
    unit = wide_units(name, rows.flatten(1), layer.bias, VALUE)
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
