"""Codecs over pyramids: pixels of one chunk, or groups of bands on their own grids, to sections of bytes and back.

    section 0   layout, step; every ladder's details down to 1/8 of the finest grid
    section 1   details down to 1/2
    section 2   details of the finest grid

Each section has a stream for every date, in the order of time. A date may be predicted from others (references.py), and is
read together with those alone.

A reader of the picture at 1/8 needs the first section alone, a reader of the 20 m bands of Sentinel-2 the first two.

Reduced pictures come from the levels of the ladders themselves (overviews.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from eozip.bitstream.integers import packed_length, read_length
from eozip.codecs.base import Encoded
from eozip.codecs.pyramid import coarseness, grids, layout, overviews
from eozip.codecs.pyramid.anchors import anchors_of, coarser_of, finer_of
from eozip.codecs.pyramid.holes import Hidden, filled, hidden_of
from eozip.codecs.pyramid.layout import Canvas, Group
from eozip.codecs.pyramid.model import Model
from eozip.codecs.pyramid.overviews import Picture
from eozip.codecs.pyramid.ports import reading_port, writing_port
from eozip.codecs.pyramid.references import Order, alone, both_sides, code_order
from eozip.codecs.pyramid.side import Side, brightness_of
from eozip.codecs.pyramid.walk import GAIN_UNITS, STEP_UNITS, Given, Plan, Walk, pictures_of, positions_of
from eozip.codecs.scales import SECTIONS, ratio, section_of, size_at
from eozip.codecs.skip_mask import pixels_of
from eozip.entropy.range_coder import Port, ReadPort
from eozip.errors import DesyncError, EozipError, FormatError, InputError
from eozip.threads import one_blas_thread

STEP_MIN, STEP_MAX = 48.0, 3600.0  # DN at quality 100 and 0
LARGEST_STEP = 1 << 20
# 1024 GAIN_UNITS times the root of what an error of a cell weighs in the interpolated picture, 0.45 a pixel covered
_CELL_GAIN = 5495


@dataclass(frozen=True, eq=False)
class PyramidCodec:
    """A codec of any bands.

    Attributes:
        id: full id.
        weights_hash: 8 bytes.
        model: networks and tables.
        temporal: whether dates tell of others.
        sensor: "any".
    """

    id: str
    weights_hash: bytes
    model: Model
    temporal: bool = False
    sensor: str = "any"
    bands: int | None = None
    can_skip: bool = True
    has_budgets: bool = False

    @one_blas_thread()
    def encode(
        self,
        x: np.ndarray,
        quality: float,
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `eozip.codecs.base.ScaledCodec.encode`; bands that were interpolated are coded on their own grid."""
        return self._encoded_pixels(x, quality, holes, levels)

    @one_blas_thread()
    def encode_without(
        self,
        x: np.ndarray,
        quality: float,
        dropped: np.ndarray,
        holes: np.ndarray | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """As `eozip.codecs.base.SkippingCodec.encode_without`: there the decoder has what it expects from all else."""
        hidden = pixels_of(dropped, x.shape[2:])
        all_holes = np.broadcast_to(hidden[:, None], x.shape)
        all_holes = all_holes if holes is None else holes | all_holes
        return self._encoded_pixels(filled(x, hidden), quality, all_holes, levels, dropped)

    def _encoded_pixels(
        self,
        x: np.ndarray,
        quality: float,
        holes: np.ndarray | None,
        levels: np.ndarray | None,
        skip: np.ndarray | None = None,
    ) -> Encoded:
        c, h, w = x.shape[1:]
        groups, cells = self.grouped(x, holes)
        needless = None if holes is None else [np.all(holes[:, list(g.bands)], 1) for g in groups]
        return self._encoded(groups, cells, (h, w), c, quality, needless, levels, skip)

    def grouped(self, x: np.ndarray, holes: np.ndarray | None) -> tuple[list[Group], list[np.ndarray]]:
        """Bands by the grid on which they are coded, and their cells there."""
        c = x.shape[1]
        coarse = grids.solved(x, holes) if c <= 64 else [None] * c
        groups = layout.grouped([None if one is None else one[0] for one in coarse])
        if len(groups) > layout.GROUPS:
            groups = [Group(tuple(range(c)), None)]
        cells = [
            x[:, list(g.bands)] if g.grid is None else np.stack([coarse[b][1] for b in g.bands], 1)  # type: ignore[index]
            for g in groups
        ]
        return groups, cells

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
        dates: Sequence[int] | None = None,
    ) -> np.ndarray:
        """As `eozip.codecs.base.ScaledCodec.decode_scaled`."""
        _, c, h, w = shape
        reader = self.reader(coded, shape, dates)
        if any(g.grid is not None and g.grid.kernel == layout.NATIVE for g in reader.groups):
            raise FormatError(
                f"{self.id}: groups on their own grids in a chunk without; the bytes are damaged"
            )
        chosen = np.arange(c) if bands is None else np.asarray(bands)
        wanted = [g for g in reader.groups if np.isin(chosen, g.bands).any()]
        is_whole = reduce == 1 and bands is None
        scale = 1 if is_whole else min(g.factor * ratio(reduce, g.factor) for g in wanted)
        made = [(group, picture) for group, picture in reader.read(scale) if group in wanted]
        out = _on_one_grid(made, (len(reader.dates), c, h, w), reduce)
        return out if bands is None else out[:, chosen]

    @one_blas_thread()
    def encode_groups(
        self,
        groups: Sequence[tuple[int, np.ndarray]],
        quality: float,
        holes: Sequence[np.ndarray] | None = None,
        levels: np.ndarray | None = None,
    ) -> Encoded:
        """Codes groups of bands on their own grids.

        Args:
            groups: factor and float32 [T, C, h, w] of each, finest first; the finest has factor 1, others
                h = ceil(H / factor) and w = ceil(W / factor).
            quality: 0..100.
            holes: bool, as the groups' pixels, where nobody needs them; None: nowhere.
            levels: uint8 [T, ceil(H / 16), ceil(W / 16)] of the finest grid (`eozip.codecs.level_map`), or None.

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
        needless = None if holes is None else [np.all(one, 1) for one in holes]
        pixels_of_groups = [p for _, p in groups]
        return self._encoded(named, pixels_of_groups, finest.shape[2:], first, quality, needless, levels)

    @one_blas_thread()
    def decode_groups(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        groups: Sequence[tuple[int, int]],
        reduce: int = 1,
        wanted: Sequence[int] | None = None,
        dates: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """As `eozip.codecs.base.ScaledCodec.decode_groups`."""
        _, c, h, w = shape
        reader = self.reader(coded, shape, dates)
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
        self,
        groups: list[Group],
        cells: list[np.ndarray],
        size: tuple[int, int],
        bands: int,
        quality: float,
        holes: list[np.ndarray] | None,
        levels: np.ndarray | None,
        skip: np.ndarray | None = None,
    ) -> Encoded:
        dates = len(cells[0])
        plan = self.plan(quality, dates)
        ports = [[writing_port() for _ in range(dates)] for _ in range(plan.sections)]
        side = Side(ports[0][0], self.model.tables)
        brightness = write_layout(side, groups, bands, plan.step)
        ladders = layout.ladders(groups, *size)
        given = given_of(groups, cells, ladders, holes)
        order = self.order_of(side, dates, given.finest, plan.step, coarser_of(levels, holes, dates))
        coarser, skipped = levels_of(ladders, levels, size), skipped_of(ladders, skip, size)
        walk = self.walk(plan, order, ladders, brightness, ports, SECTIONS, given, coarser, skipped)
        walk.run(range(dates))
        streams = [[port.finish() for port in section] for section in ports]
        bits = tuple(8.0 * sum(map(len, of_date)) for of_date in zip(*streams, strict=True))
        checks = tuple(walk.check(t) for t in range(dates))
        decoded = partial(pixels_of_walk, walk, range(dates), groups, size)
        sections = tuple(map(joined, streams))
        return Encoded(sections, checks, plan.budgets, bits, skip=skip, levels=levels, decoded=decoded)

    def plan(self, quality: float, dates: int) -> Plan:
        """What a quality of 0..100 means."""
        return Plan(step_of(quality))

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
        """See `Walk`."""
        return Walk(
            self.model,
            order,
            ladders,
            plan.step,
            brightness,
            ports,
            sections,
            np.zeros(len(order.known), np.int64) if given is None else finer_of(order),
            positions_of(order, given),
            None if given is None else given.wanted,
            None if given is None else given.hidden,
            levels,
            skipped,
        )

    def order_of(
        self,
        side: Side,
        dates: int,
        finest: np.ndarray | None,
        step: int,
        coarser: np.ndarray | None = None,
    ) -> Order:
        """Send or read in which order dates are coded, and which others tell of each.

        Args:
            side: of the layout.
            dates: how many.
            finest: an encoder's pixels of the finest group, [T, C, H, W]; None: read it.
            step: in 1/16 DN.
            coarser: of an encoder, see `coarser_of`.
        """
        if not self.temporal:
            return alone(dates)
        if dates == 1:
            return both_sides(1)
        wanted = None if finest is None else self.anchors(finest, step / STEP_UNITS, coarser)
        return code_order(side, dates, None if wanted is None else [(dates, wanted)])

    def anchors(self, finest: np.ndarray, step: float, coarser: np.ndarray | None) -> tuple[int, ...]:
        """Dates that tell of all others; none: the order of time. See `anchors_of`."""
        return anchors_of(finest, step, coarser)

    def reader(
        self,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        dates: Sequence[int] | None,
    ) -> Reader:
        """See `Reader`."""
        return Reader(self, coded, shape, dates)


def step_of(quality: float) -> int:
    """The quantisation step of a quality of 0..100, in 1/16 DN."""
    return round(STEP_UNITS * STEP_MIN * (STEP_MAX / STEP_MIN) ** ((100 - quality) / 100))


def levels_of(
    ladders: Sequence[Sequence[tuple[Group, Canvas]]], levels: np.ndarray | None, size: tuple[int, int]
) -> list[np.ndarray] | None:
    if levels is None:
        return None
    return [coarseness.on_canvas(*ladder[0], levels, size) for ladder in ladders]


def skipped_of(
    ladders: Sequence[Sequence[tuple[Group, Canvas]]], skip: np.ndarray | None, size: tuple[int, int]
) -> list[Hidden] | None:
    """Cells of ladders of which no detail is sent; skip: as `Encoded.skip`."""
    if skip is None:
        return None
    pixels = pixels_of(skip, size)
    return [hidden_of(ladder, [pixels] * len(ladder)) for ladder in ladders]


def write_layout(side: Side, groups: Sequence[Group], bands: int, step: int) -> float:
    """Send all that holds for every date but their order; what the networks are told of the step."""
    layout.code_groups(side, groups, bands)
    _code_steps(side, np.array([step]), np.array([gain_of(g) for g in groups]), groups)
    return brightness_of(side, step)


def given_of(
    groups: Sequence[Group],
    cells: Sequence[np.ndarray],
    ladders: Sequence[Sequence[tuple[Group, Canvas]]],
    holes: Sequence[np.ndarray] | None,
) -> Given:
    """What an encoder brings: cells [T, C, h, w] of groups, and where nobody needs them."""
    pixels = dict(zip((g.bands for g in groups), cells, strict=True))
    gains = {g.bands: np.float32(gain_of(g) / GAIN_UNITS) for g in groups}
    wanted = [
        [_on_canvas(pixels[g.bands], place) * gains[g.bands] for g, place in ladder] for ladder in ladders
    ]
    hidden: list[Hidden] | None = None
    if holes is not None:
        of_group = dict(zip((g.bands for g in groups), holes, strict=True))
        hidden = [hidden_of(ladder, [of_group[g.bands] for g, _ in ladder]) for ladder in ladders]
    return Given(pixels[min(groups, key=lambda g: g.factor).bands], wanted, hidden)


def pixels_of_walk(
    walk: Walk, dates: Sequence[int], groups: Sequence[Group], size: tuple[int, int]
) -> list[np.ndarray]:
    """Pixels of some dates as `decode` gives them, of several native groups as `decode_groups` does."""
    made = pictures_of(walk, dates, {g.bands: gain_of(g) for g in groups})
    if all(g.is_native for g in groups) and len(groups) > 1:
        by_bands = {g.bands: overviews.of_cells(g, picture, size, 1) for g, picture in made}
        return [by_bands[g.bands] for g in groups]
    return [_on_one_grid(made, (len(dates), sum(len(g.bands) for g in groups), *size), 1)]


def joined(streams: Sequence[bytes]) -> bytes:
    """Streams of all dates in turn, the lengths of all but the last before them."""
    return b"".join([*(packed_length(len(stream)) for stream in streams[:-1]), *streams])


def parted(section: bytes, dates: int, name: str) -> list[bytes]:
    """The inverse of `joined`.

    Raises:
        FormatError: lengths that do not end, or reach beyond the section.
    """
    at = 0
    lengths: list[int] = []
    for _ in range(dates - 1):
        length, at = read_length(section, at, f"{name}: lengths of streams")
        lengths.append(length)
    if at + sum(lengths) > len(section):
        raise FormatError(
            f"{name}: streams of {sum(lengths)} bytes and more in a section of {len(section)}; the bytes are damaged"
        )
    ends = [at]
    for length in lengths:
        ends.append(ends[-1] + length)
    return [section[a:b] for a, b in zip(ends, [*ends[1:], len(section)], strict=True)]


class Reader:
    """Reads the sections of a chunk: at once which bands lie on which grid, then as many scales as wanted."""

    def __init__(
        self,
        codec: PyramidCodec,
        coded: Encoded,
        shape: tuple[int, int, int, int],
        dates: Sequence[int] | None,
    ) -> None:
        count, bands, *size = shape
        self.check_sections(codec, coded, count)
        self.dates = list(range(count)) if dates is None else list(dates)
        if not self.dates or not 0 <= min(self.dates) <= max(self.dates) < count:
            raise InputError(f"dates: expected one or more of 0..{count - 1}, got {self.dates}")
        self._codec, self._coded, self._size, self._count = codec, coded, (size[0], size[1]), count
        self._shape = shape
        self._coarsest = self._section(0)
        try:
            self._read_layout(bands)
        except FormatError as error:
            raise FormatError(f"{codec.id}: layout, in the bytes of date 0: {error}") from error

    def _read_layout(self, bands: int) -> None:
        side = Side(self._coarsest[0], self._codec.model.tables)
        self.groups = layout.code_groups(side, None, bands)
        self._step, gains = _code_steps(side, None, None, self.groups)
        self._brightness = brightness_of(side, None)
        self._order = self._codec.order_of(side, self._count, None, self._step)
        self._gain_of = {g.bands: int(gain) for g, gain in zip(self.groups, gains, strict=True)}

    def check_sections(self, codec: PyramidCodec, coded: Encoded, dates: int) -> None:
        """Refuse another number of sections than a codec writes.

        Raises:
            FormatError: none, or too many.
        """
        if not 1 <= len(coded.sections) <= SECTIONS:
            raise FormatError(f"{codec.id}: expected {SECTIONS} sections, got {len(coded.sections)}")

    def read(self, scale: int) -> list[tuple[Group, Picture]]:
        """All groups of the dates wanted, as far as a picture so many times coarser than the finest grid takes.

        Raises:
            FormatError: one of these sections is missing, or its bytes are not what an encoder writes.
            DesyncError: pixels that differ from the encoded ones; only where nothing was left out. Both name the date
                whose bytes they are, which may be one that tells of those wanted.
        """
        return pictures_of(self.walked(scale), self.dates, self._gain_of)

    def walked(self, scale: int, *, more: bool = False) -> Walk:
        """What `read` has the pictures of; `more` as of `Walk.run`."""
        walk, ports = self.opened(scale)
        try:
            self._run(walk, ports, scale, more=more)
        except (FormatError, DesyncError) as error:
            raise self._named(error, scale) from error
        return walk

    def opened(self, scale: int) -> tuple[Walk, list[list[ReadPort]]]:
        """What reads as far as that, and from which streams, [section][date].

        Raises:
            FormatError: a section is missing, or cannot be parted into streams.
        """
        count, there = section_of(scale) + 1, len(self._coded.sections)
        if count > there:
            raise FormatError(
                f"{self._codec.id}: expected the first {count} of {SECTIONS} sections, got {there}; fetch more, "
                "or decode a smaller picture (reduce=); only flextec codecs have budgets"
            )
        ports = [self._coarsest, *map(self._section, range(1, count))]
        return self.walk(Plan(self._step), ports, count), ports

    def walk(self, plan: Plan, ports: list[list[ReadPort]], count: int) -> Walk:
        """A walk over streams; count: sections (of a pass) that are wanted."""
        ladders = layout.ladders(self.groups, *self._size)
        levels = levels_of(ladders, self._coded.levels, self._size)
        skipped = skipped_of(ladders, self._coded.skip, self._size)
        return self._codec.walk(
            plan, self._order, ladders, self._brightness, ports, count, levels=levels, skipped=skipped
        )

    def is_whole(self, date: int, scale: int) -> bool:
        """Whether all that was coded of a date is read."""
        return section_of(scale) + 1 == SECTIONS

    def _run(self, walk: Walk, ports: list[list[ReadPort]], scale: int, *, more: bool = False) -> None:
        walk.run(self.dates, more=more)
        for t in self._order.needed(self.dates):
            for section in filter(None, ports):
                section[t].finish()
            if self.is_whole(t, scale):
                compare(self._coded.checks[t], walk.check(t), t, self._codec.id)

    def _named(self, error: EozipError, scale: int) -> EozipError:
        """The fault of the first date, in the order of coding, that has one: all that it needs is sound.

        Damaged bytes may be seen in another date first, so some dates are read again.
        """
        needed = self._order.needed(self.dates)
        dates = [t for wave in self._order.waves for t in wave if t in needed]
        sound, faulty = 0, len(dates)
        while faulty - sound > 1:
            middle = (sound + faulty) // 2
            sound, faulty = (sound, middle) if self._fault(dates[:middle], scale) else (middle, faulty)
        date = dates[faulty - 1]
        found = self._fault([date], scale) or error
        return (
            found
            if isinstance(found, DesyncError)
            else FormatError(f"{self._codec.id}: date {date}: {found}")
        )

    def _fault(self, dates: list[int], scale: int) -> EozipError | None:
        """What reading some dates anew runs into; None: nothing."""
        again = self._codec.reader(self._coded, self._shape, dates)
        try:
            again._run(*again.opened(scale), scale)
        except (FormatError, DesyncError) as error:
            return error
        return None

    def _section(self, number: int) -> list[ReadPort]:
        """The streams of all dates in a section."""
        streams = parted(self._coded.sections[number], self._count, self._codec.id)
        return [reading_port(stream) for stream in streams]


def _on_one_grid(
    made: Sequence[tuple[Group, Picture]], shape: tuple[int, int, int, int], reduce: int
) -> np.ndarray:
    """Groups on the finest grid: float32 [T, C, h, w], 1 / reduce of a shape; bands of no group are not set."""
    t, c, h, w = shape
    out = np.empty((t, c, *size_at((h, w), reduce)), np.float32)
    for group, picture in made:
        pixels = overviews.on_pixels(group, picture, (h, w), reduce)
        for k, band in enumerate(group.bands):
            out[:, band] = pixels[:, k]
    return out


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


def gain_of(group: Group) -> int:
    """Cells of interpolated bands are coded more finely, as each shows in many pixels."""
    return GAIN_UNITS if group.is_native else (group.factor * _CELL_GAIN + 512) >> 10


def _code_steps(
    side: Side, step: np.ndarray | None, gains: np.ndarray | None, groups: Sequence[Group]
) -> tuple[int, np.ndarray]:
    read = side.bounded(step, 1, spread=8000, first=1, last=LARGEST_STEP)
    usual = np.array([gain_of(g) for g in groups])
    found = side.integers(None if gains is None else gains - usual, len(usual), 0.4).astype(np.int64) + usual
    if found.min() < 1 or found.max() > 1 << 12:
        raise FormatError(f"gains: expected 1..4096, got {found.min()}..{found.max()}; the bytes are damaged")
    return int(read[0]), found


def _on_canvas(x: np.ndarray, place: Canvas) -> np.ndarray:
    """Pixels [T, C, h, w] where their canvas has them; what lies around repeats the border."""
    pad = [(b, s - b - n) for b, s, n in zip(_missing(x, place), place.shape, x.shape[2:], strict=True)]
    x = np.asarray(x, np.float32)  # an encoder's numbers need not be the same everywhere
    return np.pad(x, [(0, 0), (0, 0), *pad], mode="edge") if any(map(any, pad)) else x


def _missing(x: np.ndarray, place: Canvas) -> tuple[int, int]:
    """Cells of a canvas before those given: none where they fill it."""
    return (0, 0) if x.shape[2:] == place.shape else place.before


def compare(expected: int, got: int, date: int, name: str) -> None:
    if expected != got:
        raise DesyncError(
            f"{name}: date {date}: expected pixels of check {expected:08x}, got {got:08x}; bytes or weights differ"
        )
