"""Cells of a latent grid by coding pass, and where their neighbours lie. Pure index arithmetic, cached per size.

Cells are numbered in raster order. Neighbours are numbered in the grid with a border of `reach` cells around it, so
that a gather from a padded grid needs no case for edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

PASSES = 5  # of the pyramid over block averages
REACH = 2  # cells that a block average sees each way
CROSS = ((-1, 0), (0, -1), (0, 1), (1, 0))
SQUARE = tuple((i, j) for i in (-1, 0, 1) for j in (-1, 0, 1))
RING = tuple((i, j) for i in range(-REACH, REACH + 1) for j in range(-REACH, REACH + 1) if (i, j) != (0, 0))


@dataclass(frozen=True)
class Cells:
    """Some cells of an h x w grid, and their neighbours in the grid padded by `reach`.

    Attributes:
        index: int64 [n], raster numbers in the grid.
        near: int64 [n * k], numbers in the padded grid of every cell's k neighbours.
        taps: k.
        reach: width of the border.
    """

    index: Tensor
    near: Tensor
    taps: int
    reach: int

    def gather(self, padded: Tensor) -> Tensor:
        """Neighbours of every cell: padded [B, (h + 2 reach)(w + 2 reach), C] -> [B, n, k, C]."""
        return padded.index_select(1, self.near).unflatten(1, (-1, self.taps))


def pass_of_cells(h: int, w: int) -> Tensor:
    """Pyramid pass of every cell, int64 [h, w]: spacing 4, its centres, spacing 2, its centres, the rest."""
    i, j = torch.arange(h)[:, None] % 4, torch.arange(w)[None, :] % 4
    coarse = torch.where((i == 0) & (j == 0), 0, torch.where((i == 2) & (j == 2), 1, 2))
    return torch.where((i + j) % 2 == 1, 4, torch.where(i % 2 == 1, 3, coarse))


@lru_cache(maxsize=64)
def pyramid(h: int, w: int, device: torch.device) -> tuple[Cells, ...]:
    """Cells of the five passes, with their ring of 24 neighbours."""
    order = pass_of_cells(h, w)
    return tuple(chosen(order == p, RING, REACH, device) for p in range(PASSES))


@lru_cache(maxsize=64)
def colours(h: int, w: int, device: torch.device) -> tuple[Cells, Cells]:
    """Even and odd cells of the checkerboard, with their 3x3 neighbours."""
    odd = pass_of_cells(h, w) == PASSES - 1
    return chosen(~odd, SQUARE, 1, device), chosen(odd, SQUARE, 1, device)


@lru_cache(maxsize=64)
def crosses(h: int, w: int, device: torch.device) -> Cells:
    """Odd cells with their four even neighbours."""
    return chosen(pass_of_cells(h, w) == PASSES - 1, CROSS, 1, device)


@torch.inference_mode(False)  # what coding has cached may serve training later
def chosen(mask: Tensor, offsets: tuple[tuple[int, int], ...], reach: int, device: torch.device) -> Cells:
    w = mask.shape[1]
    i, j = mask.clone().nonzero(as_tuple=True)
    step = torch.tensor(offsets)
    near = (i[:, None] + reach + step[:, 0]) * (w + 2 * reach) + j[:, None] + reach + step[:, 1]
    return Cells((i * w + j).to(device), near.flatten().to(device), len(offsets), reach)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def nearest_inside(h: int, w: int, reach: int, device: torch.device) -> Tensor:
    """For every cell of the bordered grid the nearest cell of the grid, int64 [(h + 2 reach)(w + 2 reach)]."""
    i, j = (torch.arange(-reach, n + reach).clamp(0, n - 1) for n in (h, w))
    return (i[:, None] * w + j[None, :]).flatten().to(device)


def bordered(v: Tensor, size: tuple[int, int], reach: int) -> Tensor:
    """[B, h*w, C] -> [B, (h + 2 reach)(w + 2 reach), C] with a border of zeros."""
    return F.pad(v.unflatten(1, size), (0, 0, reach, reach, reach, reach)).flatten(1, 2)


def extended(v: Tensor, size: tuple[int, int], reach: int) -> Tensor:
    """As `bordered`, with copies of the nearest cell in the border."""
    return v.index_select(1, nearest_inside(*size, reach, v.device))
