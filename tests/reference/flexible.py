"""Pixels of chunks of flextec-small-any-v1 after section 14 of docs/pyramid.md, beside `reference.pyramid`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from eozip.bitstream import Chunk, frame_check
from eozip.entropy.range_coder import DecodePort, Tables
from eozip.errors import FormatError
from reference.pyramid import (
    BASIS_ROWS,
    DEAD,
    NATIVE,
    Basis,
    Date,
    L,
    Ladder,
    Lent,
    Made,
    Reader,
    Weights,
    clip,
    correlated,
    half,
    ladders_of,
    layout,
    left_out,
    lowered,
    map_of,
    needed_by,
    on_canvas,
    ratio,
    references_of,
    rounded,
    section_of,
    skip_of,
    streams_of,
)

FINER_ROWS = (26, 31, 37, 42, 48, 53, 59, 64, 70)  # of a column's entries by how many bits it gains


def section_in(number: int, coarser: int) -> int:
    """14: of the sections of a pass."""
    return section_of(coarser) if number else 0 if coarser > 16 else 1 + section_of(coarser)


def finer(v: np.ndarray) -> np.ndarray:
    return 2 * clip(v, L // 2)


@dataclass(frozen=True)
class Laws:
    tails: np.ndarray
    areas: np.ndarray
    zones: np.ndarray
    shares: np.ndarray
    binary: Tables

    def above(self, r: np.ndarray, u: np.ndarray) -> np.ndarray:
        tail = self.tails[r, np.minimum(np.abs(u), 256)]
        return np.where(u < 0, 2**30 - tail, tail)

    def area(self, r: np.ndarray, u: np.ndarray) -> np.ndarray:
        return self.areas[r, np.minimum(np.abs(u), 256)] - np.minimum(u, 0) * 2**30

    def mass(self, r: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        between = self.above(r, (a + 2) // 4) - self.above(r, (b + 2) // 4)
        return np.where(b > a, 1 + np.maximum(0, between), 0)

    def middle(self, r: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        u, w = (a + 2) // 4, (b + 2) // 4
        m = self.above(r, u) - self.above(r, w)
        s = u * self.above(r, u) - w * self.above(r, w) + self.area(r, u) - self.area(r, w)
        return np.where(m >= 64, np.clip(4 * s // np.maximum(m, 1), a, b), (a + b) // 2)


def laws_of(weights: Weights) -> Laws:
    with localcontext() as context:
        context.prec = 60
        tails = []
        for r in range(104):
            e = int(2**62 * (-1 / (16 * (Decimal(r) / 8 - 5).exp())).exp())
            powers = itertools.accumulate(range(256), lambda p, _, e=e: p * e // 2**62, initial=2**62)
            tails.append([2**30 * p // (2**62 + p) for p in powers])
        odds = [Decimal(10 * (j - 32)) / 32 for j in range(65)]
        q = [round(65536 / (1 + (-o).exp())) for o in odds]
        shares = [round(2**20 / (1 + (-(a + b) / 2).exp())) for a, b in itertools.pairwise(odds)]
        zones = []
        for r in range(104):
            row, zero, size = weights.tables.freqs[r], -weights.tables.first[r], weights.tables.size[r]
            f = [Decimal(int(row[min(zero + k, size - 1)])).ln() for k in (0, 1)]
            zones.append(round(64 * min(Decimal("1.4"), Decimal("0.5") + max(Decimal(0), f[0] - f[1]) / 12)))
    areas = [
        [s - k // 2 for s, k in zip(itertools.accumulate(tail[::-1]), tail[::-1])][::-1] for tail in tails
    ]
    freqs = np.array([[65535 - one, one, 1] for one in q], np.uint32)
    binary = Tables(freqs, np.zeros(65, np.int32), np.full(65, 3, np.int32))
    return Laws(np.array(tails), np.array(areas), np.array(zones), np.array(shares), binary)


@lru_cache(4)
def within_of(trellis: Tables) -> Tables:
    """Rows of either quantiser where only so many spacings are left below and above the mean."""
    found = []
    for q, r, a, b in itertools.product(range(2), range(104), range(9), range(9)):
        row = r + 104 * q
        first, size = int(trellis.first[row]), int(trellis.size[row])
        symbols = range(-((a + 1) // 2), (b + 1) // 2 + 1)
        f = {
            n: int(trellis.freqs[row, n - first])
            for n in symbols
            if -((a + q) // 2) <= n <= (b + q) // 2 and 0 <= n - first < size - 1
        }
        all_of_them, count = sum(f.values()), len(symbols) + 1
        g = {n: 1 + f.get(n, 0) * (65536 - count) // all_of_them for n in symbols}
        g[0] += 65535 - sum(g.values())
        found.append((symbols[0], [*g.values(), 1]))
    size = np.array([len(row) for _, row in found], np.int32)
    freqs = np.array([row + [0] * (10 - len(row)) for _, row in found], np.uint32)
    return Tables(freqs, np.array([first for first, _ in found], np.int32), size)


@dataclass
class Kept:
    """What is known of one ladder of a date after a pass."""

    means: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    picture: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    bases: dict[int | str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    scales: dict[int, np.ndarray] = field(default_factory=dict)
    cells: dict[int, dict[str, np.ndarray]] = field(default_factory=dict)
    date: Date = field(default_factory=Date)
    prediction: np.ndarray | None = None
    pictures: list[np.ndarray] = field(default_factory=list)

    def refine(self) -> None:
        self.means, self.picture = finer(self.means), finer(self.picture)
        self.scales = {i: np.where(s > DEAD, np.minimum(s + 2, 14), DEAD) for i, s in self.scales.items()}
        for cells in self.cells.values():
            cells |= {name: finer(cells[name]) for name in ("low", "high", "value", "off")}
        found, pictures = (
            {i: finer(d) for i, d in own.items()} for own in (self.date.remainders, self.date.pictures)
        )
        self.date = Date(found, pictures=pictures)
        self.prediction = None if self.prediction is None else finer(self.prediction)
        self.pictures = [finer(picture) for picture in self.pictures]


@dataclass
class FlexLadder(Ladder):
    """One pass of a ladder of a date; `sections` are readers of all three scales, `there` how many count."""

    laws: Laws | None = None
    within: Tables | None = None
    kept: Kept = field(default_factory=Kept)
    number: int = 0
    there: int = 4
    wanted: int = 3
    coarser: np.ndarray | None = None
    passes: int = 1
    before: tuple[np.ndarray, np.ndarray] = field(default_factory=lambda: (np.zeros(0), np.zeros(0)))

    def stage(self, level: int) -> str:
        return f"later.{super().stage(level)}" if self.number else super().stage(level)

    def earlier(self, plane: int) -> list[np.ndarray]:
        if not self.number:
            return []
        values, off = (self.weights.f(v) for v in self.before)
        ahead = np.zeros_like(values[0])
        for k in range(len(values) - 1, plane, -1):
            ahead = np.maximum(rounded(3 * ahead, 4), np.abs(values[k]))
        return [values[plane], np.abs(values[plane]), np.abs(off[plane]), ahead]

    def nearby(self, level: int, plane: int) -> np.ndarray | int:
        if not self.number:
            return 0
        kernel = self.weights.tensors[f"{self.stage(level)}.around"].copy()
        kernel[:, :, 1, 1] = 0
        return clip(rounded(correlated(kernel, clip(self.before[0][plane], 63 * 64)), 64), 1 << 14)

    def has_corrections(self, level: int) -> bool:
        return self.is_sent(level)

    def is_there(self, level: int) -> bool:
        return section_of(self.groups[0].factor << level) < self.wanted

    def is_sent(self, level: int) -> bool:
        return section_in(self.number, self.groups[0].factor << level) < self.there

    def reader(self, level: int) -> Reader:
        section = section_in(self.number, self.groups[0].factor << level)
        return self.sections[section if section < self.there else 0]

    def means(self, reader: Reader, count: int) -> np.ndarray:
        if not self.number:
            self.kept.means = super().means(reader, count)
        return self.kept.means

    def top(self, reader: Reader, present: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        if not self.number:
            self.kept.picture = super().top(reader, present, shape)
        else:
            there, out = np.flatnonzero(present), self.kept.picture.copy()
            read = 64 * clip(reader.ints(len(there) * out[0].size, 33), L // 64)
            out[there] = clip(out[there] + read.reshape(-1, *shape), L)
            self.kept.picture = out
        return self.kept.picture

    def basis(self, reader: Reader, name: int | str, count: int) -> Basis:
        is_sent = name == "coarse" or self.is_sent(int(name))
        if not self.number and not is_sent:
            return Basis(2048 * np.eye(count, dtype=np.int64), np.ones(count, bool))
        if not self.number:
            self.kept.bases[name] = self.first_basis(reader, count)
        elif is_sent:
            self.kept.bases[name] = self.finer_basis(reader, *self.kept.bases[name])
        matrix, bits = self.kept.bases[name]
        return Basis(matrix, bits > 0)

    def first_basis(self, reader: Reader, count: int) -> tuple[np.ndarray, np.ndarray]:
        bits = 8 + np.cumsum(reader.ints(count, 37))
        if bits.min() < 0 or bits.max() > 11:
            raise FormatError("bits of a plane: expected 0..11")
        return self.columns(reader, np.zeros((count, count), np.int64), np.zeros(count, int), bits)

    def finer_basis(
        self, reader: Reader, matrix: np.ndarray, before: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        present = before > 0
        bits = np.where(present, np.minimum(before + 1, 11), 0)
        bits[present] += reader.ints(int(present.sum()), 28)
        bits[~present] += reader.ints(int((~present).sum()), 37)
        return self.columns(reader, matrix, before, np.clip(bits, before, 11))

    def columns(
        self, reader: Reader, matrix: np.ndarray, before: np.ndarray, bits: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        there = np.flatnonzero(bits)
        rows = [FINER_ROWS[bits[k] - before[k]] if before[k] else BASIS_ROWS[bits[k]] for k in there]
        read = reader.rows(np.repeat(rows, len(matrix))).reshape(-1, len(matrix))
        out = np.zeros_like(matrix)
        for plane, column in zip(there, read, strict=True):
            unit = 1 << int(11 - bits[plane])
            out[:, plane] = clip(matrix[:, plane] // unit + column, 1 << int(bits[plane])) * unit
        return out, bits

    def details(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        present: np.ndarray,
        shape: tuple[int, int],
    ) -> np.ndarray:
        if not self.number:
            size = (len(present), 3, half(shape[0]), half(shape[1]))
            names = ("low", "high", "value", "off", "near", "seen")
            self.kept.cells[level] = {name: np.zeros(size, np.int64) for name in names}
        if self.number or self.is_sent(level):
            cells = self.kept.cells[level]
            self.before = cells["value"].copy(), cells["off"].copy()
            super().details(level, below, parents, present, shape)
        return self.kept.cells[level]["value"].copy()

    def read_scales(self, level: int, present: np.ndarray, any_coded: np.ndarray) -> np.ndarray:
        if not self.number:
            self.kept.scales[level] = super().read_scales(level, present, any_coded)
            return self.kept.scales[level]
        known, planes = self.kept.scales[level], len(present)
        if not self.is_sent(level):
            self.scales[planes] = known
            return known
        before = self.scales.get(planes, np.full((planes, 3), 2))
        exists, was = present[:, None] & any_coded, known > DEAD
        rows = np.where(was, np.where(known == -2, 34, 26), np.where(before == DEAD, 28, [39, 34, 34]))
        symbols = np.zeros((planes, 3), np.int64)
        symbols[exists] = self.reader(level).rows(rows[exists])
        out, guess = np.full((planes, 3), DEAD), before[:, 0]
        for k in range(3):
            base = np.where(was[:, k], known[:, k], guess)
            held = np.clip(base + symbols[:, k], np.where(was[:, k], -4, DEAD), 14)
            out[:, k] = np.where(exists[:, k], held, DEAD)
            if k < 2:
                alive = (out[:, k] > DEAD) & (before[:, k] > DEAD) & (before[:, k + 1] > DEAD)
                guess = np.clip(out[:, k] + np.where(alive, before[:, k + 1] - before[:, k], 0), DEAD, 14)
        self.scales[planes] = self.kept.scales[level] = out
        return out

    def color(
        self,
        level: int,
        k: int,
        mean: np.ndarray,
        row: np.ndarray,
        here: np.ndarray,
        levels: np.ndarray,
        out: np.ndarray,
    ) -> None:
        cells = {name: v[k] for name, v in self.kept.cells[level].items()}
        was = here & (cells["seen"] == 1)
        cells["value"][here & ~was] = mean[here & ~was]
        sent = here & self.may_be_sent(level)
        again = was & ~sent
        low, high = cells["low"][again] - mean[again], cells["high"][again] - mean[again]
        cells["value"][again] = clip(mean[again] + self.laws.middle(row[again], low, high), L)
        new, old = sent & ~was & (row >= 16), sent & was
        if self.number == self.passes - 1:
            about = old & (cells["near"] == 1) & (cells["low"] <= mean) & (mean <= cells["high"])
            cells["value"][about] = mean[about]
            ends = (np.minimum((abs(cells[n] - mean) + 5) // 41, 8) for n in ("low", "high"))
            within = np.ravel_multi_index((row, *(np.where(about, v, 0) for v in ends)), (104, 9, 9))
            for mask, rows, tables in ((new, row, self.weights.trellis), (about, within, self.within)):
                read = self.reader(level).details(rows[mask].tolist(), tables)
                cells["off"][mask] = 41 * read
                cells["value"][mask] = clip(cells["value"][mask] + 41 * read, L)
            new, old = new & False, old & ~about
        self.begin(level, mean, row, new, cells)
        self.narrow(level, mean, row, old, cells)
        out[here] = cells["value"][here]
        self.offsets[k] = cells["off"]

    def may_be_sent(self, level: int) -> np.ndarray:
        wanted = ~self.is_skipped(level) & self.is_sent(level)
        if self.coarser is None:
            return wanted
        size = 2 << level
        h, w = (-(-n // size) for n in self.coarser.shape)
        rows = [range(y * size, (y + 1) * size) for y in range(h)]
        least = np.array(
            [
                [self.coarser[r.start : r.stop, x * size : (x + 1) * size].min() for x in range(w)]
                for r in rows
            ]
        )
        return wanted & (least < 15) & ((self.number == 0) | (self.number + least // 2 < self.passes))

    def begin(
        self, level: int, mean: np.ndarray, row: np.ndarray, here: np.ndarray, cells: dict[str, np.ndarray]
    ) -> None:
        m, r = mean[here], row[here]
        n = clip(self.reader(level).rows(r), L // 64)
        far, close = self.laws.zones[r] + 64 * np.abs(n), self.laws.zones[r] + 64 * (np.abs(n) - 1)
        cells["low"][here] = clip(m + np.where(n > 0, close, -far), L)
        cells["high"][here] = clip(m + np.where(n < 0, -close, far), L)
        cells["value"][here] = clip(m + 64 * n, L)
        cells["near"][here], cells["seen"][here], cells["off"][here] = n == 0, 1, clip(64 * n, L)

    def bit(self, level: int, part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        rows = np.searchsorted(self.laws.shares, (part << 20) // np.maximum(whole, 1), side="right")
        return self.reader(level).port.code(None, rows, self.laws.binary) > 0

    def narrow(
        self, level: int, mean: np.ndarray, row: np.ndarray, here: np.ndarray, cells: dict[str, np.ndarray]
    ) -> None:
        m, r, mass = mean[here], row[here], self.laws.mass
        low, high, near = cells["low"][here] - m, cells["high"][here] - m, cells["near"][here] == 1
        around = np.minimum(np.maximum(0, low), high)
        left, right = (
            np.maximum(low, around - self.laws.zones[r]),
            np.minimum(high, around + self.laws.zones[r]),
        )
        below, within, above = mass(r, low, left), mass(r, left, right), mass(r, right, high)
        asked = near & ((left > low) | (right < high))
        off, up = np.zeros(len(m), bool), np.zeros(len(m), bool)
        off[asked] = self.bit(level, (below + above)[asked], (below + within + above)[asked])
        up[off & (above > 0)] = True
        both = off & (below > 0) & (above > 0)
        up[both] = self.bit(level, above[both], (below + above)[both])
        low, high = (
            np.where(up, right, np.where(asked & ~off, left, low)),
            np.where(off & ~up, left, np.where(asked & ~off, right, high)),
        )
        near = near & ~off
        while (wide := ~near & (high - low > 96)).any():
            middle = (low + high) // 2
            upper = np.zeros(len(m), bool)
            b, c = mass(r, low, middle)[wide], mass(r, middle, high)[wide]
            upper[wide] = self.bit(level, c, b + c)
            low, high = np.where(upper, middle, low), np.where(wide & ~upper, middle, high)
        cells["low"][here], cells["high"][here] = clip(m + low, L), clip(m + high, L)
        off = self.laws.middle(r, low, high)
        cells["value"][here], cells["off"][here] = clip(m + off, L), np.where(near, 0, clip(off, L))
        cells["near"][here] = near


def decode(weights: Weights, chunk: Chunk, reduce: int = 1, dates: Sequence[int] | None = None) -> np.ndarray:
    """As `reference.pyramid.decode`; of a chunk that was cut what its sections show."""
    _, bands, height, width = chunk.header.shape
    found = decoded_groups(weights, chunk, reduce, dates)
    parts = [made.pixels((height, width), reduce) for made in found]
    out = np.zeros((len(parts[0]), bands, *parts[0].shape[2:]), np.int64)
    for made, part in zip(found, parts, strict=True):
        out[:, made.group.bands] = part
    return out


def decoded_groups(
    weights: Weights, chunk: Chunk, reduce: int, dates: Sequence[int] | None = None
) -> list[Made]:
    count, bands, *size = chunk.header.shape
    dates = range(count) if dates is None else dates
    streams = [streams_of(section, count) for section in chunk.sections]
    readers = [[Reader(DecodePort(own), weights.tables) for own in section] for section in streams]
    groups, step, brightness = layout(readers[0][0], bands, (size[0], size[1]))
    known = references_of(readers[0][0], count, temporal=True)
    if any(not (chunk.header.budgets[t] or known[t]) for t in known):
        raise FormatError("a date that others need has no sections")
    finest = (
        1
        if reduce == 1 and not any(g.kernel == NATIVE for g in groups)
        else min(g.factor * ratio(reduce, g.factor) for g in groups)
    )
    wanted, ladders = section_of(finest) + 1, ladders_of(groups)
    order = [t for t in known if t in needed_by(dates, known)]
    budgets = [min(len(streams), budget) for budget in chunk.header.budgets]
    cells, skip, passes = map_of(chunk), skip_of(chunk), max(1, -(-(max(chunk.header.budgets) - 1) // 3))
    kept = {t: [Kept() for _ in ladders] for t in order}
    laws, within, checks = laws_of(weights), within_of(weights.trellis), {}
    levels: list[int] = [0] * len(ladders)
    at = {t: np.zeros(2, np.int64) for t in known}
    for p in range(max(1, -(-(max(budgets[t] for t in order) - 1) // 3))):
        if p:
            if step % 2:
                raise FormatError("a step that cannot be halved")
            step //= 2
            for one in itertools.chain(*kept.values()):
                one.refine()
        b = max(-64, brightness - (5545 * p + 500) // 1000)
        for t in order:
            first, end = (3 * p + 1 if p else 0), 3 * p + 4
            there = min(end, max(first, budgets[t])) - first
            if not p and known[t]:
                at[t] = readers[0][t].within(2, 41, -32, 32) if there else at[known[t][0]]
            if not budgets[t]:
                foretell(kept[t], [kept[r] for r in known[t][:2]])
            if not there:
                continue
            lent = None
            own = [readers[first + k][t] for k in range(there)]
            for k, ladder in enumerate(ladders):
                state, ways = kept[t][k], [tuple((at[r] - at[t]).tolist()) for r in known[t]]
                others = [
                    kept[r][k].date.moved(way, ladder[0].factor)
                    for r, way in zip(known[t], ways, strict=True)
                ]
                if not p and lent is not None and len(ladder) == 1 and there > 1:
                    state.prediction = lent.prediction(own[1], ladder[0])
                walk = FlexLadder(
                    own,
                    weights,
                    ladder,
                    b,
                    others,
                    laws=laws,
                    within=within,
                    kept=state,
                    number=p,
                    there=there,
                    wanted=wanted,
                    coarser=None if cells is None else on_canvas(cells[t], ladder[0], size),
                    passes=passes,
                    skipped=[left_out(skip[t], g, size) for g in ladder if skip is not None],
                )
                state.pictures = walk.decoded()
                state.date, levels[k] = walk.own, walk.reached
                if state.prediction is not None:
                    state.pictures[0] = state.pictures[0] + lowered(state.prediction, walk.reached)
                if not p and lent is None and walk.lent is not None and ladder[0].factor == 1:
                    lent = Lent(walk.lent, ladder[0].canvas[0])
            if budgets[t] <= end:
                checks[t] = frame_check(np.concatenate([v.ravel() for k in kept[t] for v in k.pictures]))
    for t in order:
        for k, section in enumerate(readers):
            if k == 0 or (k - 1) % 3 < wanted:
                section[t].port.finish()
        whole = wanted == 3 and len(streams) >= max(chunk.header.budgets[r] for r in needed_by([t], known))
        if whole and checks.get(t, 0) != chunk.header.checks[t]:
            raise FormatError("another picture")
    out = []
    for k, ladder in enumerate(ladders):
        for number, group in enumerate(ladder):
            made = Made(
                group,
                [kept[t][k].pictures[number] for t in dates],
                max(0, levels[k] - number),
                [step] * len(dates),
            )
            out.append(made)
    return out


def foretell(own: list[Kept], others: list[list[Kept]]) -> None:
    for k, state in enumerate(own):
        first, last = others[0][k], others[-1][k]
        state.pictures = [(a + b + 1) >> 1 for a, b in zip(first.pictures, last.pictures, strict=True)]
        found = {i: (d + last.date.remainders[i] + 1) >> 1 for i, d in first.date.remainders.items()}
        shown = {i: (v + last.date.pictures[i] + 1) >> 1 for i, v in first.date.pictures.items()}
        state.date = Date(found, pictures=shown)
