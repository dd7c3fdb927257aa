"""Intervals of details while training: what a pass narrows, its bits, and what is shown, with gradients in closed form.

The rules are those of `eozip.codecs.pyramid.intervals`; probabilities are those of the logistic law itself, where the codec
has tables of whole numbers. What is chosen is what an encoder would choose, and held fixed on the way back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from eozip.codecs.pyramid.context import FEATURE, VALUE
from eozip.codecs.pyramid.side import ROWS_PER_NAT, SCALE_MIN
from eozip.codecs.pyramid.traverse import CERTAIN
from eozip_lab.train.pyramid.operations import PREDICTION, Gated, Told, back
from eozip_lab.train.pyramid.quantisers import rows_of

_SCALE_MAX = 7.9
_WIDE = 1.5  # steps, of an interval that is fine enough
_MOST_NATS = 25.0
_LEAST_MASS = 6e-8  # of which a conditional mean is asked
_NARROW, _THIN = 0.5, 0.05  # scales, of intervals that have a series in place of a quotient


@dataclass
class Cells:
    """What is known of details, in steps; see `eozip.codecs.pyramid.intervals.Known`."""

    low: Tensor
    high: Tensor
    near: Tensor
    seen: Tensor
    value: Tensor
    off: Tensor

    @classmethod
    def none(cls, shape: Sequence[int]) -> Self:
        """Nothing."""
        zero, no = torch.zeros(shape), torch.zeros(shape, dtype=torch.bool)
        return cls(zero, zero, no, no, zero, zero)

    def each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """All tensors changed alike."""
        return type(self)(*(change(getattr(self, f.name)) for f in fields(self)))

    def finer(self) -> Self:
        """In units of half the size."""
        return self.each(lambda v: 2 * v if v.is_floating_point() else v)


@dataclass(frozen=True, eq=False)
class _Found:
    """Bounds beside the mean; what is new, what was narrowed, and which of both are near; symbols of what is new."""

    low: Tensor
    high: Tensor
    is_near: Tensor
    symbols: Tensor
    begun: Tensor
    narrowed: Tensor


def _choose(mean: Tensor, rows: Tensor, zone: Tensor, known: Cells, told: Told, sent: Tensor) -> _Found:
    """What an encoder says of details."""
    begun = (told.here > 0) & ~known.seen & sent & (rows >= CERTAIN)
    seen, rest = known.seen & sent, told.wanted - mean
    symbols = torch.sign(rest) * (torch.floor(rest.abs() - zone) + 1).clamp(min=0)
    far = zone + symbols.abs()
    outer, inner = torch.where(symbols > 0, far - 1, -far), torch.where(symbols < 0, 1 - far, far)
    low, high = known.low - mean, known.high - mean
    around = torch.minimum(low.clamp(min=0), high)
    left, right = torch.maximum(low, around - zone), torch.minimum(high, around + zone)
    asked = seen & known.near & ((left > low) | (right < high))
    below = asked & (rest < left) & (left > low)
    above = asked & (rest >= right) & (right < high) & ~below
    within = asked & ~below & ~above
    low, high = (
        torch.where(above, right, torch.where(within, left, low)),
        torch.where(below, left, torch.where(within, right, high)),
    )
    near = known.near & ~(below | above)
    while (wide := seen & ~near & (high - low > _WIDE)).any():
        middle = torch.floor((low + high) * (VALUE / 2)) / VALUE
        low, high = (
            torch.where(wide & (rest >= middle), middle, low),
            torch.where(wide & (rest < middle), middle, high),
        )
    low, high = torch.where(begun, outer, low), torch.where(begun, inner, high)
    return _Found(low, high, torch.where(begun, symbols == 0, near), symbols, begun, seen)


@dataclass(frozen=True, eq=False)
class Law:
    """The logistic law of mean 0 between two positions, as wide as their scales.

    Attributes:
        nats: minus the logarithm of its mass; `by_mean`, `by_scale`: how that changes with the mean and the log scale.
        middle: the conditional mean; `middle_by_mean`, `middle_by_scale`: how that changes, seen from the mean.
    """

    nats: Tensor
    by_mean: Tensor
    by_scale: Tensor
    middle: Tensor
    middle_by_mean: Tensor
    middle_by_scale: Tensor

    @classmethod
    def between(cls, low: Tensor, high: Tensor, scale: Tensor) -> Self:
        """Of any intervals that are not empty; they are laid on the side where masses are exact."""
        a, b = low / scale, high / scale
        is_above = a + b > 0
        x, y = torch.where(is_above, -b, a), torch.where(is_above, -a, b)
        lower, upper = torch.sigmoid(x), torch.sigmoid(y)
        width, centre, mass = y - x, (x + y) / 2, (upper - lower).clamp(min=1e-30)
        of_upper = F.logsigmoid(y)
        ratio = (F.logsigmoid(x) - of_upper).clamp(max=-1e-6)
        nats = -(of_upper + torch.log(-torch.expm1(ratio)))
        by_mean = torch.where(is_above, -1.0, 1.0) * (1 - lower - upper) / scale
        turn = 1 - 2 * torch.sigmoid(centre)
        at_x, at_y = lower * (1 - lower), upper * (1 - upper)
        by_scale = torch.where(width < _THIN, 1 + centre * turn, (y * at_y - x * at_x) / mass).clamp(-50, 50)
        whole = (y * upper - x * lower - (F.softplus(y) - F.softplus(x))) / mass
        middle = torch.where(width < _NARROW, centre + width * width / 12 * turn, whole)
        middle = torch.where(mass < _LEAST_MASS, centre, middle)
        middle = torch.minimum(torch.maximum(middle, x), y)
        to_x, to_y = (middle - x) * at_x / mass, (y - middle) * at_y / mass
        is_fixed = (width < _NARROW) | (mass < 1e-6)
        by = torch.where(is_fixed, 0.0, (1 - to_x - to_y).clamp(0, 1))
        of = torch.where(is_fixed, 0.0, (middle - y * to_y - x * to_x) * scale)
        sign = torch.where(is_above, -1.0, 1.0)
        return cls(nats, by_mean, by_scale, sign * middle * scale, by, sign * of)


class _Narrowed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        out: Tensor,
        below: Tensor,
        near: Tensor | None,
        told: Told,
        known: Cells,
        sent: Tensor | None,
        tables: Sequence[Tensor],
    ) -> tuple[Tensor, ...]:
        gates, slopes, zones = tables
        own = Gated.of(out, below, near, told, gates, slopes)
        mean = torch.round(own.mean * VALUE).div_(VALUE).clamp_(-PREDICTION, PREDICTION)
        held = own.scale.clamp(SCALE_MIN, _SCALE_MAX)
        rows = rows_of(held)
        scale = torch.exp(SCALE_MIN + rows / ROWS_PER_NAT)
        here = told.here > 0
        is_sent = here if sent is None else here & sent
        found = _choose(mean, rows, zones[rows], known, told, is_sent)
        begun, seen, again = found.begun, found.narrowed, known.seen & here & ~is_sent
        coded, one = begun | seen, torch.ones_like(mean)
        now = Law.between(
            torch.where(coded | again, found.low, -one), torch.where(coded | again, found.high, one), scale
        )
        was = Law.between(
            torch.where(seen, known.low - mean, -one), torch.where(seen, known.high - mean, one), scale
        )
        nats = (now.nats - was.nats * seen) * coded
        counts = coded * (nats < _MOST_NATS) / math.log(2)
        shown = torch.where(
            seen | again, mean + torch.floor(now.middle * VALUE) / VALUE, mean + found.symbols * begun
        )
        shown = shown * told.here
        error = 2 * (shown - told.wanted) * told.here
        is_free = torch.where(seen | again, now.middle_by_mean, one)
        by_scale = torch.where(seen | again, now.middle_by_scale, 0.0)
        within, is_held = own.mean.abs() <= PREDICTION, (own.scale == held) / FEATURE
        own.save(
            ctx,
            (now.by_mean - was.by_mean * seen) * counts * within,
            (now.by_scale - was.by_scale * seen) * counts * is_held,
            error * is_free * within,
            error * by_scale * is_held,
            dtype=out.dtype,
        )
        is_seen = begun | known.seen
        off = torch.where(is_seen & ~found.is_near, shown - mean, 0.0)
        return (
            (nats.clamp(0, _MOST_NATS) / math.log(2)).sum((0, 2)),
            (shown - told.wanted).square().sum((0, 2)),
            torch.where(coded, found.low + mean, known.low),
            torch.where(coded, found.high + mean, known.high),
            torch.where(coded, found.is_near, known.near),
            is_seen,
            shown,
            torch.where(again, known.off, off),
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        bits_mean, bits_scale, error_mean, error_scale, *saved = ctx.saved_tensors
        bits, squares = gradients[0][:, None], gradients[1][:, None]
        by_mean, by_scale = bits_mean * bits + error_mean * squares, bits_scale * bits + error_scale * squares
        return *back(ctx, by_mean, by_scale, saved), None, None, None, None


def narrowed(
    out: Tensor,
    below: Tensor,
    near: Tensor | None,
    told: Told,
    known: Cells,
    sent: Tensor | None,
    tables: Sequence[Tensor],
) -> tuple[Cells, Tensor, Tensor]:
    """One colour's details after a pass [3, N, P], their bits and squared errors [N].

    Args:
        out: of the network, [12, N * P].
        below: predictions from the picture below [3, N, P].
        near: those from details around, or None.
        told: what is given.
        known: what is known before.
        sent: bool [3, N, P], of which details something may be sent; None: of all.
        tables: gates of outputs -127..127, their slopes, and zones of rows in steps.
    """
    bits, squares, *cells = _Narrowed.apply(out, below, near, told, known, sent, tables)
    return Cells(*cells), bits, squares
