"""One ladder in one pass of a stream of rising quality: as `traverse.Ladder`, but for what the pass before told.

    pass 0     as a codec of one quality codes it, only that a symbol says in which interval a detail lies
    pass p     the step is half; bases, top cells and intervals are narrowed, planes that were too weak come to life

Levels whose section a date does not have in a pass are known as before, and shown as what became finer lets expect of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.coarseness import SPACING, THRIFT, Coarse
from eozip.codecs.pyramid.context import VALUE, Stage, half, packed, unpacked
from eozip.codecs.pyramid.earlier import Earlier, earlier
from eozip.codecs.pyramid.intervals import FIELDS, Known, Laws, Narrowing, Place
from eozip.codecs.pyramid.model import Plane
from eozip.codecs.pyramid.narrowing import Level, Narrower, bounds_of
from eozip.codecs.pyramid.native import call, library
from eozip.codecs.pyramid.references import Decoded, finer
from eozip.codecs.pyramid.side import (
    AFTER_ALIVE,
    AFTER_DEAD,
    DEAD,
    SIDE_MAX,
    SIDE_MIN,
    Side,
    guess,
    row_of,
    strengths_of,
)
from eozip.codecs.pyramid.spectral import LARGEST, PRECISION, Basis, code_basis, fitted
from eozip.codecs.pyramid.traverse import APEX, CERTAIN, Ladder
from eozip.codecs.pyramid.within import rows_within, tables_within
from eozip.entropy.range_coder import Port, Tables, trellis_each

SIBLINGS_END = 9  # features of parents and siblings, which come first
AFTER_KNOWN, AFTER_LEAST = row_of(0.3), row_of(0.9)  # strengths that were known, at least or barely
_LAST_THRIFT = 1.1 * THRIFT  # a last pass that is not the only one has fewer bytes at equal PSNR
_TOP_SPREAD = 0.8  # of what a pass adds to a top cell, in steps


@dataclass(eq=False)
class State:
    """What is known of one ladder of one date after a pass, in units of 1/64 of that pass's step.

    Attributes:
        means: int64 [C].
        top: int32 [K, h, w].
        bases: by level.
        strengths: by level, int32 [K, 3].
        cells: by level, of both colours, [K, 3, h, half].
        stored: by level, what their bounds, values and offsets are views of.
        found: by level, where the kernel finds them.
        made: what it tells of other dates.
    """

    means: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    top: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    bases: dict[int, Basis] = field(default_factory=dict)
    strengths: dict[int, np.ndarray] = field(default_factory=dict)
    cells: dict[int, tuple[Known, Known]] = field(default_factory=dict)
    stored: dict[int, np.ndarray] = field(default_factory=dict)
    found: dict[int, Any] = field(default_factory=dict)
    made: Decoded = field(default_factory=Decoded)

    def refine(self) -> None:
        """Go over to the units of the next pass."""
        self.means, self.top = finer(self.means), finer(self.top)
        for level, strength in self.strengths.items():
            self.strengths[level] = np.where(strength > DEAD, np.minimum(strength + 2, SIDE_MAX), DEAD)
        for values in self.stored.values():
            refine(values)
        self.made = self.made.finer()

    def begin(self, level: int, planes: int, shape: tuple[int, int]) -> None:
        """Nothing is known of the details of a level."""
        size = (planes, 3, haar.half(shape[0]), half(haar.half(shape[1])))
        self.stored[level] = np.zeros((2, 4, *size), np.int32)
        first, second = (
            Known(low, high, np.zeros(size, bool), np.zeros(size, bool), value, off)
            for low, high, value, off in self.stored[level]
        )
        self.cells[level] = first, second
        self.found[level] = bounds_of(self.cells[level])


@dataclass
class LayerLadder(Ladder):
    """A traversal in one pass.

    Attributes:
        laws: tables of intervals.
        states: of each date, in this pass's units, changed; empty in pass 0, and then made.
        is_there: from a level, whether its details are sent in this pass.
        narrower: reads by the kernel.
        is_open: from a level, details that may be sent in this pass, bool [T, 1, h, w]; None: all.
        around: in later passes, see `earlier.Later`.
        is_last: whether no other pass follows.
    """

    laws: Laws = field(kw_only=True)
    narrower: Narrower = field(kw_only=True)
    states: list[State] = field(default_factory=list)
    is_there: Callable[[int], bool] = lambda level: True
    is_open: Callable[[int], np.ndarray | None] = lambda level: None
    around: Sequence[np.ndarray] = ()
    is_last: bool = False
    is_first: bool = field(default=False, init=False)
    _earlier: Earlier | None = field(default=None, init=False)
    _around: np.ndarray | None = field(default=None, init=False)

    def run(self) -> list[np.ndarray]:
        """As `Ladder.run`."""
        self.is_first = not self.states
        if self.is_first:
            self.states = [State() for _ in range(self.dates)]
        out = super().run()
        for state, made in zip(self.states, self.made, strict=True):
            state.made = made
        return out

    def _code_means(self, sides: Sequence[Side], below: np.ndarray | None, count: int) -> np.ndarray:
        if self.is_first:
            found = super()._code_means(sides, below, count)
            for state, own in zip(self.states, found, strict=True):
                state.means = own
        return np.stack([state.means for state in self.states])

    def _bases(self, level: int, samples: np.ndarray | None, count: int) -> list[Basis]:
        is_there = level == APEX or self.is_there(level)
        if not self.is_first:
            return self._finer_bases(level, samples, is_there)
        if not is_there:  # nothing has been sent of this level
            return [
                Basis(np.eye(count, dtype=np.int32) << PRECISION, np.full(count, PRECISION, np.int32))
            ] * self.dates
        for t, (state, side) in enumerate(zip(self.states, self._at(level), strict=True)):
            own = None if samples is None else fitted(samples[t], self._step_dn)
            state.bases[level] = code_basis(side, own, count)
        return [state.bases[level] for state in self.states]

    def _finer_bases(self, level: int, samples: np.ndarray | None, is_there: bool) -> list[Basis]:
        for t, state in enumerate(self.states if is_there else ()):
            own = None if samples is None else fitted(samples[t], self._step_dn)
            state.bases[level] = _finer_basis(self._at(level)[t], state.bases[level], own)
        return [state.bases[level] for state in self.states]

    def _code_top(
        self, sides: Sequence[Side], planes: np.ndarray | None, bases: list[Basis], shape: tuple[int, int]
    ) -> np.ndarray:
        if self.is_first:
            found = super()._code_top(sides, planes, bases, shape)
            for state, own in zip(self.states, found, strict=True):
                state.top = own
        else:
            for t, (state, basis, side) in enumerate(zip(self.states, bases, sides, strict=True)):
                there = np.flatnonzero(basis.present)
                before = state.top[there]
                sent = None if planes is None else np.rint(planes[t, there] - before / VALUE).astype(np.int32)
                read = side.integers(sent, before.size, _TOP_SPREAD).reshape(before.shape)
                cells = before + VALUE * read.clip(-LARGEST // VALUE, LARGEST // VALUE)
                state.top[there] = np.clip(cells, -LARGEST, LARGEST)
        return np.stack([state.top for state in self.states])

    def _details(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        wanted: np.ndarray | None,
        bases: list[Basis],
        shape: tuple[int, int],
    ) -> np.ndarray:
        count = len(bases[0].bits)
        if self.is_first:
            for state in self.states:
                state.begin(level, count, shape)
        width = haar.half(shape[1])
        if self.is_first and not self.is_there(level):
            return self._cells(level, "value", width)
        self._earlier = None
        return super()._details(level, below, parents, wanted, bases, shape)

    def _cells(self, level: int, name: str, width: int) -> np.ndarray:
        """What is known of all details of a level, [T, K, 3, h, w]."""
        both = [[getattr(cells, name) for cells in state.cells[level]] for state in self.states]
        return np.stack([unpacked(first, second, width) for first, second in both])

    def _around_at(self, level: int) -> np.ndarray | None:
        return None if self.is_first else self.around[min(level, len(self.around) - 1)]

    def _told_before(self, level: int, width: int) -> Earlier | None:
        """What the pass before tells of a level, none of whose details has been sent in this one."""
        around = self._around_at(level)
        if around is None:
            return None
        values, off = (self._cells(level, name, width) for name in ("value", "off"))
        return earlier(self.model.functions, around, values, off)

    def _code_strengths(
        self,
        level: int,
        wanted: np.ndarray | None,
        present: np.ndarray,
        coded: np.ndarray,
        counts: np.ndarray | None,
    ) -> np.ndarray:
        if self.is_first:
            out = super()._code_strengths(level, wanted, present, coded, counts)
            for state, own in zip(self.states, out, strict=True):
                state.strengths[level] = own
            return out
        exists = present[:, :, None] & coded.any((1, 2))
        known = np.stack([state.strengths[level] for state in self.states])
        if not self.is_there(level):
            self._sides[present.shape[1]] = known
            return known
        was = known > DEAD
        before = self._sides.get(present.shape[1])
        before = np.full(exists.shape, 2, np.int32) if before is None else before
        rows = np.where(before <= DEAD, AFTER_DEAD, AFTER_ALIVE)
        rows[was] = np.where(known == SIDE_MIN + 2, AFTER_LEAST, AFTER_KNOWN)[was]
        sent = None
        if wanted is not None:
            found = strengths_of(wanted, coded, exists, counts)
            found[was] = np.maximum(found, SIDE_MIN)[was]
            sent = found - np.stack([_expected(known, found, before, k) for k in range(3)], 2)
        out, least = np.full(exists.shape, DEAD, np.int32), np.where(was, SIDE_MIN, DEAD)
        for t, side in enumerate(self._at(level)):
            symbols = None if sent is None else sent[t][exists[t]]
            out[t][exists[t]] = side.rows(symbols, rows[t][exists[t]].astype(np.uint8))
        for k in range(3):
            whole = _expected(known, out, before, k) + out[:, :, k]
            held = np.minimum(np.maximum(whole, least[:, :, k]), SIDE_MAX)
            out[:, :, k] = np.where(exists[:, :, k], held, DEAD)
        self._sides[present.shape[1]] = out
        for state, own in zip(self.states, out, strict=True):
            state.strengths[level] = own
        return out

    def _plane(
        self, plane: Plane, below: np.ndarray, wanted: np.ndarray | None, features: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `Ladder._plane`; networks of later passes have features of the pass before, behind those of siblings."""
        if self._earlier is None:
            self._earlier = self._told_before(plane.level, plane.coded.shape[2])
        if self._earlier is not None:
            own = self._earlier.features(plane.dates, plane.number)
            features = np.concatenate([features[:, :SIBLINGS_END], *own, features[:, SIBLINGS_END:]], 1)
            self._around = self._earlier.predicted(plane.dates, plane.number)
        return super()._plane(plane, below, wanted, features)

    def _stepped(
        self, stage: Stage, shared: Any, done: Sequence[np.ndarray], coarse: Coarse | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """As `Ladder._stepped`; to what neighbours of this pass let expect, those of the pass before add."""
        outputs, near = super()._stepped(stage, shared, done, coarse)
        if self._around is not None:
            told = packed(self._around, len(done))
            near = told if near is None else near + told
        return outputs, near

    def _corrects(self, level: int) -> bool:
        """As `Ladder._corrects`."""
        return self.is_there(level)

    def _hidden(self, level: int) -> np.ndarray | None:
        """As `Ladder._hidden`; what may not be sent is not worth it either."""
        hidden, may_be = super()._hidden(level), self.is_open(level)
        if self.wanted is None or may_be is None:
            return hidden
        return ~may_be if hidden is None else hidden | ~may_be

    def _may_be_sent(self, level: int, skipped: np.ndarray | None) -> np.ndarray | None:
        """As `is_open`; of a level whose section is missing nothing may be."""
        return self.is_open(level) if self.is_there(level) else np.zeros((self.dates, 1, 1, 1), bool)

    def _read_level(self, number: int, date: int, level: Level) -> None:
        found, spacing = self.states[date].found[number], SPACING if self.is_last else 0
        self.narrower.read(level, self.ports_at(number)[date], found, self._around_at(number), spacing)

    def _symbols(
        self,
        plane: Plane,
        color: int,
        mean: np.ndarray,
        rows: np.ndarray,
        here: np.ndarray,
        wanted: np.ndarray | None,
        units: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        known = [self.states[t].cells[plane.level][color] for t in plane.dates]
        own = Known(*(np.stack([getattr(one, name)[plane.number] for one in known]) for name in FIELDS))
        goal = None if wanted is None else wanted * VALUE
        ports = [self.ports_at(plane.level)[t] for t in plane.dates]
        may_be = self._may_be_sent(plane.level, plane.skipped)
        sent = here
        if may_be is not None:
            size = (len(plane.dates), 1, *plane.coded.shape[1:])
            sent = here & packed(np.broadcast_to(may_be[plane.dates], size), color)
        self._narrow(ports, own, mean.astype(np.int32), rows, here, sent, goal)
        for n, one in enumerate(known):
            for name in FIELDS:
                getattr(one, name)[plane.number] = getattr(own, name)[n]
        return own.value, own.off

    def _narrow(
        self,
        ports: Sequence[Port],
        known: Known,
        mean: np.ndarray,
        rows: np.ndarray,
        here: np.ndarray,
        sent: np.ndarray,
        wanted: np.ndarray | None,
    ) -> None:
        """Narrow details [N, 3, h, half] in place, those of each date through its port.

        `here` says which of them exist, `sent` which of these may be sent.
        """
        work = Narrowing(self.laws, self.model.tables, ports, mean[0].size)
        fresh = here & ~known.seen
        known.value[fresh] = mean[fresh]
        work.show(_place(here & known.seen & ~sent, mean, rows), known)
        masks = fresh & sent & (rows >= CERTAIN), known.seen & sent
        if self.is_last:
            about = masks[1] & known.near & (known.low <= mean) & (mean <= known.high)
            within = rows_within(rows, mean - known.low, known.high - mean)
            known.value[about] = mean[about]
            self._settle(ports, known, masks[0], rows, self.model.trellis, wanted)
            self._settle(ports, known, about, within, tables_within(self.model.trellis), wanted)
            masks = np.zeros_like(about), masks[1] & ~about
        for is_seen, mask in enumerate(masks):
            place = _place(mask, mean, rows)
            goal = None if wanted is None else wanted.ravel()[place.at]
            found = work.narrowed(place, known, goal) if is_seen else work.begun(place, goal)
            for name in FIELDS:
                getattr(known, name)[mask] = getattr(found, name)

    def _settle(
        self,
        ports: Sequence[Port],
        known: Known,
        mask: np.ndarray,
        rows: np.ndarray,
        tables: Tables,
        wanted: np.ndarray | None,
    ) -> None:
        """Trellis-coded values of some details [N, 3, h, half] in place of their means, those of each date in one call."""
        own, before = rows[mask], known.value[mask]
        counts, symbols = mask.sum((1, 2, 3)).tolist(), None
        if wanted is not None and self.wanted is not None:
            residual, thrift = (wanted[mask] - before) / SPACING, THRIFT if self.is_first else _LAST_THRIFT
            symbols = self.wanted.quantise(residual, own, counts, tables=tables, thrift=thrift)
        known.off[mask] = np.int32(SPACING) * trellis_each(ports, counts, symbols, own, tables)
        known.value[mask] = np.clip(before + known.off[mask].astype(np.int64), -LARGEST, LARGEST)


def _place(mask: np.ndarray, mean: np.ndarray, rows: np.ndarray) -> Place:
    at = np.flatnonzero(mask)
    return Place(at, mean.ravel()[at].astype(np.int64), rows.ravel()[at])


def refine(values: np.ndarray) -> None:
    """Go over to units of half the size: int32, changed."""
    kernel = library()
    if kernel is not None:
        call(kernel, "eozip_refined", values, values.size)
        return
    np.clip(values, -LARGEST // 2, LARGEST // 2, out=values)
    values *= 2


def _expected(known: np.ndarray, found: np.ndarray, before: np.ndarray, k: int) -> np.ndarray:
    """What the strength of orientation k is likely to be: what it was, or as in the first pass."""
    return np.where(known[:, :, k] > DEAD, known[:, :, k], guess(found, before, k))


def _finer_basis(side: Side, before: Basis, own: Basis | None) -> Basis:
    """Send or read a basis of more bits, and of columns that were absent, as what it adds.

    Args:
        side: where to.
        before: of the pass before.
        own: what to send, of the same samples at the finer step; None: read it.
    """
    there, count = before.present, len(before.bits)
    bits = np.where(there, np.minimum(before.bits + 1, PRECISION), 0).astype(np.int64)
    for mask, spread in ((there, 0.4), (~there, 1.2)):
        sent = None if own is None else (np.maximum(own.bits, before.bits) - bits)[mask]
        bits[mask] += side.integers(sent, int(mask.sum()), spread)
    bits = np.minimum(np.maximum(bits, before.bits), PRECISION)
    columns = np.flatnonzero(bits)
    unit, shift = 1 << bits[columns], PRECISION - bits[columns]
    more = 1 << (bits - before.bits)[columns]
    spreads = np.where(there[columns], 0.3 * more, 0.35 * unit)
    rows = np.array([row_of(spread) for spread in spreads.tolist()], np.uint8).repeat(count)
    old = before.vectors[:, columns] >> shift
    sent = None
    if own is not None and own.exact is not None:
        sent = (np.rint(own.exact[:, columns] * unit).astype(np.int64) - old).T
    read = side.rows(sent, rows).reshape(-1, count).T
    vectors = np.zeros((count, count), np.int32)
    vectors[:, columns] = np.minimum(np.maximum(old + read, -unit), unit) << shift
    return Basis(vectors, bits.astype(np.int32))


def averaged_states(states: Sequence[State]) -> State:
    """What is expected of a date of which nothing is sent: what its references have between them."""
    known = states[0].made, states[-1].made
    parts: list[dict[int, np.ndarray]] = [{}, {}]
    for level in known[0].pictures:
        parts[0][level] = averaged([one.picture_at(level) for one in known])
        parts[1][level] = averaged([one.remainders_at(level) for one in known])
    return State(made=Decoded(parts[0], keeps=known[0].keeps, remainders=parts[1]))


def averaged(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Of one, or between two."""
    return parts[0] if len(parts) == 1 else (parts[0] + parts[1] + 1) >> 1
