"""Shards that an append writes: the streams there are, and the new ones behind them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from eozip.chunk import api
from eozip.errors import FormatError
from eozip.store.container import Container
from eozip.store.documents import ARRAY
from eozip.store.grid import Shape, Window
from eozip.store.pixels import StorePixels
from eozip.store.shards import Shard, pack_shard
from eozip.store.writer import Run


def put_shard(
    run: Run, pixels: StorePixels, container: Container, shard: Shape, new: Mapping[Shape, bytes]
) -> int:
    """Writes one shard: the streams it has, byte for byte, and the new ones behind them.

    Args:
        run: the append.
        pixels: the store before.
        container: takes the shard.
        shard: its index.
        new: streams of the new dates by position; none for chunks where these hold nothing.

    Returns:
        how many of its chunks had nothing stored before.

    Raises:
        FormatError: the shard is damaged, or holds a stream that reaches beyond the store's last date.
    """
    old = _old_streams(run, pixels, shard)
    streams = {**old, **new}
    for window in (window for windows in run.windows(shard) for window in windows):
        if window.position in streams:
            streams[window.position] = _joined(run, pixels, shard, window, old, new)
    if streams:
        container.put(f"{ARRAY}/{run.grid.key(shard)}", pack_shard(streams, run.grid.per_shard))
    return len(streams.keys() - old.keys())


def _joined(
    run: Run,
    pixels: StorePixels,
    shard: Shape,
    window: Window,
    old: Mapping[Shape, bytes],
    new: Mapping[Shape, bytes],
) -> bytes:
    """Bytes of one chunk; streams of a chunk lie date behind date, so a gap takes a stream of nothing."""
    dates_before = run.first - _first_date(run, shard, window.position) if window.times[0] == run.first else 0
    before, after = old.get(window.position), new.get(window.position)
    if before is None and dates_before > 0:
        before = _nothing(pixels, window, dates_before)
    if after is None:
        after = _nothing(pixels, window, window.times[1] - window.times[0])
    return (before or b"") + after


def _first_date(run: Run, shard: Shape, position: Shape) -> int:
    return (shard[0] * run.grid.per_shard[0] + position[0]) * run.grid.chunk[0]


def _old_streams(run: Run, pixels: StorePixels, shard: Shape) -> dict[Shape, bytes]:
    """Bytes of the chunks that hold dates of the store already."""
    if shard[0] * run.grid.shard[0] >= run.first:
        return {}  # a shard behind the last date is of an append that never finished
    opened = pixels.shard(shard)
    found = {} if opened is None else {p: _old(run, pixels, opened, shard, p) for p in opened.positions()}
    return {position: data for position, data in found.items() if data}


def _old(run: Run, pixels: StorePixels, opened: Shard, shard: Shape, position: Shape) -> bytes:
    """The streams of a chunk up to the store's last date."""
    dates = min(run.first - _first_date(run, shard, position), run.grid.chunk[0])
    streams = [stream for stream in opened.streams(position) if stream.first < dates]
    if streams and streams[-1].dates.stop != dates:
        raise FormatError(
            f"shard {run.grid.key(shard)}, chunk {position}: expected streams of {dates} dates, got one up to "
            f"{streams[-1].dates.stop}: it was written by zarr alone, and dates cannot be appended to it; encode the "
            "scene into a new store"
        )
    data = opened.read(streams[0].start, streams[-1].start + streams[-1].total) if streams else b""
    # an append that never finished may have left a stream of nothing before streams of its own
    return b"" if len(streams) == 1 and _holds_nothing(pixels, data) else data


def _nothing(pixels: StorePixels, window: Window, dates: int) -> bytes:
    found = pixels.description
    (y0, y1), (x0, x1) = window.rows, window.columns
    empty = np.full((dates, found.grid.shape[1], y1 - y0, x1 - x0), found.fill_value, found.dtype)
    codec = found.codec
    return api.encode(empty, "lossless", nodata=codec.nodata, sensor=codec.sensor, offset=codec.offset)


def _holds_nothing(pixels: StorePixels, data: bytes) -> bool:
    if api.inspect(data).header.codec != "lossless":
        return False
    return bool(np.all(api.decode_array(data) == pixels.description.fill_value))
