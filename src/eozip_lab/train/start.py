"""Closed forms a small codec starts from: PCA, gains from lambda, variances, linear predictors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.small.linear_entropy import ALL_TAPS, CROSS_TAPS
from eozip.codecs.small.networks import PATCH, SmallConfig

SetPriors = Callable[[torch.nn.Module, Tensor, SmallConfig, Tensor], None]

UNIT_RANGE = (900.0, 2000.0)  # DN: bounds of the unit that pixels are divided by

LOGISTIC = math.sqrt(3) / math.pi  # scale of a logistic of standard deviation 1


def block_basis(x: Tensor, config: SmallConfig) -> Tensor:
    """Orthonormal analysis basis [M, C*64] of 8x8xC blocks of x [N, C, H, W].

    The first group holds block averages (their spectral PCA), the rest the PCA of what block averages leave,
    ordered by variance: averages go first because they are coded as a pyramid.
    """
    blocks = F.pixel_unshuffle(x, PATCH).permute(0, 2, 3, 1).reshape(-1, config.bands, PATCH * PATCH)
    average = blocks.mean(2)
    spectral = principal(average).T / PATCH  # orthonormal rows over the pixels of a block
    constant = spectral[:, :, None].expand(-1, -1, PATCH * PATCH).flatten(1)
    rest = principal((blocks - average[:, :, None]).flatten(1)).T
    first = config.groups[0]
    others = torch.cat([constant[first:], rest[: config.latent]])
    spread = (blocks.flatten(1) @ others.T).var(0)
    order = spread.argsort(descending=True)[: config.latent - first]
    return torch.cat([constant[:first], others[order]])


def principal(samples: Tensor) -> Tensor:
    """Eigenvectors (columns, by falling eigenvalue) of the second moment of samples [n, d]."""
    moment = (samples.T @ samples).double() / len(samples)
    return torch.linalg.eigh(moment)[1].flip(1).float()


def steps(config: SmallConfig) -> Tensor:
    """Quantisation step of every level for unit-norm coefficients: sqrt(6 / (lambda ln 2)), at high rates."""
    t = torch.arange(config.levels, dtype=torch.float32)
    return (6 / (config.lmbda(t) * math.log(2))).sqrt()


ALL, CROSS = list(ALL_TAPS), list(CROSS_TAPS)  # lists, because they index


def least_squares(target: Tensor, seen: list[tuple[Tensor, list[int]]], ridge: float) -> Tensor:
    """Conv weights [K, sum k_i, 3, 3] that predict target [N, K, h, w] best from taps of the seen tensors."""
    columns = torch.cat([unfolded(v)[:, :, taps].flatten(1) for v, taps in seen], 1).double()
    goal = target.permute(0, 2, 3, 1).reshape(-1, target.shape[1]).double()
    gram = columns.T @ columns / len(columns) + ridge * torch.eye(columns.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(gram, columns.T @ goal / len(columns)).float().T
    parts = []
    for (v, taps), part in zip(seen, solution.split([v.shape[1] * len(taps) for v, taps in seen], 1)):
        weight = part.new_zeros(len(part), v.shape[1], 9)
        weight[:, :, taps] = part.reshape(len(part), v.shape[1], len(taps))
        parts.append(weight)
    return torch.cat(parts, 1).unflatten(2, (3, 3))


def unfolded(v: Tensor) -> Tensor:
    """[N, k, h, w] -> [N*h*w, k, 9]: the 3x3 cells around every cell."""
    columns = F.unfold(F.pad(v, (1, 1, 1, 1), mode="replicate"), 3)
    return columns.transpose(1, 2).reshape(-1, v.shape[1], 9)


def set_transforms(g_a: torch.nn.Module, g_s: torch.nn.Module, basis: Tensor) -> None:
    with torch.no_grad():
        g_a.linear.weight.copy_(basis[:, :, None, None])
        g_s.linear.weight.copy_(basis.T[:, :, None, None])


def set_means(entropy: torch.nn.Module, y: Tensor, config: SmallConfig) -> None:
    """Linear predictors of both colours from unquantised latents y [N, M, h, w] of training crops."""
    start = config.groups[0]
    noise = float(steps(config)[config.levels // 2] ** 2 / 12)  # predictors will see quantised values
    with torch.no_grad():
        for context, size in zip(entropy.groups, config.groups[1:]):
            before, now = y[:, :start], y[:, start : start + size]
            context.linear[0].weight.copy_(least_squares(now, [(before, ALL)], noise))
            context.linear[1].weight.copy_(least_squares(now, [(before, ALL), (now, CROSS)], noise))
            start += size


def begin(model: torch.nn.Module, dn: Tensor, given: Mapping[str, Tensor], set_priors: SetPriors) -> None:
    """Sets a `SmallImageModel` to its start: an earlier run's tensors where they fit, else closed forms.

    Args:
        model: freshly built.
        dn: float32 [N, C, H, W] training crops in digital numbers, a thousand or more.
        given: tensors of an earlier run by name; may be empty.
        set_priors: fills the entropy model from latents (entropy, y, config, log_gain).
    """
    set_image_parts(model, dn)
    take(model, {name: v for name, v in given.items() if not name.startswith("entropy.")})
    with torch.no_grad():  # the priors are those of the transforms as they are now
        middle = torch.full((len(dn),), (model.config.levels - 1) / 2)
        y = model.g_a(model.standardise(dn), middle).float()
    set_priors(model.entropy, y, model.config, model.log_gain.detach())
    take(model, {name: v for name, v in given.items() if name.startswith("entropy.")})


def take(model: torch.nn.Module, given: Mapping[str, Tensor]) -> None:
    """Copies the tensors whose name and shape fit."""
    own = model.state_dict()
    model.load_state_dict(own | {n: v for n, v in given.items() if n in own and v.shape == own[n].shape})


def set_image_parts(model: torch.nn.Module, dn: Tensor) -> None:
    """Statistics, PCA transforms and gains."""
    model.mean.copy_(dn.mean((0, 2, 3)))
    model.unit.copy_(dn.var((0, 2, 3)).mean().sqrt().clamp(*UNIT_RANGE))
    x = model.standardise(dn)
    set_transforms(model.g_a, model.g_s, block_basis(x, model.config))
    with torch.no_grad():
        model.log_gain.copy_(-steps(model.config).log()[:, None].expand_as(model.log_gain))
