"""Tallies to scores: sums over sums, with 95 % intervals by bootstrap over places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from eozip_lab.tasks.task import Tally

_RESAMPLES, _LEAST = 2000, 3


@dataclass(frozen=True)
class Score:
    """A value and its 95 % interval.

    Attributes:
        value: numerator over denominator, over all places; None where nothing was counted.
        low, high: percentile bootstrap over places; None below three.
        places: that counted.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    places: int = 0


def score(tallies: Sequence[Tally], measure: str) -> Score:
    """A measure over all places."""
    return _scored(_by_place(tallies, measure))


def difference(tallies: Sequence[Tally], others: Sequence[Tally], measure: str) -> Score:
    """A measure of some minus that of others, the same places resampled in both."""
    ours, theirs = (_by_place(t, measure) for t in (tallies, others))
    places = [place for place in ours if place in theirs]
    return _scored({place: (*ours[place], *theirs[place]) for place in places})


def _by_place(tallies: Sequence[Tally], measure: str) -> dict[str, tuple[float, ...]]:
    sums: dict[str, tuple[float, ...]] = {}
    for tally in tallies:
        if measure in tally.sums:
            before = sums.get(tally.place, (0.0, 0.0))
            sums[tally.place] = tuple(a + b for a, b in zip(before, tally.sums[measure]))
    return {place: found for place, found in sums.items() if found[1] > 0}


def _scored(by_place: dict[str, tuple[float, ...]]) -> Score:
    sums = np.array(list(by_place.values()), float)
    if not len(sums):
        return Score(None)
    columns = tuple(sums.T)
    value = float(_ratio(*columns))
    if len(sums) < _LEAST:
        return Score(value, places=len(sums))
    if all(np.ptp(a / b) == 0 for a, b in zip(columns[::2], columns[1::2])):
        return Score(value, value, value, len(sums))
    found = stats.bootstrap(
        columns,
        _ratio,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=_RESAMPLES,
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Score(value, float(found.low), float(found.high), len(sums))


def _ratio(*columns: np.ndarray, axis: int = -1) -> np.ndarray:
    """First over second sum; minus third over fourth, where there are four."""
    sums = [column.sum(axis) for column in columns]
    ratios = [a / b for a, b in zip(sums[::2], sums[1::2])]
    return ratios[0] if len(ratios) == 1 else ratios[0] - ratios[1]
