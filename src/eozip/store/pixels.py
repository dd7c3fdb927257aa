"""Streams and pixels of a finished store, a row of chunks at a time, and the bytes that each section of a stream takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np

from eozip.arguments import whole
from eozip.chunk import api
from eozip.chunk.decoding import too_many
from eozip.codecs.registry import needs_torch
from eozip.errors import EozipError, FormatError, InputError
from eozip.store.description import Description
from eozip.store.documents import ARRAY
from eozip.store.files import RemoteFiles, StoreFiles, store_files
from eozip.store.grid import Shape, Window, decode_joint
from eozip.store.shards import Piece, Shard, Stream, index_bytes, shard_of
from eozip.threads import each


@dataclass(frozen=True)
class Strip:
    """Decoded pixels of one row of chunks within one shard.

    Attributes:
        times, rows, columns: half-open ranges in the scene.
        pixels: DN [T, C, h, w], bands in the array's order.
    """

    times: tuple[int, int]
    rows: tuple[int, int]
    columns: tuple[int, int]
    pixels: np.ndarray


@dataclass(frozen=True)
class _Fetched:
    """Bytes of one chunk.

    Attributes:
        shard: index of its shard, for messages.
        window: its place.
        pieces: its streams; dates in none of them are fill values.
        wanted: dates wanted, counted from the chunk's first; None: all.
    """

    shard: Shape
    window: Window
    pieces: list[Piece]
    wanted: Sequence[int] | None


class StorePixels:
    """Reads one store; `open_pixels` makes and closes it.

    Attributes:
        description: the store.
        files: its keys.
        budget: sections of each stream to read and decode; None for all.
    """

    def __init__(
        self,
        description: Description,
        files: StoreFiles,
        budget: int | None = None,
    ) -> None:
        self.description = description
        self.files = files
        self.budget = budget

    def shard(self, shard: Shape) -> Shard | None:
        """One shard, of which the index is read; None where it is not stored.

        Raises:
            FormatError: its index is damaged; the message names it.
        """
        grid = self.description.grid
        key = f"{ARRAY}/{grid.key(shard)}"
        found = self.files.tail(key, index_bytes(grid.per_shard))
        if found is None:
            return None
        try:
            return shard_of(found[0], partial(self.files.read, key), grid.per_shard, found[1])
        except FormatError as error:
            raise type(error)(f"{self.description.path}, shard {grid.key(shard)}: {error}") from error

    def strips(self, times: Sequence[int] | None = None) -> Iterator[Strip]:
        """All pixels in shard order.

        Args:
            times: dates wanted; None for all. Groups of dates with none of them are neither read nor decoded;
                their pixels in a strip, if it has others too, are fill values.

        Raises:
            FormatError: a chunk is damaged; the message names it.
        """
        rows = list(self._rows(times))
        decoded = self.decoded([(shard, window) for shard, windows in rows for window in windows], times)
        for _, windows in rows:
            pixels = np.concatenate([next(decoded) for _ in windows], axis=3)
            columns = windows[0].columns[0], windows[-1].columns[1]
            yield Strip(windows[0].times, windows[0].rows, columns, pixels)

    def _rows(self, times: Sequence[int] | None) -> Iterator[tuple[Shape, list[Window]]]:
        """Rows of chunks that hold any of the dates wanted, with their shards."""
        for shard in self.description.grid.shards():
            for windows in self.description.grid.strips(shard):
                if times is None or any(windows[0].times[0] <= t < windows[0].times[1] for t in times):
                    yield shard, windows

    def decoded(
        self, chunks: Sequence[tuple[Shape, Window]], times: Sequence[int] | None = None
    ) -> Iterator[np.ndarray]:
        """Pixels of chunks, in order; decoded beside each other (`eozip.threads`).

        Args:
            chunks: shards and windows in them, shard by shard; read no faster than they are decoded.
            times: dates wanted; None for all.

        Raises:
            FormatError: a chunk is damaged; the message names it.
        """
        network = needs_torch(self.description.codec.codec)
        return each(self._decode_one, self._fetched(chunks, times), len(chunks), network=network)

    def _fetched(
        self, chunks: Sequence[tuple[Shape, Window]], times: Sequence[int] | None
    ) -> Iterator[_Fetched]:
        for shard, group in groupby(chunks, key=lambda pair: pair[0]):
            windows = [window for _, window in group]
            opened = self.at_hand(shard, [window.position for window in windows])
            for window in windows:
                fetched = self.fetch(shard, window, opened, times)
                yield _Fetched(shard, window, fetched, _within(window, times))

    def at_hand(self, shard: Shape, positions: Sequence[Shape] | None = None) -> Shard | None:
        """As `shard`; where requests are dear, the bytes of its chunks are fetched now, but not where a budget cuts them.

        Args:
            shard: its index.
            positions: chunks that will be read; None: all.
        """
        opened = self.shard(shard)
        if opened is None or self.budget is not None or not isinstance(self.files, RemoteFiles):
            return opened
        key = f"{ARRAY}/{self.description.grid.key(shard)}"
        wanted = opened.positions() if positions is None else [p for p in positions if opened.holds(p)]
        spans = [opened.span(position) for position in wanted]
        return replace(opened, read=self.files.reader(key, spans))

    def _decode_one(self, one: _Fetched) -> np.ndarray:
        return self.decode(one.shard, one.window, one.pieces, one.wanted)

    def fetch(
        self, shard: Shape, window: Window, opened: Shard | None, times: Sequence[int] | None = None
    ) -> list[Piece]:
        """Bytes of one chunk: its streams with any of the dates wanted, as far as the budget needs them.

        Args:
            shard: index of its shard, for messages.
            window: the chunk.
            opened: its shard; None where that is not stored.
            times: dates of the scene; None for all.

        Returns:
            the streams; none where the chunk is not stored.

        Raises:
            FormatError: damaged bytes; the message names the chunk.
        """
        if opened is None or not opened.holds(window.position):
            return []
        wanted = _within(window, times)
        with self.naming(shard, window):
            found = opened.pieces(window.position, self.budget, wanted)
            _check_dates(found, range(window.times[1] - window.times[0]) if wanted is None else wanted)
        return found

    def decode(
        self, shard: Shape, window: Window, fetched: list[Piece], wanted: Sequence[int] | None = None
    ) -> np.ndarray:
        """One chunk in its true extent.

        Args:
            shard: index of its shard, for messages.
            window: the chunk.
            fetched: its streams; dates in none of them are fill values.
            wanted: dates wanted, counted from the chunk's first; others are fill values; None: all.

        Returns:
            DN [T, C, h, w].

        Raises:
            FormatError: damaged bytes, or a stream of another size than this place has.
        """
        out = np.full(self._extent(window), self.description.fill_value, np.dtype(self.description.dtype))
        with self.naming(shard, window):
            for piece in fetched:
                own = None if wanted is None else [t - piece.dates.start for t in wanted if t in piece.dates]
                own = None if own is None or len(own) == len(piece.dates) else own
                dn = decode_joint(piece.data, self.description.codec.grids, self.budget, own)
                self._place(out, piece.dates.start, dn, own)
        return out

    def _place(self, out: np.ndarray, first: int, dn: np.ndarray, dates: Sequence[int] | None) -> None:
        """Streams have the true extent of their place, or the full chunk where plain zarr wrote them.

        Dates behind the store's last belong to an append that never finished.
        """
        whole = dn.shape[1:] == self.description.grid.chunk[1:] and first == 0
        whole &= dates is not None or len(dn) == self.description.grid.chunk[0]
        fits = dn.ndim == 4 and dn.shape[1] == out.shape[1] and (whole or dn.shape[2:] == out.shape[2:])
        if dn.dtype != out.dtype or not fits:
            raise FormatError(
                f"expected a stream of [T, {out.shape[1]}, {out.shape[2]}, {out.shape[3]}] {out.dtype}, got "
                f"{dn.shape} {dn.dtype}"
            )
        places = [first + t for t in (range(len(dn)) if dates is None else dates) if first + t < len(out)]
        out[places] = dn[: len(places), :, : out.shape[2], : out.shape[3]]

    def _extent(self, window: Window) -> Shape:
        (t0, t1), (y0, y1), (x0, x1) = window.times, window.rows, window.columns
        return t1 - t0, self.description.grid.shape[1], y1 - y0, x1 - x0

    @contextmanager
    def naming(self, shard: Shape, window: Window) -> Iterator[None]:
        """Errors raised in the block say which chunk they are about."""
        try:
            yield
        except EozipError as error:
            raise type(error)(f"{self.place(shard, window)}: {error}") from error

    def place(self, shard: Shape, window: Window) -> str:
        """Names a chunk for people: key of its shard, dates, rows and columns."""
        ranges = (f"{a}:{b}" for a, b in (window.times, window.rows, window.columns))
        t, y, x = ranges
        return f"shard {self.description.grid.key(shard)}, dates {t}, rows {y}, columns {x}"


def dropped_of(fetched: list[Piece], window: Window) -> np.ndarray:
    """Which pixels of a chunk are forecast: bool [T, h, w].

    Args:
        fetched: its streams, whole.
        window: its place; dates in none of the streams are not forecast.

    Raises:
        FormatError: damaged flags, or of another size than this place has.
    """
    height, width = (stop - start for start, stop in (window.rows, window.columns))
    out = np.zeros((window.times[1] - window.times[0], height, width), bool)
    for piece in fetched:
        if api.inspect(piece.data).header.groups:
            continue  # of bands on several grids nothing is ever dropped
        flags = api.dropped(piece.data)
        if flags.ndim != 3 or flags.shape[1] < height or flags.shape[2] < width:
            raise FormatError(f"expected a stream of [T, C, {height}, {width}], got flags of {flags.shape}")
        count = max(0, min(len(flags), len(out) - piece.dates.start))
        out[piece.dates.start :][:count] = flags[:count, :height, :width]
    return out


def read_dropped(description: Description) -> np.ndarray:
    """Which pixels of a store are forecast, since nothing was spent on them.

    Args:
        description: the store.

    Returns:
        bool [T, H, W]; all False where nothing was dropped.

    Raises:
        FormatError: a chunk is damaged; the message names it.
    """
    times, _, rows, columns = description.grid.shape
    out = np.zeros((times, rows, columns), bool)
    with open_pixels(description) as pixels:
        for shard in description.grid.shards():
            opened = pixels.shard(shard)
            for window in (w for strip in description.grid.strips(shard) for w in strip):
                fetched = pixels.fetch(shard, window, opened)
                with pixels.naming(shard, window):
                    out[tuple(slice(*part) for part in _ranges(window))] = dropped_of(fetched, window)
    return out


def _within(window: Window, times: Sequence[int] | None) -> list[int] | None:
    """Dates of the scene that a chunk has, counted from its first."""
    first, stop = window.times
    return None if times is None else [t - first for t in times if first <= t < stop]


def _check_dates(found: list[Piece], wanted: Sequence[int]) -> None:
    missing = [t for t in wanted if not any(t in piece.dates for piece in found)]
    if missing:
        dates = ", ".join(f"{p.dates.start}:{p.dates.stop}" for p in found)
        raise FormatError(
            f"expected streams of its dates {list(wanted)}, got {dates or 'none'}; {missing} are missing: the store "
            "was changed after writing"
        )


@contextmanager
def open_pixels(description: Description, budget: int | None = None) -> Iterator[StorePixels]:
    """Open a described store for its pixels, at most `budget` sections of each stream.

    Raises:
        InputError: a budget below 1.
    """
    check_budget(budget)
    with store_files(description.path) as files:
        yield StorePixels(description, files, budget)


def check_budget(budget: int | None) -> None:
    """Refuse a budget of no section.

    Raises:
        InputError: see above.
    """
    if budget is not None and whole("budget", budget) < 1:
        raise InputError(f"budget: expected at least 1 section, got {budget}")


def check_sections(description: Description, budget: int | None) -> None:
    """Refuse a budget that no stream of a store has, if any has more than one section; headers are read as far as needed.

    Raises:
        InputError: see above.
        FormatError: a header is damaged.
    """
    check_budget(budget)
    if budget is None or budget == 1:
        return
    most = 0
    with open_pixels(description) as pixels:
        for stream in _streams(pixels):
            most = max(most, len(stream.ends))
            if most >= budget:
                return
    if most > 1:
        raise too_many(budget, most)


def read_pixels(
    description: Description, times: slice, rows: slice, columns: slice, budget: int | None = None
) -> np.ndarray:
    """One window of the array; reads and decodes only the groups and chunks it touches.

    Args:
        description: the store.
        times, rows, columns: start and stop within the scene.
        budget: sections of each stream (progressive codecs); None for all.

    Returns:
        DN [T, C, h, w], bands in the array's order.

    Raises:
        FormatError: a chunk is damaged; the message names it.
    """
    shape = (
        times.stop - times.start,
        description.grid.shape[1],
        rows.stop - rows.start,
        columns.stop - columns.start,
    )
    out = np.empty(shape, description.dtype)
    with open_pixels(description, budget) as pixels:
        touched = [
            (shard, window)
            for shard in description.grid.shards()
            for strip in description.grid.strips(shard)
            for window in strip
            if _touches(window, (times, rows, columns))
        ]
        decoded = pixels.decoded(touched, range(times.start, times.stop))
        for (_, window), dn in zip(touched, decoded, strict=True):
            _paste(out, dn, window, (times, rows, columns))
    return out


def _ranges(window: Window) -> tuple[tuple[int, int], ...]:
    return window.times, window.rows, window.columns


def _touches(window: Window, wanted: tuple[slice, ...]) -> bool:
    return all(a < part.stop and part.start < b for (a, b), part in zip(_ranges(window), wanted))


def _paste(out: np.ndarray, dn: np.ndarray, window: Window, wanted: tuple[slice, ...]) -> None:
    common = [(max(a, p.start), min(b, p.stop)) for (a, b), p in zip(_ranges(window), wanted)]
    t, y, x = (slice(a - p.start, b - p.start) for (a, b), p in zip(common, wanted))
    u, v, w = (slice(a - first, b - first) for (a, b), (first, _) in zip(common, _ranges(window)))
    out[t, :, y, x] = dn[u, :, v, w]


@dataclass(frozen=True)
class SectionSizes:
    """Bytes of all streams of a store.

    Attributes:
        streams: how many there are.
        exact: headers, masks and exceptions, which every reader needs.
        sections: [K] the first, second, ... section of all streams that have it.
        behind: what lies behind the codecs' sections (layers that keep a largest error).
        budgets: [K] bytes of streams that `--budget 1`, `2`, ... reads.
    """

    streams: int
    exact: int
    sections: list[int]
    behind: int
    budgets: list[int]


def section_sizes(description: Description) -> SectionSizes:
    """Read every header of a store, and nothing else of its streams.

    Raises:
        FormatError: a header is damaged.
    """
    with open_pixels(description) as pixels:
        streams = list(_streams(pixels))
    lengths = [[b - a for a, b in zip((s.exact, *s.ends), s.ends)] for s in streams]
    count = max(map(len, lengths), default=0)
    sections = [sum(each[k] for each in lengths if k < len(each)) for k in range(count)]
    exact = sum(stream.exact for stream in streams)
    behind = sum(stream.total for stream in streams) - exact - sum(sections)
    budgets = [sum(stream.needed(k + 1) for stream in streams) for k in range(count)]
    return SectionSizes(len(streams), exact, sections, behind, budgets)


def _streams(pixels: StorePixels) -> Iterator[Stream]:
    grid = pixels.description.grid
    for index in grid.shards():
        shard = pixels.shard(index)
        for window in (w for strip in grid.strips(index) for w in strip):
            if shard is not None and shard.holds(window.position):
                with pixels.naming(index, window):
                    found = shard.streams(window.position)
                yield from found
