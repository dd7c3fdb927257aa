"""The one traversal of a ladder of band groups: an encoder's port writes, a decoder's reads, an estimator's counts.

    groups, finest first       r10 [4, H, W], r20 [6, H/2, W/2]      (a ladder: each grid is half of the one before)
    all bands at the top       block averages of the finer groups join the coarser bands, down to a few cells
    then upwards               each level's details under the spectral basis of its own bands, plane by plane,
                               in two checkerboard passes; where a group's own grid is reached, its bands are done

All values are int32 in units of 1/64 of the quantisation step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from eozip.codecs.pyramid import haar
from eozip.codecs.pyramid.context import FEATURE, PREDICTION_MAX, VALUE, Functions, Stage, packed, unpacked
from eozip.codecs.pyramid.side import ROWS, ROWS_PER_NAT, SCALE_MIN, Side, row_of
from eozip.codecs.pyramid.spectral import LARGEST, Basis, code_basis, fitted
from eozip.entropy.range_coder import Port, Tables

SIDE_MIN, SIDE_MAX, DEAD = -4, 14, -5  # of 2 log2 rms; DEAD: every detail is 0
CERTAIN = 16  # rows below are so narrow that their symbol can only be 0
_LN2_HALF = math.log(2) / 2
_COLORS = 2
_AFTER_DEAD, _AFTER_ALIVE = row_of(0.4), (row_of(1.6), row_of(0.9), row_of(0.9))
_APEX = 30  # a level above all others, whose port takes what every level needs

Quantise = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Model:
    """What a traversal needs of the weights.

    Attributes:
        stages: networks of the finest level, the next, all others.
        functions: staircases.
        tables: of the coder, `ROWS` rows.
    """

    stages: Sequence[Stage]
    functions: Functions
    tables: Tables


@dataclass(frozen=True, eq=False)
class Wanted:
    """What an encoder brings.

    Attributes:
        groups: float [T, C, h, w] each, DN, finest first.
        quantise: residual in steps float [n] and rows [n] -> int32 [n] symbols.
    """

    groups: Sequence[np.ndarray]
    quantise: Quantise


@dataclass
class Ladder:
    """A traversal of groups of T dates, each date by itself.

    Attributes:
        model: networks and tables.
        shapes: (C, h, w) of each group, finest first.
        dates: T.
        step: quantisation step in 1/16 DN.
        port_at: the port for details of pictures so many times coarser than the finest group.
        wanted: the pixels, or None to decode.
        stop: finest levels to leave out; then no port is asked for them.
        lends_at: the level whose details complete the picture that `lent` keeps, where all bands share a basis.
        reached: once run, the level of the pictures of all groups whose own level is not above it: `stop`, or less where
            the whole ladder has no more levels. A picture of level n of the finest grid is 2**n times block averages.
    """

    model: Model
    shapes: Sequence[tuple[int, int, int]]
    dates: int
    step: int
    port_at: Callable[[int], Port]
    wanted: Wanted | None = None
    stop: int = 0
    lends_at: int | None = None
    lent: np.ndarray | None = None
    reached: int = 0
    _sides: dict[int, np.ndarray] = field(default_factory=dict)

    def run(self) -> list[np.ndarray]:
        """Pictures of all groups, int32 [T, C, h, w] in 1/64 step, finest first; see `reached` for their sizes."""
        levels = self._levels_wanted()
        depth = len(self.shapes)
        side = self._side(_APEX)
        self._brightness = self._code_brightness(side)
        bands, parents, self.reached = self._top(side, None if levels is None else levels[-1], depth)
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

    def _side(self, level: int) -> Side:
        return Side(self.port_at(level), self.model.tables)

    @property
    def _step_dn(self) -> float:
        return self.step / 16

    def _levels_wanted(self) -> list[np.ndarray] | None:
        """Details of each group level in DN, finest first, and what lies below them all."""
        if self.wanted is None:
            return None
        below, found = np.asarray(self.wanted.groups[0], np.float64), []
        for group in [*self.wanted.groups[1:], None]:
            below, details = haar.analyse(below)
            found.append(details)
            below = below if group is None else np.concatenate([below, group], 1)
        return [*found, below]

    def _code_brightness(self, side: Side) -> float:
        """What the networks are told of the step: (ln step - 4) / 2 on the feature grid."""
        units = round((math.log(self._step_dn) - 4) / 2 * FEATURE) if self.wanted is not None else 0
        units = max(-64, min(64, units))
        return (
            float(side.bounded(np.array([units]), 1, spread=20, first=-64, last=64)[0]) / FEATURE
            if self.wanted is not None
            else (float(side.bounded(None, 1, spread=20, first=-64, last=64)[0]) / FEATURE)
        )

    def _top(
        self, side: Side, below: np.ndarray | None, depth: int
    ) -> tuple[np.ndarray, np.ndarray | None, int]:
        """All bands one level below the coarsest group's grid, or at `stop`: means, basis, pyramid; and which level."""
        count = sum(c for c, _, _ in self.shapes)
        _, height, width = self.shapes[-1]
        shape = (haar.half(height), haar.half(width))
        means = self._code_means(side, below, count)
        centred = None if below is None else below - means[:, :, None, None] * self._step_dn
        bases = self._bases(side, None if centred is None else centred.reshape(*centred.shape[:2], -1), count)
        planes = None if centred is None else _each(bases, centred, Basis.planes) / self._step_dn
        details, sizes = [], haar.sizes(shape)
        for _ in sizes:
            planes, found = haar.analyse(planes) if planes is not None else (None, None)
            details.append(found)
        top = shape if not sizes else (haar.half(sizes[-1][0]), haar.half(sizes[-1][1]))
        picture = self._code_top(side, planes, bases, top)
        parents, reached = None, depth + len(sizes)
        while reached > max(depth, self.stop):
            reached -= 1
            j = reached - depth
            parents = self._details(reached, picture, parents, details[j], bases, sizes[j])
            picture = _clipped(haar.synthesise(picture, parents, sizes[j]))
            if reached == self.lends_at:
                self.lent = picture
        whole = means[:, :, None, None].astype(np.int64) << (reached - depth)
        bands = _clipped(_each(bases, picture, Basis.bands) + VALUE * whole).astype(np.int32)
        return bands, None if parents is None else _each(bases, parents, Basis.bands), reached

    def _code_means(self, side: Side, below: np.ndarray | None, count: int) -> np.ndarray:
        """Rounded means in steps, int32 [T, C]; each band's is sent as the difference from the band before."""
        wanted = None
        if below is not None:
            means = np.rint(below.mean((2, 3)) / self._step_dn).astype(np.int64)
            wanted = np.diff(means, axis=1, prepend=0)
        first = side.integers(None if wanted is None else wanted[:, :1], self.dates, 60).reshape(-1, 1)
        others = side.integers(None if wanted is None else wanted[:, 1:], self.dates * (count - 1), 8)
        return np.clip(
            np.cumsum(np.concatenate([first, others.reshape(self.dates, -1)], 1), 1),
            -LARGEST // VALUE,
            LARGEST // VALUE,
        )

    def _bases(self, side: Side, samples: np.ndarray | None, count: int) -> list[Basis]:
        return [
            code_basis(side, None if samples is None else fitted(samples[t], self._step_dn), count)
            for t in range(self.dates)
        ]

    def _code_top(
        self, side: Side, planes: np.ndarray | None, bases: list[Basis], shape: tuple[int, int]
    ) -> np.ndarray:
        """The cells that have nothing below: one table row for each plane, then its symbols."""
        out = np.zeros((self.dates, len(bases[0].bits), *shape), np.int32)
        for t, basis in enumerate(bases):
            for k in np.flatnonzero(basis.present):
                symbols = row = None
                if planes is not None:
                    symbols = np.rint(planes[t, k]).astype(np.int32).ravel()
                    spread = math.log(0.7 * float(np.abs(symbols).mean()) + 0.1)
                    row = np.array([min(ROWS - 1, max(0, round((spread - SCALE_MIN) * ROWS_PER_NAT)))])
                row = side.bounded(row, 1, spread=16, first=0, last=ROWS - 1, middle=56)
                rows = np.full(shape[0] * shape[1], row[0], np.uint8)
                read = side.port.code(symbols, rows, side.tables).reshape(shape)
                out[t, k] = np.clip(read, -LARGEST // VALUE, LARGEST // VALUE) * np.int32(VALUE)
        return out

    def _own_basis(
        self, level: int, bands: np.ndarray, parents: np.ndarray | None, details: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """One level up under a basis of its own: bands [T, C, h, w] -> bands [T, C, H, W], details [T, C, 3, h, w]."""
        count, (_, height, width) = bands.shape[1], self.shapes[level]
        side = self._side(level)
        samples = None if details is None else details.reshape(*details.shape[:2], -1)
        bases = self._bases(side, samples, count)
        below = _each(bases, bands, Basis.seen)
        above = None if parents is None else _each(bases, parents, Basis.seen)
        planes = None if details is None else _each(bases, details, Basis.planes) / self._step_dn
        found = _each(bases, self._details(level, below, above, planes, bases, (height, width)), Basis.bands)
        return _clipped(haar.synthesise(bands, found, (height, width))), found

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
        side, coded = self._side(level), haar.coded(shape)
        present = np.stack([basis.present for basis in bases])
        sides = self._code_sides(side, wanted, present, coded)
        lifted = None if parents is None else self.model.functions.features(parents)
        out = np.zeros((self.dates, present.shape[1], 3, *coded.shape[1:]), np.int32)
        # features of the strongest and of the last plane so far, beside those of the parents
        features = np.zeros((self.dates, 9, *coded.shape[1:]), np.float32)
        for k in range(present.shape[1]):
            some = np.flatnonzero((sides[:, k] > DEAD).any(1))
            now = np.zeros_like(features[:, 6:])
            if len(some):
                if lifted is not None:
                    _lift(lifted[some, k], features, some)
                out[some, k] = self._plane(
                    level,
                    below[some, k],
                    None if wanted is None else wanted[some, k],
                    features[some],
                    sides[some, k],
                    k,
                    coded,
                )
                now[some] = self.model.functions.features(out[some, k])
            strongest = features[:, 3:6]
            np.maximum(np.rint(strongest * np.float32(0.75)), np.abs(now), out=strongest)
            features[:, 6:] = now
        return out

    def _code_sides(
        self, side: Side, wanted: np.ndarray | None, present: np.ndarray, coded: np.ndarray
    ) -> np.ndarray:
        """2 log2 of the rms of each plane's details, int32 [T, K, 3]; DEAD where all of them are 0."""
        exists = present[:, :, None] & coded.any((1, 2))
        before = self._sides.get(present.shape[1])
        before = np.full(exists.shape, 2, np.int32) if before is None else before
        sent = None
        if wanted is not None:
            rms = np.sqrt((wanted**2).sum((3, 4)) / np.maximum(1, coded.sum((1, 2))))
            sent = np.clip(np.rint(2 * np.log2(np.maximum(rms, 0.2))), SIDE_MIN, SIDE_MAX).astype(np.int32)
            sent[(np.abs(wanted) * coded).max((3, 4)) < 0.6] = DEAD
        out = np.full(exists.shape, DEAD, np.int32)
        guess = before[:, :, 0]
        for k in range(3):  # the second and third orientation follow the first as they did one level below
            own = exists[:, :, k]
            rows = np.where(guess[own] <= DEAD, _AFTER_DEAD, _AFTER_ALIVE[k])
            symbols = None if sent is None else (sent[:, :, k] - guess)[own]
            out[own, k] = np.clip(side.rows(symbols, rows) + guess[own], DEAD, SIDE_MAX)
            if k < 2:
                alive = (out[:, :, k] > DEAD) & (before[:, :, k] > DEAD) & (before[:, :, k + 1] > DEAD)
                steps = out[:, :, k] + np.where(alive, before[:, :, k + 1] - before[:, :, k], 0)
                guess = np.clip(steps, DEAD, SIDE_MAX)
        self._sides[present.shape[1]] = out
        return out

    def _plane(
        self,
        level: int,
        below: np.ndarray,
        wanted: np.ndarray | None,
        features: np.ndarray,
        sides: np.ndarray,
        k: int,
        coded: np.ndarray,
    ) -> np.ndarray:
        """One plane of some dates, int32 [N, 3, h, w], in two passes."""
        stage = self.model.stages[min(level, 2)]
        shared, predicted = stage.start(below, features, self._constant(sides, k, level))
        scale = np.rint(np.maximum(sides, SIDE_MIN) * (_LN2_HALF * FEATURE)).astype(np.float32)
        alive = coded & (sides > DEAD)[:, :, None, None]
        done: list[np.ndarray] = []
        for color in range(_COLORS):
            outputs, near = stage.step(shared, done[0] if done else None)
            mean, rows = self._placed(outputs, packed(predicted, color), near, scale)
            own = None if wanted is None else packed(wanted, color)
            done.append(self._symbols(level, mean, rows, packed(alive, color), own))
        return unpacked(done[0], done[1], coded.shape[2])

    def _constant(self, sides: np.ndarray, k: int, level: int) -> np.ndarray:
        units = np.rint(np.maximum(sides, SIDE_MIN) * (_LN2_HALF * FEATURE))
        flags = np.array([0, k / 4, self._brightness, 1, min(level, 6) / 2]) * FEATURE
        return np.concatenate([units, np.broadcast_to(flags, (len(sides), len(flags)))], 1).astype(np.float32)

    def _placed(
        self, outputs: np.ndarray, predicted: np.ndarray, near: np.ndarray | None, scale: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means float32 in 1/64 step and table rows uint8, [N, 3, h, half] each."""
        gates = self.model.functions.gates
        mean = gates(outputs[:, 3:6])
        mean *= predicted
        if near is not None:
            mean += gates(outputs[:, 6:9]) * near
        np.clip(np.rint(mean, out=mean), -PREDICTION_MAX, PREDICTION_MAX, out=mean)
        offset = np.float32(-SCALE_MIN * FEATURE)
        rows = outputs[:, 9:]
        rows += (scale + offset)[:, :, None, None]
        rows *= np.float32(FEATURE / ROWS_PER_NAT / 4)
        np.clip(np.floor(rows, out=rows), 0, ROWS - 1, out=rows)
        return mean, rows.astype(np.uint8)

    def _symbols(
        self, level: int, mean: np.ndarray, rows: np.ndarray, here: np.ndarray, wanted: np.ndarray | None
    ) -> np.ndarray:
        """Details of one colour: int32 [N, 3, h, half], 0 where there are none."""
        sent = np.flatnonzero(here & (rows >= CERTAIN))
        own = rows.ravel()[sent]
        symbols = None
        if wanted is not None and self.wanted is not None:
            symbols = self.wanted.quantise(wanted.ravel()[sent] - mean.ravel()[sent] / VALUE, own)
        read = self.port_at(level).code(symbols, own, self.model.tables)
        out = (mean * here).astype(np.int32)
        out.ravel()[sent] += np.clip(read, -LARGEST // VALUE, LARGEST // VALUE) * np.int32(VALUE)
        return np.clip(out, -LARGEST, LARGEST, out=out)


def _lift(parents: np.ndarray, features: np.ndarray, some: np.ndarray) -> None:
    """Features of parents [N, 3, h, w] to those of the four cells above each: the first three of some dates'."""
    height, width = features.shape[2:]
    features[some, :3] = parents.repeat(2, -2).repeat(2, -1)[..., :height, :width]


def _each(
    bases: list[Basis], values: np.ndarray, apply: Callable[[Basis, np.ndarray], np.ndarray]
) -> np.ndarray:
    return np.stack([apply(basis, one) for basis, one in zip(bases, values, strict=True)])


def _clipped(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -LARGEST, LARGEST)
