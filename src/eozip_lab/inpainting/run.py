"""Runs either protocol over predictors, keeps every finished row, and makes tables of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip.inpaint.calibration import CLASSES, class_of, factor_of
from eozip.inpaint.predict import Predictor
from eozip_lab.inpainting.allclear import AllClearScore, Sample, evaluate_sample, mean_scores
from eozip_lab.inpainting.scores import score
from eozip_lab.inpainting.trial import Case

Row = dict[str, Any]
BASELINES = ("least-cloudy", "nearest-clear", "mean-clear", "linear-in-time", "harmonic")
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
        """Keeps a row at once."""
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
    """Scores every predictor on every case that the journal lacks.

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
    predictors: Sequence[Predictor],
    journal: Journal,
    progress: Callable[[str], None] = lambda key: None,
) -> dict[str, dict[str, float]]:
    """AllClear's protocol: predictor > mean metrics."""
    for sample in samples:
        for predictor in predictors:
            if not journal.has(sample.id, predictor.name):
                scores = evaluate_sample(sample, predictor)
                journal.add({"key": sample.id, "predictor": predictor.name, **asdict(scores)})
        progress(sample.id)
    wanted = {sample.id for sample in samples}
    return {p.name: mean_scores(_scores(journal, p.name, wanted)) for p in predictors}


def _scores(journal: Journal, name: str, wanted: set[str]) -> list[AllClearScore]:
    rows = [row for row in journal.rows if row["predictor"] == name and row["key"] in wanted]
    return [AllClearScore(**{k: v for k, v in row.items() if k not in ("key", "predictor")}) for row in rows]


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
    baselines = [name for name in names if name in BASELINES]
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
