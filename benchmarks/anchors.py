"""Figures that others published, beside what comes out here on the same pixels.

    python benchmarks/anchors.py [--data ../shared/data] [--report results/report/report.json] [--out results]

Writes anchors.json and anchors.md: each published rate, ours at the same PSNR, their ratio. Rates of JPEG 2000 and KLT +
JPEG 2000 on the two places of DATA/val are taken from a report of `eozip evaluate`; frame 0 of one of them, whose published
PSNR is over B04 B03 B02 alone while the rate is that of all 12 bands, is measured here. Figures whose data are not here are
listed with the reason.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from eozip.chunk.pixels import psnr
from eozip_lab.evaluate.baselines import contender, sweep_of
from eozip_lab.evaluate.html_report.data import Report, load_report
from eozip_lab.evaluate.inputs import Place, load_places
from eozip_lab.evaluate.methods import learned
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import bpppb, rate_at
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

SIZE = 256
PLACES = ("ssl4eos12_val_0080717", "ssl4eos12_val_0181476")
RGB, RGB_PLACE = ("B04", "B03", "B02"), "ssl4eos12_val_0080717"
WITHIN = 0.03  # a reproduced figure is at most this far off
# Baseline > dB > bpppb, mean over PLACES, four dates of 12 bands.
STACKS = {
    "jpeg2000": {"36": 0.128, "40": 0.271, "44": 0.449, "48": 0.718},
    "klt+jpeg2000": {"36": 0.026, "40": 0.082, "44": 0.236, "48": 0.537},
}
# The same for frame 0 of RGB_PLACE, dB over RGB.
FRAME = {
    "jpeg2000": {37.1: 0.16, 40.1: 0.29, 43.6: 0.48},
    "klt+jpeg2000": {37.1: 0.035, 40.1: 0.089, 43.6: 0.245},
}
# Published networks on that frame: dB over RGB > name, bpppb of real strings. No figures of ours to reproduce: the bar.
NETWORKS = {
    37.1: ("TEC-FP", 0.0147),
    37.9: ("TEC-ELIC", 0.0163),
    40.1: ("TEC-FP", 0.0393),
    41.2: ("TEC-ELIC", 0.0414),
    43.6: ("TEC-FP", 0.0891),
    44.3: ("TEC-ELIC", 0.0869),
}
SKIPPED = {
    "means over five places (JPEG 2000, JPEG XL, WebP, HEVC, KLT, 34 to 50 dB)": "three of the five places are not here",
    "seconds of TEC-FP, TEC-ELIC, TEC-TT and OpenJPEG": "of another machine; benchmarks/speed.py compares in one run",
    "estimates of TEC-TT, real bytes of FlexTEC": "given without a PSNR",
}


@dataclass(frozen=True)
class Anchor:
    """A published rate and ours at the same PSNR.

    Attributes:
        what: of which pixels and PSNR.
        codec: whose figure is compared.
        published, ours: bpppb; None where our curve does not reach the PSNR.
        ratio: ours / published.
        is_kept: within `WITHIN`; None where there is nothing to reproduce.
    """

    what: str
    codec: str
    published: float
    ours: float | None
    ratio: float | None
    is_kept: bool | None


def main() -> None:
    """Compares, prints, writes."""
    options = _options()
    places = load_places(options.data / "val", SIZE) if (options.data / "val").is_dir() else []
    found = [*stack_anchors(options.report), *frame_anchors(places)]
    results = {
        "provenance": provenance(),
        "within": WITHIN,
        "anchors": found,
        "skipped": skipped(options.report, places),
    }
    text = report(results, found)
    print(text)
    write_text(options.out / "anchors.json", as_json(results))
    write_text(options.out / "anchors.md", text)


def stack_anchors(path: Path) -> list[Anchor]:
    """Classical codecs on whole stacks, from a report; [] where it has not both places."""
    if not path.is_file():
        return []
    held = load_report(path.parent)
    return [
        anchor(f"four dates, 12 bands, mean of two places, {db} dB", name, bits, stack_rate(held, name, db))
        for name, rates in STACKS.items()
        for db, bits in rates.items()
        if set(PLACES) <= set(held.places)
    ]


def stack_rate(held: Report, name: str, db: str) -> float | None:
    """Mean bpppb over `PLACES`."""
    found = [held.at("summary", "rates_at_psnr", name, db, "places", place) for place in PLACES]
    return None if None in found else sum(found) / len(found)


def frame_anchors(places: list[Place]) -> list[Anchor]:
    """One frame, PSNR over RGB; [] without it."""
    chosen = [place for place in places if place.name == RGB_PLACE]
    if not chosen:
        return []
    frame = replace(chosen[0], dn=chosen[0].dn[:1])
    classical = {name: rgb_curve(name, frame) for name in FRAME}
    found = [
        anchor(_frame_words(db), name, bits, rate_at(classical[name], db))
        for name, rates in FRAME.items()
        for db, bits in rates.items()
    ]
    own = {name: rgb_curve(name, frame) for name in learned()}
    for name, curve in own.items():
        for db, (of, bits) in NETWORKS.items():
            ours = rate_at(curve, db)
            found.append(replace(anchor(f"{_frame_words(db)}, {of}", name, bits, ours), is_kept=None))
    return found


def rgb_curve(name: str, frame: Place) -> list[tuple[float, float]]:
    """(bpppb of all bands, dB over RGB) at every setting."""
    one, bands = contender(name), [frame.bands.index(band) for band in RGB]
    curve = []
    for number, setting in enumerate(sweep_of(name)):
        print(f"\r\x1b[K{name} {number + 1}/{len(sweep_of(name))}", end="", file=sys.stderr, flush=True)
        blob = one.encode(frame.dn, setting)
        db = psnr(frame.dn[:, bands], one.decode(blob)[:, bands], offset=frame.offset)
        curve.append((bpppb(len(blob), frame.dn.shape), db))
    print(file=sys.stderr)
    return curve


def anchor(what: str, codec: str, published: float, ours: float | None) -> Anchor:
    """With ratio and verdict."""
    ratio = None if ours is None else ours / published
    rounding = 0.5 * 10.0 ** -len(f"{published:g}".partition(".")[2]) / published
    kept = None if ratio is None else abs(ratio - 1) <= WITHIN + rounding
    return Anchor(what, codec, published, ours, ratio, kept)


def skipped(path: Path, places: list[Place]) -> dict[str, str]:
    """What is not compared, and why."""
    absent = {} if path.is_file() else {"whole stacks": f"no {path.name}; run `eozip evaluate` first"}
    return {**SKIPPED, **absent, **({} if places else {"one frame": "no DATA/val; set EOZIP_DATA"})}


def report(results: dict[str, Any], found: list[Anchor]) -> str:
    """Markdown; every number comes from `results`."""
    made = results["provenance"]
    reproduced = [one for one in found if one.is_kept is not None]
    networks = [one for one in found if one.is_kept is None]
    kept = sum(bool(one.is_kept) for one in reproduced)
    return "\n".join(
        [
            "# Published figures and ours\n",
            f"`{made['command']}`, commit {made['commit']}, {made['when']}\n",
            f"## Classical codecs, reproduced: {kept} of {len(reproduced)} within {WITHIN:.0%} and rounding\n",
            _table(reproduced, lambda one: ["yes" if one.is_kept else "no"], ["within"]),
            "## Published networks on one frame: codecs of eozip at the same PSNR\n",
            "Rates of all 12 bands, PSNR over B04 B03 B02; a ratio below 1 needs fewer bits than the published network.\n",
            _table(networks, lambda one: [], []),
            "## Not compared\n",
            *(f"- {what}: {why}" for what, why in results["skipped"].items()),
            "",
        ]
    )


def _table(found: list[Anchor], more: Any, heads: list[str]) -> str:
    rows = [
        [
            one.what,
            one.codec,
            f"{one.published:g}",
            _number(one.ours, ".4f"),
            _number(one.ratio, ".3f"),
            *more(one),
        ]
        for one in found
    ]
    return markdown(["bpppb of", "codec", "published", "here", "ratio", *heads], rows)


def _number(value: float | None, digits: str) -> str:
    return "-" if value is None else format(value, digits)


def _frame_words(db: float) -> str:
    return f"frame 0 of {RGB_PLACE.rpartition('_')[2]}, {db:g} dB over RGB"


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--report", type=Path, default=root / "results" / "report" / "report.json")
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
