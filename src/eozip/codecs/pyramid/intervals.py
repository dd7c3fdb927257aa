"""Intervals that details are known to lie in, and how a finer pass narrows them.

A pass gives each detail a mean and a row of the logistic law. Coded is where in the interval known so far the detail lies:

    not seen yet     a symbol under its row, as in codecs of one quality: 0 within the row's zone around the mean
    near the mean    still within the zone of this pass's mean, or else below or above it
    elsewhere        the lower or the upper half, until the interval is fine enough

Bits have probabilities that are quotients of integer masses, and a detail is shown at its conditional mean. The tables of
both are made of whole numbers, so that every machine has the same.

Source: successive refinement with dead zones as in embedded coders (Shapiro 1993); that the zone lies around each pass's own
mean, which knows more, is what makes it cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from itertools import pairwise

import numpy as np

from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.side import ROWS, ROWS_PER_NAT, SCALE_MIN
from eozip.codecs.pyramid.spectral import LARGEST
from eozip.entropy.range_coder import TOTAL, Port, Tables

UNITS = 16  # positions of masses, a step
_REACH = 16 * UNITS  # beyond it there is no mass
_ONE_BITS = 30  # mass of everything, as a power of two
_BINARY_ROWS = 65  # probabilities that a bit is coded with, evenly spaced in log odds
_LARGEST_ODDS = 10
SHARE_BITS = 20
_WIDE = VALUE * 3 // 2  # an interval no wider than this is fine enough for its pass
_LEAST_MASS = 64  # of an interval whose conditional mean is worth asking for
FIELDS = ("low", "high", "near", "seen", "value", "off")
_POWER_BITS = 62
_THRIFT = 12  # nats times ln 2 that a squared step is worth, twice: an encoder's zones
_WIDEST_ZONE = Decimal("1.4")  # steps
_EXACT = Context(prec=40)


@dataclass(frozen=True, eq=False)
class Laws:
    """Integer tables of the logistic law, a row for each of the coder's.

    Attributes:
        tails: int64 [ROWS, REACH + 1], mass above the mean by 0, 1, 2, ... units.
        areas: int64 [ROWS, REACH + 1], integral of the tail from there on, in units.
        zones: int64 [ROWS], how near the mean a symbol is 0, in 1/64 step.
        shares: int64 [BINARY_ROWS - 1], rising bounds between the rows of bits, in 2**-SHARE_BITS.
        binary: tables of one bit, row by row more likely 1.
    """

    tails: np.ndarray
    areas: np.ndarray
    zones: np.ndarray
    shares: np.ndarray
    binary: Tables

    def mass(self, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Mass between two positions from the mean in 1/64 step; 0 where there is no room, else at least 1."""
        between = self._above(rows, _units(low)) - self._above(rows, _units(high))
        return np.where(high > low, np.maximum(between, 0) + 1, 0)

    def row_of(self, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        """The row of a bit that is 1 with mass part of whole."""
        return np.searchsorted(self.shares, (part << SHARE_BITS) // whole, side="right").astype(np.uint8)

    def middle(self, rows: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """The conditional mean between two positions from the mean; halfway where there is next to no mass."""
        a, b = _units(low), _units(high)
        first, last = self._above(rows, a), self._above(rows, b)
        total = a * first - b * last + self._area(rows, a) - self._area(rows, b)
        found = (VALUE // UNITS) * total // np.maximum(first - last, 1)
        return np.where(first - last >= _LEAST_MASS, np.clip(found, low, high), (low + high) >> 1)

    def _above(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        tail = self.tails[rows, np.minimum(np.abs(at), _REACH)]
        return np.where(at < 0, (1 << _ONE_BITS) - tail, tail)

    def _area(self, rows: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Below the mean the tail is what the other side leaves of everything."""
        return self.areas[rows, np.minimum(np.abs(at), _REACH)] - (np.minimum(at, 0) << _ONE_BITS)


def _units(at: np.ndarray) -> np.ndarray:
    return (at + VALUE // UNITS // 2) // (VALUE // UNITS)


@dataclass
class Known:
    """Where details lie, in 1/64 step.

    Attributes:
        low, high: int32, bounds.
        near: bool, within the zone of the mean ever since.
        seen: bool, whether anything was sent of them.
        value: int32, what is shown.
        off: int32, by how far that lies off the mean of the last pass, where it is not near; else 0.
    """

    low: np.ndarray
    high: np.ndarray
    near: np.ndarray
    seen: np.ndarray
    value: np.ndarray
    off: np.ndarray


@dataclass(frozen=True)
class Place:
    """Some details of a plane, n of them.

    Attributes:
        at: int, rising positions in an array of several dates.
        mean: int64, in 1/64 step.
        rows: uint8.
    """

    at: np.ndarray
    mean: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Narrowing:
    """Codes where details lie.

    Attributes:
        laws: tables of intervals.
        tables: of symbols.
        ports: of the dates.
        size: details of each date in the array that positions are of.
    """

    laws: Laws
    tables: Tables
    ports: Sequence[Port]
    size: int

    def begun(self, place: Place, wanted: np.ndarray | None) -> Known:
        """Details that nothing is known of.

        Args:
            place: which, and what to expect of them.
            wanted: float in 1/64 step, or None to read.
        """
        zone = self.laws.zones[place.rows]
        sent = None
        if wanted is not None:
            rest = wanted - place.mean
            away = np.floor((np.abs(rest) - zone) / VALUE) + 1
            sent = np.sign(rest) * np.clip(away, 0, LARGEST // VALUE)
        read = self._coded(place.at, sent, place.rows, self.tables).astype(np.int64)
        got = np.clip(read, -LARGEST // VALUE, LARGEST // VALUE)
        outer, inner = zone + np.abs(got) * VALUE, zone + (np.abs(got) - 1) * VALUE
        low, high = np.where(got > 0, inner, -outer), np.where(got < 0, -inner, outer)
        return _known(place.mean, low, high, got == 0, VALUE * got)

    def narrowed(self, place: Place, known: Known, wanted: np.ndarray | None) -> Known:
        """Details that were seen, which `known` [N, ...] holds with others; arguments as of `begun`."""
        low, high = (v.ravel()[place.at] - place.mean for v in (known.low, known.high))
        near = known.near.ravel()[place.at]
        rest = None if wanted is None else wanted - place.mean
        self._about_mean(place, low, high, near, rest)
        while len(wide := np.flatnonzero(~near & (high - low > _WIDE))):
            middle = (low[wide] + high[wide]) >> 1
            lower, upper = (
                self.laws.mass(place.rows[wide], a, b) for a, b in ((low[wide], middle), (middle, high[wide]))
            )
            up = self._bits(
                place.at[wide], None if rest is None else rest[wide] >= middle, upper, lower + upper
            )
            low[wide], high[wide] = np.where(up, middle, low[wide]), np.where(up, high[wide], middle)
        return _known(place.mean, low, high, near, self.laws.middle(place.rows, low, high))

    def show(self, place: Place, known: Known) -> None:
        """Details of which nothing is sent, within what is known of them: values of `known` are changed."""
        low, high = (v.ravel()[place.at] - place.mean for v in (known.low, known.high))
        shown = place.mean + self.laws.middle(place.rows, low, high)
        known.value.ravel()[place.at] = np.clip(shown, -LARGEST, LARGEST)

    def _about_mean(
        self, place: Place, low: np.ndarray, high: np.ndarray, near: np.ndarray, rest: np.ndarray | None
    ) -> None:
        """Lay the zone anew for details that were near the mean; arrays are changed."""
        zone, around = self.laws.zones[place.rows], np.clip(0, low, high)
        left, right = np.maximum(low, around - zone), np.minimum(high, around + zone)
        asked = np.flatnonzero(near & ((left > low) | (right < high)))
        a, b, c, d = (v[asked] for v in (low, left, right, high))
        below, within, above = (self.laws.mass(place.rows[asked], x, y) for x, y in ((a, b), (b, c), (c, d)))
        is_below = is_above = None
        if rest is not None:
            is_below, is_above = (rest[asked] < b) & (below > 0), (rest[asked] >= c) & (above > 0)
        off = self._bits(
            place.at[asked],
            None if is_below is None or is_above is None else is_below | is_above,
            below + above,
            below + within + above,
        )
        up = off & (above > 0)
        both = np.flatnonzero(up & (below > 0))
        up[both] = self._bits(
            place.at[asked[both]],
            None if is_above is None else is_above[both],
            above[both],
            (below + above)[both],
        )
        low[asked] = np.where(up, c, np.where(off, a, b))
        high[asked] = np.where(up, d, np.where(off, b, c))
        near[asked] = ~off

    def _bits(
        self, at: np.ndarray, sent: np.ndarray | None, part: np.ndarray, whole: np.ndarray
    ) -> np.ndarray:
        return self._coded(at, sent, self.laws.row_of(part, whole), self.laws.binary) > 0

    def _coded(self, at: np.ndarray, sent: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """Through the ports of their dates."""
        ends = np.searchsorted(at, np.arange(1, len(self.ports)) * self.size)
        parts = [None] * len(self.ports) if sent is None else np.split(sent.astype(np.int32), ends)
        return np.concatenate(
            [
                port.code(part, own, tables)
                for port, part, own in zip(self.ports, parts, np.split(rows, ends), strict=True)
            ]
        )


def _known(mean: np.ndarray, low: np.ndarray, high: np.ndarray, near: np.ndarray, value: np.ndarray) -> Known:
    off = np.where(near, 0, np.clip(value, -LARGEST, LARGEST)).astype(np.int32)
    low, high, value = (np.clip(mean + v, -LARGEST, LARGEST).astype(np.int32) for v in (low, high, value))
    return Known(low, high, near, np.ones(len(near), bool), value, off)


@lru_cache(4)
def laws(tables: Tables) -> Laws:
    """The tables of intervals that belong to the coder's. All of them are whole numbers, rounded from 40 digits."""
    tails = np.array([_tails(row) for row in range(ROWS)], np.int64)
    areas = tails[:, ::-1].cumsum(1)[:, ::-1] - tails // 2
    count = _BINARY_ROWS // 2
    odds = [Decimal(k - count) * _LARGEST_ODDS / count for k in range(_BINARY_ROWS)]
    ones = np.array([_share(one, TOTAL) for one in odds])
    freqs = np.stack([TOTAL - 1 - ones, ones, np.ones_like(ones)], 1)
    shares = [_share((a + b) / 2, 1 << SHARE_BITS) for a, b in pairwise(odds)]
    binary = Tables(freqs, np.zeros(_BINARY_ROWS, np.int32), np.full(_BINARY_ROWS, 3, np.int32))
    return Laws(tails, areas, np.array([_zone(tables, row) for row in range(ROWS)]), np.array(shares), binary)


def _share(odds: Decimal, whole: int) -> int:
    return round(whole / (1 + _EXACT.exp(-odds)))


def _tails(row: int) -> list[int]:
    """Of the law of a row, by powers of exp(-1 / (UNITS scale)) that are rounded down."""
    scale = _EXACT.exp(Decimal(SCALE_MIN) + Decimal(row) / ROWS_PER_NAT)
    one = 1 << _POWER_BITS
    factor, power, out = int(_EXACT.exp(-1 / (scale * UNITS)) * one), one, []
    for _ in range(_REACH + 1):
        out.append((power << _ONE_BITS) // (one + power))
        power = power * factor >> _POWER_BITS
    return out


def _zone(tables: Tables, row: int) -> int:
    """As wide as an encoder's thrift would make it: to send 1 instead of 0 must be worth its bits."""
    at = int(-tables.first[row])
    zero, one = (int(tables.freqs[row, min(k, int(tables.size[row]) - 1)]) for k in (at, at + 1))
    saved = max(Decimal(0), _EXACT.ln(Decimal(zero)) - _EXACT.ln(Decimal(one)))
    return round(VALUE * min(_WIDEST_ZONE, Decimal("0.5") + saved / _THRIFT))
