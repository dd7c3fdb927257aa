"""One shard at a time, wherever it is coded: what a worker of a cluster does, and how its sums come together again.

Dask and zarr corrupt shards that several tasks write at once. Here one task codes all chunks of a shard and writes it whole.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from eozip.arguments import Place, RemotePath
from eozip.errors import EozipError, InputError
from eozip.keys import keys_of
from eozip.raster.masks import MaskReader
from eozip.store.codec import EozipChunkCodec
from eozip.store.coding import Run, encoded_shards, stream_offsets, tally_of
from eozip.store.documents import ARRAY
from eozip.store.files import Container
from eozip.store.grid import Grid, Shape
from eozip.store.holding import Holding
from eozip.store.joined import Joined, dates_of, open_joined
from eozip.store.old_streams import OldStreams
from eozip.store.overviews import Level, Overviews
from eozip.store.priorities import PlaceReader
from eozip.store.shards import pack_shard

if TYPE_CHECKING:
    from eozip.store.coding import Run

COUNTS = ("done", "empty", "missed", "layered", "without_network", "levelled")
_AHEAD = 2  # shards under way for each thread of the cluster


@dataclass(frozen=True)
class OneShard(Grid):
    """A grid of which one shard is to be written."""

    only: Shape = (0, 0, 0, 0)

    def shards(self) -> Iterator[Shape]:
        """That one."""
        yield self.only


def coded_shard(
    found: Joined,
    order: Sequence[int],
    codec: EozipChunkCodec,
    grid: Grid,
    shard: Shape,
    first: int,
    hold: Holding | None = None,
    drop: MaskReader | None = None,
    levels: Sequence[Level] = (),
    places: PlaceReader | None = None,
    old: OldStreams | None = None,
) -> tuple[Run, dict[Shape, bytes]]:
    """Code the new dates of one shard.

    Args:
        found: these dates.
        order: positions in their scene of the bands in the order of the store.
        codec: with everything it is asked for.
        grid: of the store up to these dates.
        shard: index.
        first: position in the store of the first of these dates.
        hold: purposes that every chunk is to serve; None: none.
        drop: mask of these dates, of which hidden cells are not coded; None: none.
        levels: that are stored.
        places: quality by place of these dates; None: all alike.
        old: streams that the shard has; None: there are none.

    Returns:
        what the writer knows of them, and streams by position.
    """
    own = {f.name: getattr(grid, f.name) for f in fields(Grid)}
    tally = tally_of(codec, found.scene, order)
    run = Run(codec, OneShard(**own, only=shard), tally, lambda done, total: None, first, drop)
    run.offsets, run.hold, run.places = stream_offsets(found.scene), hold, places
    run.levels = Overviews(tuple(levels), codec, found.scene.dtype) if levels else None
    with open_joined(found, order) as reader:
        coded = dict(encoded_shards(run, reader, old))
    return run, coded.get(shard, {})


def part_of(run: Run) -> dict[str, Any]:
    """What a writer knows of its dates, ready for JSON."""
    return {
        "squares": run.tally.squares.tolist(),
        "counts": run.tally.counts.tolist(),
        "dropped": run.tally.dropped.tolist(),
        "date_bits": [None if math.isnan(bits) else float(bits) for bits in run.date_bits],
        "qualities": [min(run.qualities), max(run.qualities)] if run.qualities else [],
        **{name: getattr(run, name) for name in COUNTS},
        **({"worst": run.hold.found()} if run.hold is not None and run.hold.worst else {}),
    }


def add_part(run: Run, part: Mapping[str, Any], start: int) -> None:
    """Add what the writer of a shard knows; `start` is its first date, counted from the run's."""
    dates = slice(start, start + len(part["dropped"]))
    run.tally.squares[dates] += np.array(part["squares"])
    run.tally.counts[dates] += np.array(part["counts"], np.int64)
    run.tally.dropped[dates] += np.array(part["dropped"], np.int64)
    run.date_bits[dates] += np.array([math.nan if bits is None else bits for bits in part["date_bits"]])
    run.qualities += part["qualities"]
    if run.hold is not None:
        run.hold.add(part.get("worst", {}))
    for name in COUNTS:
        setattr(run, name, getattr(run, name) + part[name])


# --- arrays of dask, on the cluster of this process ---


def cluster_of(found: Joined) -> Any:
    """The client of this process, where the pixels are arrays of dask and a cluster is there; else None."""
    distributed = sys.modules.get("distributed")
    if distributed is None or not any(
        _is_lazy(plane) for plane in (found.product.scenes[0].planes or {}).values()
    ):
        return None
    try:
        return distributed.default_client()
    except ValueError:
        return None


def _is_lazy(plane: Any) -> bool:
    return hasattr(plane, "lazy") and plane.lazy() is not None


def check_aligned(found: Joined, grid: Grid) -> None:
    """Refuse arrays of which a block lies in two shards: it would be computed twice, or be held by two tasks.

    Raises:
        InputError: there is one; the message says how to rechunk.
    """
    t, _, h, w = grid.shard
    for factor, scene in zip(found.factors, found.product.scenes, strict=True):
        for plane in (scene.planes or {}).values():
            lazy = plane.lazy() if _is_lazy(plane) else None
            if lazy is None or not _is_of(plane, scene):
                continue
            steps = {plane.dims[0]: t, plane.dims[2]: h // factor, plane.dims[3]: w // factor}
            wrong = [dim for dim, chunks in lazy.items() if dim in steps and not _fits(chunks, steps[dim])]
            if wrong:
                call = ", ".join(f'"{dim}": {steps[dim]}' for dim in lazy if dim in steps)
                raise InputError(
                    f"expected blocks of dask that lie within one shard of the store, got chunks "
                    f"{ {str(dim): lazy[dim] for dim in wrong} }; rechunk first: data.chunk({{{call}}})"
                )


def _is_of(plane: Any, scene: Any) -> bool:
    return bool(plane.size == (scene.profile.height, scene.profile.width))


def _fits(chunks: Sequence[int], step: int) -> bool:
    """Whether every multiple of a step is an edge between chunks."""
    edges = set(np.cumsum(chunks).tolist())
    return all(edge in edges for edge in range(step, sum(chunks), step))


@dataclass(frozen=True)
class _HeldPlane:
    """A window of one band of one date, computed; read as a file of one band is."""

    pixels: np.ndarray
    row: int
    column: int

    def read(self, indexes: Sequence[int] | int, window: Any) -> np.ndarray:
        """Pixels of a window."""
        top, left = window.row_off - self.row, window.col_off - self.column
        found = self.pixels[top : top + window.height, left : left + window.width]
        return found if isinstance(indexes, int) else found[None]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class _Task:
    """One shard of an array; see `coded_shard`."""

    found: Joined
    order: tuple[int, ...]
    codec: Mapping[str, Any]
    grid: Grid
    shard: Shape
    corners: Mapping[str, tuple[int, int]]
    where: Place | None
    levels: tuple[Level, ...]


def write_on_cluster(
    client: Any, found: Joined, order: Sequence[int], run: Run, container: Container
) -> None:
    """Code every shard by one task on the workers, which get its pixels as whole blocks and write it.

    Args:
        client: of the cluster.
        found: the arrays.
        order: positions in their scene of the bands in the order of the store.
        run: gets all sums.
        container: of the store; workers write into it themselves where it is a folder that they see, or on an object store.
    """
    from distributed import as_completed  # optional

    where = _place_of(container)
    shards = list(run.grid.shards())
    done = as_completed()
    labels: dict[Any, Shape] = {}
    parts: dict[Shape, Any] = {}
    waiting = iter(shards)
    for _ in shards:
        room = max(2, _AHEAD * sum(client.nthreads().values()))
        while len(labels) < room and (shard := next(waiting, None)) is not None:
            future = client.compute(_lazy_task(found, order, run, shard, where))
            labels[future] = shard
            done.add(future)
        future = next(done)
        shard = labels.pop(future)
        part, made = future.result()
        if isinstance(part, EozipError):
            raise part
        parts[shard] = part
        for key, data in made.items():
            if data is None:
                container.keys.append(key)
            else:
                container.put(key, data)
        run.progress(sum(one["done"] for one in parts.values()), run.total)
    for shard in shards:
        add_part(run, parts[shard], shard[0] * run.grid.shard[0])


def _place_of(container: Container) -> Place | None:
    """Where workers can write: a folder that they see as this process does, an object store; not into a zip file."""
    where = getattr(container, "root", None) or getattr(container, "where", None)
    return where if isinstance(where, Path | RemotePath) else None


def _lazy_task(found: Joined, order: Sequence[int], run: Run, shard: Shape, where: Place | None) -> Any:
    from dask.delayed import delayed  # optional

    (t, _, h, w), (dates, _, height, width) = run.grid.shard, run.grid.shape
    times = slice(shard[0] * t, min((shard[0] + 1) * t, dates))
    rows, columns = (
        slice(k * side, min((k + 1) * side, length))
        for k, side, length in ((shard[2], h, height), (shard[3], w, width))
    )
    part = dates_of(found, times)
    windows: dict[str, Any] = {}
    corners: dict[str, tuple[int, int]] = {}
    for factor, scene in zip(part.factors, part.product.scenes, strict=True):
        y, x = (slice(side.start // factor, -(-side.stop // factor)) for side in (rows, columns))
        for path in {source.path for date in scene.sources for source in date}:
            plane = (scene.planes or {})[path]
            windows[path] = plane.window(y, x)
            corners[path] = y.start, x.start
    bare = tuple(replace(scene, planes=None) for scene in part.product.scenes)
    part = replace(part, product=replace(part.product, scenes=bare), scene=replace(part.scene, planes=None))
    grid = replace(run.grid, shape=(times.stop, *run.grid.shape[1:]))
    levels = () if run.levels is None else tuple(replace(one, grid=grid) for one in run.levels.levels)
    task = _Task(part, tuple(order), run.codec.to_dict(), grid, shard, corners, where, levels)
    return delayed(_do, pure=False)(task, windows)


def _do(task: _Task, windows: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, bytes | None]]:
    """On a worker: codes a shard of pixels that are there, and writes it, or gives bytes by key back; None: written."""
    planes = {path: _HeldPlane(np.asarray(pixels), *task.corners[path]) for path, pixels in windows.items()}
    scenes = tuple(replace(scene, planes=planes) for scene in task.found.product.scenes)
    found = replace(task.found, product=replace(task.found.product, scenes=scenes))
    codec = EozipChunkCodec.from_dict(dict(task.codec))
    try:
        run, streams = coded_shard(
            found,
            task.order,
            codec,
            task.grid,
            task.shard,
            task.shard[0] * task.grid.shard[0],
            levels=task.levels,
        )
    except EozipError as error:
        return error, {}
    part, made = {**part_of(run), "streams": len(streams)}, run.level_chunks(task.shard)
    if streams:
        made[f"{ARRAY}/{task.grid.key(task.shard)}"] = pack_shard(streams, task.grid.per_shard)
    if task.where is None:
        return part, dict(made)
    for key, data in made.items():
        keys_of(task.where).put(key, data)
    return part, dict.fromkeys(made)
