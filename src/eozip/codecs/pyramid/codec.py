"""Codecs over pyramids: pixels of one chunk, or groups of bands on their own grids, to sections of bytes and back.

    section 0   layout, step; every ladder's details down to 1/8 of the finest grid
    section 1   details down to 1/2
    section 2   details of the finest grid

A reader of the picture at 1/8 needs the first section alone, a reader of the 20 m bands of Sentinel-2 the first two.

Reduced pictures come from the levels of the ladders themselves (overviews.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from eozip.bitstream import frame_check
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import grids, layout, overviews
from eozip.codecs.pyramid.borrowed import Lent, code_prediction
from eozip.codecs.pyramid.context import VALUE
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.overviews import Picture
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.traverse import Ladder, Model, Wanted
from eozip.codecs.rdoq import BITS_PER_SQUARED_STEP, thrifty
from eozip.codecs.scales import SECTIONS, ratio, section_of, size_at
from eozip.entropy.range_coder import DecodePort, EncodePort, Port
from eozip.errors import DesyncError, FormatError, InputError
from eozip.threads import one_blas_thread

STEP_MIN, STEP_MAX = 48.0, 3600.0  # DN at quality 100 and 0
STEP_UNITS = 16  # per DN
LARGEST_STEP = 1 << 20
GAIN_UNITS = 8
# What an error of a cell weighs in the interpolated picture, per pixel that the cell covers
CELL_WEIGHT = 0.45
LARGEST_CELL = 1 << 26  # in 1/64 DN, a million DN: no picture goes as far, damaged bytes may
LENT_LEVEL = 3  # its details complete the picture at 1/8


@dataclass(frozen=True, eq=False)
class PyramidCodec:
    """A codec of any bands, each date by itself.

    Attributes:
        id: full id.
        weights_hash: 8 bytes.
        model: networks and tables.
        sensor: "any".
    """

    id: str
    weights_hash: bytes
    model: Model
    sensor: str = "any"
    bands: int | None = None
    can_skip: bool = False
    has_budgets: bool = False

    @one_blas_thread()
    def encode(self, x: np.ndarray, quality: float) -> Encoded:
        """As `eozip.codecs.base.Codec.encode`; bands that were interpolated are coded on their own grid."""
        c, h, w = x.shape[1:]
        coarse = grids.solved(x) if c <= 64 else [None] * c
        groups = layout.grouped([None if one is None else one[0] for one in coarse])
        if len(groups) > layout.GROUPS:
            groups = [Group(tuple(range(c)), None)]
        cells = [
            x[:, list(g.bands)] if g.grid is None else np.stack([coarse[b][1] for b in g.bands], 1)  # type: ignore[index]
            for g in groups
        ]
        return self._encoded(groups, cells, (h, w), c, quality)

    def decode(self, coded: Encoded, shape: tuple[int, int, int, int], quality: float) -> np.ndarray:
        """As `eozip.codecs.base.Codec.decode`."""
        if len(coded.sections) != SECTIONS:
            raise FormatError(f"{self.id}: expected {SECTIONS} sections, got {len(coded.sections)}")
        return self.decode_scaled(coded, shape)

    @one_blas_thread()
    def decode_scaled(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        reduce: int = 1,
        bands: Sequence[int] | None = None,
    ) -> np.ndarray:
        """As `eozip.codecs.base.ScaledCodec.decode_scaled`."""
        t, c, h, w = shape
        reader = _Reader(self, coded, (h, w), c, t)
        if any(g.grid is not None and g.grid.kernel == layout.NATIVE for g in reader.groups):
            raise FormatError(
                f"{self.id}: groups on their own grids in a chunk without; the bytes are damaged"
            )
        chosen = np.arange(c) if bands is None else np.asarray(bands)
        wanted = [g for g in reader.groups if np.isin(chosen, g.bands).any()]
        is_whole = reduce == 1 and bands is None
        scale = 1 if is_whole else min(g.factor * ratio(reduce, g.factor) for g in wanted)
        out = np.empty((t, c, *size_at((h, w), reduce)), np.float32)
        for group, picture in reader.read(scale):
            if group in wanted:
                made = overviews.on_pixels(group, picture, (h, w), reduce)
                for k, band in enumerate(group.bands):
                    out[:, band] = made[:, k]
        return out if bands is None else out[:, chosen]

    @one_blas_thread()
    def encode_groups(self, groups: Sequence[tuple[int, np.ndarray]], quality: float) -> Encoded:
        """Codes groups of bands on their own grids.

        Args:
            groups: factor and float32 [T, C, h, w] of each, finest first; the finest has factor 1, others
                h = ceil(H / factor) and w = ceil(W / factor).
            quality: 0..100.

        Raises:
            InputError: factors or shapes that do not fit each other.
        """
        check_groups(groups)
        _, finest = groups[0]
        named, first = [], 0
        for factor, pixels in groups:
            bands = tuple(range(first, first + pixels.shape[1]))
            named.append(Group(bands, None if factor == 1 else grids.Grid(layout.NATIVE, factor, 0, 0)))
            first += pixels.shape[1]
        return self._encoded(named, [p for _, p in groups], finest.shape[2:], first, quality)

    @one_blas_thread()
    def decode_groups(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        groups: Sequence[tuple[int, int]],
        reduce: int = 1,
        wanted: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """As `eozip.codecs.base.ScaledCodec.decode_groups`."""
        t, c, h, w = shape
        reader = _Reader(self, coded, (h, w), c, t)
        found = sorted(reader.groups, key=lambda g: g.bands)
        said = [(g.factor, len(g.bands)) for g in found]
        is_native = all(g.is_native for g in found)
        is_ordered = sum((g.bands for g in found), ()) == tuple(range(c))
        if said != list(groups) or not is_native or not is_ordered:
            raise FormatError(
                f"{self.id}: expected groups (factor, bands) {list(groups)}, got {said}; the bytes are damaged"
            )
        chosen = range(len(found)) if wanted is None else wanted
        scale = min(found[k].factor * ratio(reduce, found[k].factor) for k in chosen)
        pictures = {group.bands: picture for group, picture in reader.read(scale)}
        return [
            overviews.of_cells(found[k], pictures[found[k].bands], (h, w), ratio(reduce, found[k].factor))
            for k in chosen
        ]

    def _encoded(
        self, groups: list[Group], cells: list[np.ndarray], size: tuple[int, int], bands: int, quality: float
    ) -> Encoded:
        step = round(STEP_UNITS * STEP_MIN * (STEP_MAX / STEP_MIN) ** ((100 - quality) / 100))
        ports = [EncodePort() for _ in range(SECTIONS)]
        side = Side(ports[0], self.model.tables)
        layout.code_groups(side, groups, bands)
        gains = np.array([_gain(g) for g in groups])
        _code_steps(side, np.array([step]), gains)
        pixels = dict(zip((g.bands for g in groups), cells, strict=True))
        gain_of = dict(zip((g.bands for g in groups), gains / GAIN_UNITS, strict=True))
        quantise = partial(_quantised, tables=self.model.tables)
        pictures: list[np.ndarray] = []
        lent = None
        for ladder in layout.ladders(groups, *size):
            own = [_on_canvas(pixels[g.bands], place) * np.float32(gain_of[g.bands]) for g, place in ladder]
            made, _, lent = self._run(ladder, len(cells[0]), step, ports, Wanted(own, quantise), lent)
            pictures += made
        return Encoded(tuple(port.finish() for port in ports), _checks(pictures))

    def _run(
        self,
        ladder: list[tuple[Group, Canvas]],
        dates: int,
        step: int,
        ports: Sequence[Port],
        wanted: Wanted | None,
        lent: Lent | None,
        stop: int = 0,
    ) -> tuple[list[np.ndarray], int, Lent | None]:
        """One ladder, predicted from what an earlier one lends; the first one that can lends to all that follow.

        Returns:
            Pictures, the level that the finest one reached, and what is lent.
        """
        group, place = ladder[0]
        prediction = None
        if lent is not None and len(ladder) == 1:
            goal = None if wanted is None else wanted.groups[0] / (step / STEP_UNITS)
            side = Side(ports[0], self.model.tables)
            prediction = code_prediction(side, lent.at(group, place), goal, len(group.bands))
            if wanted is not None:
                left = wanted.groups[0] - prediction * (step / (STEP_UNITS * VALUE))
                wanted = Wanted([left], wanted.quantise)
        walk = Ladder(
            self.model,
            [(len(g.bands), *p.shape) for g, p in ladder],
            dates,
            step,
            lambda level: ports[section_of(group.factor << level)],
            wanted,
            stop,
            lends_at=LENT_LEVEL if group.factor == 1 else None,
        )
        made = walk.run()
        if prediction is not None:
            made[0] = made[0] + overviews.lowered(prediction, walk.reached)
        if lent is None and walk.lent is not None:
            lent = Lent(walk.lent, place.before)
        return made, walk.reached, lent


class _Reader:
    """Reads the sections of a chunk: at once which bands lie on which grid, then as many scales as wanted."""

    def __init__(
        self, codec: PyramidCodec, coded: Encoded, size: tuple[int, int], bands: int, dates: int
    ) -> None:
        if not 1 <= len(coded.sections) <= SECTIONS:
            raise FormatError(f"{codec.id}: expected {SECTIONS} sections, got {len(coded.sections)}")
        self._codec, self._coded, self._size, self._dates = codec, coded, size, dates
        self._ports = [DecodePort(section) for section in coded.sections]
        side = Side(self._ports[0], codec.model.tables)
        self.groups = layout.code_groups(side, None, bands)
        self._step, gains = _code_steps(side, None, np.zeros(len(self.groups), int))
        self._gain_of = {g.bands: int(gain) for g, gain in zip(self.groups, gains, strict=True)}

    def read(self, scale: int) -> list[tuple[Group, Picture]]:
        """All groups, as far as the sections tell that a picture so many times coarser than the finest grid needs.

        Raises:
            FormatError: one of these sections is missing, or its bytes are not what an encoder writes.
            DesyncError: pixels that differ from the encoded ones; only where nothing was left out.
        """
        count = section_of(scale) + 1
        if count > len(self._ports):
            raise FormatError(
                f"{self._codec.id}: expected the first {count} of {SECTIONS} sections, got {len(self._ports)}"
            )
        found, pictures, is_whole, lent = [], [], True, None
        for ladder in layout.ladders(self.groups, *self._size):
            stop = _levels_beyond(count, ladder[0][0].factor)
            is_whole = is_whole and stop == 0
            ports = self._ports[:count]
            made, reached, lent = self._codec._run(ladder, self._dates, self._step, ports, None, lent, stop)
            pictures += made
            for k, ((group, place), picture) in enumerate(zip(ladder, made, strict=True)):
                cells = _in_dn(picture, self._step, self._gain_of[group.bands], max(0, reached - k))
                found.append((group, Picture(cells, place, max(0, reached - k))))
        for port in self._ports[:count]:
            port.finish()
        if is_whole:
            _compare(self._coded.checks, _checks(pictures), self._codec.id)
        return found


def _levels_beyond(sections: int, factor: int) -> int:
    """Finest levels of a ladder that begins at a factor, whose details are in none of the first sections."""
    level = 0
    while section_of(factor << level) >= sections:
        level += 1
    return level


def check_groups(groups: Sequence[tuple[int, np.ndarray]]) -> None:
    """Factors that rise from 1, and shapes that follow from the finest group's.

    Raises:
        InputError: others.
    """
    factors = [factor for factor, _ in groups]
    if (
        not factors
        or factors[0] != 1
        or sorted(set(factors)) != factors
        or factors[-1] > layout.LARGEST_FACTOR
    ):
        raise InputError(
            f"groups: expected rising factors from 1 to at most {layout.LARGEST_FACTOR}, got {factors}"
        )
    t, _, h, w = groups[0][1].shape
    for factor, pixels in groups:
        expected = (t, -(-h // factor), -(-w // factor))
        got = (pixels.shape[0], *pixels.shape[2:])
        if got != expected:
            raise InputError(f"groups: expected dates and cells {expected} at factor {factor}, got {got}")


def _gain(group: Group) -> int:
    """Cells of interpolated bands are coded more finely, as each shows in many pixels."""
    return GAIN_UNITS if group.is_native else round(GAIN_UNITS * group.factor * CELL_WEIGHT**0.5)


def _code_steps(side: Side, step: np.ndarray | None, gains: np.ndarray) -> tuple[int, np.ndarray]:
    read = side.bounded(step, 1, spread=8000, first=1, last=LARGEST_STEP)
    sent = None if step is None else gains - GAIN_UNITS
    found = side.integers(sent, len(gains), 4).astype(np.int64) + GAIN_UNITS
    if found.min() < 1 or found.max() > 1 << 12:
        raise FormatError(f"gains: expected 1..4096, got {found.min()}..{found.max()}; the bytes are damaged")
    return int(read[0]), found


def _quantised(residual: np.ndarray, rows: np.ndarray, tables: object) -> np.ndarray:
    nearest = np.rint(residual).astype(np.int32)
    return thrifty(nearest, residual, rows, tables, BITS_PER_SQUARED_STEP)  # type: ignore[arg-type]


def _on_canvas(x: np.ndarray, place: Canvas) -> np.ndarray:
    """Pixels [T, C, h, w] where their canvas has them; what lies around repeats the border."""
    pad = [(b, s - b - n) for b, s, n in zip(_missing(x, place), place.shape, x.shape[2:], strict=True)]
    x = np.asarray(x, np.float32)  # an encoder's numbers need not be the same everywhere
    return np.pad(x, [(0, 0), (0, 0), *pad], mode="edge") if any(map(any, pad)) else x


def _missing(x: np.ndarray, place: Canvas) -> tuple[int, int]:
    """Cells of a canvas before those given: none where they fill it."""
    return (0, 0) if x.shape[2:] == place.shape else place.before


def _in_dn(picture: np.ndarray, step: int, gain: int, level: int) -> np.ndarray:
    """int32 in 1/64 step, 2**level times block averages -> averages, int32 in 1/64 DN, halves up, within LARGEST_CELL."""
    out = np.empty(picture.shape, np.int32)
    for where in np.ndindex(*picture.shape[:2]):  # a picture at a time, which fits the cache
        exact = np.multiply(picture[where], float(step * GAIN_UNITS), dtype=np.float64)
        cells = overviews.quotient(exact, (STEP_UNITS * gain) << level)
        out[where] = cells.clip(-LARGEST_CELL, LARGEST_CELL, out=cells)
    return out


def _checks(pictures: Sequence[np.ndarray]) -> tuple[int, ...]:
    """For each date the checksum of everything that its pixels follow from."""
    return tuple(
        frame_check(np.concatenate([p[t].ravel() for p in pictures])) for t in range(len(pictures[0]))
    )


def _compare(expected: Sequence[int], got: Sequence[int], name: str) -> None:
    for date, (a, b) in enumerate(zip(expected, got, strict=True)):
        if a != b:
            raise DesyncError(
                f"{name}: date {date}: expected pixels of check {a:08x}, got {b:08x}; bytes or weights differ"
            )
