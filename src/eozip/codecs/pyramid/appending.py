"""Series that grow: dates are added behind those of a chunk, which tell of them and stay as they are to the bit.

    streams of old dates     kept byte for byte, but for the layout at the head of the first one, which names all anchors
    new dates                as ever, in streams of their own: old ones are read, then new ones are written

They are a group of their own in the order of dates (references.py), whose anchors may be old dates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from eozip.codecs.base import Encoded, UnsuitableError
from eozip.codecs.pyramid import overviews, registration
from eozip.codecs.pyramid.anchors import MOST_DATES, anchors_of, coarser_of, finer_of
from eozip.codecs.pyramid.codec import (
    PyramidCodec,
    Reader,
    gain_of,
    given_of,
    joined,
    levels_of,
    parted,
    pixels_of_walk,
    skipped_of,
    write_layout,
)
from eozip.codecs.pyramid.layout import Group
from eozip.codecs.pyramid.ports import writing_port
from eozip.codecs.pyramid.references import Order, arrived, code_order
from eozip.codecs.pyramid.side import Side
from eozip.codecs.pyramid.walk import STEP_UNITS, Given, Walk, pictures_of
from eozip.codecs.scales import SECTIONS
from eozip.entropy.range_coder import ReadPort, Tables, WritePort
from eozip.errors import FormatError
from eozip.threads import one_blas_thread

Shape = tuple[int, int, int, int]


@dataclass(frozen=True, eq=False)
class SeriesCodec(PyramidCodec):
    """A codec of any bands whose dates tell of others, also of such as come later."""

    temporal: bool = True

    def behind(self, coded: Encoded, shape: Shape, dates: int) -> PyramidCodec:
        """As `eozip.codecs.base.GrowingCodec.behind`."""
        own = {one.name: getattr(self, one.name) for one in fields(PyramidCodec)}
        return _Behind(**own, before=coded, shape=shape, dates=dates)

    @one_blas_thread()
    def shortened(self, coded: Encoded, shape: Shape, dates: int) -> Encoded:
        """As `eozip.codecs.base.GrowingCodec.shortened`."""
        old = _Old(self, coded, shape, dates)
        old.walked(1)
        streams = old.streams(old.order, [[]] * SECTIONS)
        skip, levels = (_both(own, None, dates, 0) for own in (coded.skip, coded.levels))
        return Encoded(tuple(map(joined, streams)), coded.checks[:dates], skip=skip, levels=levels)


@dataclass(frozen=True, eq=False)
class _Behind(PyramidCodec):
    """Codes dates behind others.

    Attributes:
        before: the chunk that they join.
        shape: its T, C, H, W.
        dates: how many of its dates stay, the first ones.
    """

    before: Encoded = field(kw_only=True)
    shape: Shape = field(kw_only=True)
    dates: int = field(kw_only=True)

    def grouped(self, x: np.ndarray, holes: np.ndarray | None) -> tuple[list[Group], list[np.ndarray]]:
        """As `PyramidCodec.grouped`; dates that show nothing suit any grids."""
        groups = Reader(self, self.before, self.shape, None).groups
        parts = [x[:, list(g.bands)] for g in groups]
        if holes is None or not holes.all() or any(g.grid is not None and g.is_native for g in groups):
            return super().grouped(x, holes)
        return groups, [
            part if g.grid is None else g.grid.solved(part) for g, part in zip(groups, parts, strict=True)
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
        """Old and new dates; `decoded` gives the new ones."""
        first, count = self.dates, len(cells[0])
        new = range(first, first + count)
        old = _Old(self, self.before, self.shape, first)
        old.check(groups, self.plan(quality, new.stop).step, new.stop)
        walk = old.walked(1, more=True)
        given = given_of(groups, cells, walk.ladders, holes)
        skip = _both(self.before.skip, skip, first, count)
        coarser, levels = coarser_of(levels, holes, count), _both(self.before.levels, levels, first, count)
        walk.levels = levels_of(walk.ladders, levels, size)
        walk.skipped = skipped_of(walk.ladders, skip, size)
        _directed(walk, old, given, coarser)
        ports = [[writing_port() for _ in new] for _ in range(SECTIONS)]
        walk.ports = [[*before[:first], *own] for before, own in zip(walk.ports, ports, strict=True)]
        walk.run(new)
        made = [[port.finish() for port in section] for section in ports]
        streams = old.streams(walk.order, made)
        bits = tuple(8.0 * sum(map(len, of_date)) for of_date in zip(*streams, strict=True))
        checks = tuple(walk.check(t) for t in range(new.stop))

        def decoded() -> list[np.ndarray]:
            return pixels_of_walk(walk, new, groups, size)

        sections = tuple(map(joined, streams))
        return Encoded(sections, checks, bits=bits, skip=skip, levels=levels, decoded=decoded)


def _directed(walk: Walk, old: _Old, given: Given, coarser: np.ndarray) -> None:
    """Let a walk of old dates go on with what an encoder brings: in which order, and where new dates lie."""
    first = len(old.dates)
    finest = np.concatenate([old.finest(walk), given.finest])
    coarser = np.concatenate([np.ones(first), coarser])
    anchors = anchors_of(finest, walk.step / STEP_UNITS, coarser, old.order)
    walk.order, walk.first = arrived([*old.order.groups, (len(coarser) - first, anchors)]), first
    walk.finer = (
        np.concatenate([walk.finer[:first], finer_of(walk.order)[first:]]) if walk.finer is not None else None
    )
    settled = walk.positions[:first]
    walk.positions = registration.positions(finest, walk.order.known, walk.order.waves, settled)
    walk.wanted, walk.hidden = given.wanted, given.hidden


class _Old(Reader):
    """Reads the first dates of a chunk for others to follow; its streams as they are then.

    Attributes:
        order: of these dates.
    """

    def __init__(self, codec: PyramidCodec, coded: Encoded, shape: Shape, dates: int) -> None:
        super().__init__(codec, coded, shape, range(dates))
        self._copied.calls.clear()  # the layout, which is written anew
        self.order = arrived(_first_of(self._order.groups, dates))
        if self.order.known != self._order.known[:dates]:
            raise FormatError(
                f"{codec.id}: expected the first {dates} of {shape[0]} dates to need no others, got references "
                f"{self._order.known[:dates]}"
            )
        anchors, left = ({t for t, _, _ in order.anchors} for order in (self._order, self.order))
        if left != {t for t in anchors if t < dates}:  # whose streams begin with their steps
            raise FormatError(
                f"{codec.id}: expected one of the first {dates} of {shape[0]} dates that is no anchor of theirs, got "
                f"anchors {sorted(anchors)}; keep more dates, or encode the scene into a new store"
            )
        # a date more, which is never read: for it all others are kept
        known = (*self.order.known, tuple(range(dates)))
        self._order = Order(self.order.waves, known, self.order.groups)

    def _section(self, number: int) -> list[ReadPort]:
        ports = super()._section(number)
        if number == 0:
            self._copied = _CopiedPort(ports[0])
            return [self._copied, *ports[1:]]
        return ports

    def check(self, groups: Sequence[Group], step: int, dates: int) -> None:
        """Refuse to be followed by what is coded otherwise, so that there are so many dates in all.

        Raises:
            UnsuitableError: see above.
        """
        gains = {g.bands: gain_of(g) for g in groups}
        wrong = {
            "dates": dates > MOST_DATES,
            "grids of bands": list(groups) != self.groups,
            "steps": (step, gains) != (self._step, self._gain_of)
            or self._brightness != self._written_to(writing_port()),
        }
        if any(wrong.values()):
            names = ", ".join(name for name, is_wrong in wrong.items() if is_wrong)
            raise UnsuitableError(f"{self._codec.id}: the chunk has other {names} than dates behind it would")

    def _written_to(self, port: WritePort) -> float:
        side = Side(port, self._codec.model.tables)
        return write_layout(side, self.groups, sum(len(g.bands) for g in self.groups), self._step)

    def finest(self, walk: Walk) -> np.ndarray:
        """Decoded cells of the finest group, float32 [T, C, h, w]."""
        finest = min(self.groups, key=lambda g: g.factor)
        made = {group.bands: picture for group, picture in pictures_of(walk, self.dates, self._gain_of)}
        return overviews.of_cells(finest, made[finest.bands], self._size, 1)

    def streams(self, order: Order, new: Sequence[Sequence[bytes]]) -> list[list[bytes]]:
        """Streams [section][date] of a chunk of dates in an order, of which these come first; all of these were read."""
        first, dates = writing_port(), len(order.known)
        self._written_to(first)
        if dates > 1:
            code_order(Side(first, self._codec.model.tables), dates, order.groups)
        self._copied.write(first)
        parts = [parted(section, self._count, self._codec.id) for section in self._coded.sections]
        parts[0][0] = first.finish()
        return [[*own[: len(self.dates)], *more] for own, more in zip(parts, new, strict=True)]


class _CopiedPort:
    """Reads a stream, and remembers what it read.

    Attributes:
        calls: write it again, one after the other.
    """

    def __init__(self, port: ReadPort) -> None:
        self._port = port
        self.calls: list[Callable[[WritePort], object]] = []

    def code(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `DecodePort.code`."""
        read = self._port.code(None, rows, tables)
        self.calls.append(lambda port: port.code(read, rows, tables))
        return read

    def code_trellis(self, symbols: np.ndarray | None, rows: np.ndarray, tables: Tables) -> np.ndarray:
        """As `DecodePort.code_trellis`."""
        values = self._port.code_trellis(None, rows, tables)
        read = np.sign(values) * ((np.abs(values) + 1) // 2)  # of either quantiser, see `trellis.points`
        self.calls.append(lambda port: port.code_trellis(read, rows, tables))
        return values

    def finish(self) -> None:
        """As `DecodePort.finish`."""
        self._port.finish()

    def write(self, port: WritePort) -> None:
        """Write all of it to another port."""
        for call in self.calls:
            call(port)


def _first_of(groups: Sequence[tuple[int, tuple[int, ...]]], dates: int) -> list[tuple[int, tuple[int, ...]]]:
    """Groups of the first dates, where these know no others."""
    found, first = [], 0
    for count, anchors in groups:
        stop = min(first + count, dates)
        if first < stop:
            kept = tuple(t for t in anchors if t < stop)
            found.append((stop - first, kept if first else kept[: stop - 1]))
        first += count
    return found


def _both(before: np.ndarray | None, new: np.ndarray | None, first: int, count: int) -> np.ndarray | None:
    """Flags or levels of the first old dates and all new ones; None: all 0."""
    like = new if before is None else before
    if like is None:
        return None
    parts = [
        np.zeros((dates, *like.shape[1:]), like.dtype) if own is None else own[:dates]
        for own, dates in ((before, first), (new, count))
    ]
    out = np.concatenate(parts)
    return out if out.any() else None
