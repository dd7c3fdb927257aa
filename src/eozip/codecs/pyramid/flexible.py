"""flextec-small: one stream for every rate, which may be cut behind any section; on the weights of tec-elic-small.

    pass 0    the coarsest scales, then three sections as tec-tt-small has them, at a coarse step
    pass p    three sections more: the same walk at half the step, which narrows what the pass before left open

A date has as many sections as its budget says; none: it is foretold from its references. What a cut leaves out is shown as
the passes before have it. No section needs a later one, of its own date or of another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial

import numpy as np

from eozip.codecs.base import Encoded
from eozip.codecs.budgets import check_asked, check_stream
from eozip.codecs.level_map import NOTHING, lowest
from eozip.codecs.pyramid import overviews
from eozip.codecs.pyramid.borrowed import Lent, code_prediction
from eozip.codecs.pyramid.codec import (
    STEP_MAX,
    STEP_MIN,
    PyramidCodec,
    Reader,
    step_of,
)
from eozip.codecs.pyramid.context import FEATURE
from eozip.codecs.pyramid.earlier import Later
from eozip.codecs.pyramid.holes import Hidden
from eozip.codecs.pyramid.intervals import Laws, laws
from eozip.codecs.pyramid.layers import LayerLadder, State, averaged, averaged_states
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.narrowing import Narrower
from eozip.codecs.pyramid.references import Order, finer
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.walk import (
    LENT_LEVEL,
    STEP_UNITS,
    Given,
    Plan,
    Walk,
    levels_beyond,
    levels_kept,
    positions_of,
    without,
)
from eozip.codecs.scales import SECTIONS, section_of
from eozip.entropy.range_coder import Port, ReadPort
from eozip.errors import FormatError
from eozip.threads import one_blas_thread

_PASSES = 8  # at most
MOST = 1 + _PASSES * SECTIONS  # sections
_COARSEST = 16  # scales beyond it have a section of their own in pass 0
_FIRST_STEP = 2304 * STEP_UNITS  # where budgets are asked for
_HURRY = 0.14  # share of a step
_BRIGHTNESS = 5545  # 1000 ln(2) / 2 sixteenths, by which brightness falls from pass to pass


@dataclass(frozen=True, eq=False)
class FlexCodec(PyramidCodec):
    """A codec of any bands whose streams are sections of rising quality.

    Attributes:
        asked: sections of each date, in place of a quality; see `encode_budgets`.
        later: networks of passes after the first.
    """

    has_budgets: bool = True
    asked: tuple[int, ...] = ()
    later: Later = field(kw_only=True)

    def __getstate__(self) -> dict[str, object]:
        """Without what points to memory of this process; see `traverse.Model`."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @property
    def laws(self) -> Laws:
        """Tables of intervals."""
        return laws(self.model.tables)

    @cached_property
    def narrower(self) -> Narrower:
        """Reads planes by the kernel."""
        return Narrower(self.laws, self.model.tables, self.model.trellis, self.model.functions.tanh)

    @one_blas_thread()
    def encode_budgets(
        self,
        x: np.ndarray,
        budgets: Sequence[int],
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `eozip.codecs.base.BudgetedCodec.encode_budgets`; holes and levels as of `encode`."""
        check_asked(budgets, len(x), MOST, "sections")
        return replace(self, asked=tuple(budgets)).encode(x, 0.0, holes, levels)

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """All sections, or the first few; the budgets of the stream count."""
        return self.decode_scaled(coded, shape)

    def plan(self, quality: float, dates: int) -> Plan:
        """Steps that halve down to that of a quality; or from the first one as far as budgets go."""
        if self.asked:
            return Plan(_FIRST_STEP, max(self.asked), self.asked)
        step, passes = step_of(quality), 1
        while step << passes < STEP_MAX * STEP_UNITS:
            passes += 1
        step = round(step * _hurried((step << passes) / (STEP_MAX * STEP_UNITS)))
        sections = 1 + passes * SECTIONS
        return Plan(step << (passes - 1), sections, (sections,) * dates)

    def walk(
        self,
        plan: Plan,
        order: Order,
        ladders: list[list[tuple[Group, Canvas]]],
        brightness: float,
        ports: Sequence[Sequence[Port]],
        sections: int,
        given: Given | None = None,
        levels: list[np.ndarray] | None = None,
        skipped: list[Hidden] | None = None,
    ) -> Walk:
        """See `_FlexWalk`."""
        return _FlexWalk(
            self.model,
            order,
            ladders,
            plan.step,
            brightness,
            ports,
            sections,
            None,
            positions_of(order, given),
            None if given is None else given.wanted,
            None if given is None else given.hidden,
            levels,
            skipped,
            laws=self.laws,
            budgets=plan.budgets,
            passes=_passes_of(plan.sections),
            narrower=self.narrower,
            later=self.later,
        )

    def anchors(self, finest: np.ndarray, step: float, coarser: np.ndarray | None) -> tuple[int, ...]:
        """As `PyramidCodec.anchors`; budgets leave the order to time, as a date of none tells nothing."""
        return () if self.asked else super().anchors(finest, step, coarser)

    def reader(self, coded: Encoded, shape: tuple[int, int, int, int], dates: Sequence[int] | None) -> Reader:
        """See `_FlexReader`."""
        return _FlexReader(self, coded, shape, dates)


@dataclass
class _FlexWalk(Walk):
    """All ladders of all dates, pass after pass and in a pass wave after wave; `step` is that of the last pass.

    Attributes:
        laws: tables of intervals.
        budgets: sections of each date that are there.
        passes: how many there are where nothing is cut.
        narrower: reads by the kernel.
        later: networks of passes after the first.
        states: [ladder][date] what is known of it.
        predictions: [ladder][date] what another ladder predicts.
        checks: [date] of its pictures after its last pass.
    """

    laws: Laws = field(kw_only=True)
    budgets: Sequence[int] = field(kw_only=True)
    passes: int = field(kw_only=True)
    narrower: Narrower = field(kw_only=True)
    later: Later = field(kw_only=True)
    states: list[dict[int, State]] = field(default_factory=list)
    predictions: list[dict[int, np.ndarray]] = field(default_factory=list)
    checks: dict[int, int] = field(default_factory=dict)

    def run(self, dates: Sequence[int], *, more: bool = False) -> None:
        """Code or read some dates, and those that they need."""
        self.pictures = [{} for _ in self.ladders]
        self.states = [{} for _ in self.ladders]
        self.predictions = [{} for _ in self.ladders]
        self.reached = [0 for _ in self.ladders]
        needed = self.order.needed(dates)
        first = self.brightness
        for number in range(_passes_of(max(self.budgets[t] for t in needed))):
            if number:
                self._refine(number)
            fall = (number * _BRIGHTNESS + 500) // 1000 / FEATURE
            self.brightness = max(-64 / FEATURE, first - fall)
            for wave in self.order.waves:
                self._wave(number, [t for t in wave if t in needed])

    def check(self, date: int) -> int:
        """Checksum of the pictures after a date's last pass; 0 of a date without sections."""
        return self.checks.get(date, 0)

    def _refine(self, number: int) -> None:
        """Go over to the units of a pass; pictures that it makes anew are left as they are.

        Raises:
            FormatError: a step that no encoder writes.
        """
        if self.step % 2:
            raise FormatError(
                f"step: expected one that can be halved, got {self.step}; the bytes are damaged"
            )
        self.step //= 2
        for state in (one for states in self.states for one in states.values()):
            state.refine()
        for own in self.predictions:
            own |= {t: finer(prediction) for t, prediction in own.items()}
        for pictures in self.pictures:
            kept = {t: made for t, made in pictures.items() if not _reach(self.budgets[t], number)}
            pictures |= {t: [finer(one) for one in made] for t, made in kept.items()}

    def _wave(self, number: int, wave: list[int]) -> None:
        """Dates that do not need each other; those with as many sections in this pass are walked together."""
        there = {t: _reach(self.budgets[t], number) for t in wave}
        for t in (t for t in wave if not number and self.order.known[t]):
            if there[t]:
                self._code_positions([t])
            else:
                self.positions[t] = self.positions[self.order.known[t][0]]
        for count in sorted({*there.values()} - {0}):
            some, lent = [t for t in wave if there[t] == count], None
            for k in range(len(self.ladders)):
                lent = self._ladder_in(number, k, some, count, lent)
            for t in some:
                if self.budgets[t] <= _end(number):
                    self.checks[t] = super().check(t)
        for t in (t for t in wave if not self.budgets[t]):
            for k, pictures in enumerate(self.pictures):
                others = self.order.known[t][:2]
                made = [pictures[r] for r in others]
                pictures[t] = [averaged(parts) for parts in zip(*made, strict=True)]
                self.states[k][t] = averaged_states([self.states[k][r] for r in others])
        for state in (one for states in self.states for one in states.values()):
            state.made.forget()

    def _open(self, number: int, k: int, dates: list[int], level: int) -> np.ndarray | None:
        """Details of a level of a ladder that may be sent in a pass: neither skipped nor wanted coarser by a map."""
        wanted = None if self.skipped is None else ~self.skipped[k].of(dates).at(level)
        if self.levels is None:
            return wanted
        found = lowest(self.levels[k][dates], 2 << level)[:, None]
        least = max(0, self.passes - 1 - number)  # octaves by which this pass is coarser than the last
        may_be = (found < NOTHING) & ((found >> 1 <= least) | (number == 0))
        return may_be if wanted is None else may_be & wanted

    def _ports_at(self, number: int, scale: int, dates: list[int], count: int) -> list[Port]:
        """Of the section of a pass that has pictures so many times coarser; where it is missing, of the pass's first."""
        place = _place(number, scale)
        return [self.ports[place if place < count else 1 + SECTIONS * number][t] for t in dates]

    def _ladder_in(self, number: int, k: int, dates: list[int], count: int, lent: Lent | None) -> Lent | None:
        """One ladder of some dates in one pass; what it lends to those that follow, or what was lent before."""
        ladder, states = self.ladders[k], self.states[k]
        group, place = ladder[0]
        wanted = self.wanted_of(k, dates)
        lends = _place(0, 1 << LENT_LEVEL)
        if not number and lent is not None and len(ladder) == 1 and count > lends:
            goal = None if wanted is None else wanted.groups[0] / (self.step / STEP_UNITS)
            sides = [Side(self.ports[lends][t], self.model.tables) for t in dates]
            made = code_prediction(sides, lent.at(group, place), goal, len(group.bands))
            self.predictions[k] |= dict(zip(dates, made, strict=True))
        prediction = None
        if dates[0] in self.predictions[k]:
            prediction = np.stack([self.predictions[k][t] for t in dates])
            wanted = without(wanted, prediction, self.step)
        references = [
            [states[r].made.moved(self._distance(t, r), group.factor) for r in self.order.known[t]]
            for t in dates
        ]
        walk = LayerLadder(
            self.later.model if number else self.model,
            [(len(g.bands), *p.shape) for g, p in ladder],
            len(dates),
            self.step,
            lambda level: self._ports_at(number, group.factor << level, dates, count),
            self.brightness,
            wanted,
            references if references[0] else [],
            levels_beyond(self.sections, group.factor),
            tells=any(self.order.known),
            keeps=levels_kept(group.factor),
            lends_at=LENT_LEVEL if group.factor == 1 and not number else None,
            laws=self.laws,
            states=[states[t] for t in dates] if number else [],
            is_there=lambda level: _place(number, group.factor << level) < count,
            narrower=self.narrower,
            is_open=partial(self._open, number, k, dates),
            around=self.later.around,
            is_last=number == self.passes - 1,
        )
        pictures = walk.run()
        self.reached[k] = walk.reached
        if prediction is not None:
            pictures[0] = pictures[0] + overviews.lowered(prediction, walk.reached)
        for n, t in enumerate(dates):
            self.pictures[k][t] = [picture[n] for picture in pictures]
            states[t] = walk.states[n]
        if lent is None and walk.lent is not None:
            return Lent(walk.lent, place.before)
        return lent


class _FlexReader(Reader):
    """Reads as many sections as there are."""

    def check_sections(self, codec: PyramidCodec, coded: Encoded, dates: int) -> None:
        """As `eozip.codecs.budgets.check_stream`."""
        check_stream(coded, dates, MOST, "sections")

    def opened(self, scale: int) -> tuple[Walk, list[list[ReadPort]]]:
        """As `Reader.opened`; a section that is missing is one that shows nothing."""
        count, there = section_of(scale) + 1, len(self._coded.sections)
        ports = [
            self._coarsest if k == 0 else self._section(k) if (k - 1) % SECTIONS < count else []
            for k in range(there)
        ]
        if any(
            not (budget or known)
            for budget, known in zip(self._coded.budgets, self._order.known, strict=True)
        ):
            raise FormatError("budgets: a date that others need has no sections; the bytes are damaged")
        whole = max(self._coded.budgets)
        plan = Plan(self._step, whole, tuple(min(there, budget) for budget in self._coded.budgets))
        return self.walk(plan, ports, count), ports

    def is_whole(self, date: int, scale: int) -> bool:
        """As `Reader.is_whole`; of a date whose last sections, or those of its references, are not there it is not."""
        most = max(self._coded.budgets[t] for t in self._order.needed([date]))
        return super().is_whole(date, scale) and len(self._coded.sections) >= most


def _hurried(ratio: float) -> float:
    """By what a step is finer in the last point of quality before a pass more, which costs 4 to 9 % of the bytes at once.

    So there is a quality for every size. `ratio`: how much coarser a step is than where that pass begins.
    """
    points = 100 * math.log(ratio) / math.log(STEP_MAX / STEP_MIN)
    return 1 - _HURRY * max(0.0, 1 - points)


def _place(number: int, scale: int) -> int:
    """The section of a pass that completes pictures so many times coarser than the finest grid."""
    return 0 if not number and scale > _COARSEST else 1 + SECTIONS * number + section_of(scale)


def _end(number: int) -> int:
    """Sections until a pass is over."""
    return 1 + SECTIONS * (number + 1)


def _passes_of(budget: int) -> int:
    """Passes that so many sections reach into."""
    return max(1, -(-(budget - 1) // SECTIONS))


def _reach(budget: int, number: int) -> int:
    """Sections up to the last one that a date has of a pass; 0: it has none of it."""
    return min(budget, _end(number)) if not number or budget > _end(number - 1) else 0
