"""Made-up reports in the schema of docs/evaluation.md, with crops, for tests of what reads them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

BANDS = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
METRES = (60, 10, 10, 10, 20, 20, 20, 10, 20, 60, 20, 20)
PLACES = ("hill", "sea/~$</script><b>$x_$")  # names come from files: anything may be in them
# Method > bpppb at 40 dB on each place, highest dB.
METHODS = {"tec-elic-small": ((0.05, 0.06), 48.0), "tec-fp-small": ((0.06, 0.07), 48.0)}
BASELINES = {"klt+jpeg2000": ((0.08, 0.055), 52.0), "jpeg2000": ((0.25, 0.3), 52.0)}
DBS = ("36", "40", "44", "48")
SIDE, DATES = 24, 2
LEVELS = (36.0, 40.0)


def write_made_up_report(folder: Path) -> dict[str, Any]:
    """Writes FOLDER/report.json and crops; returns the JSON. On "sea" klt+jpeg2000 is the best."""
    all_methods = {**METHODS, **BASELINES}
    points = [point(m, place, db) for m in all_methods for place in PLACES for db in dbs_of(m)]
    report = {
        "schema": "eozip-evaluate/1",
        "provenance": {
            "command": "eozip evaluate x",
            "when": "2026-01-01T00:00:00+00:00",
            "commit": "0" * 12,
            "versions": {"eozip": "0"},
            "machine": {"cores": 1},
        },
        "definitions": {"rate": "all bytes", "psnr": "p", "ratio": "r", "interval": "i", "peak_dn": 10000},
        "run": {"jobs": 1, "threads": 1, "size": SIDE, "points": len(points), "resumed": 0, "seconds": 1.0},
        "places": [place_facts(name) for name in PLACES],
        "methods": [*map(method_facts, all_methods), absent("av1")],
        "points": points,
        "failures": [
            {"method": "jpeg2000", "place": "hill", "setting": 99, "error": "InputError: too <fine>"}
        ],
        "summary": summary(points, list(all_methods)),
        "crops": crops(folder, points, list(all_methods)),
    }
    (folder / "report.json").write_text(json.dumps(report))
    return report


def dbs_of(method: str) -> list[float]:
    low = 30.0
    return list(np.arange(low, {**METHODS, **BASELINES}[method][1] + 1, 4.0))


def kind_of(method: str) -> str:
    return "codec" if method in METHODS else "baseline"


def place_facts(name: str) -> dict[str, Any]:
    shape = [DATES, len(BANDS), SIDE, SIDE]
    facts = {"name": name, "shape": shape, "dtype": "uint16", "bands": list(BANDS), "offset": 0}
    return {**facts, "resolutions_m": list(METRES), "dates": ["2021-07-01", None], "sha256": "ab" * 32}


def method_facts(name: str) -> dict[str, Any]:
    facts = {"id": name, "kind": kind_of(name), "settings": f"settings of {name}", "setting_name": "quality"}
    return {**facts, "sweep": [1.0, 2.0], "available": True, "reason": None}


def absent(name: str) -> dict[str, Any]:
    facts = {"id": name, "kind": "baseline", "settings": "", "setting_name": "CRF", "sweep": []}
    return {**facts, "available": False, "reason": "PyAV has no encoder"}


def rate(method: str, place: str, db: float) -> float:
    at_40 = {**METHODS, **BASELINES}[method][0][PLACES.index(place)]
    return at_40 * 4 ** ((db - 40) / 6)


def point(method: str, place: str, db: float) -> dict[str, Any]:
    size = round(rate(method, place, db) * DATES * len(BANDS) * SIDE**2 / 8)
    fast = 5.0 if method == "jpeg2000" else 0.4
    return {
        "key": f"{method}-{PLACES.index(place)}-{db:g}",
        "method": method,
        "kind": kind_of(method),
        "place": place,
        "setting": db,
        "bytes": size,
        "bpppb": rate(method, place, db),
        "psnr": db,
        "mse": 1e8 / 10 ** (db / 10),
        "band_psnr": [db + 0.1 * c for c in range(len(BANDS))],
        "group_psnr": {"10": db, "20": db + 1, "60": db + 2},
        "ssim": 0.9,
        "ms_ssim": None,
        "spectral_angle": 100 / db,
        "max_error": 100,
        "ndvi_error": 0.01 if method == "jpeg2000" else 0.02,
        "ndwi_error": 0.02,
        "class_change": 0.1,
        "class_shift": 0.01,
        "encode_seconds": 0.1,
        "decode_seconds": 0.1,
        "encode_mpx_s": fast,
        "decode_mpx_s": fast / 2,
        "encode_cpu_seconds": 0.1,
        "decode_cpu_seconds": 0.1,
        "encode_mpx_cpu_s": fast,
        "decode_mpx_cpu_s": fast / 2,
        "peak_rss_bytes": 10**9,
        "rss_before_bytes": 10**8,
        "peak_rss_is_of": "point",
    }


def summary(points: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    rates = {m: {db: _rates(m, float(db)) for db in DBS} for m in names}
    pairs = [_pair(m, other) for m in METHODS for other in names if other != m]
    at = {m: {place: point(m, place, 40.0) for place in PLACES} for m in names}
    spans = {
        m: {place: {"low": 30.0, "high": dbs_of(m)[-1], "monotone": True} for place in PLACES} for m in names
    }
    return {
        "rates_at_psnr": rates,
        "best_at_psnr": {},
        "pairs": pairs,
        "at_psnr": {"40": at},
        "spans": spans,
    }


def _rates(method: str, db: float) -> dict[str, Any]:
    reached = db <= dbs_of(method)[-1]
    places = {place: rate(method, place, db) if reached else None for place in PLACES}
    return {"mean": float(np.mean(list(places.values()))) if reached else None, "places": places}


def _pair(method: str, reference: str) -> dict[str, Any]:
    each = [rate(method, place, 40.0) / rate(reference, place, 40.0) for place in PLACES]
    ratio = {"ratio": math.sqrt(each[0] * each[1]), "low": min(each), "high": max(each), "places": 2, "of": 2}
    none = {"ratio": None, "low": None, "high": None, "places": 0, "of": 2}
    by_place = {PLACES[0]: {"value": -37.5, "low": 30.0, "high": 46.0, "share": 0.8}, PLACES[1]: None}
    difference = {"mean": -37.5, "low": None, "high": None, "places": 1, "of": 2, "by_place": by_place}
    ratios = {**dict.fromkeys(DBS[:3], ratio), "48": none}
    pair = {"method": method, "reference": reference, "ratio_at_psnr": ratios}
    return {**pair, "bd_rate": difference, "bd_psnr": {**difference, "mean": 1.9}}


def crops(folder: Path, points: list[dict[str, Any]], names: list[str]) -> dict[str, Any]:
    (folder / "crops").mkdir(parents=True)
    files = []
    for p, place in enumerate(PLACES):
        dn = original(p)
        files.append(_crop(folder, f"{p}-original", place, "original", None, None, dn))
        for level, db in enumerate(LEVELS):
            for n, method in enumerate(names):
                noise = np.random.default_rng(n).normal(0, 20 * (n + 1), dn.shape)
                near = min(
                    (q for q in points if q["method"] == method and q["place"] == place),
                    key=lambda q: abs(math.log(q["bpppb"] / rate("tec-elic-small", place, db))),
                )
                decoded = np.clip(dn + noise, 1, 9999).astype(np.uint16)
                files.append(_crop(folder, f"{p}-{level}-{n}", place, method, level, near, decoded))
    levels = [{"level": i, "reference": "tec-elic-small", "psnr": db} for i, db in enumerate(LEVELS)]
    return {"levels": levels, "files": files}


def original(place: int) -> np.ndarray:
    """uint16 [T, C, h, w] with structure."""
    rng = np.random.default_rng(place)
    ramp = np.linspace(300, 5000, SIDE)[None, None, None, :] * (1 + np.arange(len(BANDS))[:, None, None] / 12)
    return (np.repeat(ramp, SIDE, axis=2) + rng.normal(0, 50, (DATES, 12, SIDE, SIDE)) + 200).astype(
        np.uint16
    )


def _crop(
    folder: Path,
    name: str,
    place: str,
    method: str,
    level: int | None,
    near: dict[str, Any] | None,
    dn: np.ndarray,
) -> dict[str, Any]:
    file = f"crops/{name}.npz"
    np.savez(folder / file, dn=dn, window=np.array([0, 0, SIDE, SIDE]))
    kind = "original" if near is None else kind_of(method)
    facts = {key: None if near is None else near[key] for key in ("setting", "bytes", "bpppb", "psnr", "key")}
    return {"place": place, "method": method, "kind": kind, "level": level, "file": file, **facts}
