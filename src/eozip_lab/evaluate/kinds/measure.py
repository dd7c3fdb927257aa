"""Points of contenders on sets, kept in one JSON file from which a later run, or one that was killed, goes on.

A point is measured anew when the pixels, the setting, the weights, or what else decides the bytes changed (`_key`).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import EozipError, OutputError
from eozip_lab.evaluate.inputs import pixel_hash
from eozip_lab.evaluate.kinds.contenders import Way, default_of
from eozip_lab.evaluate.kinds.sets import KindSet, Listed, Scene, counted, metres_of
from eozip_lab.evaluate.provenance import provenance, write_text
from eozip_lab.evaluate.rate import smooth_psnr_at, smooth_rate_at
from eozip_lab.evaluate.results_cache import SCHEMA as REPORT_SCHEMA

SCHEMA = "eozip-kinds/1"
NAME = "kinds.json"
PEAK = 10_000.0
DEFINITIONS = {
    "rate": "bpns: bits of all bytes / samples that an instrument measured (of cubes: all samples); nodata counts nowhere",
    "psnr": "dB, peak 10,000 DN, clip(dn, 0, 10000), all samples of all groups, dates and scenes of a set together",
    "at": "log rate over dB, monotone piecewise cubic between the points measured; nothing beyond them",
    "cpu_seconds": "of all threads, encoding and decoding, once, on whatever else the machine did",
}


@dataclass(frozen=True)
class Point:
    """One setting of a contender on a set.

    Attributes:
        setting: of the contender.
        bytes: all of them, over the scenes.
        errors: native resolution in m > sum of squared errors.
        cpu_seconds: encoding and decoding.
        key: see `_key`.
    """

    setting: float
    bytes: int
    errors: Mapping[int, float]
    cpu_seconds: float
    key: str


@dataclass(frozen=True)
class Found:
    """What was measured on a set.

    Attributes:
        listed: the set.
        dates: of each scene.
        shapes: of the groups of the first scene, by grid.
        scenes: how many.
        samples: native resolution in m > samples that count.
        points: contender > points, from few bits to many.
    """

    listed: Listed
    dates: int
    shapes: Mapping[int, tuple[int, ...]]
    scenes: int
    samples: Mapping[int, int]
    points: Mapping[str, Sequence[Point]]

    def curve(self, name: str, metres: Collection[int] = ()) -> list[tuple[float, float]]:
        """(bits per sample of the whole set, dB of some groups; of everything where none is named)."""
        wanted = metres or list(self.samples)
        total, part = sum(self.samples.values()), sum(self.samples[m] for m in wanted)
        return [
            (8 * p.bytes / total, _psnr(sum(p.errors[m] for m in wanted), part))
            for p in self.points.get(name, ())
        ]

    def bits_at(self, name: str, db: float, metres: Collection[int] = ()) -> float | None:
        """Bits per sample of the whole set where those groups have so many dB; None where they have not."""
        return smooth_rate_at(self.curve(name, metres), db)

    def psnr_at(self, name: str, rate: float, metres: Collection[int] = ()) -> float | None:
        """dB at so many bits per sample of the whole set; None beyond the points."""
        return smooth_psnr_at(self.curve(name, metres), rate)


Progress = Callable[[int, int], None]


def measured(
    sets: Sequence[KindSet],
    ways: Sequence[Way],
    path: Path,
    progress: Progress = lambda done, total: None,
    absent: Collection[str] = (),
) -> list[Found]:
    """Every contender that suits on every set; sets that are compared with another meet only codecs of eozip.

    Args:
        sets: with pixels.
        ways: contenders; what others have measured of the same pixels is kept.
        path: JSON file of points; written after each contender and set.
        progress: told how many pairs are done, and of how many.
        absent: names of sets whose files are not there: what is known of them is kept.

    Raises:
        OutputError: the file is none of ours, or cannot be written.
    """
    held = _read(path) if path.exists() else {"sets": [], "contenders": {}, "waiting": []}
    known, digests = _points(held), {one.listed.name: one.digest() for one in sets}
    contenders = {**held["contenders"], **{way.name: way.fingerprint for way in ways}}
    older = [one for one in map(_read_found, held["sets"]) if one.listed.name in absent]
    kept = {one["set"]["name"]: one["points"] for one in held["sets"]}
    points = {
        name: _still_valid(kept.get(name, {}), held["contenders"], digest, {way.name for way in ways})
        for name, digest in digests.items()
    }
    for one in sets:
        points[one.listed.name] |= _reported(one)
    made = provenance()

    def save(waiting: Mapping[str, Point]) -> list[Found]:
        found = [_found(one, points[one.listed.name]) for one in sets]
        _save(path, [*found, *older], contenders, waiting, made)
        return [*found, *older]

    pairs = [(one, way) for one in sets for way in ways if _meet(one, way)]
    for done, (one, way) in enumerate(pairs):
        progress(done, len(pairs))
        before = len(known)
        points[one.listed.name][way.name] = _row_of(one, way, digests[one.listed.name], known)
        if len(known) > before:
            save(known)
    progress(len(pairs), len(pairs))
    return save({})


def _row_of(one: KindSet, way: Way, digest: str, known: dict[str, Point]) -> list[Point]:
    """Points from the last setting at or below the contender's span to the first at or above; new ones become known."""
    found: dict[int, Point] = {}
    samples = sum(_samples(one).values())

    def psnr(k: int) -> float:
        key = _key(way.fingerprint, digest, way.settings[k])
        found[k] = known[key] = known.get(key) or _point(one, way, way.settings[k], key)
        return _psnr(sum(found[k].errors.values()), samples)

    middle = len(way.settings) // 2
    low, high = middle, middle
    while psnr(low) > way.span[0] and low > 0:
        low -= 1
    while psnr(high) < way.span[1] and high < len(way.settings) - 1:
        high += 1
    return [found[k] for k in sorted(found)]


def load(path: Path) -> list[Found]:
    """What an earlier run measured.

    Raises:
        OutputError: not such a file.
    """
    return list(map(_read_found, _read(path)["sets"]))


def _still_valid(
    rows: Mapping[str, Sequence[Any]], fingerprints: Mapping[str, str], digest: str, others: Collection[str]
) -> dict[str, list[Point]]:
    """What was measured of the same pixels by contenders that do not take part now."""
    found = {name: list(map(_read_point, row)) for name, row in rows.items() if name not in others}
    return {
        name: points
        for name, points in found.items()
        if all(p.key == _key(fingerprints.get(name, ""), digest, p.setting) for p in points)
    }


def _reported(one: KindSet) -> dict[str, list[Point]]:
    """What a report has of others on the same pixels.

    Raises:
        OutputError: it has no place of these pixels.
    """
    if one.listed.report is None:
        return {}
    ((dn,),) = [list(scene.groups.values()) for scene in one.scenes]
    hashes = {pixel_hash(dn), pixel_hash(dn.astype(np.int16))}
    report = _read(Path(one.listed.report), REPORT_SCHEMA)
    place = next((place for place in report["places"] if place["sha256"] in hashes), None)
    if place is None:
        raise OutputError(
            f"{one.listed.report}: expected a place with the pixels of {one.listed.name}, got none"
        )
    found: dict[str, list[Point]] = {}
    for row in report["points"]:
        if row["place"] == place["name"] and row["kind"] == "baseline":
            found.setdefault(row["method"], []).append(_from_row(row, place["resolutions_m"], dn[:, 0].size))
    return found


def _from_row(row: Mapping[str, Any], metres: Sequence[int], samples: int) -> Point:
    """A point of report.json; samples: of one band."""
    errors = dict.fromkeys(metres, 0.0)
    for native, db in zip(metres, row["band_psnr"]):
        errors[native] += 0.0 if db is None else samples * PEAK**2 / 10 ** (db / 10)
    seconds = row["encode_cpu_seconds"] + row["decode_cpu_seconds"]
    return Point(row["setting"], row["bytes"], errors, seconds, row["key"])


def _read_found(row: Mapping[str, Any]) -> Found:
    return Found(
        Listed(**row["set"]),
        row["dates"],
        {int(m): tuple(shape) for m, shape in row["shapes"].items()},
        row["scenes"],
        {int(m): count for m, count in row["samples"].items()},
        {name: list(map(_read_point, points)) for name, points in row["points"].items()},
    )


def _meet(one: KindSet, way: Way) -> bool:
    wanted = way.name == default_of(one.scenes[0].dates) or one.listed.against is None
    is_open = one.listed.baselines and one.listed.against is None and one.listed.report is None
    return (wanted if way.own else is_open) and all(way.suits(scene) for scene in one.scenes)


def _key(fingerprint: str, digest: str, setting: float) -> str:
    """16 hex digits of what decides the bytes."""
    return hashlib.sha256(f"{SCHEMA} {fingerprint} {digest} {setting:g}".encode()).hexdigest()[:16]


def _point(one: KindSet, way: Way, setting: float, key: str) -> Point:
    size, errors, seconds = 0, dict.fromkeys(_samples(one), 0.0), 0.0
    for scene in one.scenes:
        started = time.process_time()
        length, made = way.code(scene, one.listed.sensor, setting)
        seconds += time.process_time() - started
        size += length
        for metres, error in _errors(scene, made, one.listed.sensor).items():
            errors[metres] += error
    return Point(setting, size, errors, seconds, key)


def _errors(scene: Scene, made: Mapping[int, np.ndarray], sensor: str) -> dict[int, float]:
    """Sums of squared errors by native resolution."""
    found: dict[int, float] = {}
    for metres, pixels in scene.groups.items():
        if made[metres].shape != pixels.shape:
            raise EozipError(f"expected {pixels.shape} back, got {made[metres].shape}")
        gap = np.clip(pixels, 0, PEAK).astype(float) - np.clip(made[metres], 0, PEAK)
        bands = np.where(counted(scene, metres), np.square(gap), 0).sum((0, 2, 3))
        for native, error in zip(metres_of(scene, metres, sensor), bands):
            found[native] = found.get(native, 0.0) + float(error)
    return found


def _samples(one: KindSet) -> dict[int, int]:
    """Native resolution > samples that count, over the scenes."""
    found: dict[int, int] = {}
    for scene in one.scenes:
        for metres in sorted(scene.groups):
            bands = counted(scene, metres).sum((0, 2, 3))
            for native, count in zip(metres_of(scene, metres, one.listed.sensor), bands):
                found[native] = found.get(native, 0) + int(count)
    return found


def _found(one: KindSet, points: Mapping[str, Sequence[Point]]) -> Found:
    first = one.scenes[0]
    shapes = {m: pixels.shape for m, pixels in first.groups.items()}
    return Found(one.listed, first.dates, shapes, len(one.scenes), _samples(one), points)


def _psnr(error: float, samples: int) -> float:
    return 10 * math.log10(PEAK**2 * samples / error) if error > 0 else math.inf


def _points(held: Mapping[str, Any]) -> dict[str, Point]:
    """All points of a file by key."""
    rows = [row for one in held["sets"] for points in one["points"].values() for row in points]
    return {point.key: point for point in map(_read_point, [*rows, *held.get("waiting", [])])}


def _read(path: Path, schema: str = SCHEMA) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
        if held["schema"] != schema:
            raise ValueError(held["schema"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path}: expected points of an earlier run ({schema}), got {error!r}") from error
    return held


def _read_point(row: Sequence[Any]) -> Point:
    setting, size, errors, seconds, key = row
    return Point(setting, size, {int(m): error for m, error in errors.items()}, seconds, key)


def _row(point: Point) -> list[Any]:
    errors = {str(m): float(f"{error:.7g}") for m, error in point.errors.items()}
    return [point.setting, point.bytes, errors, round(point.cpu_seconds, 2), point.key]


def _save(
    path: Path,
    found: Sequence[Found],
    contenders: Mapping[str, str],
    known: Mapping[str, Point],
    made: Mapping[str, Any],
) -> None:
    """Points that no set has, such as those of sets still to come, wait under a key of their own."""
    taken = {p.key for one in found for row in one.points.values() for p in row}
    report = {
        "schema": SCHEMA,
        "provenance": made,
        "definitions": DEFINITIONS,
        "columns": ["setting", "bytes", "sums of squared errors by native resolution", "cpu_seconds", "key"],
        "contenders": dict(contenders),
        "sets": [
            {
                "set": one.listed.model_dump(exclude_defaults=True),
                "dates": one.dates,
                "scenes": one.scenes,
                "shapes": one.shapes,
                "samples": one.samples,
                "points": {name: list(map(_row, points)) for name, points in one.points.items()},
            }
            for one in found
        ],
        "waiting": [_row(point) for key, point in known.items() if key not in taken],
    }
    write_text(path, _compact(report))


def _compact(report: Mapping[str, Any]) -> str:
    """A line for each key, and for each contender of a set: small, and differences can be read."""
    head = {key: value for key, value in report.items() if key not in ("sets", "waiting")}
    sets = [
        json.dumps({**one, "points": {}})[:-2]
        + ",".join(f"\n  {json.dumps(name)}: {json.dumps(points)}" for name, points in one["points"].items())
        + "}}"
        for one in report["sets"]
    ]
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    waiting = f'"waiting": {json.dumps(report["waiting"])}'
    return "{\n" + ",\n".join([*lines, '"sets": [\n' + ",\n".join(sets) + "\n]", waiting]) + "\n}\n"
