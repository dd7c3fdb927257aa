"""What the context network is made of while it is trained: each operation forwards, and backwards in closed form.

Torch's own way back through roundings, tables and gathers keeps a tensor for every little step, and scatters; these keep
what they need and gather. Features, activations and outputs are whole numbers (units of 1/16), which bfloat16 holds exactly;
values are float32 in steps, multiples of 1/64. Planes are [N, h, w] or, flat, [N, P]; with channels before N, but for rows
of channels [N, P, width].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.pyramid.context import ACTIVATION_MAX, FEATURE, OUTPUT_MAX, PASSES, SQUASH_REACH, VALUE
from eozip.codecs.pyramid.side import SCALE_MIN
from eozip_lab.train.pyramid.quantisers import Quantise, Quantised

PREDICTION = 256.0  # steps, at most
LARGEST_BITS = 40.0
_SCALE_MAX = 7.9
_JUST = 1 / 32  # beyond the largest or the least, where gradients still pass
_TAPS = ((-1, 0), (0, -1), (0, 1), (1, 0))  # of a cell, those of the other colour
_WEIGHT_OF_TAPS = ([0, 1, 1, 2], [1, 0, 2, 1])  # the same in a 3 x 3 kernel


class Rounded(torch.autograd.Function):
    """To the nearest multiple of 1 / units, halves to even, within low .. high."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, units: float, low: float, high: float) -> Tensor:
        ctx.save_for_backward((x >= low) & (x <= high))
        return torch.round(x * units).div_(units).clamp_(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def rounded(x: Tensor, units: float, low: float, high: float) -> Tensor:
    """See `Rounded`."""
    return Rounded.apply(x, units, low, high)


def value(x: Tensor) -> Tensor:
    """As a value of the codec, in steps."""
    return rounded(x, VALUE, -PREDICTION, PREDICTION)


@dataclass(frozen=True, eq=False)
class Checkerboard:
    """Where the cells of a grid, row by row, are in its two colours.

    Attributes:
        order: positions of each colour's cells, in turn.
        inverse: of each cell, where it is in both colours one after the other.
        around: of each cell of the second colour, the four of the first one beside it by number, [4, P1]; where there is
            none, how many there are.
    """

    order: tuple[Tensor, Tensor]
    inverse: Tensor
    around: Tensor


@cache
def checkerboard(h: int, w: int) -> Checkerboard:
    """The colours of a grid."""
    rows, columns = torch.arange(h)[:, None].expand(h, w), torch.arange(w).expand(h, w)
    color = ((rows + columns) % PASSES).flatten()
    first, second = (torch.nonzero(color == k)[:, 0] for k in range(PASSES))
    inverse = torch.argsort(torch.cat([first, second]))
    around = []
    for down, across in _TAPS:
        y, x = rows.flatten()[second] + down, columns.flatten()[second] + across
        is_there = (y >= 0) & (y < h) & (x >= 0) & (x < w)
        around.append(torch.where(is_there, inverse[(y * w + x).clamp(0, h * w - 1)], len(first)))
    return Checkerboard((first, second), inverse, torch.stack(around))


class _Apart(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, board: Checkerboard) -> tuple[Tensor, ...]:
        ctx.dim, ctx.board, ctx.shape = dim, board, x.shape
        return tuple(x.index_select(dim, own) for own in board.order)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        out = gradients[0].new_empty(ctx.shape)
        for own, gradient in zip(ctx.board.order, gradients, strict=True):
            out.index_copy_(ctx.dim, own, gradient)
        return out, None, None


def apart(x: Tensor, dim: int, board: Checkerboard) -> tuple[Tensor, Tensor]:
    """The cells of each colour, along the dimension of cells."""
    first, second = _Apart.apply(x, dim, board)
    return first, second


def beside(first: Tensor, board: Checkerboard) -> Tensor:
    """What cells of the second colour have around them: [C, N, P0] of the first -> [4 * C, N, P1], 0 beyond the border."""
    padded = F.pad(first, (0, 1))
    return torch.cat([padded.index_select(2, taps) for taps in board.around])


def of_taps(kernels: Tensor) -> Tensor:
    """Kernels [out, in, 3, 3] as a matrix for what `beside` gives; the others never meet anything but zeros."""
    return kernels[:, :, *_WEIGHT_OF_TAPS].transpose(1, 2).flatten(1)


class _Squashed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, steps: Tensor, table: Tensor, slopes: Tensor) -> Tensor:
        at = torch.round(steps * VALUE).clamp_(-SQUASH_REACH, SQUASH_REACH).add_(SQUASH_REACH).int()
        ctx.save_for_backward(at, slopes)
        return table.index_select(0, at.flatten()).view(steps.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        at, slopes = ctx.saved_tensors
        return slopes.index_select(0, at.flatten()).view(at.shape).mul_(gradients[0]), None, None


def squashed(steps: Tensor, table: Tensor, slopes: Tensor) -> Tensor:
    """Features of values in steps, from a table of all of them; `slopes`: their change by step."""
    return _Squashed.apply(steps, table, slopes)


class _Trunk(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bank: Tensor, others: Tensor, kernels: Tensor) -> Tensor:
        (n, count, h, w), own = others.shape, len(bank)
        x = torch.empty(n, own + count, h, w, dtype=kernels.dtype, memory_format=torch.channels_last)
        x[:, :own] = bank.transpose(0, 1)
        x[:, own:] = others
        ctx.save_for_backward(x, kernels)
        ctx.own = own
        return F.conv2d(x, kernels, padding=1).permute(0, 2, 3, 1).reshape(n, h * w, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor]:
        x, kernels = ctx.saved_tensors
        n, _, h, w = x.shape
        g = gradients[0].view(n, h, w, -1).permute(0, 3, 1, 2)
        one, pair = [1, 1], [0, 0]
        _, by_kernels, _ = torch.ops.aten.convolution_backward(
            g, x, kernels, None, one, one, one, False, pair, 1, [False, True, False]
        )
        turned = kernels[:, : ctx.own].transpose(0, 1).flip(2, 3)
        return F.conv2d(g, turned, padding=1).transpose(0, 1), None, by_kernels


def trunk(bank: Tensor, others: Tensor, kernels: Tensor) -> Tensor:
    """Sums of 3 x 3 cells of features: rows [N, P, width].

    Args:
        bank: features that are trained, [12, N, h, w].
        others: features that are given, [N, C, h, w].
        kernels: [width, 12 + C, 3, 3].
    """
    return _Trunk.apply(bank, others, kernels)


class _Begun(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, fixed: Tensor, known: Tensor | None) -> Tensor:
        v = rows.float().add_(fixed) if rows.dtype != torch.float32 else rows + fixed
        if known is not None:
            v.add_(known.float())
        ctx.save_for_backward(v.to(rows.dtype))
        ctx.is_same, ctx.has_known = fixed.shape[1] == 1, known is not None
        return v.clamp(0, ACTIVATION_MAX).round_().to(rows.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        (v,) = ctx.saved_tensors
        g = _within(gradients[0], v, 0)
        fixed = g.sum(1, keepdim=True, dtype=torch.float32) if ctx.is_same else g.float()
        return g, fixed, g if ctx.has_known else None


def begun(rows: Tensor, fixed: Tensor, known: Tensor | None) -> Tensor:
    """The first activations [N, P, width], of a sum; `fixed`: float32 [N, 1 or P, width], `known`: as `rows`, or None."""
    return _Begun.apply(rows, fixed, known)


def _within(gradients: Tensor, v: Tensor, low: float) -> Tensor:
    """Gradients of what was clipped to low .. ACTIVATION_MAX, 0 where it lay beyond."""
    low, high = low - _JUST / FEATURE, ACTIVATION_MAX + _JUST
    return torch.ops.aten.hardtanh_backward(gradients, v, low, high)


class _Onwards(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, sums: Tensor) -> Tensor:
        both = sums.clamp(0, ACTIVATION_MAX).round_().add_(v)
        ctx.save_for_backward(sums, both)
        return both.clamp(max=ACTIVATION_MAX)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        sums, both = ctx.saved_tensors
        g = _within(gradients[0], both, -1)
        return g, _within(g, sums, 0)


def onwards(v: Tensor, sums: Tensor) -> Tensor:
    """Activations and those of a layer of them, added: both as rows."""
    return _Onwards.apply(v, sums)


class _Outputs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        ctx.save_for_backward(v, weights)
        return torch.addmm(biases[:, None], weights, v.t())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        v, weights = ctx.saved_tensors
        g = gradients[0]
        return g.t() @ weights, g @ v, g.sum(1)


def outputs(v: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """A layer whose outputs come channel by channel: rows [M, width] -> [12, M]."""
    return _Outputs.apply(v, weights, biases)


def bits_and_slopes(found: Quantised, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Bits of what residuals became under logistic laws of mean 0, and how they change with the log scale."""
    s = torch.exp(-scale)
    low, high = (found.far * s).neg_(), (found.near * s).neg_()
    upper, lower = F.logsigmoid(low), F.logsigmoid(high)
    ratio = (upper - lower).clamp_(max=-1e-7).exp_()
    rest = 1 - ratio
    bits = (lower + torch.log(rest)).div_(-math.log(2))
    slopes = high.mul(torch.sigmoid(-high)).sub_(ratio.mul_(low).mul_(torch.sigmoid(-low))).div_(rest)
    slopes.div_(math.log(2)).mul_(bits <= LARGEST_BITS)
    return bits.clamp_(max=LARGEST_BITS), slopes


@dataclass(frozen=True, eq=False)
class Told:
    """What is given of the cells of one colour; three orientations first, then planes and cells.

    Attributes:
        wanted: details in the cell's unit of values, [3, N, P].
        here: 1 where there is a detail to decode, else 0, [3, N, P].
        sent: 1 where it has a symbol, else 0, [3, N, P].
        scale: log scales that the side information says, [3, N, 1 or P].
        reference: what references predict, [3, N, P], or None.
        unit: what a symbol counts, [N, P]; None: one.
    """

    wanted: Tensor
    here: Tensor
    sent: Tensor
    scale: Tensor
    reference: Tensor | None
    unit: Tensor | None


@dataclass(frozen=True, eq=False)
class Gated:
    """What outputs of the network make of the predictions that they weigh.

    Attributes:
        mean: of details, [3, N, P], not rounded yet.
        scale: log scales, not held yet.
        inside: where outputs were within their bounds, [12, N * P].
        gate, slope: of the reference, the picture below and the neighbours, [3, 3, N, P].
        says: these predictions.
    """

    mean: Tensor
    scale: Tensor
    inside: Tensor
    gate: Tensor
    slope: Tensor
    says: tuple[Tensor | None, Tensor, Tensor | None]

    @classmethod
    def of(
        cls, out: Tensor, below: Tensor, near: Tensor | None, told: Told, gates: Tensor, slopes: Tensor
    ) -> Self:
        """See `coded` for arguments."""
        own = torch.round(out.float())
        inside = own.abs() <= OUTPUT_MAX
        own.clamp_(-OUTPUT_MAX, OUTPUT_MAX)
        at = (own[:9] + OUTPUT_MAX).int().flatten()
        gate = gates.index_select(0, at).view(3, 3, *below.shape[1:])
        slope = slopes.index_select(0, at).view_as(gate)
        says = (told.reference, below, near)
        parts = [g * v for g, v in zip(gate, says, strict=True) if v is not None]
        scale = own[9:].view(below.shape).div(FEATURE).add_(told.scale)
        return cls(sum(parts[1:], parts[0]), scale, inside, gate, slope, says)

    def save(self, ctx: Any, *others: Tensor, dtype: torch.dtype) -> None:
        """For `back`, behind others."""
        there = (v for v in self.says if v is not None)
        ctx.save_for_backward(*others, self.inside, self.gate, self.slope, *there)
        ctx.has, ctx.dtype = tuple(v is not None for v in self.says), dtype


def back(
    ctx: Any, by_mean: Tensor, by_scale: Tensor, saved: Sequence[Tensor]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of outputs, of predictions from below and from neighbours, by those of means and log scales in 1/16."""
    inside, gate, slope, *given = saved
    out = torch.zeros(12, *by_mean.shape[1:], dtype=by_mean.dtype)
    values, found = iter(given), []
    for k, is_there in enumerate(ctx.has):
        if is_there:
            torch.mul(by_mean, next(values), out=out[3 * k : 3 * k + 3]).mul_(slope[k])
        found.append(by_mean * gate[k] if is_there and k else None)
    out[9:] = by_scale
    return out.view(12, -1).mul_(inside).to(ctx.dtype), found[1], found[2]


class _Coded(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        below: Tensor,
        near: Tensor | None,
        told: Told,
        gates: Tensor,
        slopes: Tensor,
        quantise: Quantise,
    ) -> tuple[Tensor, Tensor, Tensor]:
        own = Gated.of(out, below, near, told, gates, slopes)
        settled = torch.round(own.mean * VALUE).div_(VALUE).clamp_(-PREDICTION, PREDICTION)
        log_scale = own.scale.clamp(SCALE_MIN, _SCALE_MAX)
        residual = told.wanted - settled
        found = quantise(residual if told.unit is None else residual / told.unit, log_scale, told.sent)
        bits, by_scale = bits_and_slopes(found, log_scale)
        decoded = settled + (found.values if told.unit is None else found.values * told.unit)
        decoded *= told.here
        error = decoded - told.wanted
        if told.unit is not None:
            error /= told.unit
        squares = error.square().sum((0, 2))
        by_mean = 2 * error * told.here * (own.mean.abs() <= PREDICTION)
        if told.unit is not None:
            by_mean /= told.unit
        by_scale.mul_(told.sent).mul_(own.scale == log_scale).div_(FEATURE)
        own.save(ctx, by_mean, by_scale, dtype=out.dtype)
        return decoded, (bits * told.sent).sum((0, 2)), squares

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_mean, by_scale, *saved = ctx.saved_tensors
        bits, squares = gradients[1][:, None], gradients[2][:, None]
        return *back(ctx, by_mean * squares, by_scale * bits, saved), None, None, None, None


def coded(
    out: Tensor,
    below: Tensor,
    near: Tensor | None,
    told: Told,
    staircase: Sequence[Tensor],
    quantise: Quantise,
) -> tuple[Tensor, Tensor, Tensor]:
    """One colour's details as they are decoded [3, N, P], their bits [N], and squared errors in units of symbols [N].

    Args:
        out: of the network, [12, N * P].
        below: predictions from the picture below [3, N, P].
        near: the same from neighbours, or None.
        told: what is given.
        staircase: gates of outputs -127..127, and their slopes.
        quantise: see there.
    """
    return _Coded.apply(out, below, near, told, *staircase, quantise)
