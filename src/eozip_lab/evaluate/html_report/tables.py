"""The report's tables: every method, every place, every number straight from report.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from eozip_lab.evaluate.html_report.data import AT, Report
from eozip_lab.evaluate.html_report.markup import (
    counts,
    folded,
    interval,
    joined,
    name,
    number,
    paragraph,
    table,
    words,
)

# Field of a point > heading and format.
_METRICS = {
    "bpppb": ("bpppb", ".4f"),
    "spectral_angle": ("spectral angle, degrees", ".3f"),
    "ndvi_error": ("NDVI error", ".4f"),
    "ndwi_error": ("NDWI error", ".4f"),
    "class_change": ("share of pixels of another class", ".4f"),
    "ssim": ("SSIM", ".4f"),
    "ms_ssim": ("MS-SSIM", ".4f"),
    "max_error": ("largest error, DN", ".0f"),
    "encode_mpx_cpu_s": ("encode, MPx per CPU second", ".3f"),
    "decode_mpx_cpu_s": ("decode, MPx per CPU second", ".3f"),
    "peak_rss_bytes": ("peak memory, bytes", ".0f"),
}
_POINT_FIELDS = {
    "setting": "g",
    "bytes": "d",
    "bpppb": ".5f",
    "psnr": ".2f",
    "ssim": ".4f",
    "max_error": "d",
    "encode_cpu_seconds": ".3f",
    "decode_cpu_seconds": ".3f",
}


def place_table(report: Report) -> Markup:
    """Places with shapes and checksums."""
    rows = [
        [
            name(place["name"]),
            words(" x ".join(map(str, place["shape"]))),
            words(place["dtype"]),
            words(", ".join(date or "no date" for date in place["dates"])),
            number(report, "d", "places", i, "offset"),
            words(place["sha256"][:16]),
        ]
        for i, place in enumerate(report.data["places"])
    ]
    return table(["place", "T x C x H x W", "type", "dates", "offset, DN", "SHA-256 of the pixels"], rows)


def method_table(report: Report) -> Markup:
    """Methods with what they were told, those left out too."""
    rows = [
        [
            name(method["id"], method["kind"] == "codec"),
            words(method["kind"]),
            words(method["settings"]),
            words(f"{method['setting_name']}: {', '.join(f'{s:g}' for s in method['sweep'])}"),
            words("measured" if method["available"] else f"left out: {method['reason']}"),
        ]
        for method in report.data["methods"]
    ]
    return table(["method", "kind", "settings", "swept", ""], rows)


def rate_tables(report: Report) -> Markup:
    """Mean bpppb at each PSNR, then every place."""
    mean = _rates(report, "mean over places", "mean")
    return mean + joined(_rates(report, place, "places", place) for place in report.places)


def bound_table(report: Report) -> Markup:
    """Mean bpppb under a promise of a largest error, of the methods that give one."""
    found = report.at("summary", "at_bound") or {}
    bounds = sorted({bound for row in found.values() for bound in row}, key=float)
    rows = [
        [
            name(method, method in report.codecs),
            *(number(report, ".4f", "summary", "at_bound", method, bound, "mean") for bound in bounds),
        ]
        for method in found
    ]
    head = ["bpppb, no error over", *(f"{bound} DN" for bound in bounds)]
    return table(head, rows) if rows else paragraph("No method that promises a largest error was measured.")


def ratio_table(report: Report) -> Markup:
    """Bits of codecs over bits of every other method, with bootstrap intervals."""
    pairs = report.data["summary"]["pairs"]
    dbs = [db for db in report.dbs if any(_known(pair, db, "ratio") for pair in pairs)]
    spread = {db for db in dbs if any(_known(pair, db, "low") for pair in pairs)}  # one place has no interval
    rows = []
    for i, pair in enumerate(pairs):
        row = [name(pair["method"], True), words(pair["reference"])]
        for db in dbs:
            at = ("summary", "pairs", i, "ratio_at_psnr", db)
            row += [number(report, ".3f", *at, "ratio")]
            row += [interval(report, ".3f", *at), counts(report, *at)] if db in spread else []
        rows.append(row)
    head = ["codec", "against"]
    for db in dbs:
        head += [f"ratio at {db} dB", *(["95 % interval", "places"] if db in spread else [])]
    return table(head, rows)


def _known(pair: Mapping[str, Any], db: str, field: str) -> bool:
    return (pair["ratio_at_psnr"].get(db) or {}).get(field) is not None


def bd_table(report: Report, with_places: bool = True) -> Markup:
    """BD-rate and BD-PSNR: means, and if wanted every place with the overlap averaged over."""
    rows, by_place = [], []
    for i, pair in enumerate(report.data["summary"]["pairs"]):
        at = ("summary", "pairs", i)
        rows.append(
            [
                name(pair["method"], True),
                words(pair["reference"]),
                number(report, ".1f", *at, "bd_rate", "mean"),
                interval(report, ".1f", *at, "bd_rate"),
                number(report, ".2f", *at, "bd_psnr", "mean"),
                interval(report, ".2f", *at, "bd_psnr"),
                counts(report, *at, "bd_rate"),
            ]
        )
        by_place += [_bd_row(report, i, place) for place in report.places if with_places]
    head = ["codec", "against", "BD-rate, %", "95 % interval", "BD-PSNR, dB", "95 % interval", "places"]
    each = ["codec", "against", "place", "BD-rate, %", "over dB", "share of the reference's range"]
    each += ["BD-PSNR, dB", "over bpppb", "share of the reference's range"]
    means = table(head, rows)
    if not with_places:
        return means + paragraph("Every place, with the range both curves cover: report.json.")
    return means + folded("Every place, with the range both curves cover", table(each, by_place))


def metric_tables(report: Report) -> Markup:
    """Other metrics at one PSNR, a table a place; metrics that no frame was large enough for are left out."""
    found = report.at("summary", "at_psnr", AT) or {}
    known = [
        field
        for field in _METRICS
        if any((row or {}).get(field) is not None for places in found.values() for row in places.values())
    ]
    return joined(_metrics(report, place, known) for place in report.places)


def band_tables(report: Report) -> Markup:
    """PSNR of each band and native resolution at one overall PSNR, a table a place."""
    return joined(_bands(report, i) for i in range(len(report.places)))


def span_table(report: Report) -> Markup:
    """What the settings of each method reach."""
    rows = [
        [
            name(method, method in report.codecs),
            words(place),
            number(report, ".2f", "summary", "spans", method, place, "low"),
            number(report, ".2f", "summary", "spans", method, place, "high"),
            words("yes" if report.at("summary", "spans", method, place, "monotone") else "no"),
        ]
        for method in report.methods
        for place in report.places
    ]
    return table(["method", "place", "lowest, dB", "highest, dB", "finer always costs more and gains"], rows)


def point_table(report: Report) -> Markup:
    """Every point measured."""
    rows = [
        [
            name(point["method"], point["kind"] == "codec"),
            words(point["place"]),
            *(number(report, digits, "points", i, field) for field, digits in _POINT_FIELDS.items()),
        ]
        for i, point in enumerate(report.data["points"])
    ]
    many = f"Every point measured ({len(rows)})"
    note = paragraph("A PSNR that is missing is infinite: every pixel came back exactly.")
    return folded(many, note, table(["method", "place", *_POINT_FIELDS], rows))


def _rates(report: Report, caption: str, *keys: str) -> Markup:
    rows = [
        [
            name(method, method in report.codecs),
            *(number(report, ".4f", "summary", "rates_at_psnr", method, db, *keys) for db in report.dbs),
        ]
        for method in report.methods
    ]
    return table(["bpppb at", *(f"{db} dB" for db in report.dbs)], rows, caption)


def _bd_row(report: Report, i: int, place: str) -> list[Markup]:
    pair = report.data["summary"]["pairs"][i]
    row = [name(pair["method"], True), words(pair["reference"]), words(place)]
    for kind, digits, value in (("bd_rate", ".1f", ".1f"), ("bd_psnr", ".4f", ".2f")):
        at = ("summary", "pairs", i, kind, "by_place", place)
        row += [number(report, value, *at, "value"), interval(report, digits, *at)]
        row += [number(report, ".2f", *at, "share")]
    return row


def _metrics(report: Report, place: str, known: list[str]) -> Markup:
    rows = [
        [
            name(method, method in report.codecs),
            *(
                number(report, _METRICS[field][1], "summary", "at_psnr", AT, method, place, field)
                for field in known
            ),
        ]
        for method in report.methods
    ]
    return table([f"at {AT} dB", *(_METRICS[field][0] for field in known)], rows, place)


def _bands(report: Report, i: int) -> Markup:
    place = report.data["places"][i]
    groups = [f"{metres}" for metres in sorted(set(place["resolutions_m"]))]
    rows = []
    for method in report.methods:
        at = ("summary", "at_psnr", AT, method, place["name"])
        bands = [number(report, ".2f", *at, "band_psnr", c) for c in range(len(place["bands"]))]
        rows.append([name(method, method in report.codecs), *bands])
        rows[-1] += [number(report, ".2f", *at, "group_psnr", metres) for metres in groups]
    head = [f"dB, {AT} dB overall", *place["bands"], *(f"{metres} m" for metres in groups)]
    return table(head, rows, place["name"])
