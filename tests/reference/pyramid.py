"""Pixels of chunks of the pyramid codecs after docs/pyramid.md, section by section, in int64, date by date, without torch.

Floats occur in the fit and turns of section 7, in what a correction turns (9) and in the roots of section 6 alone, where
the page demands them: Python's, one operation at a time. Numbers in comments are those of the page's sections. Arrays are
[band or plane, row, column]; details have orientation before the row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from eozip.bitstream import Chunk, frame_check
from eozip.bitstream.nodata_mask import decode_mask
from eozip.entropy.range_coder import DecodePort, Tables
from eozip.errors import FormatError

L, V = 1 << 28, 1 << 11
WEIGHT_ROWS = (17, 18, 24, 29, 35, 40, 46, 52, 57, 63, 68, 74, 79)
BASIS_ROWS = (0, 32, 38, 43, 49, 55, 60, 66, 71, 77, 82, 88)
SCALES = (-22, -17, -11, -6, 0, 6, 11, 17, 22, 28, 33, 39, 44, 50, 55, 61, 67, 72, 78)
CORRECTION_ROWS = (0, 24, 31, 38)
NATIVE, DEAD = 3, -5


def rounded(a: np.ndarray, b: int | np.ndarray) -> np.ndarray:
    """a / b to the nearest integer, ties to even."""
    whole, rest = np.divmod(np.asarray(a, np.int64), b)
    return whole + ((2 * rest > b) | ((2 * rest == b) & (whole % 2 == 1)))


def clip(v: np.ndarray, most: int) -> np.ndarray:
    return np.clip(v, -most, most)


def half(n: int) -> int:
    return -(-n // 2)


# --- 1. Files ---


@dataclass(frozen=True)
class Weights:
    """Tensors as int64, and the rows of the coder; those of details are of either quantiser."""

    tensors: Mapping[str, np.ndarray]
    tables: Tables
    trellis: Tables

    def f(self, v: np.ndarray) -> np.ndarray:
        """7: features."""
        return np.sign(v) * self.tensors["squash"][np.minimum(np.abs(v), 16384)]


def read_weights(folder: Path) -> Weights:
    return weights_of(load_file(folder / "model.safetensors"))


def weights_of(tensors: Mapping[str, np.ndarray]) -> Weights:
    tables = (tables_of(tensors, name) for name in ("tables", "trellis"))
    return Weights({n: v.astype(np.int64) for n, v in tensors.items()}, *tables)


def tables_of(tensors: Mapping[str, np.ndarray], name: str) -> Tables:
    first, size = tensors[f"{name}.first"], tensors[f"{name}.size"].astype(int)
    freqs = np.zeros((len(size), size.max()), np.uint32)
    for row, part in enumerate(np.split(tensors[f"{name}.freqs"], np.cumsum(size)[:-1])):
        freqs[row, : len(part)] = part
    return Tables(freqs, first, size)


@dataclass
class Reader:
    """One section."""

    port: DecodePort
    tables: Tables

    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.port.code(None, np.asarray(rows, np.int64), self.tables).astype(np.int64)

    def details(self, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """9: values of one call in spacings, symbol by symbol."""
        order, half = sorted(range(len(rows)), key=lambda k: rows[k]), len(tables.size) // 2
        if order:
            least = tables.least_bits
            self.port.begin(sum(min(least[row], least[row + half]) for row in rows))
        states, symbols, turns = [0] * max(1, -(-len(rows) // 256)), [0] * len(rows), [0] * len(rows)
        escapes = []
        for k, at in enumerate(order):
            lane = k % len(states)
            state, last = states[lane], int(tables.size[rows[at]]) - 1
            turns[at] = state & 1
            entry = int(self.port.read(tables.model(rows[at] + half * turns[at]), 1)[0])
            symbols[at] = int(tables.first[rows[at]]) + entry
            if entry == last:
                escapes.append(at)
            parity = 0 if entry == last else symbols[at] % 2
            states[lane] = (state >> 1) ^ (9 if state & 1 else 0) ^ 2 * parity
        for at, d in zip(
            escapes, self.port.read_escapes(len(escapes)).tolist() if escapes else [], strict=True
        ):
            first, size = int(tables.first[rows[at]]), int(tables.size[rows[at]])
            symbols[at] = first + size - 1 + d // 2 if d % 2 else first - d // 2
        held = [max(-L // 64, min(L // 64, n)) for n in symbols]
        pairs = zip(held, turns, strict=True)
        return np.array([2 * n - turn * ((n > 0) - (n < 0)) for n, turn in pairs], np.int64)

    def ints(self, n: int, row: int) -> np.ndarray:
        return self.rows(np.full(n, row))

    def within(self, n: int, row: int, first: int, last: int, more: int = 0) -> np.ndarray:
        got = more + self.ints(n, row)
        if len(got) and (got.min() < first or got.max() > last):
            raise FormatError(f"expected {first}..{last}")
        return got

    def one(self, row: int, first: int, last: int, more: int = 0) -> int:
        return int(self.within(1, row, first, last, more)[0])


# --- 2. Sections and streams ---


def streams_of(section: bytes, dates: int) -> list[bytes]:
    """One for each date."""
    lengths, at = [], 0
    for _ in range(dates - 1):
        digits = []
        while not digits or digits[-1] > 127:
            if len(digits) == 5 or at == len(section):
                raise FormatError("a length that does not end")
            digits.append(section[at])
            at += 1
        lengths.append(sum((digit & 127) << 7 * k for k, digit in enumerate(digits)))
    ends = list(itertools.accumulate(lengths, initial=at))
    if ends[-1] > len(section):
        raise FormatError("streams that reach beyond their section")
    return [section[a:b] for a, b in itertools.pairwise([*ends, len(section)])]


FINER = (65536, 60097, 55109, 50535, 46341, 42495, 38968, 35734, 32768)


def references_of(
    reader: Reader, dates: int, *, temporal: bool, own_anchors: set[int] | None = None
) -> dict[int, list[int]]:
    """3: of each date, the nearest first, in an order in which dates can be decoded; and anchors of their own groups."""
    own_anchors = set() if own_anchors is None else own_anchors
    if not temporal or dates == 1:
        return {date: [] for date in range(dates)}
    count = reader.one(37, 0, 4)
    if count < 4:
        anchors = reader.within(count, 46, 0, dates - 1)
        own_anchors |= {*anchors.tolist()}
        return known_by(anchors, range(dates))
    known: dict[int, list[int]] = {}
    while len(known) < dates:
        first = len(known)
        own = range(first, first + counted(reader, 1, dates - first))
        count = counted(reader, min(first, 1), min(3, own.stop - 1))
        anchors = reader.within(count, 41 if first else 46, 0, own.stop - 1, first)
        if first and anchors[0] >= first:
            raise FormatError("dates behind others that know none of them")
        own_anchors |= {*anchors.tolist()} & {*own}
        known |= known_by(anchors, own)
    return known


def counted(reader: Reader, first: int, last: int) -> int:
    return first if first == last else reader.one(37, first, last, first)


def known_by(anchors: np.ndarray, dates: range) -> dict[int, list[int]]:
    """Of the dates of a group, in an order in which they can be decoded."""
    listed = anchors.tolist()
    if len({*listed}) < len(listed) or len(listed) >= dates.stop:
        raise FormatError("an anchor twice, or too many")
    if listed:
        others = [date for date in dates if date not in listed]
        before = {date: listed[:k] for k, date in enumerate(listed)} | dict.fromkeys(others, listed)
        new = {date: own for date, own in before.items() if date in dates}
        return {date: sorted(own, key=lambda r: (abs(r - date), r)) for date, own in new.items()}
    return in_time(dates.stop)


def in_time(dates: int) -> dict[int, list[int]]:
    """The first, the last, then the middle of each gap."""
    known: dict[int, list[int]] = {0: []}
    if dates > 1:
        known[dates - 1] = [0]
    gaps = [(0, dates - 1)]
    for a, b in gaps:
        if b - a > 1:
            middle = (a + b) // 2
            others = sorted({*known[a], *known[b]} - {a, b}, key=lambda r: (abs(r - middle), r))
            known[middle] = [a, b, *others[:2]]
            gaps += [(a, middle), (middle, b)]
    return known


def needed_by(dates: Sequence[int], known: Mapping[int, Sequence[int]]) -> set[int]:
    """Dates that are read for some."""
    return set(dates).union(*(needed_by(known[date], known) for date in dates))


# --- 3. Grids and ladders ---


@dataclass
class Group:
    """Bands of a grid, and the canvas that it has in its ladder."""

    bands: list[int]
    factor: int
    kernel: int | None = None
    phases: tuple[int, int] = (0, 0)
    gain: int = 0
    own: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))
    canvas: tuple[tuple[int, int], tuple[int, int]] = ((0, 0), (0, 0))

    @property
    def is_aligned(self) -> bool:
        return self.kernel in (None, NATIVE)


def kernel_weight(kernel: int, d: Fraction) -> Fraction:
    if kernel == 0:
        return max(Fraction(0), 1 - d)
    if kernel == 1:
        return Fraction(d < Fraction(1, 2))
    if d <= 1:
        return Fraction(3, 2) * d**3 - Fraction(5, 2) * d**2 + 1
    return -Fraction(1, 2) * d**3 + Fraction(5, 2) * d**2 - 4 * d + 2 if d < 2 else Fraction(0)


def interpolation(kernel: int, f: int, phase: int, size: int) -> tuple[int, np.ndarray, int]:
    """3: the first cell touched, weights times D [pixels, cells touched], and D."""
    denominator = (2 * f, 1, 2 * (2 * f) ** 3)[kernel]
    taps: dict[tuple[int, int], int] = {}
    for i in range(size):
        q = Fraction(2 * i - f + 1 - 2 * phase, 2 * f)
        for cell in range(q.__floor__() - 1, q.__floor__() + 3):
            weight = kernel_weight(kernel, abs(q - cell)) * denominator
            assert weight.denominator == 1
            taps[i, cell] = int(weight)
    touched = [cell for (_, cell), weight in taps.items() if weight]
    first, last = min(touched), max(touched)
    matrix = np.zeros((size, last - first + 1), np.int64)
    for (i, cell), weight in taps.items():
        matrix[i, min(max(cell, first), last) - first] += weight
    return first, matrix, denominator


def layout(reader: Reader, bands: int, size: tuple[int, int]) -> tuple[list[Group], int, int]:
    """2: groups with their own canvases, the step, and the brightness."""
    n = reader.one(35, 1, 8, 1)
    owner = reader.within(bands, 34, 0, n - 1, n // 2) if n > 1 else np.zeros(bands, int)
    groups = []
    for k in range(n):
        group = Group(np.flatnonzero(owner == k).tolist(), max(1, reader.one(41, 0, 64)))
        if group.factor > 1:
            group.kernel = reader.one(41, 0, 3)
            if group.kernel != NATIVE:
                group.phases = tuple(reader.one(41, 0, group.factor - 1) for _ in range(2))
        group.own = group.canvas = own_canvas(group, size)
        groups.append(group)
    step = reader.one(103, 1, 1 << 20)
    usual = np.array([8 if g.is_aligned else (5495 * g.factor + 512) // 1024 for g in groups])
    for group, gain in zip(groups, usual + reader.ints(n, 28), strict=True):
        if not 1 <= gain <= 4096:
            raise FormatError("gains: expected 1..4096")
        group.gain = int(gain)
    return groups, step, reader.one(59, -64, 64)


def own_canvas(group: Group, size: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    if group.is_aligned:
        return (0, 0), (-(-size[0] // group.factor), -(-size[1] // group.factor))
    found = [interpolation(group.kernel, group.factor, group.phases[a], size[a]) for a in (0, 1)]
    return tuple(-first for first, _, _ in found), tuple(m.shape[1] for _, m, _ in found)


def enlarged(e: Group, g: Group) -> tuple[tuple[int, int], tuple[int, int]]:
    (before, shape), r = g.own, g.factor // e.factor
    if g.kernel == NATIVE:
        return (0, 0), (r * shape[0], r * shape[1])
    moved = tuple(r * before[a] - g.phases[a] // e.factor for a in (0, 1))
    return moved, (r * shape[0], r * shape[1])


def ladders_of(groups: Sequence[Group]) -> list[list[Group]]:
    out: list[list[Group]] = []
    for g in sorted(groups, key=lambda g: g.factor):
        e = out[-1][-1] if out else None
        if e is not None and g.factor == 2 * e.factor and e.is_aligned and covers(enlarged(e, g), e.canvas):
            for finer in out[-1]:
                finer.canvas = enlarged(finer, g)
            out[-1].append(g)
        else:
            out.append([g])
    return out


def covers(
    new: tuple[tuple[int, int], tuple[int, int]], old: tuple[tuple[int, int], tuple[int, int]]
) -> bool:
    return all(new[0][a] >= old[0][a] and new[1][a] - new[0][a] >= old[1][a] - old[0][a] for a in (0, 1))


# --- 4. A ladder ---


def synthesis(ll: np.ndarray, details: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    lh, hl, hh = (details[:, k] for k in range(3))
    out = np.empty((len(ll), 2 * ll.shape[1], 2 * ll.shape[2]), np.int64)
    for row, column in itertools.product((0, 1), repeat=2):
        v, h = (1 - 2 * row) * lh, (1 - 2 * column) * hl
        out[:, row::2, column::2] = (ll + v + h + (1 - 2 * row) * (1 - 2 * column) * hh + 1) >> 1
    return clip(out[:, : shape[0], : shape[1]], L)


def remainders(picture: np.ndarray) -> np.ndarray:
    """7: [C, H, W] -> [C, 3, h, w]."""
    even = np.pad(picture, [(0, 0), (0, picture.shape[1] % 2), (0, picture.shape[2] % 2)], "edge")
    a, b, c, d = (even[:, i::2, j::2] for i, j in itertools.product(range(2), repeat=2))
    details = np.stack([a + b - c - d, a - b + c - d, a - b - c + d], 1) >> 1
    return details - interpolated((a + b + c + d) >> 1)


def interpolated(picture: np.ndarray) -> np.ndarray:
    """7: [C, h, w] -> [C, 3, h, w]."""
    v = clip(picture, L)
    rows, columns = np.arange(v.shape[1]), np.arange(v.shape[2])

    def at(down: int, across: int) -> np.ndarray:
        own = v[:, np.clip(rows + down, 0, len(rows) - 1)]
        return own[:, :, np.clip(columns + across, 0, len(columns) - 1)]

    def along(down: int, across: int) -> np.ndarray:
        near = clip(at(-down, -across) - at(down, across), 1 << 20)
        far = clip(at(-2 * down, -2 * across) - at(2 * down, 2 * across), 1 << 20)
        return (11 * near - 2 * far + 32) >> 6

    twist = clip(at(-1, -1) - at(-1, 1) - at(1, -1) + at(1, 1), 1 << 20)
    return np.stack([along(1, 0), along(0, 1), (2 * twist + 32) >> 6], 1)


def moved(picture: np.ndarray, way: int, axis: int) -> np.ndarray:
    """3: along an axis."""
    n, size = way // 8, picture.shape[axis]
    k = way % 8
    taps = [
        -64 * k + 16 * k**2 - k**3,
        1024 - 40 * k**2 + 3 * k**3,
        64 * k + 32 * k**2 - 3 * k**3,
        k**3 - 8 * k**2,
    ]
    lines = [picture.take(np.clip(np.arange(size) + n + tap, 0, size - 1), axis) for tap in (-1, 0, 1, 2)]
    made = rounded(sum(tap * line for tap, line in zip(taps, lines, strict=True)), 1024)
    return made if axis == 1 else clip(made, L)


def carried(last: Basis, count: int) -> Basis:
    """6: of the first bands of a basis."""
    found: list[np.ndarray] = []
    for column in last.matrix[:count, last.present].T:
        left = column
        if count == len(last.present):
            found.append(left)
            continue
        for u in found:
            left = left - (((left * u).sum() * u + (1 << 21)) >> 22)
        square = int((left * left).sum())
        if square >= 209715 and len(found) < count:
            found.append(np.array([round(2048.0 * v / math.sqrt(square)) for v in left.tolist()]))
    matrix = np.zeros((count, count), np.int64)
    for plane, column in enumerate(found):
        matrix[:, plane] = column
    return Basis(matrix, np.arange(count) < len(found))


def mixed(matrix: np.ndarray, v: np.ndarray) -> np.ndarray:
    """4: of a matrix [bands, planes], over the first axis of v."""
    return clip(rounded(matrix @ v.reshape(len(v), -1), V), L).reshape(v.shape)


@dataclass(frozen=True)
class Basis:
    """5: int64 [bands, planes], and which planes are present."""

    matrix: np.ndarray
    present: np.ndarray


@dataclass
class Date:
    """What a decoded date tells of others in one ladder, by level: of bands, and bases ("coarse": of d and on)."""

    remainders: dict[int, np.ndarray] = field(default_factory=dict)
    bases: dict[int | str, Basis] = field(default_factory=dict)
    pictures: dict[int, np.ndarray] = field(default_factory=dict)
    scales: dict[int, np.ndarray] = field(default_factory=dict)

    def moved(self, way: tuple[int, int], factor: int) -> Date:
        """3: with the remainders of its pictures where another date lies."""
        found = dict(self.remainders)
        for level, picture in self.pictures.items():
            size = factor << level
            ways = [(2 * part + size) // (2 * size) for part in way]
            if size < 8 and any(ways):
                found[level] = remainders(moved(moved(picture, ways[0], 1), ways[1], 2))
        return Date(found, self.bases, scales=self.scales)


@dataclass
class Ladder:
    """4: of groups, finest first, for one date.

    Attributes:
        sections: readers of those that are there.
        weights: of the codec.
        groups: with their canvases.
        brightness: of the chunk.
        references: what they tell, the nearest first.
        own: what this date tells.
        lent: the picture at level 3, once it is there.
        reached: the level of the finest picture.
        scales: 8: of the last level with so many planes.
        last: the basis read before.
        map: 13: levels of the cells of group 0's canvas; None: no map.
        skipped: 13: cells of each group's canvas; none: no skip mask.
        offsets: 9: of planes of this level that have symbols, how far their details lie off their means.
    """

    sections: Sequence[Reader]
    weights: Weights
    groups: Sequence[Group]
    brightness: int
    references: Sequence[Date] = ()
    own: Date = field(default_factory=Date)
    lent: np.ndarray | None = None
    reached: int = 0
    scales: dict[int, np.ndarray] = field(default_factory=dict)
    last: Basis | None = None
    map: np.ndarray | None = None
    skipped: Sequence[np.ndarray] = ()
    offsets: dict[int, np.ndarray] = field(default_factory=dict)

    def reader(self, level: int) -> Reader:
        return self.sections[section_of(self.groups[0].factor << level)]

    def is_there(self, level: int) -> bool:
        """Whether the section of its details is."""
        return section_of(self.groups[0].factor << level) < len(self.sections)

    def decoded(self) -> list[np.ndarray]:
        """Pictures of the groups, as fine as the sections tell."""
        d, shapes = len(self.groups), [g.canvas[1] for g in self.groups]
        counts = [len(g.bands) for g in self.groups]
        bands, parents = self.coarsest(d, (half(shapes[-1][0]), half(shapes[-1][1])), sum(counts))
        done: list[np.ndarray] = []
        for i in reversed(range(d)):
            if not self.is_there(i):
                break
            n = sum(counts[: i + 1])
            if i < d - 1:
                done.insert(0, bands[n:])
            bands, parents = self.up(i, bands[:n], None if parents is None else parents[:n], shapes[i])
            self.reached = i
        left = counts[: d - len(done)]
        return [*np.split(bands, np.cumsum(left)[:-1]), *done]

    def coarsest(self, d: int, shape: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray | None]:
        reader = self.sections[0]
        means = self.means(reader, count)
        basis = self.basis(reader, "coarse", count)
        sizes = [shape]
        while min(sizes[-1]) > 4:
            sizes.append((half(sizes[-1][0]), half(sizes[-1][1])))
        picture = self.top(reader, basis.present, sizes[-1])
        parents, level = None, d + len(sizes) - 1
        while level > d and self.is_there(level - 1):
            level -= 1
            parents = self.details(level, picture, parents, basis.present, sizes[level - d])
            picture = synthesis(picture, parents, sizes[level - d])
            self.keep(level, mixed(basis.matrix, picture))
            if level == 3:
                self.lent = picture
        self.reached = level
        bands = clip(mixed(basis.matrix, picture) + (means[:, None, None] << (level - d)), L)
        return bands, None if parents is None else mixed(basis.matrix, parents)

    def keep(self, level: int, picture: np.ndarray) -> None:
        self.own.pictures[level], self.own.remainders[level] = picture, remainders(picture)

    def means(self, reader: Reader, count: int) -> np.ndarray:
        return 4 * clip(np.cumsum(np.concatenate([reader.ints(1, 90), reader.ints(count - 1, 74)])), L // 64)

    def top(self, reader: Reader, present: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        picture = np.zeros((len(present), *shape), np.int64)
        there = np.flatnonzero(present)
        rows = reader.within(len(there), 57, 0, 103, 56).repeat(picture[0].size)
        picture[there] = 64 * clip(reader.rows(rows), L // 64).reshape(-1, *shape)
        return picture

    def up(
        self, i: int, bands: np.ndarray, parents: np.ndarray | None, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        basis = self.basis(self.reader(i), i, len(bands))
        above = None if parents is None else mixed(basis.matrix.T, parents)
        planes = self.details(i, mixed(basis.matrix.T, bands), above, basis.present, shape)
        found = mixed(basis.matrix, planes)
        self.keep(i, synthesis(bands, found, shape))
        return self.own.pictures[i], found

    # --- 5. A basis ---

    def basis(self, reader: Reader, name: int | str, count: int) -> Basis:
        kind, known = 0, None if self.last is None else carried(self.last, count)
        if self.references or known is not None:
            kind = reader.one(37, 0, 3)
            if (kind == 1 and not self.references) or (kind > 1 and known is None):
                raise FormatError("a basis that is not known")
        if kind == 1:
            found = self.references[0].bases[name]
        elif kind == 2 and known is not None:
            there = int(known.present.sum())
            is_left = np.arange(count) < there - reader.one(37, 0, there)
            found = Basis(known.matrix * is_left, is_left)
        else:
            found = self.told_basis(reader, count, known if kind == 3 else None)
        self.last = self.own.bases[name] = found
        return found

    def told_basis(self, reader: Reader, count: int, known: Basis | None) -> Basis:
        bits = 8 + np.cumsum(reader.ints(count, 37))
        if bits.min() < 0 or bits.max() > 11:
            raise FormatError("bits of a plane: expected 0..11")
        less = 0 if known is None else 4 * reader.one(41, 0, 8)
        matrix = np.zeros((count, count), np.int64)
        there = np.flatnonzero(bits)
        rows = [max(28, BASIS_ROWS[b] - less) for b in bits[there]]
        read = reader.rows(np.repeat(rows, count)).reshape(-1, count)
        for plane, column in zip(there, read, strict=True):
            b = int(bits[plane])
            unit = 1 << (11 - b)
            old = 0 if known is None else (known.matrix[:, plane] + unit // 2) // unit
            matrix[:, plane] = clip(old + column, 1 << b) * unit
        return Basis(matrix, bits > 0)

    # --- 8. Details of a level ---

    def details(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        present: np.ndarray,
        shape: tuple[int, int],
    ) -> np.ndarray:
        planes = len(present)
        h, w = half(shape[0]), half(shape[1])
        coded = np.ones((3, h, w), bool)
        if shape[0] % 2:
            coded[[0, 2], -1] = False
        if shape[1] % 2:
            coded[[1, 2], :, -1] = False
        scales = self.read_scales(level, present, coded.any((1, 2)))
        says = told(level, below, self.references) if parents is not None and self.references else None
        out = np.zeros((planes, 3, h, w), np.int64)
        octaves, octaves_above = self.levels_at(level) // 2, self.levels_at(level + 1) // 2
        strongest = last = above = np.zeros((3, h, w), np.int64)
        self.offsets = {}
        for plane in range(planes):
            if (scales[plane] > DEAD).any():
                turned, beside = self.corrections(level, plane, (h, w), int(scales[plane].max()), says)
                if parents is not None:
                    above = doubled(self.weights.f(rounded(parents[plane], 1 << octaves_above)), (h, w))
                features = [above, strongest, last, *self.earlier(plane)]
                if says is not None:
                    own, beyond, activity = (
                        self.weights.f(rounded(v, 1 << octaves))
                        for v in (says.predicted[plane], says.beyond[plane], says.activity)
                    )
                    missed = self.weights.f(rounded(says.missed[plane], 1 << octaves_above))
                    missed = doubled(np.abs(missed), (h, w))
                    features += [own, np.abs(beyond), missed, activity]
                out[plane] = self.plane(
                    level,
                    plane,
                    below[plane],
                    np.concatenate(features),
                    None if says is None else says.predicted[plane] + turned,
                    beside,
                    scales[plane],
                    coded,
                )
            last = self.weights.f(rounded(out[plane], 1 << octaves))
            strongest = np.maximum(rounded(3 * strongest, 4), np.abs(last))
        return out

    def corrections(
        self, level: int, plane: int, shape: tuple[int, int], scale: int, says: Told | None
    ) -> tuple[np.ndarray | int, np.ndarray | int]:
        """9: *moved* and *beside* of a plane."""
        before, told_by = list(self.offsets.values()), 0 if says is None else len(says.here)
        n = 3 * shape[0] * shape[1]
        if n < 512 or not (before or told_by) or not self.has_corrections(level):
            return 0, 0
        reader, digits = self.reader(level), n.bit_length()
        counts = [count for count in (len(before), told_by) if count]
        kinds = np.clip(reader.ints(len(counts), 32 if n >= 2048 and scale >= 0 else 27), 0, 3).tolist()
        turned = beside = 0
        kind = kinds.pop(0) if before else 0
        if kind:
            down = digits // 2 - 2
            numbers = clip(reader.ints(len(before), CORRECTION_ROWS[kind]), 512)
            total = sum(u * clip(off, 1 << 13) for u, off in zip(numbers, before, strict=True))
            beside = (total + ((1 << down) >> 1)) >> down
        kind = kinds.pop(0) if told_by else 0
        if kind and says is not None:
            fineness = int(np.clip(reader.ints(1, 34), -8, 8)[0])
            numbers = clip(reader.ints(told_by, CORRECTION_ROWS[kind]), 512)
            unit = 2.0 ** (fineness + 6 + max(0, scale) // 2 - digits // 2)
            turned = says.moved(plane, [v * unit for v in numbers.tolist()])
        return turned, beside

    def has_corrections(self, level: int) -> bool:
        """14: not everywhere in later passes."""
        return True

    def stage(self, level: int) -> str:
        return str(min(level, 4))

    def earlier(self, plane: int) -> list[np.ndarray]:
        """14: features of the pass before."""
        return []

    def nearby(self, level: int, plane: int) -> np.ndarray | int:
        """14: what details of the pass before let expect."""
        return 0

    def levels_at(self, level: int) -> np.ndarray:
        """13: of details of a level."""
        if self.map is None:
            return np.zeros((1, 1), int)
        times = 2 << level
        h, w = (-(-n // times) for n in self.map.shape)
        cells = [[self.map[y : y + times, x : x + times].min() for x in range(0, w * times, times)]
                 for y in range(0, h * times, times)]  # fmt: skip
        return np.array(cells)

    def is_skipped(self, level: int) -> np.ndarray:
        """13: details of a level."""
        out = np.ones((1, 1), bool) if self.skipped else np.zeros((1, 1), bool)
        for k, cells in enumerate(self.skipped[: level + 1]):
            times = 2 << (level - k)
            h, w = (-(-n // times) for n in cells.shape)
            out = out & [[cells[y : y + times, x : x + times].all() for x in range(0, w * times, times)]
                         for y in range(0, h * times, times)]  # fmt: skip
        return out

    def read_scales(self, level: int, present: np.ndarray, any_coded: np.ndarray) -> np.ndarray:
        planes = len(present)
        before = self.scales.get(planes, np.full((planes, 3), 2))
        other = self.references[0].scales.get(level) if self.references else None
        if other is not None and len(other) == planes:
            both = np.where(before > DEAD, (before + 2 * other + 1) // 3, other)
            before = np.where(other > DEAD, both, np.minimum(before, -4))
        out = np.full((planes, 3), DEAD)
        exists = present[:, None] & any_coded
        symbols = np.zeros((planes, 3), np.int64)
        symbols[exists] = self.reader(level).rows(np.where(before == DEAD, 28, [39, 34, 34])[exists])
        guess = before[:, 0]
        for k in range(3):
            own = exists[:, k]
            out[own, k] = np.clip(guess[own] + symbols[own, k], DEAD, 14)
            if k < 2:
                alive = (out[:, k] > DEAD) & (before[:, k] > DEAD) & (before[:, k + 1] > DEAD)
                change = np.where(alive, before[:, k + 1] - before[:, k], 0)
                guess = np.clip(out[:, k] + change, DEAD, 14)
        self.scales[planes] = self.own.scales[level] = out
        return out

    def plane(
        self,
        level: int,
        k: int,
        below: np.ndarray,
        features: np.ndarray,
        reference: np.ndarray | None,
        beside: np.ndarray | int,
        scales: np.ndarray,
        coded: np.ndarray,
    ) -> np.ndarray:
        """[3, h, w]."""
        net = Network(self.weights, self.stage(level))
        h, w = coded.shape[1:]
        levels = np.broadcast_to(self.levels_at(level), (h, w))
        octaves = levels // 2
        logs = np.array(SCALES)[np.maximum(scales[:, None, None] - 2 * octaves, -4) + 4]
        brightness = np.minimum(64, self.brightness + np.array(SCALES)[octaves + 4])
        flags = [0 if reference is None else 16, 4 * k, 0, 16, 8 * min(level, 6)]
        constants = np.concatenate([logs, np.broadcast_to(np.reshape(flags, (5, 1, 1)), (5, h, w))])
        constants[5] = brightness if self.map is not None else self.brightness
        sums, p = net.start(below, features, constants, octaves)
        r = 0 if reference is None else rounded(reference, 1 << octaves)
        exists = coded & (scales > DEAD)[:, None, None]
        color = np.add.outer(np.arange(h), np.arange(w)) % 2
        out, known = np.zeros(exists.shape, np.int64), None
        self.offsets[k] = np.zeros(exists.shape, np.int64)
        for number in (0, 1):
            o, n = net.step(sums, known, octaves)
            gates = self.weights.tensors["tanh"][127 + o[:9]]
            n = 0 if n is None else rounded(n, 1 << octaves)
            near = gates[6:] * (n + self.nearby(level, k))
            mean = rounded(gates[:3] * r + gates[3:6] * p + near, 128) + rounded(beside, 1 << octaves)
            mean = clip(mean, 1 << 14)
            row = np.clip((o[9:] + logs - 6 * (levels % 2) + 80) >> 1, 0, 103)
            self.color(level, k, mean, row, exists & (color == number), levels, out)
            known = out.copy()
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
        """Symbols of one color, into `out`."""
        octaves = levels // 2
        out[here] = (mean << octaves)[here]
        sent = here & (row >= 16) & (levels < 15) & ~self.is_skipped(level)
        unit = np.broadcast_to(np.where(levels % 2, 58, 41) << octaves, sent.shape)
        off = unit[sent] * self.reader(level).details(row[sent].tolist(), self.weights.trellis)
        self.offsets[k][sent] = clip(off, L)
        out[sent] += off
        out[:] = clip(out, L)


def section_of(coarser: int) -> int:
    """2: of details of pictures so many times coarser than the finest grid."""
    return 0 if coarser > 4 else 1 if coarser > 1 else 2


def doubled(v: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Each cell's value for the 2 x 2 above it."""
    return v.repeat(2, 1).repeat(2, 2)[:, : shape[0], : shape[1]]


def correlated(kernel: np.ndarray, v: np.ndarray) -> np.ndarray:
    """3 x 3 with zeros around: [O, C, 3, 3], [C, h, w] -> [O, h, w]."""
    h, w = v.shape[1:]
    padded = np.pad(v, ((0, 0), (1, 1), (1, 1)))
    return sum(
        dense(kernel[:, :, i, j], padded[:, i : i + h, j : j + w])
        for i, j in itertools.product(range(3), repeat=2)
    )


def dense(weights: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (weights @ v.reshape(len(v), -1)).reshape(-1, *v.shape[1:])


def act(v: np.ndarray) -> np.ndarray:
    return np.clip(rounded(v, 64), 0, 255)


def of_24_bits(v: np.ndarray) -> np.ndarray:
    """8: rounded to so many significant ones, ties to even."""
    out = v.copy()
    for shift in range(1, 6):
        some = np.abs(v) >= 1 << (23 + shift)
        out[some] = rounded(v[some], 1 << shift) << shift
    return out


@dataclass(frozen=True)
class Network:
    """8: the network of a stage."""

    weights: Weights
    stage: str

    def w(self, name: str) -> np.ndarray:
        return self.weights.tensors[f"{self.stage}.{name}"]

    def bias(self, name: str) -> np.ndarray:
        return self.w(f"{name}_bias")[:, None, None]

    def start(
        self, below: np.ndarray, features: np.ndarray, constants: np.ndarray, octaves: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """S, and the prediction."""
        h, w = below.shape
        around = np.pad(of_24_bits(below), 2, "edge")
        places = [p for p in itertools.product(range(5), repeat=2) if p != (2, 2)]
        window = np.stack([around[i : i + h, j : j + w] - around[2 : 2 + h, 2 : 2 + w] for i, j in places])
        window = rounded(window, 1 << octaves)
        filtered = clip(rounded(dense(self.w("window"), clip(window, 63 * 64)), 64), 1 << 14)
        inputs = np.concatenate([self.weights.f(filtered[:12]), features])
        sums = correlated(self.w("trunk")[:, : len(inputs)], inputs) + self.bias("trunk")
        return sums + dense(self.w("constant"), constants), filtered[12:]

    def step(
        self, sums: np.ndarray, known: np.ndarray | None, octaves: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """o and n of a pass; known: details of colour 0."""
        near, v = None, sums
        if known is not None:
            f = self.weights.f(rounded(known, 1 << octaves))
            v = v + correlated(self.w("known"), np.concatenate([f, np.abs(f)])) + self.bias("known")
            near = clip(rounded(correlated(self.w("neighbours"), clip(known, 63 * 64)), 64), 1 << 14)
        number, v = int(known is not None), act(v)
        for layer in ("first", "second"):
            name = f"{layer}{number}"
            v = np.minimum(255, v + act(dense(self.w(name), v) + self.bias(name)))
        name = f"out{number}"
        return clip(rounded(dense(self.w(name), v) + self.bias(name), 64), 127), near


# --- 6. What references tell ---


@dataclass(frozen=True)
class Told:
    """Details of planes [K, 3, h, w] that references predict, what of it they tell themselves, and how far off they were one
    level below; [1, h, w] how much there is in them; and of what corrections are made: remainders of the references
    [M, 3, h, w], turns [M][M], shares [K, h, w] of the cells one level below.
    """

    predicted: np.ndarray
    beyond: np.ndarray
    missed: np.ndarray
    activity: np.ndarray
    here: np.ndarray
    turns: list[list[float]]
    shares: np.ndarray

    def moved(self, plane: int, numbers: Sequence[float]) -> np.ndarray:
        """9: [3, h, w]."""
        x = [0.0] * len(self.turns)
        for k, number in enumerate(numbers):
            if number:
                x = [v + row[k] * number for v, row in zip(x, self.turns, strict=True)]
        weights = clip(np.array([round(256 * v) for v in x], np.int64), 1 << 11)
        made = rounded(np.tensordot(weights, self.here, 1), 256)
        return clip(rounded(made * doubled(self.shares[[plane]], made.shape[1:]), 256), 1 << 14)


def told(level: int, picture: np.ndarray, references: Sequence[Date]) -> Told:
    here = np.concatenate([r.remainders[level] for r in references])
    below = np.concatenate([r.remainders[level + 1][: len(r.remainders[level])] for r in references])
    y = remainders(picture)
    x = below.reshape(len(below), -1)
    weights, turns = fitted(x, y.reshape(len(y), -1))
    made = rounded(weights @ here.reshape(len(here), -1), 256).reshape(len(y), *here.shape[1:])
    seen = rounded(weights @ x, 256).reshape(y.shape)
    held = shares(y, seen)
    made = rounded(made * doubled(held, here.shape[2:])[:, None], 256)
    activity = 4 * np.abs(clip(here, 1 << 15)).sum((0, 1))[None] // len(here)
    parts = (interpolated(picture) + made, made, y - rounded(seen * held[:, None], 256), activity)
    return Told(*(clip(v, 1 << 14) for v in parts), here, turns, held)


def shares(y: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """7: in 1/256, [K, h, w]."""
    y, s = clip(y, 1 << 14), clip(seen, 1 << 14)
    both, own = (around(v.sum(1)) + 24576 for v in (y * s, s * s))
    return np.clip(np.rint(both.astype(float) / own.astype(float) * 256).astype(np.int64), 0, 384)


def around(v: np.ndarray) -> np.ndarray:
    """Sums of 3 x 3."""
    padded = np.pad(v, [(0, 0), (1, 1), (1, 1)])
    h, w = v.shape[1:]
    return sum(padded[:, i : i + h, j : j + w] for i, j in itertools.product(range(3), repeat=2))


def fitted(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, list[list[float]]]:
    """Weights in 1/256: int64 [M, n], [K, n] -> [K, M]; and turns [M][M]."""
    apart = -(-x.shape[1] // 16384)
    x, y = clip(x[:, ::apart], 1 << 15), clip(y[:, ::apart], 1 << 15)
    m, samples = x.shape
    left = x @ x.T + np.diag(np.full(m, 410 * samples + 245760))
    rows = [[float(v) for v in row] for row in np.hstack([left, x @ y.T]).tolist()]
    pivots = eliminated(rows)
    turns = [[math.sqrt(samples / p) if i == k else 0.0 for k, p in enumerate(pivots)] for i in range(m)]
    turns = substituted(rows, turns)
    solution = substituted(rows, [row[m:] for row in rows])
    weights = [[max(-2048, min(2048, round(v * 256))) for v in column] for column in zip(*solution)]
    return np.array(weights), turns


def eliminated(rows: list[list[float]]) -> list[float]:
    """M equations with their right sides, [M][M + K], made triangular in place; what each was divided by."""
    pivots = []
    for k in range(len(rows)):
        pivots.append(rows[k][k])
        for j in range(k, len(rows[k])):
            rows[k][j] = rows[k][j] / pivots[k]
        for i in range(k + 1, len(rows)):
            times = rows[i][k]
            for j in range(k, len(rows[k])):
                rows[i][j] = rows[i][j] - times * rows[k][j]
    return pivots


def substituted(rows: list[list[float]], right: list[list[float]]) -> list[list[float]]:
    """Right sides [M][K] of triangular equations turned into their solution."""
    right = [list(row) for row in right]
    for k in range(len(right) - 1, 0, -1):
        for i in range(k):
            for j in range(len(right[k])):
                right[i][j] = right[i][j] - rows[i][k] * right[k][j]
    return right


# --- 7. Prediction from another ladder ---


@dataclass(frozen=True)
class Lent:
    """The lending ladder's picture, and what lies before its group 0."""

    picture: np.ndarray
    before: tuple[int, int]

    def prediction(self, reader: Reader, group: Group) -> np.ndarray:
        v = self.picture[:6]
        for axis in (0, 1):
            v = self.interpolated(v, group, axis)
        planes, count = len(v), len(group.bands)
        weights = self.weights(reader, v.reshape(planes, -1), count)
        made = (weights @ v.reshape(planes, -1) + (1 << 19)) >> 20
        return clip(made, L).reshape(count, *v.shape[1:])

    def weights(self, reader: Reader, v: np.ndarray, count: int) -> np.ndarray:
        """[band, plane], in units of 2^-12."""
        steps = np.clip((v + 8192) // 16384, -32768, 32768)
        squares = [sum(one * one for one in row) for row in steps.tolist()]
        bits = np.array([min(12, max(0, square.bit_length() // 2 - 1)) for square in squares])
        read = reader.rows(np.tile([WEIGHT_ROWS[b] for b in bits], count)).reshape(count, -1)
        return clip(read << (12 - bits), 1 << 15)

    def interpolated(self, v: np.ndarray, group: Group, axis: int) -> np.ndarray:
        n, (before, shape) = v.shape[1 + axis], group.canvas
        cell = np.arange(shape[axis]) - before[axis]
        place = 2 * (cell * group.factor + group.phases[axis] + self.before[axis]) + group.factor - 8
        u = np.clip(place, 0, 16 * (n - 1))
        j = np.minimum(u // 16, max(0, n - 2))
        lines, a = v.swapaxes(1 + axis, 2), u - 16 * j
        made = lines[..., j] * (16 - a) + lines[..., np.minimum(j + 1, n - 1)] * a
        return made.swapaxes(1 + axis, 2)


# --- 9. Pixels, 11. Reduced pictures ---


@dataclass
class Made:
    """A group's pictures of the dates wanted, int64 [T, C, h, w] of a level."""

    group: Group
    pictures: list[np.ndarray]
    level: int
    steps: list[int]

    def cells(self) -> np.ndarray:
        """In 1/64 DN."""
        u = 16 * self.group.gain << self.level
        pairs = zip(self.steps, self.pictures, strict=True)
        return np.stack([clip((8 * step * picture + u // 2) // u, 1 << 26) for step, picture in pairs])

    def own_cells(self, reduce: int) -> np.ndarray:
        """Samples of the group's own grid."""
        group, v, times = self.group, self.cells(), ratio(reduce, self.group.factor)
        (top, left), (_, shape) = (0, 0) if group.canvas == group.own else group.canvas[0], group.own
        if self.level == 0:
            v = v[:, :, top : top + shape[0], left : left + shape[1]]
        v = averages(v, times >> self.level)[:, :, : -(-shape[0] // times), : -(-shape[1] // times)]
        return (v + 32) // 64

    def pixels(self, size: tuple[int, int], reduce: int) -> np.ndarray:
        """Samples of the finest grid."""
        group = self.group
        if group.factor == 1 and reduce == 1:
            return self.own_cells(1)
        if reduce > 1:
            return self.middles(size, reduce)
        (top, left), (_, shape) = (0, 0) if group.canvas == group.own else group.canvas[0], group.own
        v = self.cells()[:, :, top : top + shape[0], left : left + shape[1]]
        rows, columns = (
            interpolation(group.kernel, group.factor, group.phases[axis], size[axis]) for axis in (0, 1)
        )
        denominator = rows[2] * columns[2]
        return (rows[1] @ v @ columns[1].T + 32 * denominator) // (64 * denominator)

    def middles(self, size: tuple[int, int], reduce: int) -> np.ndarray:
        """11: of cubes."""
        group, f = self.group, self.group.factor
        block = max(1 << self.level, ratio(reduce, f))
        v = averages(self.cells(), block >> self.level)
        unit = 2 * f * block
        for axis in (0, 1):
            i = np.arange(-(-size[axis] // reduce))
            at = 2 * (i * reduce + reduce // 2 - group.phases[axis] + f * group.canvas[0][axis]) - f * block
            last = v.shape[2 + axis] - 1
            at = np.clip(at, 0, last * unit)
            j, a = at // unit, at % unit
            lines = v.swapaxes(2 + axis, 3)
            v = (lines[..., j] * (unit - a) + lines[..., np.minimum(j + 1, last)] * a).swapaxes(2 + axis, 3)
        return (v + 32 * unit**2) // (64 * unit**2)


def ratio(reduce: int, factor: int) -> int:
    """The largest power of 2 that is at most reduce / factor, at least 1."""
    return 2 ** max(0, (reduce // factor).bit_length() - 1)


def averages(v: np.ndarray, times: int) -> np.ndarray:
    """Of blocks; a row or column that is left over is repeated, at each halving."""
    total = 1
    while total < times:
        v = np.pad(v, [(0, 0), (0, 0), (0, v.shape[2] % 2), (0, v.shape[3] % 2)], "edge")
        v = v[:, :, ::2, ::2] + v[:, :, 1::2, ::2] + v[:, :, ::2, 1::2] + v[:, :, 1::2, 1::2]
        total *= 2
    return (v + total**2 // 2) // total**2 if total > 1 else v


def decode(weights: Weights, chunk: Chunk, reduce: int = 1, dates: Sequence[int] | None = None) -> np.ndarray:
    """Samples without offset, int64 [T, C, h, w], of some dates and reduced.

    Raises:
        FormatError: sections that no encoder writes, or another check.
    """
    _, bands, height, width = chunk.header.shape
    found = decoded_groups(weights, chunk, reduce, dates)
    if any(made.group.kernel == NATIVE for made in found):
        raise FormatError("groups on grids of their own")
    parts = [made.pixels((height, width), reduce) for made in found]
    out = np.zeros((len(parts[0]), bands, *parts[0].shape[2:]), np.int64)
    for made, part in zip(found, parts, strict=True):
        out[:, made.group.bands] = part
    return out


def decode_groups(
    weights: Weights, chunk: Chunk, reduce: int = 1, dates: Sequence[int] | None = None
) -> list[tuple[int, np.ndarray]]:
    """Factors and samples of groups on native grids, in the order of their bands."""
    found = sorted(decoded_groups(weights, chunk, reduce, dates), key=lambda made: made.group.bands)
    return [(made.group.factor, made.own_cells(reduce)) for made in found]


def decoded_groups(
    weights: Weights, chunk: Chunk, reduce: int, dates: Sequence[int] | None = None
) -> list[Made]:
    count, bands, *size = chunk.header.shape
    dates = range(count) if dates is None else dates
    first = Reader(DecodePort(streams_of(chunk.sections[0], count)[0]), weights.tables)
    groups, step, brightness = layout(first, bands, (size[0], size[1]))
    anchors: set[int] = set()
    is_series = chunk.header.codec.startswith("tec-tt")
    known = references_of(first, count, temporal=is_series, own_anchors=anchors)
    steps = dict.fromkeys(known, step)
    finest = (
        1
        if reduce == 1 and not any(g.kernel == NATIVE for g in groups)
        else min(g.factor * ratio(reduce, g.factor) for g in groups)
    )
    sections = [streams_of(section, count) for section in chunk.sections[: section_of(finest) + 1]]
    ladders = ladders_of(groups)
    cells, skip = map_of(chunk), skip_of(chunk)
    told_by: dict[int, list[Date]] = {}
    at = {date: np.zeros(2, np.int64) for date in known}
    out = [Made(group, [], 0, []) for ladder in ladders for group in ladder]
    wanted: dict[int, list[np.ndarray]] = {}
    for date in (t for t in known if t in needed_by(dates, known)):
        readers = [Reader(DecodePort(section[date]), weights.tables) for section in sections]
        if date == 0:
            layout(readers[0], bands, (size[0], size[1]))
            references_of(readers[0], count, temporal=is_series)
        if date in anchors:
            steps[date] = max(1, (step * FINER[readers[0].one(41, 0, 8)] + (1 << 15)) >> 16)
        if known[date]:
            at[date] = readers[0].within(2, 41, -32, 32)
        references = [
            [
                one.moved(tuple((at[r] - at[date]).tolist()), ladder[0].factor)
                for one, ladder in zip(told_by[r], ladders, strict=True)
            ]
            for r in known[date]
        ]
        told_by[date], pictures, levels = [], [], []
        maps = [None if cells is None else on_canvas(cells[date], ladder[0], size) for ladder in ladders]
        skips = [[left_out(skip[date], g, size) for g in ladder if skip is not None] for ladder in ladders]
        for one, picture in walked(readers, weights, ladders, brightness, references, maps, skips):
            told_by[date].append(one.own)
            pictures += picture
            levels += [max(0, one.reached - number) for number in range(len(picture))]
        finish(readers, pictures, chunk.header.checks[date], is_whole=len(sections) == 3)
        wanted[date] = pictures
    for k, made in enumerate(out):
        made.pictures, made.level = [wanted[date][k] for date in dates], levels[k]
        made.steps = [steps[date] for date in dates]
    return out


def map_of(chunk: Chunk) -> np.ndarray | None:
    """13: levels [T, h, w]."""
    if not chunk.header.levels:
        return None
    t, _, height, width = chunk.header.shape
    bits = decode_mask(chunk.levels, (t, 4, -(-height // 16), -(-width // 16))).astype(int)
    return sum((bits[:, k:].sum(1) % 2) << k for k in range(4))


def on_canvas(levels: np.ndarray, group: Group, size: Sequence[int]) -> np.ndarray:
    """13: of the cells of a group's canvas, the lowest of its pixels."""
    (before, shape), f = group.canvas, group.factor
    found = []
    for axis in (0, 1):
        first = (np.arange(shape[axis]) - before[axis]) * f + group.phases[axis]
        found.append(np.clip(np.add.outer(first, np.arange(f)), 0, size[axis] - 1) // 16)
    return levels[found[0][:, None, :, None], found[1][None, :, None, :]].min((2, 3))


def skip_of(chunk: Chunk) -> np.ndarray | None:
    """13: which cells of 8 x 8 pixels were left out, [T, h, w]."""
    if not chunk.header.skip:
        return None
    t, _, height, width = chunk.header.shape
    return decode_mask(chunk.skip, (t, 1, -(-height // 8), -(-width // 8)))[:, 0]


def left_out(skip: np.ndarray, group: Group, size: Sequence[int]) -> np.ndarray:
    """13: cells of a group's canvas that no pixel shows but of cells that were left out."""
    shown = []
    for axis in (0, 1):
        if group.is_aligned:
            before, cells = (part[axis] for part in group.canvas)
            shown.append(np.eye(size[axis], cells, before, dtype=int))
            continue
        first, weights, _ = interpolation(group.kernel, group.factor, group.phases[axis], size[axis])
        begin = first + group.canvas[0][axis]
        around = [(0, 0), (begin, group.canvas[1][axis] - begin - weights.shape[1])]
        shown.append(np.pad((weights != 0).astype(int), around))
    coded = np.kron(~skip, np.ones((8, 8), int))[: size[0], : size[1]]
    return shown[0].T @ coded @ shown[1] == 0


def walked(
    readers: Sequence[Reader],
    weights: Weights,
    ladders: Sequence[Sequence[Group]],
    brightness: int,
    references: Sequence[Sequence[Date]],
    maps: Sequence[np.ndarray | None],
    skips: Sequence[Sequence[np.ndarray]],
) -> Iterator[tuple[Ladder, list[np.ndarray]]]:
    """All ladders of one date, and the pictures of their groups."""
    lent = None
    for k, groups in enumerate(ladders):
        prediction = None
        if lent is not None and len(groups) == 1:
            prediction = lent.prediction(readers[0], groups[0])
        told_by = [date[k] for date in references]
        ladder = Ladder(readers, weights, groups, brightness, told_by, map=maps[k], skipped=skips[k])
        made = ladder.decoded()
        if prediction is not None:
            made[0] = made[0] + lowered(prediction, ladder.reached)
        if lent is None and ladder.lent is not None and groups[0].factor == 1:
            lent = Lent(ladder.lent, groups[0].canvas[0])
        yield ladder, made


def lowered(picture: np.ndarray, level: int) -> np.ndarray:
    """11: 2^level times averages of its blocks."""
    if level == 0:
        return picture
    sums = averages(picture[None] << (2 * level), 1 << level)[0]
    return (sums + (1 << (level - 1))) >> level


def finish(readers: Sequence[Reader], pictures: list[np.ndarray], check: int, *, is_whole: bool) -> None:
    for reader in readers:
        reader.port.finish()
    if is_whole and frame_check(np.concatenate([picture.ravel() for picture in pictures])) != check:
        raise FormatError("another picture")
