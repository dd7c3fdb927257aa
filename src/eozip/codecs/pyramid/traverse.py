"""The one traversal of a ladder of band groups: an encoder's port writes, a decoder's reads, an estimator's counts.

    groups, finest first       r10 [4, H, W], r20 [6, H/2, W/2]      (a ladder: each grid is half of the one before)
    all bands at the top       block averages of the finer groups join the coarser bands, down to a few cells
    then upwards               each level's details under the spectral basis of its own bands, plane by plane,
                               in two checkerboard passes; where a group's own grid is reached, its bands are done

All values are int32 in units of 1/64 of the quantisation step. Each date has ports of its own, so that it can be read
without those that it does not need; dates that are walked together share every operation of the networks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eozip.codecs.level_map import NOTHING, lowest
from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.coarseness import OCTAVES, SPACING, Coarse
from eozip.codecs.pyramid.context import FEATURE, PREDICTION_MAX, VALUE, Stage, packed, unpacked
from eozip.codecs.pyramid.corrections import First, Ground, corrected
from eozip.codecs.pyramid.holes import Hidden, counting
from eozip.codecs.pyramid.model import Model, Plane, Wanted
from eozip.codecs.pyramid.narrowing import Level
from eozip.codecs.pyramid.references import Decoded, Told, told
from eozip.codecs.pyramid.side import (
    AFTER_ALIVE,
    AFTER_DEAD,
    DEAD,
    ROWS,
    ROWS_PER_NAT,
    SCALE_MIN,
    SIDE_MAX,
    Side,
    between,
    constants,
    guess,
    log_scales,
    strengths_of,
)
from eozip.codecs.pyramid.spectral import LARGEST, Basis, code_related, fitted, stacked
from eozip.entropy.range_coder import Port, code_each, trellis_each

CERTAIN = 16  # rows below are so narrow that their symbol can only be 0
MEAN_UNITS = 16  # of a band's mean, a step: its errors are those of all pixels
_LN2_HALF = math.log(2) / 2
_COLORS = 2
APEX = 30  # a level above all others, whose port takes what every level needs


@dataclass
class Ladder:
    """A traversal of groups of T dates, none of which needs another of them.

    Attributes:
        model: networks and tables.
        shapes: (C, h, w) of each group, finest first.
        dates: T.
        step: quantisation step in 1/16 DN.
        ports_at: the ports of the dates for details of pictures so many times coarser than the finest group.
        brightness: what the networks are told of the step, see `brightness_of`.
        wanted: the pixels, or None to decode.
        known: for each date its references, the nearest first.
        stop: finest levels to leave out; then no port is asked for them.
        levels: uint8 [T, h, w] of the finest group's cells, how much more coarsely they are coded; None: nowhere.
        skipped: cells of which no detail is sent; None: there are none.
        tells: whether other dates need what these tell.
        keeps: finest levels whose pictures they may want moved.
        lends_at: the level whose details complete the picture that `lent` keeps, where all bands share a basis.
        made: once run, what each date tells of those that follow.
        reached: once run, the level of the pictures of all groups whose own level is not above it: `stop`, or less where
            the whole ladder has no more levels. A picture of level n of the finest grid is 2**n times block averages.
    """

    model: Model
    shapes: Sequence[tuple[int, int, int]]
    dates: int
    step: int
    ports_at: Callable[[int], Sequence[Port]]
    brightness: float
    wanted: Wanted | None = None
    known: Sequence[Sequence[Decoded]] = ()
    stop: int = 0
    levels: np.ndarray | None = None
    skipped: Hidden | None = None
    tells: bool = False
    keeps: int = 0
    lends_at: int | None = None
    lent: np.ndarray | None = None
    made: list[Decoded] = field(default_factory=list)
    reached: int = 0
    _sides: dict[int, np.ndarray] = field(default_factory=dict)
    _last_bases: list[Basis] = field(default_factory=list)

    def run(self) -> list[np.ndarray]:
        """Pictures of all groups, int32 [T, C, h, w] in 1/64 step, finest first; see `reached` for their sizes."""
        levels = self._levels_wanted()
        depth = len(self.shapes)
        self.made = [Decoded(keeps=self.keeps) for _ in range(self.dates)]
        bands, parents, self.reached = self._top(None if levels is None else levels[-1], depth)
        done: list[np.ndarray] = []
        level = depth
        while level > self.stop:
            level -= 1
            count = sum(c for c, _, _ in self.shapes[: level + 1])
            done.append(bands[:, count:])
            bands, parents = self._own_basis(
                level,
                bands[:, :count],
                None if parents is None else parents[:, :count],
                None if levels is None else levels[level],
            )
            self.reached = level
        ends = np.cumsum([c for c, _, _ in self.shapes[: level + 1]])[:-1]
        return [*np.split(bands, ends, 1), *done[:0:-1]]

    def _at(self, level: int) -> list[Side]:
        return [Side(port, self.model.tables) for port in self.ports_at(level)]

    @property
    def _step_dn(self) -> float:
        return self.step / 16

    def _levels_wanted(self) -> list[np.ndarray] | None:
        """Details of each group level in DN, finest first, and what lies below them all."""
        if self.wanted is None:
            return None
        below, found = np.asarray(self.wanted.groups[0], np.float32), []
        for group in [*self.wanted.groups[1:], None]:
            below, details = haar.analyse(below)
            found.append(details)
            below = below if group is None else np.concatenate([below, group], 1)
        return [*found, below]

    def _top(self, below: np.ndarray | None, depth: int) -> tuple[np.ndarray, np.ndarray | None, int]:
        """All bands one level below the coarsest group's grid, or at `stop`: means, basis, pyramid; and which level."""
        count = sum(c for c, _, _ in self.shapes)
        _, height, width = self.shapes[-1]
        shape = (haar.half(height), haar.half(width))
        sides = self._at(APEX)
        means = self._code_means(sides, below, count)
        centred = None if below is None else below - means[:, :, None, None] * (self._step_dn / VALUE)
        samples = None if centred is None else centred.reshape(*centred.shape[:2], -1)
        bases = self._bases(APEX, samples, count)
        planes = None if centred is None else _each(bases, centred, Basis.planes) / self._step_dn
        details, sizes = [], haar.sizes(shape)
        for _ in sizes:
            planes, found = haar.analyse(planes) if planes is not None else (None, None)
            details.append(found)
        top = shape if not sizes else (haar.half(sizes[-1][0]), haar.half(sizes[-1][1]))
        picture = self._code_top(sides, planes, bases, top)
        parents, reached = None, depth + len(sizes)
        while reached > max(depth, self.stop):
            reached -= 1
            j = reached - depth
            parents = self._details(reached, picture, parents, details[j], bases, sizes[j])
            picture = haar.synthesise(picture, parents, sizes[j], LARGEST)
            if self.tells:
                self._keep(reached, _each(bases, picture, Basis.bands))
            if reached == self.lends_at:
                self.lent = picture
        whole = means[:, :, None, None].astype(np.int64) << (reached - depth)
        bands = _clipped(_each(bases, picture, Basis.bands) + whole).astype(np.int32)
        return bands, None if parents is None else _each(bases, parents, Basis.bands), reached

    def _keep(self, level: int, bands: np.ndarray) -> None:
        """What a picture [T, C, H, W] of a level tells dates that follow."""
        for own, made in zip(bands, self.made, strict=True):
            made.pictures[level] = own

    def _code_means(self, sides: Sequence[Side], below: np.ndarray | None, count: int) -> np.ndarray:
        """Rounded means in 1/64 step, int64 [T, C]; each band's is sent as the difference from the band before."""
        unit = self._step_dn / MEAN_UNITS
        out = np.empty((self.dates, count), np.int64)
        for t, side in enumerate(sides):
            wanted = None
            if below is not None:
                wanted = np.diff(np.rint(below[t].mean((1, 2)) / unit).astype(np.int64), prepend=0)
            first = side.integers(None if wanted is None else wanted[:1], 1, 60 * MEAN_UNITS)
            others = side.integers(None if wanted is None else wanted[1:], count - 1, 8 * MEAN_UNITS)
            out[t] = np.cumsum(np.concatenate([first, others]).astype(np.int64))
        return np.clip(out, -LARGEST // VALUE, LARGEST // VALUE) * (VALUE // MEAN_UNITS)

    def _bases(self, level: int, samples: np.ndarray | None, count: int) -> list[Basis]:
        """Each date's own, told with what it knows: that of its nearest reference and its own of the level below."""
        bases = []
        for t, side in enumerate(self._at(level)):
            own = in_steps = None
            if samples is not None:
                own, in_steps = fitted(samples[t], self._step_dn), samples[t] / self._step_dn
            reference = self.known[t][0].bases.get(level) if self.known else None
            below = self._last_bases[t] if self._last_bases else None
            bases.append(code_related(side, own, count, reference, below, in_steps))
            self.made[t].bases[level] = bases[-1]
        self._last_bases = bases
        return bases

    def _code_top(
        self, sides: Sequence[Side], planes: np.ndarray | None, bases: list[Basis], shape: tuple[int, int]
    ) -> np.ndarray:
        """The cells that have nothing below: one table row for each plane, then its symbols."""
        out = np.zeros((self.dates, len(bases[0].bits), *shape), np.int32)
        for t, (basis, side) in enumerate(zip(bases, sides, strict=True)):
            there = np.flatnonzero(basis.present)
            symbols = rows = None
            if planes is not None:
                symbols = np.rint(planes[t, there]).astype(np.int32)
                scales = np.log(0.7 * np.abs(symbols).mean((1, 2)) + 0.1)
                rows = np.rint((scales - SCALE_MIN) * ROWS_PER_NAT).clip(0, ROWS - 1)
            rows = side.bounded(rows, len(there), spread=16, first=0, last=ROWS - 1, middle=56)
            read = side.rows(symbols, rows.astype(np.uint8).repeat(shape[0] * shape[1]))
            cells = np.clip(read, -LARGEST // VALUE, LARGEST // VALUE) * np.int32(VALUE)
            out[t, there] = cells.reshape(len(there), *shape)
        return out

    def _own_basis(
        self, level: int, bands: np.ndarray, parents: np.ndarray | None, details: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One level up under a basis of its own: bands [T, C, h, w] -> bands [T, C, H, W], details [T, C, 3, h, w]."""
        count, (_, height, width) = bands.shape[1], self.shapes[level]
        samples = None if details is None else details.reshape(*details.shape[:2], -1)
        bases = self._bases(level, samples, count)
        below = _each(bases, bands, Basis.seen)
        above = None if parents is None else _each(bases, parents, Basis.seen)
        planes = None if details is None else _each(bases, details, Basis.planes) / self._step_dn
        found = _each(bases, self._details(level, below, above, planes, bases, (height, width)), Basis.bands)
        out = haar.synthesise(bands, found, (height, width), LARGEST)
        if self.tells:
            self._keep(level, out)
        return out, found

    def _details(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        wanted: np.ndarray | None,
        bases: list[Basis],
        shape: tuple[int, int],
    ) -> np.ndarray:
        """Details of one level: int32 [T, K, 3, h, w], plane by plane."""
        coded = haar.coded(shape)
        present = np.stack([basis.present for basis in bases])
        hidden, coarse, above = self._hidden(level), self._coarse(level), self._coarse(level + 1)
        skipped = None if self.skipped is None else self.skipped.at(level)
        strengths = self._code_strengths(level, wanted, present, coded, counting(hidden, coarse))
        lifted = None if parents is None else self._features(parents, above)
        says = None
        if parents is not None and self.known:
            says = self._told(level, below, np.any(strengths > DEAD, 2))
        if wanted is None and coarse is None and self._reads(level):
            return self._read(level, below, parents, says, strengths, coded, skipped)
        out = np.zeros((self.dates, present.shape[1], 3, *coded.shape[1:]), np.int32)
        # features of the parents, of the strongest and of the last plane so far, and of what references tell
        features = np.zeros((self.dates, 9 if says is None else 19, *coded.shape[1:]), np.float32)
        left: list[list[np.ndarray]] = [[] for _ in range(self.dates)]
        for k in range(present.shape[1]):
            some = np.flatnonzero((strengths[:, k] > DEAD).any(1))
            now = np.zeros_like(features[:, 6:9])
            if len(some):
                if lifted is not None:
                    _lift(lifted[some, k], features[:, :3], some)
                own = None if says is None else [says[t] for t in some.tolist()]
                if own is not None:
                    self._describe(k, own, features[:, 9:], some, (coarse, above))
                plane = Plane(
                    level,
                    k,
                    some,
                    coded,
                    strengths[some, k],
                    None if own is None else np.stack([one.predicted[k] for one in own]),
                    None if hidden is None else hidden[some],
                    None if skipped is None else skipped[some],
                    None if coarse is None else coarse.of(some),
                    own,
                    [left[t] for t in some.tolist()],
                )
                out[some, k], off = self._plane(
                    plane, below[some, k], None if wanted is None else wanted[some, k], features[some]
                )
                for t, one in zip(some.tolist(), off, strict=True):
                    left[t].append(one)
                now[some] = self._features(out[some, k], plane.coarse)
            strongest = features[:, 3:6]
            np.maximum(np.rint(strongest * np.float32(0.75)), np.abs(now), out=strongest)
            features[:, 6:9] = now
        return out

    def _reads(self, level: int) -> bool:
        """Whether the kernel can."""
        return self.model.reader.takes(self.model.stage_at(level), self.ports_at(level))

    def _read(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        says: dict[int, Told] | None,
        strengths: np.ndarray,
        coded: np.ndarray,
        skipped: np.ndarray | None,
    ) -> np.ndarray:
        """Details of one level by the kernel, without a map: int32 [T, K, 3, h, w]."""
        alive, units, strongest = strengths > DEAD, log_scales(strengths), strengths.max(2)
        numbers = np.arange(strengths.shape[1])[:, None]
        told = constants(units, numbers, level, says is not None, self.brightness)
        out = np.zeros((*strengths.shape, *coded.shape[1:]), np.int32)
        may_be, stage = self._may_be_sent(level, skipped), self.model.stage_at(level)
        for t in np.flatnonzero(alive.any((1, 2))).tolist():
            marks = np.uint8(3) if may_be is None else np.where(may_be[t], np.uint8(3), np.uint8(1))
            own = (None if parents is None else parents[t]), (None if says is None else says[t])
            there = coded * marks
            self._read_level(
                level,
                t,
                Level(
                    stage,
                    below[t],
                    *own,
                    self._corrects(level),
                    strongest[t],
                    alive[t],
                    there,
                    units[t],
                    told[t],
                    out[t],
                ),
            )
        return out

    def _read_level(self, number: int, date: int, level: Level) -> None:
        self.model.reader.read(level, self.ports_at(number)[date], SPACING)

    def _hidden(self, level: int) -> np.ndarray | None:
        """Details of a level all of whose cells are hidden, bool [T, 1, h, w]."""
        return None if self.wanted is None or self.wanted.hidden is None else self.wanted.hidden.at(level)

    def _coarse(self, level: int) -> Coarse | None:
        return None if self.levels is None else Coarse(lowest(self.levels, 2 << level))

    def _features(self, values: np.ndarray, coarse: Coarse | None) -> np.ndarray:
        """Squashed values, each in the octave of its cell."""
        return self.model.functions.features(values if coarse is None else coarse.seen(values))

    def _told(self, level: int, pictures: np.ndarray, is_alive: np.ndarray) -> dict[int, Told]:
        """What the references of dates tell of the planes that have details, bool [T, K]."""
        found = {}
        for t in np.flatnonzero(is_alive.any(1)).tolist():
            here, below = ([date.remainders_at(n) for date in self.known[t]] for n in (level, level + 1))
            found[t] = told(pictures[t], below, here, np.flatnonzero(is_alive[t]))
        return found

    def _describe(
        self, k: int, own: Sequence[Told], out: np.ndarray, some: np.ndarray, octaves: Sequence[Coarse | None]
    ) -> None:
        """Predicted details, how much of them references tell, how far that was off below, and what else they have."""
        here, below = (None if c is None else c.of(some) for c in octaves)
        out[some, :3] = self._features(np.stack([one.predicted[k] for one in own]), here)
        out[some, 3:6] = np.abs(self._features(np.stack([one.remainders[k] for one in own]), here))
        _lift(np.abs(self._features(np.stack([one.missed[k] for one in own]), below)), out[:, 6:], some)
        out[some, 9:] = self._features(np.stack([one.activity for one in own]), here)

    def _code_strengths(
        self,
        level: int,
        wanted: np.ndarray | None,
        present: np.ndarray,
        coded: np.ndarray,
        counts: np.ndarray | None,
    ) -> np.ndarray:
        """2 log2 of the rms of each plane's details, int32 [T, K, 3]; DEAD where all of them are 0."""
        exists = present[:, :, None] & coded.any((1, 2))
        before = self._strengths_before(level, exists)
        rows = np.where(before <= DEAD, AFTER_DEAD, AFTER_ALIVE).astype(np.uint8)
        sent = None
        if wanted is not None:  # each as the difference from its guess
            found = strengths_of(wanted, coded, exists, counts)
            sent = found - np.stack([guess(found, before, k) for k in range(3)], 2)
        out = np.full(exists.shape, DEAD, np.int32)
        symbols = None if sent is None else sent[exists]
        ports, numbers = [side.port for side in self._at(level)], exists.sum((1, 2)).tolist()
        out[exists] = code_each(ports, numbers, symbols, rows[exists], self.model.tables)
        for k in range(3):
            own = np.minimum(np.maximum(guess(out, before, k) + out[:, :, k], DEAD), SIDE_MAX)
            out[:, :, k] = np.where(exists[:, :, k], own, DEAD)
        self._sides[present.shape[1]] = out
        for own, made in zip(out, self.made, strict=True):
            made.strengths[level] = own
        return out

    def _strengths_before(self, level: int, exists: np.ndarray) -> np.ndarray:
        """What the level below and the nearest reference let expect, int32 [T, K, 3]."""
        last = self._sides.get(exists.shape[1])
        last = np.full(exists.shape, 2, np.int32) if last is None else last
        others = [known[0].strengths.get(level) for known in self.known]
        return (
            np.stack([between(one, other) for one, other in zip(last, others, strict=True)])
            if others
            else last
        )

    def _plane(
        self, plane: Plane, below: np.ndarray, wanted: np.ndarray | None, features: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """One plane of some dates in two passes: details, and how far they lie off their means, int32 [N, 3, h, w]."""
        stage, coarse = self.model.stage_at(plane.level), plane.coarse
        octaves = None if coarse is None else coarse.octaves
        shared, predicted = stage.start(below, features, self._constant(plane), octaves)
        alive = self._alive(plane)
        reference, more = plane.reference, None
        done: list[np.ndarray] = []  # details in the octaves of their cells
        left: list[np.ndarray] = []  # how far they lie off their means, in steps
        for color in range(_COLORS):
            cells = None if coarse is None else coarse.packed(color)
            outputs, near = self._stepped(stage, shared, done, coarse)
            own = None if wanted is None else packed(wanted, color)
            if cells is not None:
                near = None if near is None else cells.seen(near)
                own = None if own is None else np.ldexp(own, -cells.octaves[:, None].astype(np.int32))
            place = packed(predicted, color), near, self._scale(plane, cells)
            if not color and self._corrects(plane.level):
                known = None
                if own is not None:
                    known = outputs, *self._placed(outputs, *place, _seen(reference, color, cells)), own
                reference, more = self._corrected(plane, alive, cells, known)
            mean, rows = self._placed(
                outputs, *place, *(_seen(one, color, cells) for one in (reference, more))
            )
            if cells is not None:
                rows[np.broadcast_to(cells.levels[:, None] == NOTHING, rows.shape)] = 0
            if plane.skipped is not None:
                rows[np.broadcast_to(packed(plane.skipped, color), rows.shape)] = 0
            if own is not None and plane.hidden is not None:  # what the decoder expects
                own = np.where(packed(plane.hidden, color), mean / VALUE, own)
            units = None if cells is None else cells.spacings
            found, off = self._symbols(plane, color, mean, rows, packed(alive, color), own, units)
            done.append(found)
            left.append(off if cells is None else cells.in_steps(off))
        width = plane.coded.shape[2]
        found = unpacked(done[0], done[1], width)
        return found if coarse is None else coarse.in_steps(found), unpacked(left[0], left[1], width)

    def _corrects(self, level: int) -> bool:
        """Whether corrections of means are sent of a level."""
        return True

    def _corrected(
        self, plane: Plane, alive: np.ndarray, cells: Coarse | None, known: Sequence[np.ndarray] | None
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Send or read corrections: what references predict with them, and what is added to means, int32 [N, 3, h, w].

        Args:
            plane: which, of some dates.
            alive: details that there are, bool [N, 3, h, w].
            cells: of the first colour, or None.
            known: of these outputs of the network, means, rows and details; None: read.
        """
        counts = alive
        for away in (plane.hidden, plane.skipped):
            counts = counts if away is None else counts & ~away
        sides, counts = self._at(plane.level), packed(counts, 0)
        tellers: Sequence[Told | None] = plane.told or [None] * len(alive)
        grounds = [
            Ground(plane.number, *one, alive.shape[2:])
            for one in zip(plane.left, tellers, plane.strengths, strict=True)
        ]
        firsts: list[First | None] = [None] * len(alive)
        if known is not None:
            outputs, mean, rows, own = known
            gates = self.model.functions.gates(outputs[:, :3])
            scale = [None] * len(alive) if cells is None else np.broadcast_to(cells.scale, rows.shape)
            firsts = [First(*one) for one in zip(own - mean / VALUE, rows, gates, counts, scale, strict=True)]
        return corrected([sides[t] for t in plane.dates.tolist()], grounds, firsts, plane.reference)

    def _may_be_sent(self, level: int, skipped: np.ndarray | None) -> np.ndarray | None:
        """Which details of all dates may be sent, bool [T, 1, h, w]; None: all."""
        return None if skipped is None else ~skipped

    def _alive(self, plane: Plane) -> np.ndarray:
        """Details that there are: bool [N, 3, h, w]."""
        return plane.coded & (plane.strengths > DEAD)[:, :, None, None]

    def _stepped(
        self, stage: Stage, shared: Any, done: Sequence[np.ndarray], coarse: Coarse | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The next pass: predictions from neighbours take their details in steps, features in their cells' octaves."""
        if not done:
            return stage.step(shared, None)
        if coarse is None:
            return stage.step(shared, done[0])
        return stage.step(shared, coarse.packed(0).in_steps(done[0]), done[0])

    def _strengths_in(self, plane: Plane) -> np.ndarray:
        """Log scales that side information tells, in 1/16: float32 [N, 3], with a map by octave [N, 8, 3]."""
        known = plane.strengths
        if plane.coarse is not None:
            known = known[:, None] - 2 * OCTAVES[:, None]
        return log_scales(known)

    def _scale(self, plane: Plane, cells: Coarse | None) -> np.ndarray:
        """The same for each cell: [N, 3, h, half], or [N, 3, 1, 1] where all are alike."""
        known = self._strengths_in(plane)
        return known[:, :, None, None] if cells is None else cells.rows(cells.of_octave(known))

    def _constant(self, plane: Plane) -> np.ndarray:
        """What the network is told of a plane: float32 [N, 8], with a map by octave [N, 8, 8]."""
        units, number = self._strengths_in(plane), np.array([plane.number])
        found = constants(units, number, plane.level, plane.reference is not None, self.brightness)
        if plane.coarse is not None:
            found[..., 5] = np.minimum(64, found[..., 5] + np.rint(OCTAVES * (_LN2_HALF * FEATURE)))
        return found

    def _placed(
        self,
        outputs: np.ndarray,
        predicted: np.ndarray,
        near: np.ndarray | None,
        scale: np.ndarray,
        reference: np.ndarray | None,
        more: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means float32 in 1/64 step (or octave) and table rows uint8, [N, 3, h, half] each; `more` is added to means."""
        gates = self.model.functions.gates
        mean = gates(outputs[:, 3:6])
        mean *= predicted
        if near is not None:
            mean += gates(outputs[:, 6:9]) * near
        if reference is not None:
            mean += gates(outputs[:, :3]) * reference
        np.rint(mean, out=mean)
        if more is not None:
            mean += more
        np.clip(mean, -PREDICTION_MAX, PREDICTION_MAX, out=mean)
        offset = np.float32(-SCALE_MIN * FEATURE)
        rows = outputs[:, 9:] + (scale + offset)
        rows *= np.float32(FEATURE / ROWS_PER_NAT / 4)
        np.clip(np.floor(rows, out=rows), 0, ROWS - 1, out=rows)
        return mean, rows.astype(np.uint8)

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
        """Details of one colour, 0 where there are none, and how far they lie off their means: int32 [N, 3, h, half].

        A spacing is `units`, or `SPACING`.
        """
        is_sent = here & (rows >= CERTAIN)
        sent = np.flatnonzero(is_sent)
        own = rows.ravel()[sent]
        unit = np.int32(SPACING) if units is None else np.broadcast_to(units, rows.shape).ravel()[sent]
        counts = np.count_nonzero(is_sent.reshape(len(is_sent), -1), 1).tolist()
        symbols = None
        if wanted is not None and self.wanted is not None:
            residual = (wanted.ravel()[sent] - mean.ravel()[sent] / VALUE) * (VALUE / unit)
            symbols = self.wanted.quantise(residual, own, counts)
        ports = self.ports_at(plane.level)
        out = (mean * here).astype(np.int32)
        left = np.zeros_like(out)
        left.ravel()[sent] = unit * trellis_each(
            [ports[t] for t in plane.dates], counts, symbols, own, self.model.trellis
        )
        out += left
        return np.clip(out, -LARGEST, LARGEST, out=out), left


def _seen(values: np.ndarray | None, color: int, cells: Coarse | None) -> np.ndarray | None:
    """Values [N, 3, h, w] of the cells of one colour, in their octaves."""
    if values is None:
        return None
    values = packed(values, color)
    return values if cells is None else cells.seen(values)


def _lift(parents: np.ndarray, features: np.ndarray, some: np.ndarray) -> None:
    """Features of parents [N, 3, h, w] to those of the four cells above each: the first three of some dates'."""
    height, width = features.shape[2:]
    features[some, :3] = parents.repeat(2, -2).repeat(2, -1)[..., :height, :width]


def _each(
    bases: list[Basis], values: np.ndarray, apply: Callable[[Basis, np.ndarray], np.ndarray]
) -> np.ndarray:
    return stacked([apply(basis, one) for basis, one in zip(bases, values, strict=True)])


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST, LARGEST)
