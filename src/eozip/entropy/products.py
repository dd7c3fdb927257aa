"""Sums of products of small integers, the same on every machine.

The 8-bit instructions of a CPU are four times as fast as float32. Whether they are exact here is tried once, with the
largest sums there are: some machines saturate in between, and then floats do the same work, which hold these sums
exactly too.
"""

from __future__ import annotations

from functools import cache, reduce

import torch
from torch import Tensor

from eozip.entropy.fixed_point import carrier_for

_LIMIT = 127  # of a piece
BITS = 7  # by which each piece is finer than the one before
_SMALLEST = 2.0**-100  # largest value of a row, for rows of zeros
_DEPTH = 1024  # products of two pieces that a float32 sum holds: 127**2 * 1024 < 2**24


def counted(x: Tensor, pieces: int, dims: tuple[int, ...] = (-1,)) -> tuple[Tensor, Tensor]:
    """Rows as integers, each in a unit of its own in which its largest value is the largest integer.

    Args:
        x: [n, ...], float32 or float64; every operation on it is one that IEEE 754 rounds.
        pieces: 1 or 2; with 2, an integer is 128 times the first piece and the second.
        dims: What is one row.

    Returns:
        int8 [pieces * n, ...], the first pieces of all rows before the second ones; and the units, 1 along `dims`.
    """
    most = _LIMIT << BITS * (pieces - 1)
    largest = x.abs().amax(dims, keepdim=True).clamp_min_(_SMALLEST)
    whole = (x * (torch.full_like(largest, most) / largest)).round_()
    unit = largest / most
    if pieces == 1:
        return whole.to(torch.int8), unit
    found = torch.empty(2 * len(x), *x.shape[1:], dtype=torch.int8, device=x.device)
    first = (whole * 2.0**-BITS).round_()
    found[: len(x)] = first
    found[len(x) :] = whole.sub_(first.mul_(2.0**BITS))
    return found, unit


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """int8 [n, k] and int8 [m, k], values within +-127, k below 2**17 > int32 [n, m], the sums of their products."""
    if a.shape[1] > 1 and _has_instructions(a):  # torch takes a single column for a row
        return torch._int_mm(a, b.t())
    carrier = carrier_for(a.device)
    depth = _DEPTH if carrier == torch.float32 else a.shape[1]
    parts = zip(a.split(depth, 1), b.split(depth, 1))
    return reduce(torch.add, ((x.to(carrier) @ y.to(carrier).t()).to(torch.int32) for x, y in parts))


def _has_instructions(a: Tensor) -> bool:
    mkldnn = torch.backends.mkldnn
    return a.device.type == "cpu" and bool(mkldnn.is_available() and mkldnn.enabled) and _are_exact()


@cache
def _are_exact() -> bool:
    """Whether torch has the product, and it is right for the largest numbers of either sign and any others."""
    if not hasattr(torch, "_int_mm"):
        return False
    numbers = (torch.arange(64 * 512) * 7919 % 255 - _LIMIT).to(torch.int8).reshape(64, 512)
    signs = torch.tensor([1, -1], dtype=torch.int8).repeat(32)[:, None] * torch.full(
        (64, 512), _LIMIT, dtype=torch.int8
    )
    try:
        return all(
            torch.equal(torch._int_mm(a, b.t()).long(), a.long() @ b.long().t())
            for a in (numbers, signs)
            for b in (numbers, signs)
        )
    except RuntimeError:  # not built for this machine
        return False
