"""What an append writes: shards with more streams in them, and metadata of more dates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import MemoryStore

from eozip.errors import FormatError
from eozip.raster import Scene
from eozip.raster.files import printable
from eozip.store.container import Container
from eozip.store.files import StoreFiles
from eozip.store.grid import Shape, Window
from eozip.store.metadata import ARRAY, DIMENSIONS, DROPPED, dropped_keys, seconds_of
from eozip.store.pixels import StorePixels
from eozip.store.shards import Shard, pack_shard
from eozip.store.writer import Run

GROUP, TIME = "zarr.json", "time"


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
    from eozip import api

    found = pixels.description
    (y0, y1), (x0, x1) = window.rows, window.columns
    empty = np.full((dates, found.grid.shape[1], y1 - y0, x1 - x0), found.fill_value, found.dtype)
    codec = found.codec
    return api.encode(empty, "lossless", nodata=codec.nodata, sensor=codec.sensor, offset=codec.offset)


def _holds_nothing(pixels: StorePixels, data: bytes) -> bool:
    from eozip import api

    if api.inspect(data).header.codec != "lossless":
        return False
    return bool(np.all(api.decode(data) == pixels.description.fill_value))


def grown_keys(files: StoreFiles, scene: Scene, facts: Mapping[str, Any], dates: int) -> dict[str, bytes]:
    """Keys of metadata and coordinates for more dates, in the order in which they must be replaced.

    Args:
        files: the store before.
        scene: the new dates, bands in the source's order.
        facts: the new attribute `eozip`.
        dates: of the store with them.

    Raises:
        FormatError: metadata that dates cannot be added to.
    """
    group = _document(files, GROUP)
    _check_arrays(files, group)
    _grow_attributes(group["attributes"], scene, facts)
    arrays = {name: _document(files, f"{name}/{GROUP}") for name in (TIME, ARRAY)}
    consolidated = group.get("consolidated_metadata") or {"metadata": {}}
    for name, document in arrays.items():
        for each in (document, consolidated["metadata"].get(name, {})):
            each["shape"] = [dates, *document["shape"][1:]]
    documents = {f"{name}/{GROUP}": document for name, document in arrays.items()}
    counts = {} if facts.get("date_dropped") is None else dropped_keys(facts["date_dropped"])
    if counts:
        consolidated["metadata"][DROPPED] = json.loads(counts[f"{DROPPED}/{GROUP}"])
    return {
        **_time_chunks(files, group["attributes"]["geotiff"]["dates"]),
        **counts,
        **{key: json.dumps(document).encode() for key, document in {**documents, GROUP: group}.items()},
    }


def _document(files: StoreFiles, key: str) -> dict[str, Any]:
    data = files.get(key)
    if data is None:
        raise FormatError(
            f"{files.path}: expected the key {key}, got none; the store was changed after writing"
        )
    try:
        return json.loads(data)
    except ValueError as error:
        raise FormatError(f"{files.path}, {key}: expected JSON, got {error}; the store is damaged") from error


def _check_arrays(files: StoreFiles, group: dict[str, Any]) -> None:
    """Others along time would be left too short, and the store could not be opened any more."""
    for name in files.names():
        array = name.removesuffix(f"/{GROUP}")
        if array in (name, TIME, ARRAY, DROPPED):
            continue
        if DIMENSIONS[0] in (_document(files, name).get("dimension_names") or ()):
            raise FormatError(
                f"{files.path}: expected no array along time but {ARRAY} and {DROPPED}, got {array}, whose new dates "
                "nobody knows; take it out of the store first"
            )


def _grow_attributes(attributes: dict[str, Any], scene: Scene, facts: Mapping[str, Any]) -> None:
    geotiff = attributes["geotiff"]
    if "masks" in geotiff or any(scene.masks):
        geotiff["masks"] = [*geotiff.get("masks", [False] * len(geotiff["files"])), *scene.masks]
    geotiff["tags"] += scene.tags
    geotiff["files"] += [printable(path).replace("\\", "/").rsplit("/", 1)[-1] for path in scene.paths]
    geotiff["dates"] += [None if date is None else date.isoformat() for date in scene.dates]
    attributes["eozip"] = dict(facts)


def _time_chunks(files: StoreFiles, dates: Sequence[str | None]) -> dict[str, bytes]:
    """Chunks of the coordinate: what they held before comes first in them, so that they suit old readers too."""
    memory = MemoryStore()
    for name in (name for name in files.names() if name.startswith(f"{TIME}/")):
        memory._store_dict[name] = default_buffer_prototype().buffer.from_bytes(files.get(name) or b"")
    array = zarr.open_array(memory, path=TIME)
    array.resize((len(dates),))
    array[:] = np.array(_times(array, dates), np.int64)
    keys = {key: value.to_bytes() for key, value in memory._store_dict.items() if key != f"{TIME}/{GROUP}"}
    return {key: data for key, data in keys.items() if data != files.get(key)}


def _times(array: zarr.Array, dates: Sequence[str | None]) -> list[int]:
    """Values of `time`: seconds, or an index where the store's first dates were not all known."""
    if "units" not in array.attrs:
        return list(range(len(dates)))
    known = [date for date in dates if date is not None]
    if len(known) < len(dates):
        raise FormatError(f"expected every date of a store with times to be known, got {list(dates)}")
    return [seconds_of(datetime.fromisoformat(date)) for date in known]
