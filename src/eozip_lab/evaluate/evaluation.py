"""`eozip evaluate` without the command line: places, methods, points, summary, crops, report.json."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from eozip.chunk.pixels import PEAK
from eozip.errors import EozipError, InputError
from eozip_lab.evaluate import results_cache
from eozip_lab.evaluate.baselines import baseline_names
from eozip_lab.evaluate.crops import write_crops
from eozip_lab.evaluate.inputs import Place, Reading, gather, pixel_hash
from eozip_lab.evaluate.methods import Method, default_codecs, methods
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.runner import Outcome, Progress, run, tasks_of
from eozip_lab.evaluate.summary import summarise

REPORT = "report.json"
_DEFINITIONS = {
    "rate": "bpppb: bits of all bytes a decoder needs / (T C H W) of the unpadded input",
    "psnr": "dB, peak 10,000 DN, clip(dn - offset, 0, 10000), all bands and dates of a place together",
    "ratio": "bits of method / bits of reference at equal PSNR (log rate, linear in dB between neighbouring points), "
    "geometric mean over places",
    "interval": "95 % percentile bootstrap over places, 10,000 resamples, fixed seed",
    "seconds": "wall time of one run, model loaded; other work on the machine, and several jobs, make it longer",
    "cpu_seconds": "CPU time of all threads in that run",
    "peak_dn": int(PEAK),
}


@dataclass(frozen=True)
class Plan:
    """What is evaluated.

    Attributes:
        data: GeoTIFFs, folders, .npz files.
        reading: how they are read.
        codecs: full ids or short names; None takes every codec of the sensor.
        baselines: names; None takes all.
        qualities: of the codecs, 0..100; None is 0, 5, .. 100.
        jobs: worker processes.
        threads: CPU threads of the networks in each; None is torch's choice with one job, else 1.
        crops: side of the crops in pixels; 0 writes none.
        levels: dB at which crops are compared.
        every: N: of a baseline's settings every N-th is measured, and the last.
    """

    data: tuple[Path, ...]
    reading: Reading = field(default_factory=Reading)
    codecs: tuple[str, ...] | None = None
    baselines: tuple[str, ...] | None = None
    qualities: tuple[float, ...] | None = None
    jobs: int = 1
    threads: int | None = None
    crops: int = 0
    levels: tuple[float, ...] = (40.0,)
    every: int = 1


@dataclass(frozen=True)
class Notices:
    """Callbacks while an evaluation runs.

    Attributes:
        sweep, crops: counts done and in all.
        methods: called once, before anything is measured.
        left_out: called for every input in a folder that cannot be used, with its name and why.
    """

    sweep: Progress = lambda done, total: None
    crops: Progress = lambda done, total: None
    methods: Callable[[list[Method]], None] = lambda found: None
    left_out: Callable[[str], None] = lambda why: None


def evaluate(plan: Plan, out: Path, notices: Notices = Notices()) -> dict[str, Any]:
    """Measure what an earlier run in `out` did not finish, and write report.json.

    Returns:
        The report (docs/evaluation.md), as written.

    Raises:
        InputError: data, codecs or settings that cannot be used; nothing was measured.
        OutputError: `out` holds something else, or cannot be written.
        EozipError: every point failed, or a worker ended; finished points are kept.
    """
    started = time.perf_counter()
    if plan.jobs > 1 and plan.threads is None:
        plan = replace(plan, threads=1)  # else each process would take every core
    places = gather(plan.data, plan.reading, notices.left_out)
    chosen = _methods(plan, places)
    results_cache.claim(out)
    results_cache.restore(out)
    notices.methods(chosen)
    hashes = [pixel_hash(place.dn) for place in places]
    found = run(tasks_of(chosen, places, hashes), places, out, plan.jobs, plan.threads, notices.sweep)
    if not found.rows:
        raise EozipError(f"every point failed; the first: {_first(found)}")
    crops = _crops(plan, found, chosen, places, out, notices.crops)
    report = {
        "schema": results_cache.SCHEMA,
        "provenance": provenance(),
        "definitions": _DEFINITIONS,
        "run": _run_facts(plan, found, time.perf_counter() - started),
        "places": [_place(place, digest) for place, digest in zip(places, hashes)],
        "methods": chosen,
        "points": found.rows,
        "failures": found.failures,
        "summary": summarise(found.rows, chosen, [place.name for place in places]),
        "crops": crops,
    }
    write_text(out / REPORT, as_json(report))
    return report


def _methods(plan: Plan, places: Sequence[Place]) -> list[Method]:
    kinds = sorted({place.sensor for place in places})
    if len(kinds) > 1:
        raise InputError(f"expected places of one sensor, got {', '.join(kinds)}; evaluate them one by one")
    codecs = default_codecs(kinds[0]) if plan.codecs is None else plan.codecs
    names = baseline_names() if plan.baselines is None else plan.baselines
    found = methods(codecs, names, kinds[0], plan.qualities, plan.every)
    if not any(method.available for method in found):
        reasons = "; ".join(f"{method.id}: {method.reason}" for method in found)
        raise InputError(f"nothing that was asked for can run here: {reasons}")
    return found


def _crops(
    plan: Plan,
    found: Outcome,
    chosen: Sequence[Method],
    places: Sequence[Place],
    out: Path,
    progress: Progress,
) -> dict[str, Any]:
    if plan.crops == 0:
        return {"levels": [], "files": []}
    return write_crops(found.rows, chosen, places, out, plan.crops, plan.levels, progress)


def _run_facts(plan: Plan, found: Outcome, seconds: float) -> dict[str, Any]:
    return {
        "jobs": plan.jobs,
        "threads": plan.threads,
        "size": plan.reading.size,
        "points": len(found.rows),
        "resumed": found.resumed,
        "seconds": seconds,
    }


def _place(place: Place, digest: str) -> dict[str, Any]:
    return {
        "name": place.name,
        "shape": place.dn.shape,
        "dtype": place.dn.dtype.name,
        "bands": place.bands,
        "resolutions_m": place.resolutions,
        "dates": place.dates or (None,) * len(place.dn),
        "offset": place.offset,
        "sha256": digest,
    }


def _first(found: Outcome) -> str:
    return "; ".join(str(asdict(failure)) for failure in found.failures[:1])
