"""What workers of a cluster do for an archive: look at inputs, code shards."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

from eozip.archive.asked import Asked, region_print
from eozip.archive.cluster import difference, found_on_worker
from eozip.archive.inputs import Item, Seen, look_at, read_all
from eozip.archive.plan import Job, holding_of
from eozip.archive.record import RUN, Record
from eozip.arguments import place
from eozip.chunk.pixels import unit_of
from eozip.errors import ClusterError, EozipError, InputError, OutputError
from eozip.keys import keys_of, token_of
from eozip.raster.masks import MaskReader, open_mask, parse_mask
from eozip.store.append import put_shard
from eozip.store.codec import EozipChunkCodec
from eozip.store.coding import Run
from eozip.store.description import describe
from eozip.store.documents import ARRAY
from eozip.store.files import Plain
from eozip.store.holding import held_by
from eozip.store.joined import dates_of, scene_dates
from eozip.store.old_streams import OldStreams
from eozip.store.pixels import open_pixels
from eozip.store.priorities import PlaceReader, open_places
from eozip.store.shards import pack_shard
from eozip.store.spread import coded_shard, part_of

_LACKING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What an error of a machine says, and not one of an input."""


def look(item: Item, asked: Asked) -> Seen | str:
    """What a worker finds in an input, or why it cannot be read.

    Raises:
        OutputError: the worker lacks what every input needs.
    """
    try:
        return look_at(item, asked)
    except OSError as error:
        if error.errno in _LACKING:
            raise OutputError(
                f"a worker cannot go on: {error}; free what it lacks, then run again"
            ) from error
        return str(error)
    except EozipError as error:
        return str(error)


def do_job(job: Job) -> dict[str, Any]:
    """Code one shard, write it, and say so in the record; one that is in it by now, as its worker died after it, is left.

    Returns:
        what the client needs to know of it; `bad` holds the dates, counted from the job's first, that cannot be read.

    Raises:
        ClusterError: this worker has another eozip or other weights than the client, or the client's run is over.
        OutputError: it cannot be written.
    """
    codec = EozipChunkCodec.from_dict(dict(job.codec))
    here = found_on_worker(codec.codec)
    if here != job.installed:
        raise ClusterError(difference("this worker", job.installed, here))
    where = place("out", job.out)
    record = Record(where, keys_of(where))
    left = record.job(job.store, job.shard)
    if left is not None and left.get("id") == job.id:
        return left
    try:
        run, made, more, streams = _coded(job, codec)
    except InputError as error:
        bad = _unreadable(job)
        if not bad:
            bad = {str(k): str(error) for k in range(len(job.items))}
        return {"bad": bad}
    return _written(record, job, _part(job, run, made, more, streams), made, left is not None)


def _coded(job: Job, codec: EozipChunkCodec) -> tuple[Run, dict[str, bytes], int, int]:
    """Bytes of the shard and of the levels that it makes, by key of the store; chunks that are new in it; chunks in it."""
    shard = job.shard
    # what a store holds, its new dates hold too
    if job.grows:
        hold = held_by(describe(place("out", job.out) / job.store))
    else:
        hold = holding_of(job.purposes, job.joined, job.order, codec)
    with _opened_mask(job) as mask, _opened_places(job, codec, mask) as places, _opened_old(job) as old:
        drop = mask if job.places.masked_quality is None else None
        run, streams = coded_shard(
            job.joined, job.order, codec, job.grid, shard, job.first, hold, drop, job.levels, places, old
        )
        kept = _Kept()
        if old is not None:
            more = put_shard(run, old, kept, shard, streams)
            return run, kept.made, more, len(streams)
    if streams:
        kept.put(_shard_key(job), pack_shard(streams, job.grid.per_shard))
    return run, kept.made | run.level_chunks(shard), len(streams), len(streams)


@contextmanager
def _opened_old(job: Job) -> Iterator[OldStreams | None]:
    """Streams that the shard has, if it has dates already."""
    if not job.joins:
        yield None
        return
    with open_pixels(describe(place("out", job.out) / job.store)) as pixels:
        yield OldStreams(pixels, job.grid, job.first)


def _shard_key(job: Job) -> str:
    return f"{ARRAY}/{job.grid.key(job.shard)}"


def _opened_mask(job: Job) -> AbstractContextManager[MaskReader | None]:
    if job.mask is None:
        return nullcontext()
    scene = job.joined.scene
    times, _, height, width = scene.shape
    return open_mask(parse_mask(job.mask_text), (times, height, width), job.mask, scene.profile)


def _opened_places(
    job: Job, codec: EozipChunkCodec, mask: MaskReader | None
) -> AbstractContextManager[PlaceReader | None]:
    """Quality by place of these dates.

    Raises:
        ClusterError: the region's file is not here, or another than the client's.
    """
    if job.places.roi is not None and _region_here(job) != job.region:
        raise ClusterError(
            f"{job.places.roi}: expected the region of interest that the client read, on every worker and unchanged, got "
            f"{_region_here(job) or 'no file'}; put it where all workers see it, then run again"
        )
    profile, unit = job.joined.scene.profile, unit_of(codec.sensor)
    return open_places(job.places, profile, codec.quality, codec.nodata, unit, mask, is_checked=True)


def _region_here(job: Job) -> str | None:
    with suppress(InputError):
        return region_print(str(job.places.roi))
    return None


class _Kept(Plain):
    """A container that keeps what is put into it."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[str, bytes] = {}

    def put(self, key: str, data: bytes) -> None:
        self.made[key] = data


def _part(job: Job, run: Run, made: dict[str, bytes], more: int, streams: int) -> dict[str, Any]:
    """What a finished job leaves in the record, ready for JSON."""
    shard = made.get(_shard_key(job), b"")
    return {
        "id": job.id,
        "bytes": sum(map(len, made.values())),
        "sha256": hashlib.sha256(shard).hexdigest(),
        "levels": [key for key in made if key != _shard_key(job)],
        "streams": streams,
        "more": more,
        **part_of(run),
    }


def _written(
    record: Record, job: Job, part: dict[str, Any], made: dict[str, bytes], left: bool
) -> dict[str, Any]:
    """Writes the shard, then the record; a `left` one of other content goes first, and never stands for these bytes."""
    if token_of(record.keys.get(RUN)) != job.token:
        raise ClusterError(f"{record.where}: the run that sent this job is over; nothing was written")
    if left:
        record.forget_job(job.store, job.shard)
    keys = [_shard_key(job), *(level.key(job.shard) for level in job.levels)]
    if not job.joins:
        record.keys.remove([f"{job.store}/{key}" for key in keys if key not in made])
    for key, data in made.items():
        record.keys.put(f"{job.store}/{key}", data)
    record.finish_job(job.store, job.shard, part)
    return part


def _unreadable(job: Job) -> dict[str, str]:
    """Dates that cannot be read, and why."""
    bad: dict[str, str] = {}
    for date in range(job.joined.scene.shape[0]):
        part = slice(date, date + 1)
        scenes = dates_of(job.joined, part).product.scenes
        try:
            for scene in (*scenes, *(() if job.mask is None else (scene_dates(job.mask, part),))):
                read_all(scene)
        except (EozipError, OSError) as error:
            bad[str(date)] = str(error)
    return bad
