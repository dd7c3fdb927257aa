"""Pixels of a tec-elic-small-any-v1 chunk after docs/pyramid.md, section by section, in int64, without torch and floats.

Numbers in comments are those of its sections. Arrays are [date, band or plane, row, column]; details have orientation
before the row.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from eozip.bitstream import Chunk, frame_check
from eozip.entropy.range_coder import DecodePort, Tables
from eozip.errors import FormatError

L, V = 1 << 28, 1 << 11
BASIS_ROWS = (0, 32, 38, 43, 49, 55, 60, 66, 71, 77, 82, 88)
SCALES = (-22, -17, -11, -6, 0, 6, 11, 17, 22, 28, 33, 39, 44, 50, 55, 61, 67, 72, 78)
NATIVE, DEAD = 3, -5


def rounded(a: np.ndarray, b: int) -> np.ndarray:
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
    """Tensors as int64, and the rows of the coder."""

    tensors: Mapping[str, np.ndarray]
    tables: Tables

    def f(self, v: np.ndarray) -> np.ndarray:
        """7: features."""
        return np.sign(v) * self.tensors["squash"][np.minimum(np.abs(v), 16384)]


def read_weights(folder: Path) -> Weights:
    tensors = load_file(folder / "model.safetensors")
    first, size = tensors["tables.first"], tensors["tables.size"].astype(int)
    freqs = np.zeros((104, size.max()), np.uint32)
    for row, part in enumerate(np.split(tensors["tables.freqs"], np.cumsum(size)[:-1])):
        freqs[row, : len(part)] = part
    return Weights({n: v.astype(np.int64) for n, v in tensors.items()}, Tables(freqs, first, size))


@dataclass
class Reader:
    """One section."""

    port: DecodePort
    tables: Tables

    def rows(self, rows: np.ndarray) -> np.ndarray:
        return self.port.code(None, np.asarray(rows, np.int64), self.tables).astype(np.int64)

    def ints(self, n: int, row: int) -> np.ndarray:
        return self.rows(np.full(n, row))

    def within(self, n: int, row: int, first: int, last: int, more: int = 0) -> np.ndarray:
        got = more + self.ints(n, row)
        if len(got) and (got.min() < first or got.max() > last):
            raise FormatError(f"expected {first}..{last}")
        return got

    def one(self, row: int, first: int, last: int, more: int = 0) -> int:
        return int(self.within(1, row, first, last, more)[0])


# --- 2. Sections, 3. Grids and ladders ---


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


def layout(reader: Reader, bands: int, size: tuple[int, int]) -> tuple[list[Group], int]:
    """2: groups with their own canvases, and the step."""
    n = reader.one(35, 1, 8, 1)
    owner = reader.within(bands, 32, 0, n - 1) if n > 1 else np.zeros(bands, int)
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
    for group, gain in zip(groups, reader.within(n, 46, 1, 4096, 8), strict=True):
        group.gain = int(gain)
    return groups, step


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
    lh, hl, hh = (details[:, :, k] for k in range(3))
    out = np.empty((*ll.shape[:2], 2 * ll.shape[2], 2 * ll.shape[3]), np.int64)
    for row, column in itertools.product((0, 1), repeat=2):
        v, h = (1 - 2 * row) * lh, (1 - 2 * column) * hl
        out[:, :, row::2, column::2] = (ll + v + h + (1 - 2 * row) * (1 - 2 * column) * hh + 1) >> 1
    return clip(out[:, :, : shape[0], : shape[1]], L)


def mixed(matrices: np.ndarray, v: np.ndarray) -> np.ndarray:
    """4, 5: of every date [T, bands, planes], over axis 1 of v."""
    out = [m @ date.reshape(len(date), -1) for m, date in zip(matrices, v, strict=True)]
    return clip(rounded(np.stack(out), V), L).reshape(v.shape)


@dataclass
class Ladder:
    """4: of groups, finest first.

    Attributes:
        sections: readers.
        weights: of the codec.
        groups: with their canvases.
        dates: T.
        lent: the picture at level 3, once it is there.
        scales: 7: of the last level with so many planes.
    """

    sections: Sequence[Reader]
    weights: Weights
    groups: Sequence[Group]
    dates: int
    lent: np.ndarray | None = None
    scales: dict[int, np.ndarray] = field(default_factory=dict)

    def reader(self, level: int) -> Reader:
        s = self.groups[0].factor << level
        return self.sections[0 if s > 4 else 1 if s > 1 else 2]

    def decoded(self) -> list[np.ndarray]:
        """Pictures of the groups."""
        d, shapes = len(self.groups), [g.canvas[1] for g in self.groups]
        counts = [len(g.bands) for g in self.groups]
        bands, parents = self.coarsest(d, (half(shapes[-1][0]), half(shapes[-1][1])), sum(counts))
        done = []
        for i in reversed(range(d)):
            n = sum(counts[: i + 1])
            if i < d - 1:
                done.append(bands[:, n:])
            bands, parents = self.up(i, bands[:, :n], None if parents is None else parents[:, :n], shapes[i])
        return [bands, *reversed(done)]

    def coarsest(self, d: int, shape: tuple[int, int], count: int) -> tuple[np.ndarray, np.ndarray | None]:
        reader, t = self.sections[0], self.dates
        self.brightness = reader.one(59, -64, 64)
        first, others = reader.ints(t, 68), reader.ints(t * (count - 1), 52)
        means = np.cumsum(np.hstack([first[:, None], others.reshape(t, count - 1)]), 1)
        means = clip(means, L // 64)
        bases, present = self.bases(reader, count)
        sizes = [shape]
        while min(sizes[-1]) > 4:
            sizes.append((half(sizes[-1][0]), half(sizes[-1][1])))
        picture = np.zeros((t, count, *sizes[-1]), np.int64)
        for date, plane in np.argwhere(present):
            row = reader.one(57, 0, 103, 56)
            cells = reader.ints(picture[date, plane].size, row)
            picture[date, plane] = 64 * clip(cells, L // 64).reshape(sizes[-1])
        parents = None
        for j in reversed(range(len(sizes) - 1)):
            parents = self.details(d + j, picture, parents, present, sizes[j])
            picture = synthesis(picture, parents, sizes[j])
            if d + j == 3:
                self.lent = picture
        bands = clip(mixed(bases, picture) + 64 * means[:, :, None, None], L)
        return bands, None if parents is None else mixed(bases, parents)

    def up(
        self, i: int, bands: np.ndarray, parents: np.ndarray | None, shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        bases, present = self.bases(self.reader(i), bands.shape[1])
        seen = bases.swapaxes(1, 2)
        above = None if parents is None else mixed(seen, parents)
        found = mixed(bases, self.details(i, mixed(seen, bands), above, present, shape))
        return synthesis(bands, found, shape), found

    # --- 5. A basis ---

    def bases(self, reader: Reader, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each date [T, bands, planes], and which planes are present."""
        out, present = np.zeros((self.dates, count, count), np.int64), np.zeros((self.dates, count), bool)
        for date in range(self.dates):
            bits = 8 + np.cumsum(reader.ints(count, 37))
            if bits.min() < 0 or bits.max() > 11:
                raise FormatError("bits of a plane: expected 0..11")
            present[date] = bits > 0
            for plane in np.flatnonzero(bits):
                b = int(bits[plane])
                out[date, :, plane] = clip(reader.ints(count, BASIS_ROWS[b]), 1 << b) << (11 - b)
        return out, present

    # --- 7. Details of a level ---

    def details(
        self,
        level: int,
        below: np.ndarray,
        parents: np.ndarray | None,
        present: np.ndarray,
        shape: tuple[int, int],
    ) -> np.ndarray:
        t, planes = present.shape
        h, w = half(shape[0]), half(shape[1])
        coded = np.ones((3, h, w), bool)
        if shape[0] % 2:
            coded[[0, 2], -1] = False
        if shape[1] % 2:
            coded[[1, 2], :, -1] = False
        scales = self.read_scales(level, present, coded.any((1, 2)))
        out = np.zeros((t, planes, 3, h, w), np.int64)
        strongest = last = np.zeros((t, 3, h, w), np.int64)
        for plane in range(planes):
            some = (scales[:, plane] > DEAD).any(1)
            if some.any():
                above = np.zeros((some.sum(), 3, h, w), np.int64)
                if parents is not None:
                    above = self.weights.f(parents[some, plane]).repeat(2, 2).repeat(2, 3)[:, :, :h, :w]
                features = np.concatenate([above, strongest[some], last[some]], 1)
                out[some, plane] = self.plane(
                    level, plane, below[some, plane], features, scales[some, plane], coded
                )
            last = self.weights.f(out[:, plane])
            strongest = np.maximum(rounded(3 * strongest, 4), np.abs(last))
        return out

    def read_scales(self, level: int, present: np.ndarray, any_coded: np.ndarray) -> np.ndarray:
        t, planes = present.shape
        before = self.scales.get(planes, np.full((t, planes, 3), 2))
        out = np.full((t, planes, 3), DEAD)
        guess = before[:, :, 0]
        for k in range(3):
            own = present & any_coded[k]
            rows = np.where(guess == DEAD, 28, 39 if k == 0 else 34)[own]
            out[own, k] = np.clip(guess[own] + self.reader(level).rows(rows), DEAD, 14)
            if k < 2:
                alive = (out[:, :, k] > DEAD) & (before[:, :, k] > DEAD) & (before[:, :, k + 1] > DEAD)
                change = np.where(alive, before[:, :, k + 1] - before[:, :, k], 0)
                guess = np.clip(out[:, :, k] + change, DEAD, 14)
        self.scales[planes] = out
        return out

    def plane(
        self,
        level: int,
        k: int,
        below: np.ndarray,
        features: np.ndarray,
        scales: np.ndarray,
        coded: np.ndarray,
    ) -> np.ndarray:
        """Of some dates [N, 3, h, w]."""
        net = Network(self.weights, min(level, 2))
        logs = np.array(SCALES)[np.maximum(scales, -4) + 4]
        flags = [0, 4 * k, self.brightness, 16, 8 * min(level, 6)]
        constants = np.hstack([logs, np.tile(flags, (len(scales), 1))])
        sums, p = net.start(below, features, constants)
        exists = coded & (scales > DEAD)[:, :, None, None]
        h, w = coded.shape[1:]
        color = np.add.outer(np.arange(h), np.arange(w)) % 2
        out, known = np.zeros(exists.shape, np.int64), None
        for number in (0, 1):
            o, n = net.step(sums, known)
            gates = self.weights.tensors["tanh"][127 + o[:, 3:9]]
            mean = gates[:, :3] * p + (0 if n is None else gates[:, 3:] * n)
            mean = clip(rounded(mean, 128), 1 << 14)
            row = np.clip((o[:, 9:] + logs[:, :, None, None] + 80) >> 1, 0, 103)
            here = exists & (color == number)
            out[here] = mean[here]
            sent = here & (row >= 16)
            out[sent] += 64 * clip(self.reader(level).rows(row[sent]), L // 64)
            out = clip(out, L)
            known = out.copy()
        return out


def correlated(kernel: np.ndarray, v: np.ndarray) -> np.ndarray:
    """3 x 3 with zeros around: [O, C, 3, 3], [N, C, h, w] -> [N, O, h, w]."""
    h, w = v.shape[2:]
    padded = np.pad(v, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return sum(
        dense(kernel[:, :, i, j], padded[:, :, i : i + h, j : j + w])
        for i, j in itertools.product(range(3), repeat=2)
    )


def dense(weights: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (weights @ v.reshape(*v.shape[:2], -1)).reshape(len(v), -1, *v.shape[2:])


def act(v: np.ndarray) -> np.ndarray:
    return np.clip(rounded(v, 64), 0, 255)


def of_24_bits(v: np.ndarray) -> np.ndarray:
    """7: rounded to so many significant ones, ties to even."""
    out = v.copy()
    for shift in range(1, 6):
        some = np.abs(v) >= 1 << (23 + shift)
        out[some] = rounded(v[some], 1 << shift) << shift
    return out


@dataclass(frozen=True)
class Network:
    """7: the network of a stage."""

    weights: Weights
    stage: int

    def w(self, name: str) -> np.ndarray:
        return self.weights.tensors[f"{self.stage}.{name}"]

    def bias(self, name: str) -> np.ndarray:
        return self.w(f"{name}_bias")[:, None, None]

    def start(
        self, below: np.ndarray, features: np.ndarray, constants: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """S, and the prediction."""
        h, w = below.shape[1:]
        around = np.pad(of_24_bits(below), ((0, 0), (2, 2), (2, 2)), "edge")
        places = [p for p in itertools.product(range(5), repeat=2) if p != (2, 2)]
        window = np.stack(
            [around[:, i : i + h, j : j + w] - around[:, 2 : 2 + h, 2 : 2 + w] for i, j in places], 1
        )
        filtered = clip(rounded(dense(self.w("window"), clip(window, 63 * 64)), 64), 1 << 14)
        inputs = np.concatenate([self.weights.f(filtered[:, :12]), features], 1)
        sums = correlated(self.w("trunk")[:, :21], inputs) + self.bias("trunk")
        return sums + (constants @ self.w("constant").T)[:, :, None, None], filtered[:, 12:]

    def step(self, sums: np.ndarray, known: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """o and n of a pass; known: details of colour 0."""
        near, v = None, sums
        if known is not None:
            f = self.weights.f(known)
            v = v + correlated(self.w("known"), np.concatenate([f, np.abs(f)], 1)) + self.bias("known")
            near = clip(rounded(correlated(self.w("neighbours"), clip(known, 63 * 64)), 64), 1 << 14)
        number, v = int(known is not None), act(v)
        for layer in ("first", "second"):
            name = f"{layer}{number}"
            v = np.minimum(255, v + act(dense(self.w(name), v) + self.bias(name)))
        name = f"out{number}"
        return clip(rounded(dense(self.w(name), v) + self.bias(name), 64), 127), near


# --- 6. Prediction from another ladder ---


@dataclass(frozen=True)
class Lent:
    """The lending ladder's picture, and what lies before its group 0."""

    picture: np.ndarray
    before: tuple[int, int]

    def prediction(self, reader: Reader, group: Group) -> np.ndarray:
        v = self.picture[:, :6]
        for axis in (0, 1):
            v = self.interpolated(v, group, axis)
        t, planes = v.shape[:2]
        count, out = len(group.bands), []
        for date in range(t):
            weights = clip(reader.ints(count * planes, 79), 1 << 15).reshape(count, planes)
            out.append(((weights @ v[date].reshape(planes, -1) + (1 << 19)) >> 20).reshape(-1, *v.shape[2:]))
        return clip(np.stack(out), L)

    def interpolated(self, v: np.ndarray, group: Group, axis: int) -> np.ndarray:
        n, (before, shape) = v.shape[2 + axis], group.canvas
        cell = np.arange(shape[axis]) - before[axis]
        place = 2 * (cell * group.factor + group.phases[axis] + self.before[axis]) + group.factor - 8
        u = np.clip(place, 0, 16 * (n - 1))
        j = np.minimum(u // 16, max(0, n - 2))
        lines = v.swapaxes(2 + axis, 3)
        mixed_lines = lines[..., j] * (16 - (u - 16 * j)) + lines[..., np.minimum(j + 1, n - 1)] * (
            u - 16 * j
        )
        return mixed_lines.swapaxes(2 + axis, 3)


# --- 8. Pixels ---


def decode(weights: Weights, chunk: Chunk) -> np.ndarray:
    """Samples without offset, int64 [T, C, H, W].

    Raises:
        FormatError: sections that no encoder writes, or another check.
    """
    _, _, height, width = chunk.header.shape
    out = np.zeros(chunk.header.shape, np.int64)
    for group, picture, step in decoded_groups(weights, chunk):
        if group.kernel == NATIVE:
            raise FormatError("groups on grids of their own")
        out[:, group.bands] = samples(group, picture, step, (height, width))
    return out


def decode_groups(weights: Weights, chunk: Chunk) -> list[tuple[int, np.ndarray]]:
    """Factors and samples of groups on native grids, in the order of their bands."""
    found = sorted(decoded_groups(weights, chunk), key=lambda one: one[0].bands)
    return [(group.factor, samples(group, picture, step, (0, 0))) for group, picture, step in found]


def decoded_groups(weights: Weights, chunk: Chunk) -> list[tuple[Group, np.ndarray, int]]:
    """Groups, their pictures, and the step."""
    t, bands, height, width = chunk.header.shape
    sections = [Reader(DecodePort(data), weights.tables) for data in chunk.sections]
    groups, step = layout(sections[0], bands, (height, width))
    out: list[tuple[Group, np.ndarray, int]] = []
    lent = None
    for groups_of in ladders_of(groups):
        prediction = None
        if lent is not None and len(groups_of) == 1:
            prediction = lent.prediction(sections[0], groups_of[0])
        ladder = Ladder(sections, weights, groups_of, t)
        made = ladder.decoded()
        if prediction is not None:
            made[0] = made[0] + prediction
        if lent is None and ladder.lent is not None and groups_of[0].factor == 1:
            lent = Lent(ladder.lent, groups_of[0].canvas[0])
        out += [(group, picture, step) for group, picture in zip(groups_of, made, strict=True)]
    for section in sections:
        section.port.finish()
    for date, check in enumerate(chunk.header.checks):
        if frame_check(np.concatenate([picture[date].ravel() for _, picture, _ in out])) != check:
            raise FormatError(f"date {date}: another picture")
    return out


def samples(group: Group, picture: np.ndarray, step: int, size: tuple[int, int]) -> np.ndarray:
    (before, _), (_, shape) = ((0, 0), 0) if group.canvas == group.own else group.canvas, group.own
    cells = picture[:, :, before[0] : before[0] + shape[0], before[1] : before[1] + shape[1]]
    u = 16 * group.gain
    v = clip((8 * step * cells + u // 2) // u, 1 << 26)
    if group.is_aligned:
        return (v + 32) // 64
    rows, columns = (
        interpolation(group.kernel, group.factor, group.phases[axis], size[axis]) for axis in (0, 1)
    )
    denominator = rows[2] * columns[2]
    return (rows[1] @ v @ columns[1].T + 32 * denominator) // (64 * denominator)
