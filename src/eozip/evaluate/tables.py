"""From the points of a sweep to tables: rates at equal PSNR, metrics at one PSNR, spans; as data and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from eozip.evaluate.rate import bd_psnr, bd_rate
from eozip.evaluate.sweep import PSNRS, Point, curves, mean_rate, rates, value_at

AT = 40.0  # dB at which other metrics are compared

# Column title > metric.
METRICS: dict[str, Callable[[Point], float | None]] = {
    "spectral angle, degrees": lambda p: p.quality.spectral_angle,
    "NDVI error": lambda p: p.quality.ndvi_error,
    "NDWI error": lambda p: p.quality.ndwi_error,
    "pixels of another class": lambda p: p.quality.class_change,
    "SSIM": lambda p: p.quality.ssim,
    "MS-SSIM": lambda p: p.quality.ms_ssim,
    "largest error, DN": lambda p: float(p.quality.max_error),
}


@dataclass(frozen=True)
class Span:
    """What one contender's settings reach on one place.

    Attributes:
        low, high: lowest and highest PSNR in dB.
        monotone: whether each finer setting gives more bytes and no less PSNR.
    """

    low: float
    high: float
    monotone: bool


def names(points: Sequence[Point]) -> list[str]:
    """Contenders in the order measured."""
    return list(dict.fromkeys(point.contender for point in points))


def place_names(points: Sequence[Point]) -> list[str]:
    """Places in the order measured."""
    return list(dict.fromkeys(point.place for point in points))


def rate_table(points: Sequence[Point], dbs: Sequence[float] = PSNRS) -> dict[str, Any]:
    """Contender > dB > {"mean": bpppb, "places": {place: bpppb}}; None where a curve does not reach."""
    return {
        name: {
            f"{db:g}": {"mean": mean_rate(points, name, db), "places": rates(points, name, db)} for db in dbs
        }
        for name in names(points)
    }


def metric_table(points: Sequence[Point], db: float = AT) -> dict[str, Any]:
    """Contender > place > metrics, band and group PSNR at one overall PSNR, interpolated; None out of reach."""
    return {
        name: {place: _metrics_at(_of(points, name, place), db) for place in place_names(points)}
        for name in names(points)
    }


def span_table(points: Sequence[Point]) -> dict[str, dict[str, Span]]:
    """Contender > place > `Span`, in the order of the settings measured (coarse to fine)."""
    return {
        name: {place: _span(_of(points, name, place)) for place in place_names(points)}
        for name in names(points)
    }


def bd_table(points: Sequence[Point], reference: str) -> dict[str, Any]:
    """Contender > place > BD-rate in percent and BD-PSNR in dB against `reference`, with what they cover."""
    base = curves(points, reference)
    return {
        name: {
            place: {"bd_rate": bd_rate(base[place], curve), "bd_psnr": bd_psnr(base[place], curve)}
            for place, curve in curves(points, name).items()
        }
        for name in names(points)
        if name != reference
    }


def markdown_rates(table: Mapping[str, Any], place: str | None = None) -> str:
    """`rate_table` as Markdown: the means, or one place."""
    dbs = list(next(iter(table.values())))
    rows = [
        [
            name,
            *(_rate(cell["mean"] if place is None else cell["places"].get(place)) for cell in row.values()),
        ]
        for name, row in table.items()
    ]
    return markdown(["bpppb at", *(f"{db} dB" for db in dbs)], rows)


def markdown_metrics(table: Mapping[str, Any], place: str) -> str:
    """One place of `metric_table` as Markdown."""
    rows = [
        [name, *(_number(_metric(row, place, title)) for title in METRICS)] for name, row in table.items()
    ]
    return markdown(["", *METRICS], rows)


def markdown_bands(table: Mapping[str, Any], place: str, bands: Sequence[str]) -> str:
    """Band PSNR and PSNR by native resolution of one place as Markdown."""
    rows = []
    for name, row in table.items():
        found = row[place] or {"bands": [None] * len(bands), "groups": {}}
        groups = [found["groups"].get(metres) for metres in (10, 20, 60)]
        rows.append([name, *(_db(value) for value in [*found["bands"], *groups])])
    return markdown(["dB", *bands, "10 m", "20 m", "60 m"], rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others numbers."""
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows]) + "\n"


def _of(points: Sequence[Point], name: str, place: str) -> list[Point]:
    return [p for p in points if p.contender == name and p.place == place]


def _metrics_at(points: Sequence[Point], db: float) -> dict[str, Any] | None:
    if value_at(points, db, lambda p: p.psnr) is None:
        return None
    known = {title: f for title, f in METRICS.items() if all(f(p) is not None for p in points)}
    return {
        "metrics": {title: value_at(points, db, f) for title, f in known.items()},  # type: ignore[arg-type]
        "bands": [_band_at(points, db, c) for c in range(len(points[0].quality.band_psnr))],
        "groups": {metres: _group_at(points, db, metres) for metres in points[0].group_psnr},
    }


def _band_at(points: Sequence[Point], db: float, c: int) -> float | None:
    return value_at(points, db, lambda p: p.quality.band_psnr[c])


def _group_at(points: Sequence[Point], db: float, metres: int) -> float | None:
    return value_at(points, db, lambda p: p.group_psnr[metres])


def _span(points: Sequence[Point]) -> Span:
    psnrs, sizes = [p.psnr for p in points], [p.bytes for p in points]
    rising = all(a < b for a, b in pairwise(sizes)) and all(a <= b for a, b in pairwise(psnrs))
    return Span(min(psnrs), max(psnrs), rising)


def _metric(row: Mapping[str, Any], place: str, title: str) -> float | None:
    return None if row[place] is None else row[place]["metrics"].get(title)


def _rate(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _db(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
