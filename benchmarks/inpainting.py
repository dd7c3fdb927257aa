"""Inpainting: calibration on training series, figures on validation series, speed.

    python benchmarks/inpainting.py calibrate PACK INDEX    # unpacked training arrays > src/eozip/inpaint/calibration.json
    python benchmarks/inpainting.py measure DATA            # validation folder > results/inpainting.json and .md
    python benchmarks/inpainting.py pictures DATA           # > results/inpainting/*.png
    python benchmarks/inpainting.py speed                   # 4 x 12 x 256 x 256, every date cloudy

PACK holds eotdl.npz (boadella, jaca), worldcereal.npz and eolearn.npz, INDEX (index.json) says when they were taken;
DATA holds series12.npz and places as GeoTIFFs.
Let nothing else use the cores when speed counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

import eozip
from eozip.inpaint.predict import Predictor, make_series
from eozip.inpaint.registry import DEFAULT, NAMES, get_predictor
from eozip.inpaint.uncertainty import CLASSES, LEVEL, NORMAL, class_of
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.inpainting.gallery import Gallery
from eozip_lab.inpainting.run import Journal, Row, run_cases, summary
from eozip_lab.inpainting.synthetic_clouds import (
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
_SHARE, _OF_A_DATE = 0.02, 2000  # of the errors of a case are enough


def main() -> None:
    """Runs one of the four."""
    options = _options()
    parts = {"calibrate": calibrate, "measure": measure, "pictures": pictures, "speed": speed}
    parts[options.what](options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("calibrate", "measure", "pictures", "speed"))
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

    Where a sample says otherwise, neighbouring classes are taken together (pool adjacent violators). A class without cases
    takes its neighbour's factor.
    """
    pools = [([i], np.concatenate(values)) for i, values in enumerate(classes) if values]
    k = 0
    while k < len(pools) - 1:
        if _factor(pools[k][1]) > _factor(pools[k + 1][1]):
            (here, mine), (there, theirs) = pools[k], pools.pop(k + 1)
            pools[k] = here + there, np.concatenate([mine, theirs])
            k = max(k - 1, 0)
        else:
            k += 1
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
    }
    write_text(out, as_json(document))
    write_text(out.with_suffix(".md"), table(document["summary"], commands))
    out.with_suffix(".rows.jsonl").unlink()


def table(groups: list[Row], commands: dict[str, str]) -> str:
    """Markdown: one table per number of dates and class of cover."""
    lines = ["# Inpainting on the validation series", ""]
    for command in sorted(set(commands.values())):
        names = ", ".join(sorted(name for name in commands if commands[name] == command))
        lines += [f"- {names}: `{command}"]
    lines += [""]
    lines += ["MAE and RMSE in DN, SAM in degrees, PSNR at peak 10,000 DN, over hidden pixels and all bands;"]
    lines += ["inside: share of true values within 1.645 sigma (0.9 is promised)."]
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
    return "\n".join(lines) + "\n"


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
