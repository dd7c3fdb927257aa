"""Inpainting: calibration on training series, figures on validation series, speed.

    python benchmarks/inpainting.py calibrate PACK INDEX    # unpacked training arrays > src/eozip/inpaint/calibration.json
    python benchmarks/inpainting.py measure DATA            # validation folder > results/inpainting.json and .md
    python benchmarks/inpainting.py wide PACK INDEX DATA    # long clouded series, floods, snow, fires > the same two files
    python benchmarks/inpainting.py pictures DATA           # > results/inpainting/*.png
    python benchmarks/inpainting.py speed                   # 4 x 12 x 256 x 256, every date cloudy

PACK holds eotdl.npz (boadella, jaca), worldcereal.npz, fordead.npz and eolearn.npz, INDEX (index.json) says when they were
taken; DATA holds series12.npz and places as GeoTIFFs.
Let nothing else use the cores when speed counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import eozip
from eozip.inpaint.predict import Predictor, make_series
from eozip.inpaint.registry import DEFAULT, NAMES, get_predictor
from eozip.inpaint.uncertainty import CLASSES, LEVEL, NORMAL, class_of, factor_of
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.inpainting.gallery import Gallery
from eozip_lab.inpainting.run import Journal, Row, run_cases, summary
from eozip_lab.inpainting.synthetic_clouds import (
    CLOUDY,
    COVERS,
    Case,
    Truth,
    cases,
    clear_dates,
    cloud_mask,
    load_truths,
)

HOME = Path(__file__).parents[1]
L2A = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
TEN = tuple(name for name in L2A if name not in ("B01", "B09"))
MEASURED = (0.3, 0.1, 0.5, 1.0)  # what is interrupted has the middle first
FORDEAD = ("B02", "B03", "B04", "B8A", "B11", "B12")
EVENTS = {  # DN that it adds, and share of what was there that shows through
    "flood": ([260, 250, 260, 200, 170, 150, 140, 120, 110, 100, 50, 30], [0.1] * 12),
    "snow": ([7600, 7500, 7400, 7300, 7200, 7000, 6900, 6800, 6700, 6000, 700, 650], [0.15] * 12),
    "fire": ([0] * 12, [0.7, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.45, 0.45, 0.45, 1.1, 1.7]),
}
_WIDE = (DEFAULT, "kriging", "linear-in-time", "nearest-clear", "harmonic")
_LONG = """All dates with the clouds that they have (B02 above 2,000 DN is hidden), made clouds on top: 118 dates of a field
(worldcereal 00002806639B424A, 64 x 64 pixels, 10 bands) and 97 of a forest (fordead, 80 x 80, 6 bands). Kriging's numbers
were chosen on these series among others, and the field is one of those that sigma was calibrated with: no validation."""
_EVENTFUL = """Over a third of one date, on the validation series; clouds hide half of the date. What was measured of an
event comes out to the bit (tests); here is what was hidden: of the event, and beside it."""
_SHARE, _OF_A_DATE = 0.02, 2000  # of the errors of a case are enough


def main() -> None:
    """Runs one of the five."""
    options = _options()
    parts = {
        "calibrate": calibrate,
        "measure": measure,
        "wide": wide,
        "pictures": pictures,
        "speed": speed,
    }
    parts[options.what](options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("calibrate", "measure", "wide", "pictures", "speed"))
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument(
        "--out", type=Path, help="default: the file that the package or the results folder holds"
    )
    parser.add_argument("--covers", type=float, nargs="+", default=COVERS, help="of calibrate")
    parser.add_argument("--anew", action="store_true", help="measure what has been measured, too")
    parser.add_argument("--predictors", default=",".join(NAMES))
    return parser.parse_args()


def calibrate(options: argparse.Namespace) -> None:
    """Factors so that 90 % of true values lie within 1.645 sigma, per predictor and class of cover."""
    ratios: dict[str, list[list[np.ndarray]]] = defaultdict(lambda: [[] for _ in CLASSES])
    predictors = [get_predictor(name) for name in options.predictors.split(",")]
    for truth in training(*options.data):
        for case in cases(truth, options.covers, options.repeats, seed=1):
            for predictor in predictors:
                found = _ratios(case, predictor)
                if found is not None:
                    ratios[predictor.name][class_of(case.series.cover(case.date))].append(found)
        print(truth.name, truth.x.shape, file=sys.stderr, flush=True)
    factors = {method: _factors(classes) for method, classes in sorted(ratios.items())}
    out = options.out or HOME / "src/eozip/inpaint/calibration.json"
    weights = {name: digest for name, digest in weights_of(predictors).items() if name in factors}
    if out.exists():  # others keep theirs: one predictor can be calibrated alone, with --predictors
        held = json.loads(out.read_text())
        factors, weights = held["factors"] | factors, held.get("weights", {}) | weights
    document = {"classes": CLASSES, "factors": factors, "weights": weights, "provenance": provenance()}
    write_text(out, as_json(document))


def _ratios(case: Case, predictor: Predictor) -> np.ndarray | None:
    """Some errors in units of sigma; None where nothing is scored, or where the predictor does not predict itself."""
    if not case.scored.any() or not takes(predictor, case.series.x.shape[1]):
        return None
    found = predictor.predict(case.series, case.date)
    if (
        found.calibration != predictor.name
    ):  # its fallback, or one whose sigma was learnt from the date itself
        return None
    values = (np.abs(case.truth - found.x_hat) / found.sigma)[:, case.scored].ravel()
    # every pixel counts alike: a small image has few clear ones to say how far off a prediction is; of a date that shows
    # none every case does
    some = _OF_A_DATE if case.series.hidden[case.date].all() else round(_SHARE * values.size) + 1
    return np.random.default_rng(0).choice(values, some)


def takes(predictor: Predictor, bands: int) -> bool:
    """Whether a predictor, which may have a codec, takes so many bands."""
    codec = getattr(predictor, "codec", None)
    return codec is None or codec.bands == bands


def weights_of(predictors: Sequence[Predictor]) -> dict[str, str]:
    """Which weights stand behind which predictor: name > hash."""
    codecs = {p.name: getattr(p, "codec", None) for p in predictors}
    return {name: codec.weights_hash.hex() for name, codec in codecs.items() if codec is not None}


def _factors(classes: list[list[np.ndarray]]) -> list[float]:
    """One factor per class of cover, never falling: with more hidden, less is known.

    Where a sample says otherwise, neighbouring classes are taken together (pool adjacent violators); not the last, dates of
    which nothing is seen: their sigma comes from other dates. A class without cases takes its neighbour's factor.
    """
    pools = [([i], np.concatenate(values)) for i, values in enumerate(classes[:-1]) if values]
    k = 0
    while k < len(pools) - 1:
        if _factor(pools[k][1]) > _factor(pools[k + 1][1]):
            (here, mine), (there, theirs) = pools[k], pools.pop(k + 1)
            pools[k] = here + there, np.concatenate([mine, theirs])
            k = max(k - 1, 0)
        else:
            k += 1
    pools += [([len(classes) - 1], np.concatenate(classes[-1]))] if classes[-1] else []
    found = {i: _factor(values) for members, values in pools for i in members}
    return [found[min(found, key=lambda known, i=i: abs(known - i))] for i in range(len(classes))]


def _factor(values: np.ndarray) -> float:
    return float(np.quantile(values, LEVEL) / NORMAL)


def training(pack: Path, index: Path) -> list[Truth]:
    """Series that never serve as validation."""
    with np.load(pack / "eotdl.npz") as arrays:
        boadella, jaca = arrays["boadella"].astype(np.float32), arrays["jaca"].astype(np.float32)
    with np.load(pack / "eolearn.npz") as arrays:
        eolearn = arrays["reference_scenes"].astype(np.float32)
    days = dates_of(index)
    long = Truth("boadella", boadella, L2A, days["boadella"])
    found = [long, Truth("jaca", jaca, L2A), Truth("eolearn", eolearn, L2A)]
    found += [_some(long, f"4 {d}", d) for d in ([4, 6, 8, 10], [3, 5, 7, 11], [0, 4, 5, 9])]
    with np.load(pack / "worldcereal.npz") as arrays:
        for site in ("00002806639B424A", "0000280849BAC91C"):
            x = arrays[site].astype(np.float32)
            found += _thinned(Truth(f"worldcereal {site}", x, TEN, days[site]))
    return found


def dates_of(index: Path) -> dict[str, tuple[float, ...]]:
    """Site > days, of the series whose dates are known."""
    listed = [one for one in json.loads(index.read_text()) if one["dates"] and None not in one["dates"]]
    return {
        one["site"]: tuple(np.array([_iso(d) for d in one["dates"]], "datetime64[D]").astype(float).tolist())
        for one in listed
        if all(len(d.replace("-", "")) == 8 for d in one["dates"])
    }


def _iso(date: str) -> str:
    plain = date.replace("-", "")
    return f"{plain[:4]}-{plain[4:6]}-{plain[6:]}"


def _some(truth: Truth, name: str, dates: Sequence[int]) -> Truth:
    days = None if truth.days is None else tuple(truth.days[t] for t in dates)
    return Truth(f"{truth.name} {name}", truth.x[list(dates)], truth.bands, days)


def _thinned(truth: Truth) -> list[Truth]:
    """Four and twelve of a long series' clear dates."""
    clear = np.array(clear_dates(truth))
    picks = [clear[np.linspace(0, len(clear) - 1, count).astype(int)] for count in (4, 12)]
    picks.append(clear[len(clear) // 3 :][:4])
    return [_some(truth, f"{len(p)} {p[0]}", p) for p in picks]


def measure(options: argparse.Namespace) -> None:
    """Predictors on the validation series, 4 and 12 dates; rows that an earlier result has stay (but see --anew)."""
    truths = validation(options.data[-1])
    out = options.out or HOME / "results/inpainting.json"
    held = json.loads(out.read_text()) if out.exists() else {}
    predictors = [get_predictor(name) for name in options.predictors.split(",")]
    stale = {p.name for p in predictors} if options.anew else set()
    journal = Journal(out.with_suffix(".rows.jsonl"))
    for row in held.get("rows", []):
        if row["predictor"] not in stale and not journal.has(row["key"], row["predictor"]):
            journal.add(row)
    found = (
        case for cover in MEASURED for truth in truths for case in cases(truth, (cover,), options.repeats)
    )
    run_cases(found, predictors, journal, lambda key: print(key, file=sys.stderr, flush=True))
    about = provenance()
    commands = held.get("commands", {}) | {
        p.name: f"{about['command']}` at {about['commit']}" for p in predictors
    }
    document = {
        "provenance": about,
        "commands": commands,
        "weights": held.get("weights", {}) | weights_of(predictors),
        "default": get_predictor(DEFAULT).name,
        "summary": summary(journal.rows),
        "rows": journal.rows,
        "wide": held.get("wide", {}),
    }
    write(out, document)
    out.with_suffix(".rows.jsonl").unlink()


def write(out: Path, document: dict[str, Any]) -> None:
    """The document, and its tables as Markdown."""
    lines = ["# Inpainting on the validation series", ""]
    commands = document["commands"]
    for command in sorted(set(commands.values())):
        names = ", ".join(sorted(name for name in commands if commands[name] == command))
        lines += [f"- {names}: `{command}"]
    lines += [""]
    lines += ["MAE and RMSE in DN, SAM in degrees, PSNR at peak 10,000 DN, over hidden pixels and all bands;"]
    lines += ["inside: share of true values within 1.645 sigma (0.9 is promised)."]
    lines += table(document["summary"])
    if document["wide"]:
        lines += ["", "# Long clouded series", "", f"`{document['wide']['command']}", "", _LONG]
        lines += table(document["wide"]["summary"])
        lines += ["", "# Events of one date", "", _EVENTFUL, "", *event_table(document["wide"]["events"])]
    write_text(out, as_json(document))
    write_text(out.with_suffix(".md"), "\n".join(lines) + "\n")


def table(groups: list[Row]) -> list[str]:
    """Markdown: one table per number of dates and class of cover."""
    lines = []
    for group in groups:
        low, high = (100 * share for share in group["cover"])
        above = f"over {low:.0f} to {high:.0f} % hidden"
        lines += ["", f"## {group['dates']} dates, {above}, {group['cases']} cases", ""]
        lines += [
            "| | MAE | RMSE | SAM | PSNR | SSIM | inside |",
            "|---|---:|---:|---:|---:|---:|---:|",
        ]
        for name, m in sorted(group["predictors"].items(), key=lambda item: item[1]["mae"]):
            lines.append(
                f"| {name} | {m['mae']:.1f} | {m['rmse']:.1f} | {m['sam']:.2f} | {m['psnr']:.2f} | {m['ssim']:.3f} "
                f"| {m['inside']:.3f} |"
            )
    return lines


def wide(options: argparse.Namespace) -> None:
    """Two dense series with the clouds that they have, and events that only one date shows."""
    pack, index, data = options.data
    out = options.out or HOME / "results/inpainting.json"
    document = json.loads(out.read_text())
    journal = Journal(None)
    found = (c for truth in dense(pack, index) for c in cases(truth, MEASURED, options.repeats))
    run_cases(
        found, [get_predictor(name) for name in _WIDE], journal, lambda key: print(key, file=sys.stderr)
    )
    about = provenance()
    events = [row for truth in validation(data) for row in eventful(truth, options.repeats)]
    document["wide"] = {
        "provenance": about,
        "command": f"{about['command']}` at {about['commit']}",
        "summary": summary(journal.rows),
        "rows": journal.rows,
        "events": events,
    }
    write(out, document)


def dense(pack: Path, index: Path) -> list[Truth]:
    """A field of 118 dates and a forest of 97, all dates, whatever hides them."""
    days = dates_of(index)
    with np.load(pack / "worldcereal.npz") as fields, np.load(pack / "fordead.npz") as forests:
        field, forest = fields["00002806639B424A"], forests["zonetest"]
    return [
        Truth("worldcereal", field.astype(np.float32), TEN, days["00002806639B424A"]),
        Truth("fordead", forest.astype(np.float32), FORDEAD, days["zonetest"]),
    ]


def eventful(truth: Truth, repeats: int) -> Iterator[dict[str, Any]]:
    """Floods, snow and fires over a third of one date, half of which clouds hide: errors and sigma where they are hidden."""
    predictors = [get_predictor(name) for name in (DEFAULT, "linear-in-time")]
    for number, kind in enumerate(EVENTS):
        for repeat in range(repeats):
            random = np.random.default_rng([2, number, repeat])
            date = int(random.choice(clear_dates(truth)))
            size = truth.x.shape[2:]
            event = cloud_mask(size, 0.33, random, "front")
            changed = truth.x.copy()
            changed[date] = with_event(kind, truth.x[date], event, random)
            real = truth.x[:, L2A.index("B02")] > CLOUDY
            made = np.zeros_like(real)
            made[date] = cloud_mask(size, 0.5, random)
            series = make_series(changed, made | real, truth.days)
            for predictor in predictors:
                found = predictor.predict(series, date)
                sigma = found.sigma * np.float32(factor_of(found.calibration, series.cover(date)) or 1)
                off = np.abs(found.x_hat - changed[date])
                for part, at in (("event", event), ("beside", ~event)):
                    where = made[date] & ~real[date] & at
                    yield {
                        "place": truth.name,
                        "event": kind,
                        "predictor": predictor.name,
                        "part": part,
                        "mae": float(off[:, where].mean()),
                        "sigma": float(sigma[:, where].mean()),
                        "inside": float((off <= NORMAL * sigma)[:, where].mean()),
                    }
            print(truth.name, kind, file=sys.stderr, flush=True)


def with_event(kind: str, x: np.ndarray, where: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A date [C, H, W] under water or snow, or burnt; some of the land shows through."""
    level, through = EVENTS[kind]
    new = np.array(level)[:, None, None] * random.normal(1, 0.05, x.shape[1:])
    return np.where(where, new + np.array(through)[:, None, None] * x, x).astype(np.float32)


def event_table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: means over cases, by event and predictor, where the event is hidden and beside it."""
    lines = [
        "| | | cases | MAE | sigma | inside | beside: MAE | sigma | inside |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for kind in EVENTS:
        for name in dict.fromkeys(row["predictor"] for row in rows):
            mine = [row for row in rows if (row["event"], row["predictor"]) == (kind, name)]
            cells = []
            for part in ("event", "beside"):
                of = [row for row in mine if row["part"] == part]
                mae, sigma, inside = (np.mean([row[key] for row in of]) for key in ("mae", "sigma", "inside"))
                cells.append(f"{mae:.0f} | {sigma:.0f} | {inside:.3f}")
            lines.append(f"| {kind} | {name} | {len(mine) // 2} | {cells[0]} | {cells[1]} |")
    return lines


def pictures(options: argparse.Namespace) -> None:
    """The first case at 30 % of each place: a baseline and the default beside the truth."""
    gallery = Gallery(options.out or HOME / "results/inpainting", L2A)
    predictors = [get_predictor(name) for name in ("linear-in-time", "least-cloudy-filled", DEFAULT)]
    for truth in validation(options.data[-1]):
        run_cases(islice(cases(truth, (0.3,), 1), 1, 2), predictors, Journal(None), seen=gallery.take)
    gallery.finish()


def validation(data: Path) -> list[Truth]:
    """The 12-date series, its four clear seasons, and the places with four dates."""
    (long,) = load_truths(data / "series12.npz")
    four = Truth("series12, 4 dates", long.x[[0, 5, 6, 10]], long.bands)
    return [long, four, *load_truths(data)]


def speed(options: argparse.Namespace) -> None:
    """Seconds for a 4 x 12 x 256 x 256 series, every date cloudy."""
    random = np.random.default_rng(0)
    dn = random.integers(1, 3000, (4, 12, 256, 256), np.uint16)
    mask = np.stack([cloud_mask((256, 256), cover, random) for cover in (0.1, 0.3, 0.5, 0.3)])
    for name in options.predictors.split(","):
        predictor = get_predictor(name)
        predictor.predict(make_series(dn[:2].astype(np.float32), mask[:2]), 0)  # networks are loaded once
        started, busy = time.perf_counter(), time.process_time()
        eozip.inpaint(dn, mask, predictor=predictor)
        seconds = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - busy}
        print(json.dumps({"predictor": predictor.name, **seconds}), flush=True)
    print(json.dumps(provenance()))


if __name__ == "__main__":
    main()
