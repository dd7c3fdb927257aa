"""The transforms of the pyramid codecs on batches of tensors: Haar steps between levels, and spectral bases."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """`eozip.codecs.pyramid.haar.analyse` on tensors [..., H, W]."""
    x = torch.cat([x, x[..., -1:, :]], -2) if x.shape[-2] % 2 else x
    x = torch.cat([x, x[..., -1:]], -1) if x.shape[-1] % 2 else x
    a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
    details = torch.stack([a + b - c - d, a - b + c - d, a - b - c + d], -3) / 2
    return (a + b + c + d) / 2, details


def synthesise(below: Tensor, details: Tensor, size: tuple[int, int]) -> Tensor:
    """`eozip.codecs.pyramid.haar.synthesise` on floats, without rounding."""
    lh, hl, hh = details.unbind(-3)
    h, w = below.shape[-2:]
    out = below.new_empty(*below.shape[:-2], 2 * h, 2 * w)
    out[..., 0::2, 0::2], out[..., 0::2, 1::2] = below + lh + hl + hh, below + lh - hl - hh
    out[..., 1::2, 0::2], out[..., 1::2, 1::2] = below - lh + hl - hh, below - lh - hl + hh
    return out[..., : size[0], : size[1]] / 2


def analysed(groups: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[tuple[int, int]]]:
    """What lies below all groups, and the details and sizes of each one's grid, finest first."""
    bands, details, sizes = groups[0], [], []
    for group in [*groups[1:], None]:
        sizes.append((bands.shape[-2], bands.shape[-1]))
        bands, found = analyse(bands)
        details.append(found)
        bands = bands if group is None else torch.cat([bands, group], 1)
    return bands, details, sizes


def principal(x: Tensor) -> Tensor:
    """Karhunen-Loeve basis of each example: [B, C, ...] -> [B, C, C], columns by falling variance."""
    flat = x.flatten(2)
    return torch.linalg.eigh(flat @ flat.transpose(1, 2) / flat.shape[-1])[1].flip(-1)


def along(basis: Tensor, bands: Tensor) -> Tensor:
    return (basis.transpose(1, 2) @ bands.flatten(2)).view_as(bands)


def back(basis: Tensor, planes: Tensor) -> Tensor:
    return (basis @ planes.flatten(2)).view_as(planes)
