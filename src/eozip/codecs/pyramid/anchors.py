"""Which dates tell of the others: an encoder's choice, from what each pair of dates would save.

At one level of the finest pictures, details are regressed on the picture below them and on those of other dates; what is
left says about how many bits a date takes, alone or with others known. A clear date is a better reference than a cloudy
one, whichever comes first.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import cache, partial

import numpy as np

from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.references import MOST_ANCHORS, Order

MOST_DATES = 32  # more are in the order of time
_PAIRS = (
    16  # dates, at most, of which all pairs are looked at; of more the best one is joined by the next best
)
_LEVEL = 1  # details of 2 x 2 pixels: places of dates, half a pixel apart, hardly matter yet
_PLANES = 4
_SIDE = 512  # pixels that are looked at, at most
_STEPS = (150.0, 600.0)  # DN: finer and coarser ones are taken for these
_USELESS = 10  # half octaves: a date coded that much more coarsely tells of no other
_READ = 4  # and log2 of all dates: as many are read for a date that came later, at most
_FINER = (
    (24, (5, 4, 2)),
    (12, (4, 3, 1)),
    (8, (3, 2, 1)),
    (6, (2, 2, 1)),
    (5, (1, 1, 1)),
)  # by dates; as tried
_PRICE = 0.001  # of the bits, of an anchor more, which has to be read for every other date


def finer_of(order: Order) -> np.ndarray:
    """By how many eighths of an octave each date's step is finer than the chunk's, int64 [T], as its errors are those of
    other dates, too."""
    out = np.zeros(len(order.known), np.int64)
    for date, rank, count in order.anchors:
        out[date] = next((finer for least, finer in _FINER if count >= least), (0, 0, 0))[rank]
    return out


def coarser_of(levels: np.ndarray | None, hidden: Sequence[np.ndarray] | None, dates: int) -> np.ndarray:
    """How many times more coarsely each date is coded than by the chunk's step, on the whole: float [T].

    Args:
        levels: of cells, uint8 [T, h, w], see `coarseness`; None: all alike.
        hidden: bool [T, h, w] each, pixels that nobody needs; what shows nothing is filled to look like another date.
        dates: T.
    """
    found = np.zeros(dates) if levels is None else np.minimum(levels, _USELESS).mean((1, 2), dtype=float)
    if hidden is not None:
        found[np.logical_and.reduce([own.all((1, 2)) for own in hidden])] = _USELESS
    return np.asarray(2 ** (found / 2))


def anchors_of(
    pictures: np.ndarray, step: float, coarser: np.ndarray | None = None, before: Order | None = None
) -> tuple[int, ...]:
    """Dates that tell of all others, in the order in which they are coded; none where time should say.

    Args:
        pictures: float32 [T, C, H, W], the bands of the finest grid, DN.
        step: quantisation step in DN.
        coarser: see `coarser_of`; None: all dates are coded alike.
        before: that of the first dates, which are settled: they may tell of the others, and the first anchor is one of them.
    """
    dates, first = len(pictures), 0 if before is None else len(before.known)
    if not 1 < dates <= MOST_DATES or min(pictures.shape[2:]) < 4 << _LEVEL:
        return () if before is None else before.waves[0]
    coarser = np.ones(dates) if coarser is None else coarser
    left = _Left(pictures, np.clip(step, *_STEPS) * coarser)
    telling = np.flatnonzero(coarser < 2 ** (_USELESS / 2)).tolist() or range(dates)
    found: tuple[int, ...] = ()
    best = np.inf
    for count in range(1, min(MOST_ANCHORS, dates - 1, len(telling)) + 1):
        tried: Iterable[tuple[int, ...]] = itertools.permutations(telling, count)
        if dates > (4 if count == MOST_ANCHORS else _PAIRS):  # the best ones so far, and one more
            tried = ((*found, t) for t in telling if t not in found)
        if before is not None:
            tried = [own for own in tried if _may_follow(own, before, dates)] or [found]
        own = min(tried, key=partial(left.total, first=first))
        price = left.total(own, first) * (1 + _PRICE * count)
        if price < best:
            found, best = own, price
    return found


def _may_follow(anchors: Sequence[int], before: Order, dates: int) -> bool:
    """Whether dates that know anchors are read with few others, of so many dates in all."""
    first = len(before.known)
    needed = before.needed([t for t in anchors if t < first])
    read = 1 + len(needed) + sum(t >= first for t in anchors)
    return anchors[0] < first and read <= _READ + math.ceil(math.log2(dates))


class _Left:
    """Bits of dates where others are known, about."""

    def __init__(self, pictures: np.ndarray, steps: np.ndarray) -> None:
        below, details = _planes_of(pictures)
        self._dates, self._planes = details.shape[:2]
        self._squares = np.square(steps)
        around = _differences(below, details.shape[-2:])
        self._sums = [_sums(details[:, :, o], around) for o in range(3)]
        self.bits = cache(self._bits)

    def total(self, anchors: Sequence[int], first: int = 0) -> float:
        """Of all dates from the first on, the anchors in turn, each known to those after it."""
        others = [t for t in range(first, self._dates) if t not in anchors]
        own = [self.bits(t, frozenset(anchors[:k])) for k, t in enumerate(anchors) if t >= first]
        return sum(own) + sum(self.bits(t, frozenset(anchors)) for t in others)

    def _bits(self, date: int, known: frozenset[int]) -> float:
        here = slice(date * self._planes, (date + 1) * self._planes)
        width = len(_BESIDE) * self._planes
        first = self._dates * self._planes + date * width
        told = [np.arange(first, first + width)]
        told += [np.arange(t * self._planes, (t + 1) * self._planes) for t in sorted(known)]
        at, bits, own = np.concatenate(told), 0.0, self._squares[date]
        noise = np.concatenate(
            [np.full(width, own), *(np.full(self._planes, self._squares[t]) for t in sorted(known))]
        )
        for sums in self._sums:
            square = sums[np.ix_(at, at)] + 0.1 * np.diag(noise)
            cross = sums[at, here]
            rest = sums[here, here] - cross.T @ np.linalg.solve(square, cross)
            powers = np.maximum(np.linalg.eigvalsh(rest), 0) / own
            bits += 0.5 * float(np.log2(1 + 12 * powers).sum())
        return bits


_BESIDE = ((-1, 0), (1, 0), (0, -1), (0, 1))


def _planes_of(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The strongest planes of all dates at one level: pictures [T, K, h, w] below it, and details [T, K, 3, h, w]."""
    rows, columns = (
        slice(max(0, (n - _SIDE) // 2), max(0, (n - _SIDE) // 2) + _SIDE) for n in pictures.shape[2:]
    )
    below = np.asarray(pictures[:, :, rows, columns], np.float64)
    for _ in range(_LEVEL + 1):
        below, details = haar.analyse(below)
    bands = details.swapaxes(0, 1).reshape(details.shape[1], -1)
    strongest = np.linalg.eigh(bands @ bands.T)[1][:, : -_PLANES - 1 : -1]
    return np.einsum("ck,tchw->tkhw", strongest, below), np.einsum("ck,tcohw->tkohw", strongest, details)


def _differences(below: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Of each cell's neighbours from it, [T, K, 4, h, w]."""
    h, w = size
    around = np.pad(below, [(0, 0), (0, 0), (1, 1), (1, 1)], "edge")
    parts = [around[:, :, 1 + y : 1 + y + h, 1 + x : 1 + x + w] - below[:, :, :h, :w] for y, x in _BESIDE]
    return np.stack(parts, 2)


def _sums(details: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Mean products of everything: of all dates' details, then of their differences."""
    cells = details[0, 0].size
    flat = np.concatenate([details.reshape(-1, cells), around.reshape(-1, cells)]).astype(np.float32)
    return np.asarray(flat @ flat.T / cells, np.float64)
