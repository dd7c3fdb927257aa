"""The way of all ladders of all dates of a chunk, wave after wave of dates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from eozip.bitstream import frame_check
from eozip.codecs.pyramid import overviews, registration
from eozip.codecs.pyramid.borrowed import Lent, code_prediction
from eozip.codecs.pyramid.coarseness import THRIFT
from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.holes import Hidden
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.model import Model, Wanted
from eozip.codecs.pyramid.overviews import Picture
from eozip.codecs.pyramid.ports import chosen
from eozip.codecs.pyramid.references import Decoded, Order
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.traverse import Ladder
from eozip.codecs.scales import SECTIONS, section_of
from eozip.entropy.range_coder import Port, Tables

STEP_UNITS = 16  # of a step, per DN
GAIN_UNITS = 8
_LARGEST_CELL = 1 << 26  # in 1/64 DN, a million DN: no picture goes as far, damaged bytes may
_MOST_FINER = 8  # eighths of an octave
_FINER = tuple(round(2 ** (16 - eighths / 8)) for eighths in range(_MOST_FINER + 1))
LENT_LEVEL = 3  # its details complete the picture at 1/8


@dataclass(frozen=True)
class Plan:
    """How a chunk is coded.

    Attributes:
        step: first quantisation step in 1/16 DN.
        sections: how many there are.
        budgets: sections of each date, where they are told of.
    """

    step: int
    sections: int = SECTIONS
    budgets: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Given:
    """What an encoder brings.

    Attributes:
        finest: pixels of the finest group, [T, C, h, w].
        wanted: [ladder][group] pixels of all dates in gained DN.
        hidden: [ladder] where nobody needs them, of all dates; None: nowhere.
    """

    finest: np.ndarray
    wanted: list[list[np.ndarray]]
    hidden: list[Hidden] | None


@dataclass
class Walk:
    """All ladders of all dates, wave after wave.

    Attributes:
        model: networks and tables.
        order: of the dates.
        ladders: groups and canvases, as `layout.ladders` has them.
        step: in 1/16 DN.
        brightness: what the networks are told of it.
        ports: [section][date].
        sections: how many are there; levels whose details lie beyond are left out.
        finer: int64 [T], by how many eighths of an octave a date's step is finer, where the order lets it; read on the way.
            None: all dates have the same step.
        positions: int64 [T, 2] of dates beside the one that has no references, as `registration` has them; read on the way.
        wanted: [ladder][group] pixels of all dates from `first` on in gained DN, or None to decode.
        hidden: [ladder] where nobody needs them, of the same dates; None: nowhere.
        levels: [ladder] uint8 of all dates on the finest canvas, how much more coarsely it is coded; None: nowhere.
        skipped: [ladder] cells of all dates of which no detail is sent; None: there are none.
        first: the first date that `wanted` and `hidden` have; those before it are read.
        pictures: [ladder][date] its groups' pictures, once run.
        reached: [ladder] the level that the finest picture reached.
        known: [ladder][date] what those tell that others need, while more dates are to come.
    """

    model: Model
    order: Order
    ladders: list[list[tuple[Group, Canvas]]]
    step: int
    brightness: float
    ports: Sequence[Sequence[Port]]
    sections: int
    finer: np.ndarray | None
    positions: np.ndarray
    wanted: list[list[np.ndarray]] | None = None
    hidden: list[Hidden] | None = None
    levels: list[np.ndarray] | None = None
    skipped: list[Hidden] | None = None
    first: int = 0
    pictures: list[dict[int, list[np.ndarray]]] = field(default_factory=list)
    reached: list[int] = field(default_factory=list)
    known: list[dict[int, Decoded]] = field(default_factory=list)

    def run(self, dates: Sequence[int], *, more: bool = False) -> None:
        """Code or read some dates, and those that they need, but for those of an earlier run.

        Args:
            dates: positions.
            more: whether another run is to follow.
        """
        if not self.pictures:
            self.pictures = [{} for _ in self.ladders]
            self.known = [{} for _ in self.ladders]
            self.reached = [0 for _ in self.ladders]
        kept, known = {t for others in self.order.known for t in others}, self.known
        needed = [t for t in self.order.needed(dates) if t not in self.pictures[0]]
        for wave in self.order.waves:
            own = [t for t in wave if t in needed]
            lent: Lent | None = None
            self._code_finer(own)
            self._code_positions([t for t in own if self.order.known[t]])
            for k in range(len(self.ladders) if own else 0):
                factor = self.ladders[k][0][0].factor
                references = [
                    [known[k][r].moved(self._distance(t, r), factor) for r in self.order.known[t]]
                    for t in own
                ]
                ladder, lent = self._ladder(k, own, references if references[0] else [], lent)
                for reference in known[k].values():
                    reference.forget()
                known[k] |= {t: d for t, d in zip(own, ladder.made, strict=True) if t in kept}
        self.known = known if more else []

    def _code_finer(self, dates: Sequence[int]) -> None:
        if self.finer is None:
            return
        anchors = {date for date, _, _ in self.order.anchors}
        for t in (t for t in dates if t in anchors):
            side = Side(self.ports[0][t], self.model.tables)
            sent = None if self.wanted is None else self.finer[t : t + 1]
            self.finer[t] = side.bounded(sent, 1, spread=2, first=0, last=_MOST_FINER)[0]

    def step_at(self, date: int) -> int:
        """Quantisation step of a date in 1/16 DN."""
        finer = 0 if self.finer is None else int(self.finer[date])
        return max(1, (self.step * _FINER[finer] + (1 << 15)) >> 16)

    def _code_positions(self, dates: Sequence[int]) -> None:
        for t in dates:
            side = Side(self.ports[0][t], self.model.tables)
            sent = None if self.wanted is None else self.positions[t]
            most = registration.FARTHEST
            self.positions[t] = side.bounded(sent, 2, spread=2, first=-most, last=most)

    def _distance(self, date: int, other: int) -> tuple[int, int]:
        down, across = (self.positions[other] - self.positions[date]).tolist()
        return down, across

    def check(self, date: int) -> int:
        """Checksum of everything that the pixels of a date follow from."""
        return frame_check(np.concatenate([p.ravel() for own in self.pictures for p in own[date]]))

    def _ladder(
        self, k: int, dates: list[int], known: list[list[Decoded]], lent: Lent | None
    ) -> tuple[Ladder, Lent | None]:
        """One ladder of some dates, predicted from what an earlier one lends; the first that can lends to the others."""
        ladder = self.ladders[k]
        group, place = ladder[0]
        step = self.step_at(dates[0])  # anchors, which alone have one of their own, come one by one
        wanted, prediction = self.wanted_of(k, dates), None
        if lent is not None and len(ladder) == 1:
            goal = None if wanted is None else wanted.groups[0] / (step / STEP_UNITS)
            sides = [Side(self.ports[0][t], self.model.tables) for t in dates]
            prediction = code_prediction(sides, lent.at(group, place), goal, len(group.bands))
            wanted = without(wanted, prediction, step)
        walk = Ladder(
            self.model,
            [(len(g.bands), *p.shape) for g, p in ladder],
            len(dates),
            step,
            lambda level: [self.ports[section_of(group.factor << level)][t] for t in dates],
            self.brightness,
            wanted,
            known,
            levels_beyond(self.sections, group.factor),
            tells=any(t in others for t in dates for others in self.order.known),
            keeps=levels_kept(group.factor),
            levels=None if self.levels is None else self.levels[k][dates],
            skipped=None if self.skipped is None else self.skipped[k].of(dates),
            lends_at=LENT_LEVEL if group.factor == 1 else None,
        )
        made = walk.run()
        self.reached[k] = walk.reached
        if prediction is not None:
            made[0] = made[0] + overviews.lowered(prediction, walk.reached)
        for n, t in enumerate(dates):
            self.pictures[k][t] = [picture[n] for picture in made]
        if lent is None and walk.lent is not None:
            lent = Lent(walk.lent, place.before)
        return walk, lent

    def wanted_of(self, k: int, dates: list[int]) -> Wanted | None:
        """What an encoder brings of a ladder of some dates."""
        if self.wanted is None:
            return None
        own = [t - self.first for t in dates]
        return Wanted(
            [one[own] for one in self.wanted[k]],
            partial(quantised, tables=self.model.trellis),
            None if self.hidden is None else self.hidden[k].of(own),
        )


def without(wanted: Wanted | None, prediction: np.ndarray, step: int) -> Wanted | None:
    """What a prediction, in 1/64 step, leaves of the one group."""
    if wanted is None:
        return None
    left = wanted.groups[0] - prediction * (step / (STEP_UNITS * VALUE))
    return replace(wanted, groups=[left])


def positions_of(order: Order, given: Given | None) -> np.ndarray:
    """Where an encoder finds dates; zeros, to be read, for a decoder."""
    if given is None or not any(order.known):
        return np.zeros((len(order.known), 2), np.int64)
    return registration.positions(given.finest, order.known, order.waves)


def pictures_of(
    walk: Walk, dates: Sequence[int], gain_of: Mapping[tuple[int, ...], int]
) -> list[tuple[Group, Picture]]:
    """What a walk made of some dates, by group."""
    found = []
    for k, ladder in enumerate(walk.ladders):
        for number, (group, place) in enumerate(ladder):
            level = max(0, walk.reached[k] - number)
            gain = gain_of[group.bands]
            made = [_in_dn(walk.pictures[k][t][number], walk.step_at(t), gain, level) for t in dates]
            found.append((group, Picture(np.stack(made), place, level)))
    return found


def levels_beyond(sections: int, factor: int) -> int:
    """Finest levels of a ladder that begins at a factor, whose details are in none of the first sections."""
    level = 0
    while section_of(factor << level) >= sections:
        level += 1
    return level


def levels_kept(factor: int) -> int:
    """Finest levels of a ladder whose pixels are so small that a distance between dates shows in them."""
    level = 0
    while factor << level < registration.UNITS:
        level += 1
    return level


def quantised(
    residual: np.ndarray, rows: np.ndarray, counts: list[int], tables: Tables, thrift: float = THRIFT
) -> np.ndarray:
    """The symbols that cost least in error and bits, each date's by themselves."""
    ends = np.cumsum(counts)[:-1]
    parts = zip(np.split(residual, ends), np.split(rows, ends), strict=True)
    return np.concatenate([chosen(some, own, tables, thrift) for some, own in parts])


def _in_dn(picture: np.ndarray, step: int, gain: int, level: int) -> np.ndarray:
    """int32 in 1/64 step, 2**level times block averages -> averages, int32 in 1/64 DN, halves up, within LARGEST_CELL."""
    out = np.empty(picture.shape, np.int32)
    for band, one in enumerate(picture):  # a picture at a time, which fits the cache
        exact = np.multiply(one, float(step * GAIN_UNITS), dtype=np.float64)
        cells = overviews.quotient(exact, (STEP_UNITS * gain) << level)
        out[band] = cells.clip(-_LARGEST_CELL, _LARGEST_CELL, out=cells)
    return out
