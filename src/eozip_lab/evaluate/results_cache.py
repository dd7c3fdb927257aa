"""Finished points on disk, one JSON file each: what a killed run continues from, and what reports are made of."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eozip.errors import OutputError
from eozip_lab.evaluate.metrics import Quality
from eozip_lab.evaluate.provenance import write_text
from eozip_lab.evaluate.sweep import Point

SCHEMA = "eozip-evaluate/1"
FOLDER = "points"
_FIELDS = "2"  # of a point: points of earlier runs that lack some are measured anew


@dataclass(frozen=True)
class Record:
    """One finished point.

    Attributes:
        key: see `point_key`.
        kind: "codec" or "baseline".
        point: the measurement.
        pixels: T * H * W of the place: all bands of a pixel are one.
        encode_cpu_seconds, decode_cpu_seconds: of all threads; other work on the machine hardly changes them.
        peak_rss_bytes, rss_before_bytes, peak_rss_is_of: see `eozip_lab.evaluate.memory.Memory`.
    """

    key: str
    kind: str
    point: Point
    pixels: int
    encode_cpu_seconds: float
    decode_cpu_seconds: float
    peak_rss_bytes: int | None
    rss_before_bytes: int | None
    peak_rss_is_of: str


def point_key(*parts: object) -> str:
    """20 hex digits that name a point: of method, its settings and version, setting, place and pixels."""
    text = json.dumps([SCHEMA, _FIELDS, *map(str, parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def flat(record: Record) -> dict[str, Any]:
    """The record as a point of report.json (docs/evaluation.md); JSON types, None for an infinite PSNR."""
    p = record.point
    quality = {f.name: _finite(getattr(p.quality, f.name)) for f in fields(p.quality)}
    return {
        "key": record.key,
        "method": p.contender,
        "kind": record.kind,
        "place": p.place,
        "setting": p.setting,
        "bytes": p.bytes,
        "bpppb": p.bpppb,
        **quality,
        "group_psnr": {str(metres): _finite(db) for metres, db in p.group_psnr.items()},
        "encode_seconds": p.encode_seconds,
        "decode_seconds": p.decode_seconds,
        "encode_mpx_s": record.pixels / 1e6 / p.encode_seconds,
        "decode_mpx_s": record.pixels / 1e6 / p.decode_seconds,
        "encode_cpu_seconds": record.encode_cpu_seconds,
        "decode_cpu_seconds": record.decode_cpu_seconds,
        "encode_mpx_cpu_s": _per_second(record.pixels, record.encode_cpu_seconds),
        "decode_mpx_cpu_s": _per_second(record.pixels, record.decode_cpu_seconds),
        "peak_rss_bytes": record.peak_rss_bytes,
        "rss_before_bytes": record.rss_before_bytes,
        "peak_rss_is_of": record.peak_rss_is_of,
    }


def point_of(row: dict[str, Any]) -> Point:
    """The measurement in a point of report.json: what `flat` made of it."""
    quality = {f.name: row[f.name] for f in fields(Quality)}
    quality["psnr"] = _infinite(row["psnr"])
    quality["band_psnr"] = tuple(_infinite(db) for db in row["band_psnr"])
    return Point(
        row["place"],
        row["method"],
        row["setting"],
        row["bytes"],
        row["bpppb"],
        Quality(**quality),
        {int(metres): _infinite(db) for metres, db in row["group_psnr"].items()},
        row["encode_seconds"],
        row["decode_seconds"],
    )


def save(folder: Path, row: dict[str, Any]) -> None:
    """Write points/<key>.json under `folder`, whole or not at all."""
    write_text(folder / FOLDER / f"{row['key']}.json", json.dumps(row, allow_nan=False) + "\n")


def load(folder: Path, key: str) -> dict[str, Any] | None:
    """A finished point; None if it is not there.

    Raises:
        OutputError: a file of that name which `save` did not write.
    """
    path = folder / FOLDER / f"{key}.json"
    try:
        row = json.loads(path.read_text())
        point_of(row)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: expected a finished point, got {error!r}; delete the file") from error
    return row


def restore(folder: Path) -> None:
    """Points that only the report of an earlier run has, as `save` wrote them: a report alone can be continued.

    Raises:
        OutputError: the report is none of this schema, or a point cannot be written.
    """
    report = folder / "report.json"
    if not report.is_file():
        return
    try:
        rows = json.loads(report.read_text())["points"]
        for row in rows:
            point_of(row)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{report}: expected a report, got {error!r}; move it away") from error
    for row in rows:
        if not (folder / FOLDER / f"{row['key']}.json").exists():
            save(folder, row)


def claim(folder: Path) -> None:
    """Make the folder, or accept one that holds an earlier run or its report.

    Raises:
        OutputError: it holds something else, or cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder}: expected a folder, got a file; choose another --out")
    if folder.is_dir() and any(folder.iterdir()) and not _is_ours(folder):
        raise OutputError(f"{folder}: expected a new folder or an earlier run's; choose another --out")
    try:
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made ({error}); choose another --out") from error


def _is_ours(folder: Path) -> bool:
    """Points, or a report whose points were not kept."""
    report = folder / "report.json"
    return (folder / FOLDER).is_dir() or (report.is_file() and SCHEMA in report.read_text(errors="replace"))


def _per_second(pixels: int, seconds: float) -> float | None:
    """MPx/s; None where the clock did not move."""
    return pixels / 1e6 / seconds if seconds > 0 else None


def _finite(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _infinite(db: float | None) -> float:
    return math.inf if db is None else db
