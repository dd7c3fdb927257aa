"""Runs the points of an evaluation that are not finished yet, here or in worker processes, and keeps each on disk.

Every point is written when it is finished, by the process that measured it: whatever ends a run, the next
one goes on behind the last point.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from eozip import sensors
from eozip.errors import EozipError
from eozip.threads import choose
from eozip_lab.evaluate import results_cache
from eozip_lab.evaluate.baselines import ENTRIES, Contender, Preparing, contender, own, sweep_of
from eozip_lab.evaluate.inputs import Place
from eozip_lab.evaluate.memory import watched_memory
from eozip_lab.evaluate.methods import Method, fingerprint
from eozip_lab.evaluate.sweep import coded, described

_WARM_UP = 256  # pixels a side: some published networks take no other size

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Task:
    """One point to measure.

    Attributes:
        key: see `ledger.point_key`.
        method, kind: of the method.
        place: position of the place.
        setting: of the method.
    """

    key: str
    method: str
    kind: str
    place: int
    setting: float


@dataclass(frozen=True)
class _Failure:
    """A point that raised an error; see `failures` in docs/evaluation.md."""

    method: str
    place: str
    setting: float
    error: str


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        rows: points of report.json, in the order of the tasks.
        failures: tasks that raised an error.
        resumed: how many were finished before.
    """

    rows: list[dict[str, Any]]
    failures: list[_Failure]
    resumed: int


def tasks_of(methods: Sequence[Method], places: Sequence[Place], hashes: Sequence[str]) -> list[_Task]:
    """Every point of the methods that are available: by method, then place, then setting."""
    return [
        _Task(
            results_cache.point_key(
                m.id, fingerprint(m, p.sensor), setting, p.name, digest, p.offset, p.bands
            ),
            m.id,
            m.kind,
            number,
            setting,
        )
        for m in methods
        if m.available
        for number, (p, digest) in enumerate(zip(places, hashes))
        for setting in m.sweep
    ]


def run(
    tasks: Sequence[_Task],
    places: Sequence[Place],
    folder: Path,
    jobs: int = 1,
    threads: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Measure what is not finished.

    Args:
        tasks: see `tasks_of`.
        places: whose positions the tasks hold.
        folder: claimed by `ledger.claim`.
        jobs: worker processes; 1 measures in this process.
        threads: CPU threads of the networks in each; None leaves torch's own choice.
        progress: called with points done and in all.

    Raises:
        EozipError: a worker ended without a word; finished points are kept.
        OutputError: a point cannot be written.
    """
    rows = {task.key: row for task in tasks if (row := results_cache.load(folder, task.key)) is not None}
    open_tasks = [task for task in tasks if task.key not in rows]
    failures: list[_Failure] = []
    resumed = len(rows)
    progress(resumed, len(tasks))
    measure = _in_workers if jobs > 1 and len(open_tasks) > 1 else _here
    for done, (task, found) in enumerate(measure(open_tasks, places, folder, jobs, threads), 1):
        if isinstance(found, _Failure):
            failures.append(found)
        else:
            rows[task.key] = found
        progress(resumed + done, len(tasks))
    return Outcome([rows[t.key] for t in tasks if t.key in rows], failures, resumed)


def prepared(method: str, place: Place) -> Contender:
    """The contender of a method; ours is told the sensor and offset of the place."""
    return _made(method, place.sensor, place.offset)


def _attempt(task: _Task, place: Place, folder: Path) -> dict[str, Any] | _Failure:
    """Measures one point and keeps it; an error of the contender becomes a `_Failure`.

    Raises:
        OutputError: cannot be written.
    """
    try:
        row = _measured(task, place)
    except (EozipError, RuntimeError, ValueError, OSError, MemoryError) as error:
        # what encoders and torch raise for pixels they cannot take: one point must not end a long run
        return _Failure(task.method, place.name, task.setting, f"{type(error).__name__}: {error}")
    results_cache.save(folder, row)
    return row


def _measured(task: _Task, place: Place) -> dict[str, Any]:
    one = prepared(task.method, place)
    _warm_up(task.method, place.sensor, place.offset)
    if isinstance(one, Preparing):
        one.prepare(task.setting)
    with watched_memory() as memory:
        run_of_it = coded(one, place, task.setting)
    point = described(run_of_it, one.name, place, task.setting)
    t, _, height, width = place.dn.shape
    cpu = run_of_it.encode_cpu_seconds, run_of_it.decode_cpu_seconds
    record = results_cache.Record(
        task.key, task.kind, point, t * height * width, *cpu, memory.peak, memory.before, memory.is_of
    )
    return results_cache.flat(record)


def _made(method: str, sensor: str, offset: int) -> Contender:
    return contender(method) if method in ENTRIES else own(method, sensor, offset)


@cache
def _warm_up(method: str, sensor: str, offset: int) -> None:
    """Loads model and libraries, so that the first point's seconds are not theirs; once in a process."""
    side = np.arange(_WARM_UP, dtype=np.uint16)
    ramp = np.add.outer(side, side) + np.uint16(offset)
    one = _made(method, sensor, offset)
    bands = len(sensors.get(sensor).bands)
    one.decode(one.encode(np.stack([ramp] * bands)[None], sweep_of(method)[0]))


def _here(
    tasks: Sequence[_Task], places: Sequence[Place], folder: Path, jobs: int, threads: int | None
) -> Iterator[tuple[_Task, dict[str, Any] | _Failure]]:
    choose(threads)
    for task in tasks:
        yield task, _attempt(task, places[task.place], folder)


def _in_workers(
    tasks: Sequence[_Task], places: Sequence[Place], folder: Path, jobs: int, threads: int | None
) -> Iterator[tuple[_Task, dict[str, Any] | _Failure]]:
    # spawn: forked torch and encoder threads may hang
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, _begin, (threads,))
    try:
        waiting: dict[Future[dict[str, Any] | _Failure], _Task] = {
            pool.submit(_attempt, task, places[task.place], folder): task for task in tasks
        }
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool as error:
        raise EozipError(
            "a worker process ended before its point was finished (out of memory?); finished points are "
            "kept: run the same command again, with fewer --jobs"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _begin(threads: int | None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the run; a point begun is worth finishing
    threading.Thread(target=_end_with_parent, daemon=True).start()
    choose(threads)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for tasks for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
