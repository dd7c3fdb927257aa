"""An archive is made: jobs go to the workers of a Dask cluster, shards come back, stores are published when all are there.

The client plans, sends a bounded number of jobs at a time, and publishes. A worker codes one shard, writes it, and then says
so in the record; whoever is killed, the next run finds what is missing by the record alone.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from eozip import arguments
from eozip.archive.cluster import bounded, check_workers, difference, installed, losses_named, opened_cluster
from eozip.archive.plan import (
    Asked,
    Item,
    Job,
    Seen,
    StorePlan,
    grouped,
    items_of,
    look_at,
    plan_store,
    read_all,
)
from eozip.archive.record import RUN, Record, clear_parts, open_record
from eozip.errors import ClusterError, EozipError, InputError, OutputError, WeightsError
from eozip.keys import PlaceLike, keys_of, only_writer, place, token_of
from eozip.raster.files import PathLike
from eozip.store.append import append_run, check_layers, grown_facts, new_nodes, put_shard
from eozip.store.codec import BITSTREAM, EozipChunkCodec
from eozip.store.coding import Run, stream_offsets, tally_of
from eozip.store.description import Description, describe
from eozip.store.documents import ARRAY, GROUP
from eozip.store.holding import held_by
from eozip.store.joined import Joined, dates_of
from eozip.store.layers import placed, put_values
from eozip.store.metadata import band_labels, metadata_keys
from eozip.store.native import alignment, samples
from eozip.store.pixels import open_pixels
from eozip.store.records import extras_of, grown
from eozip.store.repair import grown_record, rewritten_keys
from eozip.store.shards import pack_shard
from eozip.store.spread import add_part, coded_shard, part_of
from eozip.store.tally import psnr_of
from eozip.store.writer import run_facts

_AHEAD = 2  # jobs sent beyond those that are being done, for each thread

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Archived:
    """What one run did.

    Attributes:
        output: the archive.
        items: inputs given; `done` of them are in stores now, `skipped` of which were before.
        failed: reasons of those set aside, by name.
        stores: stores that were written.
        jobs: shards coded by this run; `reused` were finished by one before.
        bytes_in: of the files of the inputs done, as far as they are on this machine; `raw_bytes` of their pixels.
        bytes_out: of the shards.
        psnr_lowest: of the dates archived, in dB; None where all are exact. `psnr_mean` over all their pixels.
        seconds: wall time.
    """

    output: str
    items: int
    done: int
    skipped: int
    failed: dict[str, str]
    stores: list[str]
    jobs: int
    reused: int
    bytes_in: int
    raw_bytes: int
    bytes_out: int
    psnr_lowest: float | None
    psnr_mean: float | None
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether nothing was set aside."""
        return not self.failed


@dataclass
class _Totals:
    jobs: int = 0
    reused: int = 0
    bytes_in: int = 0
    raw_bytes: int = 0
    bytes_out: int = 0
    squares: float = 0.0
    pixels: int = 0
    lowest: float | None = None
    stores: list[str] = field(default_factory=list)


def archive(
    items: PathLike | Sequence[PathLike],
    out: PlaceLike,
    codec: str | None = None,
    *,
    by: str = "tile",
    quality: float | None = None,
    target_psnr: float | None = None,
    max_error: int | None = None,
    bands: Sequence[str | int] | None = None,
    sensor: str | None = None,
    offset: int | None = None,
    nodata: int | None = None,
    chunk: int | None = None,
    gop: int = 4,
    workers: int | None = None,
    scheduler: str | None = None,
    retry_failed: bool = False,
    progress: Progress = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Archived:
    """Archives many inputs into a tree of stores on a Dask cluster; the same call again continues, or adds new inputs.

    A script that calls this with workers of its own needs ``if __name__ == "__main__":``, as every use of processes does.

    Args:
        items: inputs that `eozip.encode_store` takes, each for itself: paths, folders, globs, STAC items and collections,
            text files (.txt) with one of these in a line.
        out: a folder, or a URL of fsspec such as ``s3://bucket/archive``.
        codec: full id or short name; as for `eozip.encode_store`, and so are the settings below.
        by: "tile" puts inputs of one tile into one store (of one place, where no tile is known), "grid" those of one place,
            "item" each into its own.
        quality: see `codec`; likewise `target_psnr`, `max_error`, `bands`, `sensor`, `offset`, `nodata`, `chunk`, `gop`.
        workers: processes on this machine; None: as many as cores.
        scheduler: address of a Dask scheduler instead.
        retry_failed: try inputs again that a run before set aside.
        progress: called with bytes of pixels coded, and in all as far as they are planned.
        note: takes sentences that a person should read.

    Returns:
        the report; inputs that cannot be archived are set aside in it, and the others archived.

    Raises:
        InputError: no items, or settings other than those the archive was begun with.
        OutputError: `out` holds something else, or cannot be written.
        ClusterError: the scheduler does not answer or went away, or workers have another eozip or other weights.
    """
    asked = Asked(
        by,
        arguments.text("codec", codec),
        quality,
        target_psnr,
        max_error,
        None if bands is None else tuple(arguments.choice("bands", bands) or ()),
        sensor,
        offset,
        nodata,
        chunk,
        gop,
    )
    record = open_record(out)
    wanted = items_of(items)
    if isinstance(record.where, Path):
        record.where.mkdir(parents=True, exist_ok=True)
    with only_writer(record.where, RUN) as token:
        record.settle(_settings(asked))
        clear_parts(record)
        made = _Archive(record, asked, token, progress, note)
        try:
            with opened_cluster(workers, scheduler, note) as client, losses_named(client):
                record.status.dashboard = client.dashboard_link
                return made.run(client, wanted, retry_failed)
        finally:
            if record.status.state != "finished":
                record.status.state = "stopped"
                with suppress(EozipError, OSError):
                    record.tell(now=True)


def _settings(asked: Asked) -> dict[str, Any]:
    """As they are compared by the next run; with the weights that the codec's name stands for now."""
    table = asdict(asked)
    table["bands"] = None if asked.bands is None else list(asked.bands)
    return {**table, "bitstream": BITSTREAM}


# --- the client ---


class _Archive:
    """One run of one archive."""

    def __init__(
        self, record: Record, asked: Asked, token: str, progress: Progress, note: Callable[[str], None]
    ) -> None:
        self._record, self._asked, self._token = record, asked, token
        self._progress, self._note = progress, note
        self._failed: dict[str, str] = {}
        self._totals = _Totals()
        self._checked: dict[str, dict[str, Any]] = {}

    def run(self, client: Any, wanted: list[Item], retry_failed: bool) -> Archived:
        """Looks at the inputs, codes them, publishes, reports."""
        started = time.perf_counter()
        status = self._record.status
        self._failed = self._record.failed()
        names = {item.name for item in wanted}
        if retry_failed:
            self._failed = {name: reason for name, reason in self._failed.items() if name not in names}
        held = self._record.all_held()
        fresh = [one for one in wanted if one.name not in held and one.name not in self._failed]
        self._changed([item for item in wanted if item.name in held], held)
        status.items, status.skipped = len(wanted), sum(item.name in held for item in wanted)
        status.done, status.failed = status.skipped, len(self._failed.keys() & names)
        self._record.tell(now=True)
        seen = self._looked_at(client, fresh)
        self._coded(client, grouped(seen))
        self._record.fail(self._failed)
        status.state, status.failed = "finished", len(self._failed.keys() & names)
        status.done = status.items - status.failed
        report = self._report(wanted, started)
        self._record.report({**asdict(report), "exit": 0 if report.ok else 4})
        self._record.tell(now=True)
        return report

    def _changed(self, items: Sequence[Item], held: Mapping[str, Mapping[str, Any]]) -> None:
        """Inputs that are archived and have another size by now."""
        for item in items:
            size = sum(os.path.getsize(path) for path in item.paths if os.path.isfile(path))
            known = held[item.name].get("size")
            if size and known and size != known and not item.feature:
                self._note(
                    f"{item.name}: was changed since it was archived ({known} bytes then, {size} now); its store keeps what "
                    "it has"
                )

    def _looked_at(self, client: Any, items: Sequence[Item]) -> list[Seen]:
        """What a look at each input found; those that cannot be read are set aside. In the order given."""
        found: dict[str, Seen] = {}
        for item, result in bounded(
            client, _look, ((one, (one, self._asked)) for one in items), self._threads(client)
        ):
            if isinstance(result, Exception):
                self._set_aside({item.name: str(result) or type(result).__name__})
            elif isinstance(result, str):
                self._set_aside({item.name: result})
            else:
                found[item.name] = result
            self._record.status.message = f"looked at {len(found)} of {len(items)} inputs"
            self._record.tell()
        return [found[item.name] for item in items if item.name in found]

    def _set_aside(self, reasons: Mapping[str, str]) -> None:
        self._failed |= reasons
        self._record.status.failed += len(reasons)
        for name, reason in reasons.items():
            self._note(f"set aside: {reason if name in reason else f'{name}: {reason}'}")

    def _coded(self, client: Any, stores: Mapping[str, list[Seen]]) -> None:
        """Jobs of all stores in one stream, so that no worker waits at the end of a store."""
        self._record.status.stores = len(stores)
        self._record.status.bytes_planned = sum(one.raw for seen in stores.values() for one in seen)
        waiting = deque(stores.items())
        again: deque[tuple[str, list[Seen]]] = deque()  # stores in which an input turned out to be bad

        def jobs() -> Iterator[tuple[tuple[StorePlan, Job], tuple[Job]]]:
            while waiting or again:
                name, seen = (again or waiting).popleft()
                plan, failed = plan_store(self._record, name, seen, self._asked)
                self._set_aside(failed)
                if plan is not None:
                    yield from self._jobs(client, plan)
                    if plan.waiting == 0:
                        self._close(plan, again)

        while waiting or again:
            for (plan, job), result in bounded(client, do_job, jobs(), self._threads(client)):
                self._came(plan, job, result)
                if plan.planned and plan.waiting == 0:
                    self._close(plan, again)

    def _jobs(self, client: Any, plan: StorePlan) -> Iterator[tuple[tuple[StorePlan, Job], tuple[Job]]]:
        """What is not finished yet of a store."""
        have = self._installed(client, plan.codec.codec)
        known = set(self._record.jobs(plan.name))
        for job in plan.jobs(self._record.where, self._token, have):
            self._record.status.jobs += 1
            key = self._record.job_key(plan.name, job.shard)
            left = self._record.job(plan.name, job.shard) if key in known else None
            if left is not None and left.get("id") == job.id:
                plan.parts[job.shard] = left
                self._totals.reused += 1
                self._count(job, left)
                continue
            plan.waiting += 1
            yield (plan, job), (job,)
        plan.planned = True

    def _came(self, plan: StorePlan, job: Job, result: Any) -> None:
        """A job ended: with its part, with inputs that cannot be read, or with an error."""
        plan.waiting -= 1
        if isinstance(result, OutputError | ClusterError | WeightsError):
            raise result
        if isinstance(result, Exception):
            reason = f"could not be coded: {type(result).__name__}: {result}"
            plan.bad |= {plan.seen[k].item.name: reason for k in job.items}
        elif "bad" in result:
            plan.bad |= {plan.seen[job.items[int(k)]].item.name: text for k, text in result["bad"].items()}
        else:
            plan.parts[job.shard] = result
            self._totals.jobs += 1
            self._count(job, result)

    def _count(self, job: Job, part: Mapping[str, Any]) -> None:
        status = self._record.status
        status.jobs_done += 1
        status.bytes_in += job.raw
        status.bytes_out += part["bytes"]
        self._progress(status.bytes_in, max(status.bytes_planned, status.bytes_in))
        self._record.tell()

    def _close(self, plan: StorePlan, again: deque[tuple[str, list[Seen]]]) -> None:
        """Publishes a store, or plans it again without the inputs that turned out to be bad."""
        if plan.bad:
            self._set_aside(plan.bad)
            left = [one for one in plan.seen if one.item.name not in plan.bad]
            if left:
                again.append((plan.name, left))
            return
        run = _gathered(plan)
        publish(self._record, plan, run)
        self._record.hold(plan.name, {one.item.name: one.noted() for one in plan.seen})
        self._record.forget_jobs(plan.name)
        self._sum_up(plan, run)

    def _sum_up(self, plan: StorePlan, run: Run) -> None:
        totals, status = self._totals, self._record.status
        totals.stores.append(plan.name)
        totals.bytes_in += sum(one.size for one in plan.seen)
        totals.raw_bytes += sum(one.raw for one in plan.seen)
        totals.bytes_out += sum(part["bytes"] for part in plan.parts.values())
        totals.squares += float(run.tally.squares.sum())
        totals.pixels += int(run.tally.counts.sum())
        known = [value for value in [totals.lowest, *run.tally.date_psnr()] if value is not None]
        totals.lowest = min(known, default=None)
        status.published += 1
        status.done += len(plan.seen)
        status.message = f"published {plan.name}"
        self._record.tell(now=True)

    def _installed(self, client: Any, codec: str) -> dict[str, Any]:
        """What this process has, after every worker was found to have the same."""
        if codec not in self._checked:
            self._checked[codec] = check_workers(client, codec)
        return self._checked[codec]

    def _threads(self, client: Any) -> Callable[[], int]:
        """Jobs that may be under way: those that are being done, and some more for each thread."""
        return lambda: max(2, _AHEAD * sum(client.nthreads().values()))

    def _report(self, wanted: Sequence[Item], started: float) -> Archived:
        totals, names = self._totals, {item.name for item in wanted}
        failed = {name: reason for name, reason in sorted(self._failed.items()) if name in names}
        return Archived(
            output=str(self._record.where),
            items=len(wanted),
            done=len(wanted) - len(failed),
            skipped=self._record.status.skipped,
            failed=failed,
            stores=sorted(totals.stores),
            jobs=totals.jobs,
            reused=totals.reused,
            bytes_in=totals.bytes_in,
            raw_bytes=totals.raw_bytes,
            bytes_out=totals.bytes_out,
            psnr_lowest=totals.lowest,
            psnr_mean=psnr_of(totals.squares, totals.pixels),
            seconds=time.perf_counter() - started,
        )


def _gathered(plan: StorePlan) -> Run:
    """What one run over all new dates would know, summed in the order of the shards."""
    run = _empty_run(plan)
    for shard in plan.shards():
        part = plan.parts[shard]
        start = max(shard[0] * plan.grid.shard[0], plan.first) - plan.first
        add_part(run, part, start)
    return run


def _empty_run(plan: StorePlan) -> Run:
    if plan.found is not None and plan.new is not None:
        return append_run(plan.found, plan.new, lambda done, total: None, None)
    tally = tally_of(plan.codec, plan.joined.scene, plan.order)
    return Run(
        plan.codec, plan.grid, tally, lambda done, total: None, offsets=stream_offsets(plan.joined.scene)
    )


class _Plain:
    """A container that does nothing at its end."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    def close(self) -> None:
        """Nothing is held open."""

    def check(self) -> None:
        """Nothing is kept back."""


class _Put(_Plain):
    """A container whose keys are written at once, into one store of an archive."""

    def __init__(self, record: Record, store: str) -> None:
        super().__init__()
        self._record, self._store = record, store

    def put(self, key: str, data: bytes) -> None:
        self._record.keys.put(f"{self._store}/{key}", data)
        self.keys.append(key)


def publish(record: Record, plan: StorePlan, run: Run) -> None:
    """Writes all of a store but its shards, and the group's document last.

    Raises:
        OutputError: somebody else put a store there.
    """
    container = _Put(record, plan.name)
    keys = (
        _new_keys(plan, run, container)
        if plan.found is None
        else _grown_keys(plan, plan.found, run, container)
    )
    group = keys.pop(GROUP)
    for key, data in keys.items():
        container.put(key, data)
    if plan.found is None:
        _clear(record, plan, container.keys)
        if not record.keys.create(f"{plan.name}/{GROUP}", group):
            raise OutputError(
                f"{record.store(plan.name)} exists by now, and was not before; it stays as it is: choose another folder"
            )
    else:
        _clear_behind(record, plan)
        record.keys.put(f"{plan.name}/{GROUP}", group)


def _new_keys(plan: StorePlan, run: Run, container: _Put) -> dict[str, bytes]:
    scene = plan.joined.scene
    layers = placed(plan.joined.product.beside, scene, plan.grid, alignment(plan.codec.grids))
    labels = band_labels(scene.select(plan.order), plan.codec.sensor)
    extras = extras_of(plan.joined, layers, samples(plan.grid.shape, plan.codec.grids), labels)
    if extras is not None:
        run.beside_bytes = put_values(container, extras.layers)
    facts = run_facts(run, plan.facts)
    return metadata_keys(scene, plan.order, plan.grid, plan.codec, facts, run.date_dropped(), extras=extras)


def _grown_keys(plan: StorePlan, found: Description, run: Run, container: _Put) -> dict[str, bytes]:
    new = plan.new
    if new is None:
        raise ValueError("a store that grows has new dates")
    layers = placed(new.joined.product.beside, new.joined.scene, run.grid, alignment(found.codec.grids))
    with open_pixels(found) as pixels:
        check_layers(pixels.files, layers)
        run.beside_bytes = put_values(container, layers, run.first)
        product = grown(found, new.joined, new.positions, new.offsets, layers)
        more = sum(part["more"] for part in plan.parts.values())
        grown_to = grown_record(found, new.scene, grown_facts(found, run, more), product)
        keys = rewritten_keys(pixels.files, grown_to, new_nodes(found, new, layers, run.grid.shape[0]))
    return {**{key: data for key, data in keys.items() if key != GROUP}, GROUP: keys[GROUP]}


def _clear(record: Record, plan: StorePlan, written: Sequence[str]) -> None:
    """Removes keys of a plan that was given up: of other inputs, killed before its store was published."""
    shards = {f"{ARRAY}/{plan.grid.key(shard)}" for shard, part in plan.parts.items() if part["streams"]}
    wanted = {f"{plan.name}/{key}" for key in (*written, *shards)}
    record.keys.remove([key for key in record.keys.sizes(f"{plan.name}/") if key not in wanted])


def _clear_behind(record: Record, plan: StorePlan) -> None:
    """The same of an append: shards behind the last date."""
    below = f"{plan.name}/{ARRAY}/c/"
    last = max(shard[0] for shard in plan.shards())
    firsts = ((key, key.removeprefix(below).partition("/")[0]) for key in record.keys.sizes(below))
    record.keys.remove([key for key, first in firsts if first.isdigit() and int(first) > last])


# --- the workers ---


def _look(item: Item, asked: Asked) -> Seen | str:
    """What a worker finds in an input, or why it cannot be read."""
    try:
        return look_at(item, asked)
    except (EozipError, OSError) as error:
        return str(error)


def do_job(job: Job) -> dict[str, Any]:
    """Codes one shard, writes it, and says so in the record.

    Returns:
        what the client needs to know of it; `bad` holds the dates, counted from the job's first, that cannot be read.

    Raises:
        ClusterError: this worker has another eozip or other weights than the client, or the client's run is over.
        OutputError: it cannot be written.
    """
    codec = EozipChunkCodec.from_dict(dict(job.codec))
    here = installed(codec.codec)
    if here != job.installed:
        raise ClusterError(difference("this worker", job.installed, here))
    try:
        run, shard, more, streams = _shard_of(job, codec)
    except InputError as error:
        bad = _unreadable(job.joined)
        if not bad:
            bad = {str(k): str(error) for k in range(len(job.items))}
        return {"bad": bad}
    return _written(job, _part(job, run, shard, more, streams), shard)


def _shard_of(job: Job, codec: EozipChunkCodec) -> tuple[Run, bytes | None, int, int]:
    """The bytes of the shard, None where there is nothing to store; chunks that are new in it; chunks in it."""
    shard = job.shard
    # what a store holds, its new dates hold too
    hold = held_by(describe(place("out", job.out) / job.store)) if job.grows else None
    run, streams = coded_shard(job.joined, job.order, codec, job.grid, shard, job.first, hold)
    if not job.joins:
        return run, pack_shard(streams, job.grid.per_shard) if streams else None, len(streams), len(streams)
    kept = _Kept()
    with open_pixels(describe(place("out", job.out) / job.store)) as pixels:
        more = put_shard(run, pixels, kept, shard, streams)
    return run, kept.data, more, len(streams)


class _Kept(_Plain):
    """A container that keeps the one key put into it."""

    data: bytes | None = None

    def put(self, key: str, data: bytes) -> None:
        self.data = data


def _part(job: Job, run: Run, shard: bytes | None, more: int, streams: int) -> dict[str, Any]:
    """What a finished job leaves in the record, ready for JSON."""
    return {
        "id": job.id,
        "bytes": len(shard or b""),
        "sha256": hashlib.sha256(shard or b"").hexdigest(),
        "streams": streams,
        "more": more,
        **part_of(run),
    }


def _written(job: Job, part: dict[str, Any], shard: bytes | None) -> dict[str, Any]:
    """Writes the shard, then the record; a record of other content goes first, so that it never stands for these bytes."""
    where = place("out", job.out)
    record = Record(where, keys_of(where))
    if token_of(record.keys.get(RUN)) != job.token:
        raise ClusterError(f"{where}: the run that sent this job is over; nothing was written")
    left = record.job(job.store, job.shard)
    if left is not None and left.get("id") != job.id:
        record.forget_job(job.store, job.shard)
    key = f"{job.store}/{ARRAY}/{job.grid.key(job.shard)}"
    if shard is not None:
        record.keys.put(key, shard)
    elif not job.joins:
        record.keys.remove([key])
    record.finish_job(job.store, job.shard, part)
    return part


def _unreadable(found: Joined) -> dict[str, str]:
    """Dates that cannot be read, and why."""
    bad: dict[str, str] = {}
    for date in range(found.scene.shape[0]):
        try:
            for scene in dates_of(found, slice(date, date + 1)).product.scenes:
                read_all(scene)
        except (EozipError, OSError) as error:
            bad[str(date)] = str(error)
    return bad
