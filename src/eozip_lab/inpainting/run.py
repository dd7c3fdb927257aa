"""Runs either protocol over predictors, keeps every finished row, and makes tables of them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip.inpaint.predict import Predictor
from eozip.inpaint.uncertainty import CLASSES, class_of, factor_of
from eozip_lab.inpainting.allclear import (
    LAND_COVER,
    AllClearScore,
    PublishedBaseline,
    Sample,
    batch_means,
    mean_scores,
    predicted,
    scored,
    scored_by_land_cover,
)
from eozip_lab.inpainting.scores import score
from eozip_lab.inpainting.synthetic_clouds import Case

Row = dict[str, Any]
_BASELINES = ("least-cloudy-filled", "nearest-clear", "mean-clear", "linear-in-time", "harmonic")
_METRICS = ("mae", "rmse", "psnr", "sam", "ssim", "inside", "seconds")


class Journal:
    """Finished rows, one JSON line each, so that an interrupted run goes on where it stopped.

    Args:
        path: file of lines, or None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows = [] if path is None or not path.exists() else _lines(path)
        self._done = {(row["key"], row["predictor"]) for row in self.rows}

    def has(self, key: str, predictor: str) -> bool:
        """Whether a row is there."""
        return (key, predictor) in self._done

    def add(self, row: Row) -> None:
        """Keep a row at once."""
        self.rows.append(row)
        self._done.add((row["key"], row["predictor"]))
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _lines(path: Path) -> list[Row]:
    """Whole lines; the last may have been cut by the interruption, and is then cut off the file too."""
    text = path.read_text()
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    try:
        return [json.loads(line) for line in whole.splitlines()]
    except ValueError as error:
        raise InputError(f"{path}: expected JSON lines of an earlier run, got {error}; delete it") from error


def run_cases(
    found: Iterable[Case],
    predictors: Sequence[Predictor],
    journal: Journal,
    progress: Callable[[str], None] = lambda key: None,
    seen: Callable[[Case, Predictor, np.ndarray], None] = lambda case, predictor, x_hat: None,
) -> None:
    """Score every predictor on every case that the journal lacks.

    Args:
        found: cases.
        predictors: to compare.
        journal: where rows are kept.
        progress: called with the key of each finished case.
        seen: called with each prediction [C, H, W], for pictures.
    """
    for case in found:
        for predictor in predictors:
            if not journal.has(case.key, predictor.name):
                journal.add(_row(case, predictor, seen))
        progress(case.key)


def _row(case: Case, predictor: Predictor, seen: Callable[[Case, Predictor, np.ndarray], None]) -> Row:
    started = time.perf_counter()
    found = predictor.predict(case.series, case.date)
    seconds = time.perf_counter() - started
    factor = factor_of(found.calibration, case.series.cover(case.date))
    sigma = found.sigma * np.float32(1 if factor is None else factor)
    seen(case, predictor, found.x_hat)
    return {
        "key": case.key,
        "place": case.place,
        "dates": len(case.series.x),
        "cover": case.cover,
        "kind": case.kind,
        "predictor": predictor.name,
        "method": found.method,
        "calibrated": factor is not None,
        "seconds": round(seconds, 3),
        **{
            name: _short(value)
            for name, value in asdict(score(case.truth, found.x_hat, case.scored, sigma)).items()
        },
    }


def run_allclear(
    samples: Sequence[Sample],
    predictors: Sequence[Predictor | PublishedBaseline],
    journal: Journal,
    progress: Callable[[str], None] = lambda key: None,
) -> None:
    """AllClear's protocol: a row for each sample and predictor, with its scores by land cover where that is known."""
    for sample in samples:
        for predictor in predictors:
            if not journal.has(sample.id, predictor.name):
                output = predicted(sample, predictor)
                parts = scored_by_land_cover(sample, output)
                row = {"key": sample.id, "predictor": predictor.name, **asdict(scored(sample, output))}
                journal.add({**row, "land_cover": {name: asdict(score) for name, score in parts.items()}})
        progress(sample.id)


def allclear_means(
    samples: Sequence[Sample], names: Sequence[str], journal: Journal, batch: int | None = None
) -> dict[str, dict[str, float]]:
    """Predictor > mean metrics: over samples, or over batches of so many as the published code has it."""
    rows = {name: _rows(journal, name, samples) for name in names}
    scores = {name: [_score(row) for row in found] for name, found in rows.items()}
    return {
        name: mean_scores(found) if batch is None else batch_means(found, batch)
        for name, found in scores.items()
    }


def land_cover_means(
    samples: Sequence[Sample], names: Sequence[str], journal: Journal
) -> dict[str, dict[str, dict[str, float]]]:
    """Predictor > class of land cover > mean metrics over the samples that have it."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name in names:
        parts = [row.get("land_cover", {}) for row in _rows(journal, name, samples)]
        classes = [c for c in LAND_COVER if any(c in part for part in parts)]
        found[name] = {c: mean_scores([_score(part[c]) for part in parts if c in part]) for c in classes}
    return found


def _rows(journal: Journal, name: str, samples: Sequence[Sample]) -> list[Row]:
    """Those of a predictor, in the order of the samples."""
    rows = {row["key"]: row for row in journal.rows if row["predictor"] == name}
    return [rows[sample.id] for sample in samples if sample.id in rows]


def _score(row: Row) -> AllClearScore:
    names = [field.name for field in fields(AllClearScore)]
    return AllClearScore(**{name: math.nan if row[name] is None else row[name] for name in names})


def summary(rows: Sequence[Row]) -> list[Row]:
    """Means per number of dates, class of cover and predictor; and who wins.

    Returns:
        one entry per number of dates and class: `dates`, `cover` (lowest and highest), `cases`, `predictors` (name >
        metric > mean), `best_baseline` and `winner` by MAE.
    """
    groups = sorted({(row["dates"], class_of(row["cover"])) for row in rows})
    return [_group(rows, dates, number) for dates, number in groups]


def _group(rows: Sequence[Row], dates: int, number: int) -> Row:
    mine = [row for row in rows if row["dates"] == dates and class_of(row["cover"]) == number]
    names = sorted({row["predictor"] for row in mine})
    means = {name: _means([row for row in mine if row["predictor"] == name]) for name in names}
    baselines = [name for name in names if name in _BASELINES]
    low = 0.0 if number == 0 else CLASSES[number - 1]
    return {
        "dates": dates,
        "cover": [low, CLASSES[number]],
        "cases": len({row["key"] for row in mine}),
        "best_baseline": min(baselines, key=lambda name: means[name]["mae"]) if baselines else None,
        "winner": min(names, key=lambda name: means[name]["mae"]),
        "predictors": means,
    }


def _means(rows: Sequence[Row]) -> dict[str, float]:
    return {name: _short(float(np.mean([row[name] for row in rows]))) for name in _METRICS}


def _short(value: float | None) -> float:
    return float("nan") if value is None else float(f"{value:.5g}")
