"""Shards of a store encoded from pixels, and what is known of them: bits, squared errors, qualities.

Squared errors are summed by date and band, chunk by chunk, so that the PSNR of a scene needs no second reading.
PSNR is 10 log10(peak^2 / MSE) of DN without radiometric offset, clipped to 0 .. peak, over valid pixels; the peak is the DN
of reflectance 1, 10,000 for Sentinel-2.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any, Protocol, cast

import numpy as np

from eozip.chunk.encoding import EncodedChunk, takes_levels
from eozip.chunk.growing import Before
from eozip.chunk.pixels import PEAK, unit_of
from eozip.codecs.registry import LOSSLESS, WITHOUT_NETWORK, needs_torch
from eozip.raster import Scene
from eozip.raster.masks import MaskReader
from eozip.store.codec import EozipChunkCodec
from eozip.store.grid import Grid, Shape, Window, band_factors
from eozip.store.holding import Holding
from eozip.store.old_streams import OldStreams
from eozip.store.options import Progress
from eozip.store.overviews import Overviews
from eozip.store.priorities import Levels, PlaceReader
from eozip.threads import each


@dataclass
class Tally:
    """Running sums of one comparison.

    Attributes:
        dates: T.
        bands: C.
        offset: radiometric offset that is taken off before clipping: one, or float [T, C].
        nodata: DN that is left out, or None.
        factors: [C] of bands that are repeated from coarser grids, of which only the samples count; empty: none is.
        peak: DN of reflectance 1 without offset.
        squares: [T, C] sum of squared differences.
        counts: [T, C] valid pixels that are not forecast.
        dropped: [T] forecast pixels (of H x W).
        unequal: pixels that differ at all, nodata included, forecast ones not.
    """

    dates: int
    bands: int
    offset: float | np.ndarray = 0
    nodata: int | None = None
    factors: tuple[int, ...] = ()
    peak: float = PEAK
    squares: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)
    dropped: np.ndarray = field(init=False)
    unequal: int = 0

    def __post_init__(self) -> None:
        self.squares = np.zeros((self.dates, self.bands))
        self.counts = np.zeros((self.dates, self.bands), dtype=np.int64)
        self.dropped = np.zeros(self.dates, dtype=np.int64)

    def add(
        self, original: np.ndarray, decoded: np.ndarray, first: int = 0, dropped: np.ndarray | None = None
    ) -> None:
        """Count one pair of stacks.

        Args:
            original: DN [t, C, h, w].
            decoded: DN of the same shape and dtype.
            first: date of the tally that the stacks begin with.
            dropped: bool [t, h, w], forecast pixels, which nothing is said about; None: there are none.
        """
        coded = np.ones((len(original), *original.shape[2:]), bool) if dropped is None else ~dropped
        self.dropped[first : first + len(original)] += (~coded).sum((1, 2))
        for t in range(len(original)):
            for band in range(self.bands):
                place = first + t, band
                factor = self.factors[band] if self.factors else 1
                planes = (original[t, band], decoded[t, band], coded[t])
                self._add_plane(place, *(plane[::factor, ::factor] for plane in planes))

    def _add_plane(
        self, where: tuple[int, int], original: np.ndarray, decoded: np.ndarray, coded: np.ndarray
    ) -> None:
        valid = coded if self.nodata is None else coded & (original != self.nodata)
        offset = self._offsets[where]
        error = self._clipped(original, offset) - self._clipped(decoded, offset)
        self.squares[where] += float(np.sum(np.square(error), where=valid, dtype=np.float64))
        self.counts[where] += int(valid.sum())
        self.unequal += int(np.count_nonzero((original != decoded) & coded))

    @property
    def _offsets(self) -> np.ndarray:
        return np.broadcast_to(self.offset, (self.dates, self.bands))

    def _clipped(self, dn: np.ndarray, offset: float) -> np.ndarray:
        return np.clip(dn.astype(np.float32) - np.float32(offset), 0, np.float32(self.peak))

    def psnr(self) -> float | None:
        """Over all dates and bands, dB; None where all valid pixels are equal (or none is valid)."""
        return psnr_of(float(self.squares.sum()), int(self.counts.sum()), self.peak)

    def band_psnr(self) -> list[float | None]:
        """[C] dB, None as above."""
        return _each(self.squares.sum(0), self.counts.sum(0), self.peak)

    def date_psnr(self) -> list[float | None]:
        """[T] dB, None as above."""
        return _each(self.squares.sum(1), self.counts.sum(1), self.peak)


def _each(squares: np.ndarray, counts: np.ndarray, peak: float) -> list[float | None]:
    return [psnr_of(float(s), int(n), peak) for s, n in zip(squares, counts)]


def psnr_of(square: float, count: int, peak: float = PEAK) -> float | None:
    """dB of a sum of squared differences over `count` pixels; None where it is 0 or there are none."""
    if count == 0 or square == 0:
        return None
    return 10 * math.log10(peak**2 * count / square)


def squares_of(psnr: Sequence[float | None], counts: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """The inverse of `psnr_of` for each band: float64 [C] sums of squared differences.

    Args:
        psnr: [C] dB, None for no difference.
        counts: [C] pixels.
        peak: see `Tally`.
    """
    means = [0.0 if value is None else peak**2 / 10 ** (value / 10) for value in psnr]
    return np.array(means) * counts


class PixelReader(Protocol):
    """Where pixels come from, a window at a time."""

    def read(self, t: slice, y: slice, x: slice) -> np.ndarray:
        """[t, C, h, w] of a window, bands in the order of the store."""
        ...


@dataclass
class Run:
    """State of one run: where the totals gather.

    Attributes:
        codec: with everything it was asked for.
        grid: of the whole store.
        tally: of the dates written.
        progress: see `Progress`.
        first: first date of the store that is written; those before it are there already.
        drop: mask of the dates written, of which cells that are hidden altogether are not coded; None: none.
        offsets: [T written] radiometric offset that streams of a date say; empty: the codec's.
        hold: purposes that every chunk serves; None: none.
        places: quality by place of the dates written; None: all alike.
        levels: gathers the stored levels of the dates written; None: the store has none.
        is_masked: whether `drop`, or that of others whose sums gather here, hides pixels.
        joined: chunks whose new dates joined the stream of those that were there; `apart` those that have one of their own
            behind it.
        date_bits: [T written] bits of streams; NaN where the codec cannot tell.
    """

    codec: EozipChunkCodec
    grid: Grid
    tally: Tally
    progress: Progress
    first: int = 0
    drop: MaskReader | None = None
    offsets: tuple[int, ...] = ()
    hold: Holding | None = None
    places: PlaceReader | None = None
    levels: Overviews | None = None
    is_masked: bool = False
    done: int = 0
    empty: int = 0
    missed: int = 0
    layered: int = 0
    without_network: int = 0
    levelled: int = 0
    joined: int = 0
    apart: int = 0
    beside_bytes: int = 0
    qualities: list[float] = field(default_factory=list)
    date_bits: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.date_bits = np.zeros(self.tally.dates)
        self.is_masked |= self.drop is not None

    def windows(self, shard: Shape) -> Iterator[list[Window]]:
        """The chunks of a shard that get new dates, with these dates alone, a row of chunks at a time."""
        for strip in self.grid.strips(shard):
            if strip[0].times[1] > self.first:
                yield [replace(w, times=(max(self.first, w.times[0]), w.times[1])) for w in strip]

    def level_chunks(
        self, shard: Shape, read: Callable[[str], bytes | None] = lambda key: None
    ) -> dict[str, bytes]:
        """Bytes of the stored levels that a coded shard makes, by key.

        Args:
            shard: its index.
            read: gives the bytes of a key of the store before.
        """
        return {} if self.levels is None else self.levels.chunks(shard, self.first, read)

    @property
    def total(self) -> int:
        """Chunks to encode."""
        return sum(len(strip) for shard in self.grid.shards() for strip in self.windows(shard))

    def known_date_bits(self) -> list[float | None]:
        """As in `Summary`."""
        return [None if np.isnan(bits) else round(float(bits), 1) for bits in self.date_bits]

    def date_dropped(self) -> list[int] | None:
        """As in `Summary`."""
        return self.tally.dropped.tolist() if self.is_masked else None

    def dropped_share(self) -> float | None:
        """As in `Summary`."""
        pixels = self.tally.dates * math.prod(self.grid.shape[2:])
        return int(self.tally.dropped.sum()) / pixels if self.is_masked else None


def tally_of(codec: EozipChunkCodec, scene: Scene, order: Sequence[int]) -> Tally:
    """Count the dates of a scene, its bands in the order of the array."""
    times, bands = scene.shape[:2]
    offset: float | np.ndarray = codec.offset
    if scene.offsets is not None:
        offset = np.array(scene.offsets)[:, list(order)]
    peak = PEAK * unit_of(codec.sensor)
    return Tally(times, bands, offset, codec.nodata, band_factors(codec.grids, bands), peak)


def stream_offsets(scene: Scene) -> tuple[int, ...]:
    """[T] whole DN that the streams of a date say; empty where all bands of all dates have the codec's offset."""
    if scene.offsets is None:
        return ()
    return tuple(round(Counter(of_date).most_common(1)[0][0]) for of_date in scene.offsets)


@dataclass(frozen=True)
class _Chunk:
    """New dates of one chunk, before it is coded.

    Attributes:
        shard: index of its shard.
        window: its place.
        dn: [t, C, h, w], bands in the order of the store.
        drop: bool [t, h, w], pixels to leave out; None: none.
        offsets: [t] radiometric offsets; dates of one offset are coded together.
        levels: how much more coarsely places are coded; None: all alike.
        before: the stream of old dates that the new ones may join; None: there is none.
    """

    shard: Shape
    window: Window
    dn: np.ndarray
    drop: np.ndarray | None
    offsets: tuple[int, ...]
    levels: Levels | None = None
    before: Before | None = None

    def runs(self) -> Iterator[tuple[slice, int]]:
        """Dates that follow each other and have one offset, and that offset."""
        first = 0
        for offset, group in groupby(self.offsets):
            count = len(list(group))
            yield slice(first, first + count), offset
            first += count


def encoded_shards(
    run: Run, reader: PixelReader, old: OldStreams | None = None
) -> Iterator[tuple[Shape, dict[Shape, bytes]]]:
    """Every shard that gets new dates, with their streams by position; none for chunks that hold nothing.

    Chunks are coded beside each other (`eozip.threads`). Streams hold old dates, too, where new ones joined them.

    Args:
        run: what is to be written.
        reader: the pixels.
        old: streams that the store has; None: it is new.

    Raises:
        FormatError: an old stream is damaged.
    """
    total = run.total
    encode = partial(_encode_chunk, run.codec, run.hold, old)
    coded = each(encode, _chunks(run, reader, old), total, network=needs_torch(run.codec.codec))
    for shard, chunks in groupby(coded, key=lambda pair: pair[0].shard):
        streams: dict[Shape, bytes] = {}
        for chunk, one in chunks:
            _keep_streams(run, streams, chunk, one)
            run.progress(run.done, total)
        yield shard, streams


def _chunks(run: Run, reader: PixelReader, old: OldStreams | None) -> Iterator[_Chunk]:
    """Pixels are read a row of chunks at a time: striped files hold whole rows."""
    for shard in run.grid.shards():
        for windows in run.windows(shard):
            left = windows[0].columns[0]
            times = slice(*(t - run.first for t in windows[0].times))
            place = times, slice(*windows[0].rows), slice(left, windows[-1].columns[1])
            pixels = reader.read(*place)
            hidden = None if run.drop is None else run.drop.read(*place)
            for window in windows:
                part = ..., slice(window.columns[0] - left, window.columns[1] - left)
                drop = None if hidden is None else hidden[part]
                offsets = run.offsets[times] or (run.codec.offset,) * (times.stop - times.start)
                dn = np.ascontiguousarray(pixels[part])
                levels = None
                if run.places is not None:
                    own = np.array(offsets, np.float32)[:, None, None, None]
                    levels = run.places.read(times, slice(*window.rows), slice(*window.columns), dn, own)
                before = None if old is None else old.last(shard, window)
                yield _Chunk(shard, window, dn, drop, offsets, levels, before)


def _encode_chunk(
    codec: EozipChunkCodec, hold: Holding | None, old: OldStreams | None, chunk: _Chunk
) -> tuple[_Chunk, list[EncodedChunk]]:
    """A chunk and its streams, their pixels known; none where zarr's fill value says it all."""
    is_empty = bool(np.all(chunk.dn == (codec.nodata or 0)))
    if is_empty and (chunk.before is None or codec.nodata is None):
        return chunk, []
    with nullcontext() if old is None or chunk.before is None else old.naming(chunk.shard, chunk.window):
        made = [_encode_run(codec, hold, chunk, dates, offset) for dates, offset in chunk.runs()]
    # dates of nothing that join others spare those after them a stream of their own
    return chunk, [] if is_empty and not made[0].joins else made


def _encode_run(
    codec: EozipChunkCodec, hold: Holding | None, chunk: _Chunk, dates: slice, offset: int
) -> EncodedChunk:
    drop = None if chunk.drop is None else chunk.drop[dates]
    levels = None if chunk.levels is None else chunk.levels.of(dates)
    if levels is not None and codec.quality is not None:
        codec = replace(codec, quality=levels.quality(codec.quality))
    is_held = hold is not None and hold.by_chunk
    before = None if dates.start or is_held else chunk.before

    def encode(settings: Mapping[str, Any]) -> EncodedChunk:
        given = dict(settings)
        level_map = given.pop("level_map", None if levels is None else levels.cells)
        asked = replace(codec, **given)
        hidden, level_map = (
            (None, None) if asked.codec == LOSSLESS else (drop, level_map)
        )  # it codes every pixel
        coded = asked.encoded(
            chunk.dn[dates],
            drop=hidden,
            offset=offset,
            level_map=level_map,
            before=before,
        )
        return coded if coded.pixels is not None else replace(coded, pixels=asked.decoded(coded.blob))

    if hold is None or not hold.by_chunk:
        return encode({})
    can_level = levels is None and takes_levels(codec.codec)
    return hold.encoded(encode, chunk.dn[dates], offset=offset, can_level=can_level).coded


def _keep_streams(
    run: Run, streams: dict[Shape, bytes], chunk: _Chunk, coded: Sequence[EncodedChunk]
) -> None:
    first = chunk.window.times[0] - run.first
    run.done += 1
    run.empty += bool(np.all(chunk.dn == (run.codec.nodata or 0)))
    if not coded:
        run.tally.add(chunk.dn, chunk.dn, first)
        return
    streams[chunk.window.position] = b"".join(one.blob for one in coded)
    for (dates, _), one in zip(chunk.runs(), coded, strict=True):
        dn, decoded = chunk.dn[dates], cast(np.ndarray, one.pixels)
        run.tally.add(dn, decoded, first + dates.start, one.dropped)
        if run.levels is not None:
            run.levels.add(chunk.shard, chunk.window, run.first + first + dates.start, decoded)
        of_run = slice(first + dates.start, first + dates.stop)
        run.date_bits[of_run] += _shares(one, len(dn))
    if chunk.before is not None:
        run.joined += coded[0].joins
        run.apart += not coded[0].joins
    reports = [one.report for one in coded]
    run.missed += any(report.reached is False for report in reports)
    run.layered += any(report.residual > 0 for report in reports)
    run.without_network += any(report.codec in WITHOUT_NETWORK for report in reports)
    run.levelled += any(report.levels for report in reports)
    run.qualities += [report.quality for report in reports]


def _shares(coded: EncodedChunk, dates: int) -> np.ndarray:
    """[t] bits of a stream's new dates; NaN where nobody counted."""
    counted, size = coded.report.date_bits, len(coded.blob)
    if counted is None:
        return np.full(dates, 8.0 * size if dates == 1 and not coded.joins else math.nan)
    return np.array(counted) * (1 if coded.joins else 8.0 * size / sum(counted))
