"""What decoded dates tell of another one: which dates those are, and a linear map that encoder and decoder fit alike.

    order       up to three dates that tell of all others (anchors.py finds them), or of many dates the first, the last,
                then the middle of each gap: a date is read with few
    fit         remainders of the references > those of the date, by least squares over the level below, which both know
    prediction  the same map applied to the references' remainders of the level to code, beside what the picture below
                lets expect

Nothing is sent for it. All sums are of integers below 2**53, and the equations are solved by single additions, products and
quotients of float64 in a given order, so every machine finds the same map.

Source: hierarchical bidirectional prediction is that of video codecs (Wiegand et al. 2003); in place of motion a map between
spectra, as seasons change colours and not places.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.context import PREDICTION_MAX, VALUE
from eozip.codecs.pyramid.native import library
from eozip.codecs.pyramid.registration import moved, units_at
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.spectral import LARGEST, Basis
from eozip.errors import FormatError

MOST = 4  # references of a date
MOST_ANCHORS = 3
_SEVERAL = MOST_ANCHORS + 1  # in place of a number of anchors: there are several groups of dates
LARGEST_SAMPLE = 1 << 15  # units of a sample in the fit, at most
SAMPLES = 1 << 14  # of a fit, about, at most
PRECISION = 8  # bits of a weight
LARGEST_WEIGHT = 1 << 11  # units
_DOUBT = 6 * VALUE**2  # squared units that speak for the map as it is
_MOST_SHARE = 384
_RIDGE, _RIDGE_FIXED = 410, 60 * VALUE**2  # squared units, a sample (a tenth of a squared step) and in all

Group = tuple[int, tuple[int, ...]]
"""How many dates came together, and their anchors."""


@dataclass(frozen=True)
class Order:
    """In which order dates are coded.

    Attributes:
        waves: dates that are coded together, as none of them needs another.
        known: for each date those that predict it, all of which are needed to read it anyway.
        groups: what `arrived` made it of; empty where no date tells of others.
    """

    waves: tuple[tuple[int, ...], ...]
    known: tuple[tuple[int, ...], ...]
    groups: tuple[Group, ...] = ()

    @property
    def anchors(self) -> list[tuple[int, int, int]]:
        """Those of their own group: date, which one of the group's anchors it is, and how many dates the group has."""
        found, first = [], 0
        for count, anchors in self.groups:
            own = [(t, rank, count) for rank, t in enumerate(anchors) if first <= t < first + count]
            found += own
            first += count
        return found

    def needed(self, dates: Sequence[int]) -> list[int]:
        """Dates that have to be decoded for some to be read, rising: at most 2 + log2 of all for each."""
        found = set(dates)
        waiting = list(dates)
        while waiting:
            more = [t for t in self.known[waiting.pop()] if t not in found]
            found |= set(more)
            waiting += more
        return sorted(found)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What a date tells of others.

    Attributes:
        pictures: by level, int32 [C, H, W] in 1/64 step, of all bands that the level has, with the details of the level.
        bases: by level; that of all coarse levels under a number of its own.
        strengths: by level, int32 [K, 3].
        keeps: finest levels in which a fraction of a pixel matters.
        remainders: by level, int32 [C, 3, h, w], see `haar.remainders`: those that are known already, where this date lies.
        doubled: how often units have been halved since.
        away: from the date that asks to this one, down and across, in 1 / UNITS pixels of the finest grid.
        factor: pixels of the finest grid in one of level 0.
    """

    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    bases: dict[int, Basis] = field(default_factory=dict)
    strengths: dict[int, np.ndarray] = field(default_factory=dict)
    keeps: int = 0
    remainders: dict[int, np.ndarray] = field(default_factory=dict)
    doubled: int = 0
    away: tuple[int, int] = (0, 0)
    factor: int = 1
    _found: dict[tuple[int, int, int], np.ndarray] = field(default_factory=dict)

    def moved(self, away: tuple[int, int], factor: int) -> Decoded:
        """What it tells of a date that lies elsewhere."""
        return replace(self, away=away, factor=factor)

    def finer(self) -> Decoded:
        """The same in units of half the size; bases and strengths are left out."""
        return Decoded(self.pictures, keeps=self.keeps, remainders=self.remainders, doubled=self.doubled + 1)

    def picture_at(self, level: int) -> np.ndarray:
        """int32 [C, H, W], where this date lies."""
        return self._in_units(self.pictures[level])

    def remainders_at(self, level: int) -> np.ndarray:
        """int32 [C, 3, h, w], where the date lies that asks; found when they are asked for the first time."""
        down, across = (units_at(d, self.factor << level) if level < self.keeps else 0 for d in self.away)
        place = level, down, across
        if place not in self._found:
            self._found[place] = self._remainders(*place)
        return self._found[place]

    def _remainders(self, level: int, down: int, across: int) -> np.ndarray:
        if down or across:
            return haar.remainders(moved(self.picture_at(level), down, across))
        if level not in self.remainders:
            self.remainders[level] = haar.remainders(self.pictures[level])
        return self._in_units(self.remainders[level])

    def _in_units(self, values: np.ndarray) -> np.ndarray:
        for _ in range(self.doubled):
            values = finer(values)
        return values

    def forget(self) -> None:
        """Drop what can be found again."""
        self._found.clear()


def finer(v: np.ndarray) -> np.ndarray:
    """The same values in units of half the size."""
    return np.clip(v, -LARGEST // 2, LARGEST // 2) * 2


def alone(dates: int) -> Order:
    """Each date by itself."""
    return Order((tuple(range(dates)),), ((),) * dates)


def anchored(dates: int, anchors: Sequence[int]) -> Order:
    """Some dates in turn, each known to those after it; then all others, which know these alone."""
    return arrived([(dates, tuple(anchors))])


def arrived(groups: Sequence[Group]) -> Order:
    """Dates that came in groups, one behind the other.

    Args:
        groups: dates and anchors of each. Anchors of the first are some of its own, or none for the order of time; of
            a later one some of all dates so far, the first of them from a group before.
    """
    waves: list[tuple[int, ...]] = []
    known: list[tuple[int, ...]] = []
    for count, anchors in groups:
        if not anchors:
            order = both_sides(count)
            waves, known = list(order.waves), list(order.known)
            continue
        own = range(len(known), len(known) + count)
        others = tuple(t for t in own if t not in anchors)
        waves += [*((t,) for t in anchors if t in own), *([others] if others else [])]
        known += [_nearest(t, anchors[: anchors.index(t)] if t in anchors else anchors) for t in own]
    return Order(tuple(waves), tuple(known), tuple(groups))


def _nearest(date: int, others: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(others, key=lambda t: (abs(t - date), t)))


def code_order(side: Side, dates: int, groups: Sequence[Group] | None) -> Order:
    """Send or read which dates tell of others.

    Args:
        side: where to.
        dates: 2 or more.
        groups: in which they came, see `arrived`; None: read them.

    Raises:
        FormatError: groups that no encoder writes.
    """
    sent = None if groups is None else _SEVERAL if len(groups) > 1 else len(groups[0][1])
    count = _code_count(side, sent, 0, _SEVERAL)
    if count != _SEVERAL:
        only = None if groups is None else groups[0][1]
        return arrived([(dates, _code_anchors(side, only, count, range(dates)))])
    found: list[Group] = []
    first = 0
    while first < dates:
        size, anchors = (None, None) if groups is None else groups[len(found)]
        own = range(first, first + _code_count(side, size, 1, dates - first))
        most = min(MOST_ANCHORS, own.stop - 1)
        count = _code_count(side, None if anchors is None else len(anchors), min(first, 1), most)
        found.append((len(own), _code_anchors(side, anchors, count, own)))
        first = own.stop
    return arrived(found)


def _code_count(side: Side, count: int | None, first: int, last: int) -> int:
    """A number in a range; nothing is sent if it can be no other."""
    if first == last:
        return first
    sent = None if count is None else np.array([count])
    return int(side.bounded(sent, 1, spread=1.2, first=first, last=last, middle=first)[0])


def _code_anchors(side: Side, anchors: Sequence[int] | None, count: int, own: range) -> tuple[int, ...]:
    """Anchors of a group of these dates."""
    spread = 2 if own.start else 4
    sent = None if anchors is None else np.array(anchors, np.int64)
    read = side.bounded(sent, count, spread=spread, first=0, last=own.stop - 1, middle=own.start).tolist()
    wrong = len(set(read)) < len(read) or len(read) >= own.stop or (own.start > 0 and read[0] >= own.start)
    if wrong:
        raise FormatError(
            f"order of dates: expected some of {own.stop} dates once, of later groups an earlier one first, got {read}; "
            "the bytes are damaged"
        )
    return tuple(read)


def both_sides(dates: int) -> Order:
    """The first, the last, then the middle of each gap, again and again."""
    known: dict[int, tuple[int, ...]] = {0: ()}
    waves: list[tuple[int, ...]] = [(0,)]
    if dates > 1:
        known[dates - 1] = (0,)
        waves.append((dates - 1,))
    gaps = [(0, dates - 1)] if dates > 2 else []
    while gaps:
        middles = [(a + b) // 2 for a, b in gaps]
        for middle, (a, b) in zip(middles, gaps, strict=True):
            others = _nearest(middle, {*known[a], *known[b]} - {a, b})
            known[middle] = (a, b, *others[: MOST - 2])
        waves.append(tuple(middles))
        halves = [gap for m, (a, b) in zip(middles, gaps, strict=True) for gap in ((a, m), (m, b))]
        gaps = [(a, b) for a, b in halves if b - a > 1]
    return Order(tuple(waves), tuple(known[t] for t in range(dates)), ((dates, ()),))


@dataclass(frozen=True, eq=False)
class Told:
    """What references tell of one level of one date; planes that were not asked for hold anything.

    Attributes:
        predicted: details, int32 [K, 3, h, w] in 1/64 step.
        remainders: what of it references tell beyond what the picture below does, alike.
        missed: how far the map was off one level below, int32 [K, 3, h / 2, w / 2] in 1/64 step.
        activity: how much there is in the references, int32 [1, h, w] in 1/64 step: of remainders' magnitudes, all
            orientations, four times the mean over bands.
        here: remainders of the references' bands at this level, [M] of int32 [3, h, w].
        turns: what one unit of each number of a correction adds to the map, float64 [M, M], a column each.
        share: how much of the map counts, float64 [K, h / 2, w / 2], whole units of 1/256.

    The first four are held within what features tell apart.
    """

    predicted: np.ndarray
    remainders: np.ndarray
    missed: np.ndarray
    activity: np.ndarray
    here: Sequence[np.ndarray]
    turns: np.ndarray
    share: np.ndarray

    def shares(self, plane: int) -> np.ndarray:
        """Of all details of a plane how much of the map counts, float64 [h, w]."""
        height, width = self.here[0].shape[1:]
        return self.share[plane].repeat(2, 0).repeat(2, 1)[:height, :width]

    def by_map(self, plane: int, weights: np.ndarray) -> np.ndarray:
        """What another map, float64 [M], tells of a plane: int32 [3, h, w] in 1/64 step."""
        whole = np.rint(weights * (1 << PRECISION)).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT)
        found = np.zeros(self.here[0].shape)
        for weight, one in zip(whole.tolist(), self.here, strict=True):
            if weight:
                found += weight * one
        return _held(_shared(np.rint(found / (1 << PRECISION)), self.shares(plane)))


def told(
    picture: np.ndarray,
    below: Sequence[np.ndarray],
    here: Sequence[np.ndarray],
    numbers: np.ndarray | None = None,
) -> Told:
    """Fit the level below, predict this one.

    Args:
        picture: decoded picture below, int32 [K, h, w], along all planes.
        below: remainders of each reference's picture of the same size, int32 [M, 3, h / 2, w / 2], of its first bands.
        here: those of its picture at this level, int32 [M, 3, h, w].
        numbers: planes to tell of; None: all.
    """
    numbers = np.arange(len(picture)) if numbers is None else numbers
    below = [one[: len(own)] for one, own in zip(below, here, strict=True)]
    kernel = library()
    if kernel is not None:
        return _told_by(kernel, picture, below, here, numbers)
    details, x, flat = haar.remainders(picture), _flat(np.concatenate(below)), _flat(np.concatenate(here))
    weights, turns = _fitted(x, _flat(details))
    weights, own = weights[numbers], details[numbers]
    seen = _mapped(weights, x).reshape(own.shape)
    share = _share(own, seen)
    height, width = picture.shape[1:]
    found = _mapped(weights, flat).reshape(len(own), 3, height, width)
    found = _shared(found, share.repeat(2, 1).repeat(2, 2)[:, None, :height, :width])
    activity = 4 * np.abs(flat.clip(-LARGEST_SAMPLE, LARGEST_SAMPLE)).sum(0).reshape(3, height, width).sum(0)
    out = _room(picture, here)
    out.turns[:], out.share[numbers] = turns, share
    out.predicted[numbers] = _held(haar.interpolated(picture[numbers]) + found)
    out.remainders[numbers] = _held(found)
    out.missed[numbers] = _held(own - _shared(seen, share[:, None]))
    out.activity[0] = _held(activity // len(flat))
    return out


def _room(picture: np.ndarray, here: Sequence[np.ndarray]) -> Told:
    planes, height, width = picture.shape
    own, below = (planes, 3, height, width), (planes, 3, haar.half(height), haar.half(width))
    bands = [band for one in here for band in one]
    predicted, remainders = np.empty(own, np.int32), np.empty(own, np.int32)
    return Told(
        predicted,
        remainders,
        np.empty(below, np.int32),
        np.empty((1, height, width), np.int32),
        bands,
        np.empty((len(bands), len(bands))),
        np.empty((planes, *below[2:])),
    )


def _told_by(
    kernel: ctypes.CDLL,
    picture: np.ndarray,
    below: Sequence[np.ndarray],
    here: Sequence[np.ndarray],
    numbers: np.ndarray,
) -> Told:
    """The same by `series.inc`."""
    below, here = ([np.ascontiguousarray(one) for one in own] for own in (below, here))
    bands = [
        np.concatenate([one.ctypes.data + one.strides[0] * np.arange(len(one)) for one in own])
        for own in (below, here)
    ]
    out, numbers = _room(picture, here), np.ascontiguousarray(numbers, np.int32)
    given = np.ascontiguousarray(picture), *bands
    found = out.predicted, out.remainders, out.missed, out.activity, out.turns, out.share
    what = _Telling(
        len(picture),
        len(bands[0]),
        *picture.shape[1:],
        *(one.ctypes.data for one in given),
        len(numbers),
        *(one.ctypes.data for one in (numbers, *found)),
    )
    if kernel.eozip_told(ctypes.byref(what)):
        raise MemoryError("told: no memory for a picture")
    return out


class _Telling(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int32) for name in ("planes", "bands", "height", "width")),
        *((name, ctypes.c_void_p) for name in ("picture", "below", "here")),
        ("count", ctypes.c_int32),
        *((name, ctypes.c_void_p) for name in ("numbers", "predicted", "remainders", "missed", "activity")),
        *((name, ctypes.c_void_p) for name in ("turns", "share")),
    )


def _flat(details: np.ndarray) -> np.ndarray:
    return details.reshape(len(details), -1).astype(np.float64)


def _share(own: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """How much of what is told holds around each cell of the level below: float64 [K, h, w], whole units of 1/256."""
    y, s = (v.clip(-PREDICTION_MAX, PREDICTION_MAX).astype(np.float64) for v in (own, seen))
    both, own = _around((y * s).sum(1)), _around((s * s).sum(1))
    return np.rint((both + _DOUBT) / (own + _DOUBT) * 256).clip(0, _MOST_SHARE)


def _around(v: np.ndarray) -> np.ndarray:
    """Sums over the 3 x 3 cells around each, fewer at borders: [K, h, w]."""
    v = np.pad(v, [(0, 0), (1, 1), (1, 1)])
    v = v[:, :-2] + v[:, 1:-1] + v[:, 2:]
    return v[:, :, :-2] + v[:, :, 1:-1] + v[:, :, 2:]


def _shared(values: np.ndarray, share: np.ndarray) -> np.ndarray:
    return np.rint(values * share / 256)


def _held(values: np.ndarray) -> np.ndarray:
    return values.clip(-PREDICTION_MAX, PREDICTION_MAX).astype(np.int32)


def _fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A linear map of [M, n] to [K, n] and how it may be corrected: weights [K, M], whole units of 2**-PRECISION as float64.

    The latter is a matrix [M, M]: its columns move what is told by vectors of which none has anything of another, each of a
    mean square of one over the samples of the fit.
    """
    thin = -(-x.shape[1] // SAMPLES)
    x, y = (v[:, ::thin].clip(-LARGEST_SAMPLE, LARGEST_SAMPLE) for v in (x, y))
    square = x @ x.T
    square[np.diag_indices_from(square)] += _RIDGE * x.shape[1] + _RIDGE_FIXED
    rows, pivots = _eliminated(np.concatenate([square, x @ y.T], 1))
    count = len(square)
    units = np.diag(np.sqrt(x.shape[1] / pivots))
    found = _substituted(rows[:, :count], np.concatenate([rows[:, count:], units], 1))
    weights = np.rint(found[:, : len(y)].T * (1 << PRECISION)).clip(-LARGEST_WEIGHT, LARGEST_WEIGHT)
    return weights, found[:, len(y) :]


def _eliminated(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positive definite equations and their right sides, [M, M + K], made triangular in the order of the rows; and pivots.

    Each product is rounded before it is added, on any machine: numpy's operations are one at a time.
    """
    pivots = np.empty(len(rows))
    for k in range(len(rows)):
        pivots[k] = rows[k, k]
        rows[k, k:] /= pivots[k]
        rows[k + 1 :, k:] -= np.multiply.outer(rows[k + 1 :, k].copy(), rows[k, k:])
    return rows, pivots


def _substituted(square: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solution of triangular equations [M, M], [M, K] -> [M, K], alike."""
    for k in range(len(square) - 1, 0, -1):
        right[:k] -= np.multiply.outer(square[:k, k], right[k])
    return right


def _mapped(weights: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.rint(weights @ x / (1 << PRECISION))
