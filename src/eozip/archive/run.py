"""An archive is made: jobs go to the workers of a Dask cluster, shards come back, stores are published when all are there.

The client plans, sends a bounded number of jobs at a time, and publishes. A worker codes one shard, writes it, and then says
so in the record; whoever is killed, the next run finds what is missing by the record alone.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from eozip.archive.asked import Asked, asked_for
from eozip.archive.cluster import bounded, check_workers, losses_named, opened_cluster, settled
from eozip.archive.inputs import Item, Seen, items_of
from eozip.archive.plan import Job, StorePlan, finish_published, grouped, plan_store
from eozip.archive.publish import gathered, lost_shards, publish, unreadable_layers
from eozip.archive.record import RUN, Record, clear_parts, make_folder, open_record
from eozip.archive.work import do_job, look
from eozip.arguments import PlaceLike
from eozip.errors import ClusterError, EozipError, InputError, OutputError, WeightsError
from eozip.keys import only_writer
from eozip.raster.files import PathLike
from eozip.store.coding import Run, psnr_of
from eozip.store.files import GROUP

_CHANGED = "was changed while it was archived"
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
    gop: int = 6,
    budgets: int | Sequence[int] | None = None,
    assets: Sequence[str] | None = None,
    mosaic: str | None = None,
    harmonise: bool = False,
    lattice: float | Sequence[float] | None = None,
    mask: str | None = None,
    purposes: str | Sequence[str] = (),
    roi: PathLike | None = None,
    outside_quality: float | str | None = None,
    masked_quality: float | str | None = None,
    relative: float = 0.0,
    overviews: bool = True,
    workers: int | None = None,
    threads: int | None = None,
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
        quality: see `codec`; likewise `target_psnr`, `max_error`, `bands`, `sensor`, `offset`, `nodata`, `chunk`, `gop`,
            `budgets`, `assets` and `lattice`.
        mosaic: "solar-day" merges inputs of one tile and one solar day into one date.
        harmonise: bring all dates of a store to one radiometric offset; later dates to that of the store.
        mask: what clouds hide, on which nothing is spent: "scl:3,8,9,10" or "prob:0.4", from a layer or band of each input.
        purposes: what every chunk must be good for, instead of a quality: "ndvi<0.02", "psnr>=42".
        roi: region of interest of the whole archive, a vector file or a raster on the grid of its stores, at `quality`; the
            rest, and stores that it does not touch, at `outside_quality`. Every worker must see the file.
        outside_quality: see `roi`; as for `eozip.encode_store`, and so are `masked_quality` and `relative`.
        masked_quality: see `outside_quality`.
        relative: see `outside_quality`.
        overviews: whether reduced pictures of large scenes are stored, from 1/16 on.
        workers: processes on this machine; None: as many as cores.
        threads: CPU threads of each of them; None: the cores shared out.
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
    asked = asked_for(
        {
            "by": by,
            "codec": codec,
            "quality": quality,
            "target_psnr": target_psnr,
            "max_error": max_error,
            "bands": bands,
            "sensor": sensor,
            "offset": offset,
            "nodata": nodata,
            "chunk": chunk,
            "gop": gop,
            "budgets": budgets,
            "assets": assets,
            "mosaic": mosaic,
            "harmonise": harmonise,
            "lattice": lattice,
            "mask": mask,
            "purposes": purposes,
            "roi": roi,
            "outside_quality": outside_quality,
            "masked_quality": masked_quality,
            "relative": relative,
            "overviews": overviews,
        }
    )
    record = open_record(out)
    wanted = items_of(items)
    make_folder(record)
    with only_writer(record.where, RUN) as token:
        record.settle(asked.settings())
        clear_parts(record)
        made = _Archive(record, asked, token, progress, note)
        record.status.items = len(wanted)
        try:
            record.tell(now=True)
            with opened_cluster(workers, scheduler, note, threads) as client, losses_named(client):
                record.status.dashboard = client.dashboard_link
                return made.run(client, wanted, retry_failed)
        except EozipError as error:
            record.status.message = str(error)
            raise
        finally:
            if record.status.state != "finished":
                record.status.state = "stopped"
                with suppress(EozipError, OSError):
                    record.tell(now=True)


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
        self._again: set[str] = set()  # inputs that were changed meanwhile, stores of which shards were lost

    def run(self, client: Any, wanted: list[Item], retry_failed: bool) -> Archived:
        """Looks at the inputs, codes them, publishes, reports."""
        started = time.perf_counter()
        status = self._record.status
        finish_published(self._record)
        self._failed = self._record.failed()
        names = {item.name for item in wanted}
        if retry_failed:
            self._failed = {name: reason for name, reason in self._failed.items() if name not in names}
        held = self._held()
        fresh = [one for one in wanted if one.name not in held and one.name not in self._failed]
        self._changed([item for item in wanted if item.name in held], held)
        status.items, status.skipped = len(wanted), sum(item.name in held for item in wanted)
        status.done, status.failed = status.skipped, len(self._failed.keys() & names)
        self._record.tell(now=True)
        seen = self._looked_at(client, fresh)
        self._coded(client, grouped(seen, held, self._asked.by))
        settled(client, f"do_job-{self._token}")
        for store in self._totals.stores:
            self._record.forget_jobs(store)
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
            client,
            look,
            ((one, (one, self._asked)) for one in items),
            self._threads(client),
            f"look-{self._token}",
        ):
            if isinstance(result, OutputError | ClusterError | WeightsError):
                raise result
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
                    if plan.note:
                        self._note(f"{name}: {plan.note}")
                    yield from self._jobs(client, plan)
                    if plan.waiting == 0:
                        self._close(plan, again)

        while waiting or again:
            for (plan, job), result in bounded(
                client, do_job, jobs(), self._threads(client), f"do_job-{self._token}"
            ):
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
            plan.bad |= {plan.seen[k].item.name: reason for of_date in job.items for k in of_date}
        elif "bad" in result:
            for date, reason in result["bad"].items():
                plan.bad |= {plan.seen[k].item.name: reason for k in job.items[int(date)]}
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
        if not plan.bad and any(one.has_changed() for one in plan.seen):
            again.append((plan.name, self._looked_again(plan)))
            return
        if not plan.bad and self._has_lost(plan):
            again.append((plan.name, plan.seen))
            return
        if plan.bad:
            self._set_aside(plan.bad)
            left = [one for one in plan.seen if one.item.name not in plan.bad]
            if left:
                again.append((plan.name, left))
            return
        run = gathered(plan)
        try:
            publish(self._record, plan, run)
        except InputError as error:  # of what lies beside the bands, which is read now
            plan.bad = unreadable_layers(plan) or {one.item.name: str(error) for one in plan.seen}
            self._close(plan, again)
            return
        self._record.hold(plan.name, {one.item.name: one.noted() for one in plan.seen})
        self._record.forget_jobs(plan.name)
        self._sum_up(plan, run)

    def _has_lost(self, plan: StorePlan) -> bool:
        """Whether shards that were finished are gone; their jobs are to be done again.

        Raises:
            OutputError: for the second time.
        """
        lost = lost_shards(self._record, plan)
        if lost and plan.name in self._again:
            raise OutputError(
                f"{self._record.store(plan.name)}: {len(lost)} of its shards were removed while it was written, twice; find "
                "out by whom, then run again"
            )
        for shard in lost:
            self._record.forget_job(plan.name, shard)
        if lost:
            self._again.add(plan.name)
            self._note(f"{plan.name}: {len(lost)} of its shards are gone, and made again")
        return bool(lost)

    def _held(self) -> dict[str, dict[str, Any]]:
        """Inputs that are in stores; of stores that somebody removed nothing is."""
        held = self._record.all_held()
        for store in sorted({one["store"] for one in held.values()}):
            if self._record.keys.get(f"{store}/{GROUP}") is None:
                self._note(f"{store} is gone: what it held is archived again, as far as it is given")
                self._record.forget_store(store)
                held = {name: one for name, one in held.items() if one["store"] != store}
        return held

    def _looked_again(self, plan: StorePlan) -> list[Seen]:
        """The inputs of a store, those that were changed as they are now; once, then they are set aside."""
        left = []
        for one in plan.seen:
            name = one.item.name
            if not one.has_changed():
                left.append(one)
                continue
            self._note(f"{name}: {_CHANGED}")
            found = _CHANGED if name in self._again else look(one.item, self._asked)
            self._again.add(name)
            if isinstance(found, str) or found.store != one.store:
                self._set_aside({name: found if isinstance(found, str) else _CHANGED})
            else:
                left.append(found)
        return left

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
