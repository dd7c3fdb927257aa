"""From points to conclusions: rates at equal PSNR, ratios with their intervals over places, Bjontegaard differences."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip_lab.evaluate.baselines.eozip_bounded import ERROR
from eozip_lab.evaluate.methods import CODEC, Method
from eozip_lab.evaluate.rate import Curve, Difference, bd_psnr, bd_rate, rate_at
from eozip_lab.evaluate.results_cache import point_of
from eozip_lab.evaluate.sweep import PSNRS
from eozip_lab.evaluate.tables import span_table

AT = 40.0  # dB at which everything else is compared
_NEARLY_EXACT = (52.0, 56.0)  # dB that only bounds on the error, or the finest settings of baselines, reach
_LEVELS = (*PSNRS, *_NEARLY_EXACT)  # dB at which rates are compared
_RESAMPLES = 10_000
_INTERVAL = (2.5, 97.5)  # percentiles: 95 %

_Rows = Sequence[Mapping[str, Any]]


def summarise(rows: _Rows, methods: Sequence[Method], places: Sequence[str]) -> dict[str, Any]:
    """The `summary` of report.json (docs/evaluation.md) from its points."""
    kinds = {method.id: method.kind for method in methods}
    measured = [m.id for m in methods if any(row["method"] == m.id for row in rows)]
    curves = {name: _curves(rows, name, places) for name in measured}
    found = {name: _rates(curves[name]) for name in measured}
    return {
        "rates_at_psnr": found,
        "at_bound": _bounded(rows, methods, places),
        "best_at_psnr": {f"{db:g}": _best(found, kinds, f"{db:g}") for db in _LEVELS},
        "pairs": [
            _pair(curves, found, one, other)
            for one in measured
            if kinds[one] == CODEC
            for other in measured
            if other != one
        ],
        "at_psnr": {f"{AT:g}": {name: _values(rows, name, places) for name in measured}},
        "spans": span_table([point_of(dict(row)) for row in rows]),
    }


def _bootstrap(values: Sequence[float]) -> tuple[float | None, float | None]:
    """95 % interval of a mean over places: percentiles of the means of resampled places.

    Args:
        values: one a place; the same values always give the same interval.

    Returns:
        None, None below two places: one place says nothing about others.
    """
    if len(values) < 2:
        return None, None
    draws = np.random.default_rng(0).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.percentile(np.asarray(values)[draws].mean(1), _INTERVAL)
    return float(low), float(high)


def _curves(rows: _Rows, name: str, places: Sequence[str]) -> dict[str, Curve]:
    """Place > (bpppb, dB); exact points have no PSNR and are left out."""
    return {
        place: [
            (row["bpppb"], row["psnr"])
            for row in rows
            if row["method"] == name and row["place"] == place and row["psnr"] is not None
        ]
        for place in places
    }


def _rates(curves: Mapping[str, Curve]) -> dict[str, Any]:
    found = {}
    for db in _LEVELS:
        by_place = {place: _rate(curve, db) for place, curve in curves.items()}
        found[f"{db:g}"] = {"mean": _mean(by_place), "places": by_place}
    return found


def _bounded(rows: _Rows, methods: Sequence[Method], places: Sequence[str]) -> dict[str, Any]:
    """Method > largest error in DN as text > mean and places, of methods that promise one, where they kept it."""
    found: dict[str, Any] = {}
    for name in (m.id for m in methods if m.setting_name == ERROR):
        held = {
            (row["setting"], row["place"]): row["bpppb"]
            for row in rows
            if row["method"] == name and row["max_error"] <= row["setting"]
        }
        for bound in sorted({bound for bound, _ in held}):
            by_place = {place: held.get((bound, place)) for place in places}
            found.setdefault(name, {})[f"{bound:g}"] = {"mean": _mean(by_place), "places": by_place}
    return found


def _mean(by_place: Mapping[str, float | None]) -> float | None:
    """None unless every place has a value."""
    known = [rate for rate in by_place.values() if rate is not None]
    return float(np.mean(known)) if known and len(known) == len(by_place) else None


def _rate(curve: Curve, db: float) -> float | None:
    return rate_at(curve, db) if len(curve) > 1 else None


def _best(found: Mapping[str, Any], kinds: Mapping[str, str], db: str) -> list[dict[str, Any]]:
    means = {name: rates[db]["mean"] for name, rates in found.items() if rates[db]["mean"] is not None}
    return [
        {"method": name, "kind": kinds[name], "mean": means[name]}
        for name in sorted(means, key=means.__getitem__)
    ]


def _pair(
    curves: Mapping[str, Mapping[str, Curve]], found: Mapping[str, Any], one: str, other: str
) -> dict[str, Any]:
    return {
        "method": one,
        "reference": other,
        "ratio_at_psnr": {db: _ratio(found[one][db], found[other][db]) for db in found[one]},
        "bd_rate": _difference(bd_rate, curves[other], curves[one]),
        "bd_psnr": _difference(bd_psnr, curves[other], curves[one]),
    }


def _ratio(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Geometric mean over the places that both reach: each place counts the same, whatever its rate."""
    logs = [
        math.log(rate / other["places"][place])
        for place, rate in one["places"].items()
        if rate is not None and other["places"][place] is not None
    ]
    low, high = _bootstrap(logs)
    return {
        "ratio": math.exp(float(np.mean(logs))) if logs else None,
        "low": None if low is None else math.exp(low),
        "high": None if high is None else math.exp(high),
        "places": len(logs),
        "of": len(one["places"]),
    }


def _difference(
    measure: Callable[[Curve, Curve], Difference | None],
    reference: Mapping[str, Curve],
    curves: Mapping[str, Curve],
) -> dict[str, Any]:
    by_place = {place: _measured(measure, reference[place], curve) for place, curve in curves.items()}
    values = [found.value for found in by_place.values() if found is not None]
    low, high = _bootstrap(values)
    return {
        "mean": float(np.mean(values)) if values else None,
        "low": low,
        "high": high,
        "places": len(values),
        "of": len(by_place),
        "by_place": {place: None if found is None else asdict(found) for place, found in by_place.items()},
    }


def _measured(
    measure: Callable[[Curve, Curve], Difference | None], reference: Curve, curve: Curve
) -> Difference | None:
    try:
        return measure(reference, curve)
    except InputError:
        return None  # a single point, or none that gains by more bits: no curve to compare


def _values(rows: _Rows, name: str, places: Sequence[str]) -> dict[str, Any]:
    return {
        place: _values_at([r for r in rows if r["method"] == name and r["place"] == place])
        for place in places
    }


def _values_at(rows: _Rows) -> dict[str, Any] | None:
    """Every numeric field at `AT`, linear in dB between the two points beside it; None out of reach."""
    ordered = sorted((row for row in rows if row["psnr"] is not None), key=lambda row: row["psnr"])
    if not ordered or not ordered[0]["psnr"] <= AT <= ordered[-1]["psnr"]:
        return None
    psnrs = [row["psnr"] for row in ordered]
    numeric = [name for name, value in ordered[0].items() if not isinstance(value, str)]
    return {name: _at(psnrs, [row[name] for row in ordered]) for name in numeric}


def _at(psnrs: Sequence[float], values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return [_at(psnrs, column) for column in zip(*values)]
    if isinstance(values[0], Mapping):
        return {key: _at(psnrs, [value[key] for value in values]) for key in values[0]}
    is_number = all(isinstance(value, int | float) for value in values)
    return float(np.interp(AT, psnrs, values)) if is_number else None
