"""Runs tasks: chips coded by every method at equal bytes, judged, and scored."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.chunk.pixels import psnr
from eozip.errors import EozipError, InputError
from eozip_lab.evaluate.baselines import ENTRIES, Contender, contender, setting_of, unavailable
from eozip_lab.evaluate.provenance import provenance
from eozip_lab.evaluate.rate import bpppb
from eozip_lab.tasks import events
from eozip_lab.tasks.data import Sources
from eozip_lab.tasks.gallery import Failures, Shown
from eozip_lab.tasks.matching import Knob, matched
from eozip_lab.tasks.scores import Score, difference, score
from eozip_lab.tasks.table import TASKS
from eozip_lab.tasks.task import Chip, Judge, Measure, Tally, Task, TaskSkipped, member

SCHEMA = "eozip-tasks/1"
REFERENCE = "tec-elic-small"
"""Its qualities give the bytes that every other method gets, chip by chip."""
QUALITIES = (20.0, 40.0, 60.0)
_SINGLE = ((REFERENCE, "tec-fp-small"), ("klt+av1", "klt+jpeg2000"))
_SERIES = (
    (REFERENCE, "tec-tt-small", "tec-fp-small"),
    ("klt-t+av1", "klt-t+jpeg2000-lean"),
)
_PREDICTORS = ("regression", "linear-in-time")
_WHOLE = ("QP", "CRF")  # settings that are whole numbers

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        folders: where the data lie.
        tasks: names; empty: all.
        qualities: of the reference codec, which give the bytes.
        codecs, baselines: instead of the tasks' own.
        few: a few chips and one quality: whether everything works, not what it is worth.
    """

    folders: tuple[Path, ...]
    tasks: tuple[str, ...] = ()
    qualities: tuple[float, ...] = QUALITIES
    codecs: tuple[str, ...] = ()
    baselines: tuple[str, ...] = ()
    few: bool = False


@dataclass(frozen=True)
class Coded:
    """Chips as one method gives them back.

    Attributes:
        method: its name.
        quality: of the reference at which bytes are equal; None where nothing was coded.
        bytes: of each chip.
        decoded: an array for each chip (for predictors what they filled).
    """

    method: str
    quality: float | None
    bytes: tuple[int, ...]
    decoded: tuple[Any, ...]


@dataclass(frozen=True)
class Found:
    """What a run gives: what becomes JSON, and pictures."""

    document: dict[str, Any]
    gallery: list[Shown]


def run_tasks(plan: Plan, progress: Progress = lambda what: None) -> Iterator[Found]:
    """Run all tasks of a plan; after each group of tasks comes what was found so far, which can be written.

    What cannot run here is named in `skipped`.

    Args:
        plan: what to run.
        progress: told what is done next.

    Raises:
        InputError: a task or baseline that nobody knows, or nothing of what was asked for can run.
        UnknownCodecError: a codec that nobody knows.
    """
    chosen = _chosen(plan)
    for name in (*plan.codecs, *plan.baselines):
        contender(name)
    started, gallery = time.process_time(), list[Shown]()
    rows: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    for group in _by_data(chosen):
        try:
            rows += _group(group, plan, gallery, skipped, progress)
        except TaskSkipped as error:
            skipped += [{"task": task.name, "why": str(error)} for task in group]
            continue
        yield Found(_document(plan, rows, skipped, time.process_time() - started), gallery)
    if not rows:
        raise InputError(
            "nothing of what was asked for can run here: " + "; ".join(s["why"] for s in skipped)
        )
    yield Found(_document(plan, rows, skipped, time.process_time() - started), gallery)


def _document(
    plan: Plan, rows: list[dict[str, Any]], skipped: list[dict[str, str]], seconds: float
) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "made": provenance(),
        "few": plan.few,
        "reference": REFERENCE,
        "qualities": plan.qualities[-1:] if plan.few else plan.qualities,
        "cpu_seconds": seconds,
        "tasks": rows,
        "skipped": skipped,
    }


def _chosen(plan: Plan) -> list[Task]:
    names = [task.name for task in TASKS]
    unknown = [name for name in plan.tasks if name not in names]
    if unknown:
        raise InputError(f"unknown task {', '.join(unknown)}: expected some of {', '.join(names)}")
    return [task for task in TASKS if not plan.tasks or task.name in plan.tasks]


def _by_data(tasks: Sequence[Task]) -> list[list[Task]]:
    groups: dict[str, list[Task]] = {}
    for task in tasks:
        groups.setdefault(task.data, []).append(task)
    return list(groups.values())


def _group(
    tasks: list[Task], plan: Plan, gallery: list[Shown], skipped: list[dict[str, str]], progress: Progress
) -> list[dict[str, Any]]:
    """Tasks on the same chips, which are coded once."""
    chips = member(tasks[0].data)(Sources(plan.folders), plan.few)
    judges: dict[str, Judge] = {}
    for task in tasks:
        try:
            judges[task.name] = task.make_judge(chips)
        except TaskSkipped as error:
            skipped.append({"task": task.name, "why": str(error)})
    tasks = [task for task in tasks if task.name in judges]
    if not tasks:
        return []
    codecs, baselines = methods_of(tasks[0], plan)
    started = time.process_time()
    boards = {task.name: _Board(task, judges[task.name], chips, codecs, baselines) for task in tasks}
    for coded in _filled(chips) if tasks[0].fills else _coded(chips, codecs, baselines, plan):
        for task in tasks:
            progress(f"{task.name}: {coded.method}, quality {coded.quality}")
            boards[task.name].take(coded, _shown_at(plan))
    gallery += [one for board in boards.values() for one in board.shown(_shown_at(plan))]
    seconds = (time.process_time() - started) / len(boards)
    return [board.row() | {"cpu_seconds": seconds} for board in boards.values()]


def methods_of(task: Task, plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Codecs, the reference first, and those baselines that can run here."""
    if task.fills:
        return _PREDICTORS, ()
    codecs, baselines = _SERIES if task.series else _SINGLE
    codecs, baselines = plan.codecs or codecs, plan.baselines or baselines
    usable = tuple(name for name in baselines if name not in ENTRIES or unavailable(name) is None)
    return tuple(dict.fromkeys((REFERENCE, *codecs))), usable


def _shown_at(plan: Plan) -> float:
    """The quality whose worst failures are shown."""
    return plan.qualities[min(1, len(plan.qualities) - 1)] if not plan.few else plan.qualities[-1]


def _filled(chips: Sequence[Chip]) -> Iterator[Coded]:
    for name in _PREDICTORS:
        yield Coded(name, None, (), tuple(events.filled(chip, name) for chip in chips))


def _coded(
    chips: Sequence[Chip], codecs: Sequence[str], baselines: Sequence[str], plan: Plan
) -> Iterator[Coded]:
    """Every method at every quality of the reference."""
    last: dict[str, float] = {}
    for quality in plan.qualities[-1:] if plan.few else plan.qualities:
        reference = contender(REFERENCE)
        blobs = [reference.encode(chip.dn, quality) for chip in chips]
        goals = [len(blob) for blob in blobs]
        yield Coded(REFERENCE, quality, tuple(goals), tuple(map(reference.decode, blobs)))
        for name in (*codecs[1:], *baselines):
            yield _at_equal_bytes(name, chips, goals, quality, last)


def _at_equal_bytes(
    name: str, chips: Sequence[Chip], goals: Sequence[int], quality: float, last: dict[str, float]
) -> Coded:
    """A method with as many bytes for each chip; `last` has the setting that the chip before came to."""
    made, knob = contender(name), knob_of(name)
    first = quality if name not in ENTRIES else last.get(name, (knob.coarse + knob.fine) / 2)
    sizes, decoded = [], []
    for chip, goal in zip(chips, goals):
        first, blob = matched(lambda s, dn=chip.dn: _encoded(made, dn, s), goal, knob, first)
        sizes.append(len(blob))
        decoded.append(made.decode(blob))
    last[name] = first
    return Coded(name, quality, tuple(sizes), tuple(decoded))


def _encoded(made: Contender, dn: np.ndarray, setting: float) -> bytes:
    try:
        return made.encode(dn, setting)
    except EozipError as error:
        raise InputError(f"{made.name} at {setting:g}: {error}") from error


def knob_of(name: str) -> Knob:
    """What a codec or baseline can be told."""
    if name not in ENTRIES:
        return Knob(0, 100, 0.25)
    sweep = ENTRIES[name].sweep
    return Knob(sweep[0], sweep[-1], 1 if setting_of(name) in _WHOLE else 0.1)


class _Board:
    """Tallies of one task, by method and quality."""

    def __init__(
        self, task: Task, judge: Judge, chips: Sequence[Chip], codecs: Sequence[str], baselines: Sequence[str]
    ) -> None:
        self._task, self._judge, self._chips = task, judge, chips
        self._codecs, self._baselines = codecs, baselines
        self._original = [] if task.fills else judge([chip.dn for chip in chips])
        self._tallies: dict[tuple[str, float | None], list[Tally]] = {}
        self._sizes: dict[tuple[str, float | None], dict[str, Any]] = {}
        self._failures = Failures(task, judge, chips, self._original)

    def take(self, coded: Coded, shown_at: float) -> None:
        """Judge what a method made of the chips; of those at one quality the gallery keeps the worst."""
        key = coded.method, coded.quality
        tallies = self._tallies[key] = self._judge(coded.decoded)
        self._sizes[key] = _sizes(self._chips, coded)
        ours = self._codecs[1 if self._task.series and len(self._codecs) > 1 else 0]
        if coded.quality != shown_at or not hasattr(self._judge, "panels"):
            return
        if coded.method == ours:
            self._failures.take_ours(coded, tallies)
        elif coded.method in self._baselines:
            self._failures.take_other(coded, tallies)

    def shown(self, quality: float) -> Iterator[Shown]:
        """Pictures of the worst failures at a quality."""
        measures = {m.name: self._best(m, quality) for m in self._task.measures}
        yield from self._failures.shown({name: best for name, best in measures.items() if best is not None})

    def row(self) -> dict[str, Any]:
        """The task's part of the document."""
        bands = sorted({len(chip.bands) for chip in self._chips})
        return {
            "name": self._task.name,
            "title": self._task.title,
            "measures": self._task.measures,
            "codecs": self._codecs,
            "baselines": self._baselines,
            "chips": len(self._chips),
            "held": sum(chip.held for chip in self._chips),
            "places": len({tally.place for tally in next(iter(self._tallies.values()))}),
            "bands": bands,
            "original": self._scores(self._original),
            "rows": [self._result(key) for key in self._tallies],
        }

    def _result(self, key: tuple[str, float | None]) -> dict[str, Any]:
        tallies, (method, quality) = self._tallies[key], key
        result = {
            "method": method,
            "quality": quality,
            **self._sizes[key],
            "scores": self._scores(tallies),
            "held": self._scores([tally for tally in tallies if tally.held], brief=True),
        }
        if method in self._codecs and quality is not None:
            result["over_best"] = self._over_best(tallies, quality)
        if any(m.truth for m in self._task.measures) and self._original:
            result["over_original"] = {
                m.name: difference(tallies, self._original, m.name) for m in self._task.measures if m.truth
            }
        return result

    def _over_best(self, tallies: list[Tally], quality: float) -> dict[str, Any]:
        """Measure > the best baseline with as many bytes, and the difference to it."""
        found = {}
        for m in self._task.measures:
            if (best := self._best(m, quality)) is not None:
                found[m.name] = {
                    "baseline": best,
                    "difference": difference(tallies, self._tallies[best, quality], m.name),
                }
        return found

    def _best(self, measure: Measure, quality: float) -> str | None:
        """The baseline that does best; None where none says anything."""
        there = [b for b in self._baselines if (b, quality) in self._tallies]
        scores = {b: score(self._tallies[b, quality], measure.name).value for b in there}
        known = {b: value for b, value in scores.items() if value is not None}
        return (max if measure.more else min)(known, key=known.__getitem__) if known else None

    def _scores(self, tallies: list[Tally], brief: bool = False) -> dict[str, Score | float | None]:
        found = {m.name: score(tallies, m.name) for m in self._task.measures}
        return {name: s.value for name, s in found.items()} if brief else dict(found)


def _sizes(chips: Sequence[Chip], coded: Coded) -> dict[str, Any]:
    if not coded.bytes:
        return {}
    rate = np.average(
        [bpppb(size, chip.dn.shape) for chip, size in zip(chips, coded.bytes)],
        weights=[chip.dn.size for chip in chips],
    )
    levels = [psnr(chip.dn, dn) for chip, dn in zip(chips, coded.decoded)]
    return {"bytes": sum(coded.bytes), "bpppb": float(rate), "psnr": float(np.mean(levels))}
