"""Rate-distortion of the shipped codecs against OpenJPEG with and without a KLT, on real bytes.

    python benchmarks/rd.py [--data ../shared/data] [--codecs NAME ...] [--baselines NAME ...] [--out results]

Writes rd.json (every point, tables, command, versions, machine), rd.md and rd.png. Measured are the stacks of
DATA/val (top left 256 x 256 pixels, all dates one chunk); frame 0 of its first place with PSNR over B04 B03 B02
alone (the rate is that of all bands), as the published codecs' examples have it; and the scenes of DATA/train/sen12mscr.zip,
cloudy ones among them, at quality 100.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from eozip import api, sensors
from eozip.codecs import registry
from eozip.codecs.flex_codec import SECTIONS
from eozip.evaluate import tables
from eozip.evaluate.baselines import Contender, Learned, contender, sweep_of
from eozip.evaluate.figure import rd_figure
from eozip.evaluate.metrics import Quality
from eozip.evaluate.places import Place, load_places
from eozip.evaluate.provenance import as_json, provenance, write_bytes, write_text
from eozip.evaluate.rate import bpppb, rate_at
from eozip.evaluate.sweep import Point, swept
from eozip.pixels import psnr
from eozip.train.packed import packed_arrays

BASELINES = ("jpeg2000", "klt+jpeg2000", "klt-t+jpeg2000-lean", "klt-t+hevc", "klt-t+av1")
REFERENCE = "klt+jpeg2000"
SIZE = 256
RGB = ("B04", "B03", "B02")
RGB_PLACE = "0080717"
# dB over RGB > codec the published figure is of
RGB_PSNRS = {
    37.1: "TEC-FP",
    37.9: "TEC-ELIC",
    40.1: "TEC-FP",
    41.2: "TEC-ELIC",
    43.6: "TEC-FP",
    44.3: "TEC-ELIC",
}
BRIGHT_SOURCE, BRIGHTENED = "sen12mscr", 4


@dataclass(frozen=True)
class Bright:
    """One bright scene at quality 100.

    Attributes:
        scene, codec: names; `stored_as`: the codec in the stream (lossless where that was smaller).
        mean_dn: mean of the scene; `above_peak`: share of pixels over 10,000 DN.
        psnr: dB, infinite if exact.
    """

    scene: str
    codec: str
    stored_as: str
    mean_dn: float
    above_peak: float
    bpppb: float
    psnr: float
    reached_46_db: bool


def main() -> None:
    """Measures, prints the tables, writes the results."""
    options = _options()
    own = options.codecs
    contenders = [contender(name) for name in [*own, *options.baselines]]
    places = load_places(options.data / "val", SIZE)
    before = earlier(options.reuse, [*own, *options.baselines])
    missing = [one for one in contenders if one.name not in before.names]
    points = swept(missing, places, lambda name: _settings(name, options.step), _progress)
    points = [*points, *before.points]
    results = {
        "provenance": provenance(),
        "definition": "bpppb: bits of all bytes / (T C H W); PSNR: peak 10,000 DN, clip(x, 0, 10000), all bands and dates; "
        "rates at a PSNR by log-linear interpolation per place, then averaged",
        "settings": {one.name: one.settings for one in contenders},
        "rates": tables.rate_table(points),
        "at_40_db": tables.metric_table(points),
        "spans": tables.span_table(points),
        "bd_against_" + REFERENCE: tables.bd_table(points, REFERENCE)
        if REFERENCE in options.baselines
        else {},
        "rgb_of_frame_0": with_earlier(rgb_frame(missing, places, options.step), before),
        "bright_scenes_at_quality_100": [
            *bright_scenes([name for name in own if name not in before.names], options.data / "train"),
            *before.bright,
        ],
        "points": points,
    }
    text = report(results, points)
    print(text)
    write_text(options.out / "rd.json", as_json(results))
    write_text(options.out / "rd.md", text)
    write_bytes(
        options.out / "rd.png", rd_figure(points, own, "Sentinel-2 L2A, four dates, 12 bands, 256 x 256")
    )


@dataclass(frozen=True)
class Earlier:
    """What another run of this benchmark measured."""

    names: frozenset[str]
    points: list[Point]
    rgb: dict[str, Any]
    bright: list[Bright]


def earlier(path: Path | None, wanted: list[str]) -> Earlier:
    """The part of an earlier rd.json that is about contenders wanted now."""
    if path is None:
        return Earlier(frozenset(), [], {}, [])
    held = json.loads(path.read_text(encoding="utf-8"))
    points = [_point(p) for p in held["points"] if p["contender"] in wanted]
    names = frozenset(p.contender for p in points)
    rgb = {name: row for name, row in held["rgb_of_frame_0"].get("bpppb", {}).items() if name in names}
    bright = [
        Bright(**{**b, "psnr": float("inf") if b["psnr"] is None else b["psnr"]})
        for b in held["bright_scenes_at_quality_100"]
        if b["codec"] in names
    ]
    return Earlier(names, points, rgb, bright)


def _point(held: dict[str, Any]) -> Point:
    groups = {int(metres): db for metres, db in held["group_psnr"].items()}
    return Point(**{**held, "quality": Quality(**held["quality"]), "group_psnr": groups})


def with_earlier(found: dict[str, Any], before: Earlier) -> dict[str, Any]:
    return {**found, "bpppb": {**found["bpppb"], **before.rgb}} if found else found


def rgb_frame(contenders: list[Contender], places: list[Place], step: float) -> dict[str, Any]:
    """bpppb of all 12 bands of frame 0 of one place > at PSNRs over B04 B03 B02; {} if the place is not there."""
    chosen = [place for place in places if RGB_PLACE in place.name]
    if not chosen:
        return {}
    frame = replace(chosen[0], dn=chosen[0].dn[:1])
    bands = [frame.bands.index(name) for name in RGB]
    found = {}
    for number, one in enumerate(contenders):
        _progress(number, len(contenders), f"{one.name} on one frame, RGB")
        curve = [_rgb_point(one, frame, bands, s) for s in _settings(one.name, step)]
        found[one.name] = {f"{db:g}": rate_at(curve, db) for db in RGB_PSNRS}
    return {"place": frame.name, "bpppb": found}


def bright_scenes(codecs: list[str], folder: Path) -> list[Bright]:
    """Every scene of the source, and its brightest with DN times 4 (clouds and snow); [] where there are none."""
    if not (folder / f"{BRIGHT_SOURCE}.zip").is_file() or not (folder / "index.json").is_file():
        print(f"no {folder}/{BRIGHT_SOURCE}.zip: bright scenes left out", file=sys.stderr)
        return []
    scenes = {name: np.array(a) for name, a in packed_arrays(folder)[0] if name.startswith(BRIGHT_SOURCE)}
    brightest = max(scenes, key=lambda name: scenes[name].mean())
    limit = np.iinfo(np.uint16).max // BRIGHTENED
    scenes[f"{brightest}, DN x {BRIGHTENED}"] = np.minimum(scenes[brightest], limit) * np.uint16(BRIGHTENED)
    return [_bright(codec, name, dn) for name, dn in scenes.items() for codec in codecs]


def report(results: dict[str, Any], points: list[Point]) -> str:
    """The tables as Markdown; every number comes from `results`."""
    made = results["provenance"]
    bands = sensors.get("s2-l2a").band_names
    parts = [
        "# Rate-distortion on real Sentinel-2 stacks\n",
        f"`{made['command']}`, commit {made['commit']}, {made['when']}, {made['machine']['processor']}\n",
        results["definition"] + ". All numbers are in rd.json.\n",
        "![curves](rd.png)\n",
        "## Mean over places\n",
        tables.markdown_rates(results["rates"]),
    ]
    for place in tables.place_names(points):
        parts += [f"## {place}\n", tables.markdown_rates(results["rates"], place)]
        parts += ["At 40 dB over all bands:\n", tables.markdown_metrics(results["at_40_db"], place)]
        parts += [tables.markdown_bands(results["at_40_db"], place, bands)]
    parts += [*_span_part(results["spans"]), *_rgb_part(results["rgb_of_frame_0"])]
    parts += _bright_part(results["bright_scenes_at_quality_100"])
    parts += ["## Settings\n", *(f"- {name}: {text}" for name, text in results["settings"].items())]
    return "\n".join(parts) + "\n"


def _span_part(spans: dict[str, dict[str, tables.Span]]) -> list[str]:
    rows = [
        [name, place, f"{span.low:.1f}", f"{span.high:.1f}", "yes" if span.monotone else "no"]
        for name, found in spans.items()
        for place, span in found.items()
    ]
    return [
        "## Span of the settings\n",
        tables.markdown(["", "place", "low, dB", "high, dB", "monotone"], rows),
    ]


def _rgb_part(found: dict[str, Any]) -> list[str]:
    if not found:
        return []
    head = ["bpppb (12 bands) at", *(f"{db:g} dB ({of})" for db, of in RGB_PSNRS.items())]
    rows = [
        [name, *("-" if rate is None else f"{rate:.4f}" for rate in row.values())]
        for name, row in found["bpppb"].items()
    ]
    return [f"## Frame 0 of {found['place']}, PSNR over B04 B03 B02\n", tables.markdown(head, rows)]


def _bright_part(found: list[Bright]) -> list[str]:
    if not found:
        return []
    head = ["scene", "codec", "stored as", "mean DN", "over 10,000", "bpppb", "PSNR, dB", "46 dB"]
    rows = [
        [
            b.scene,
            b.codec,
            b.stored_as,
            f"{b.mean_dn:.0f}",
            f"{b.above_peak:.1%}",
            f"{b.bpppb:.3f}",
            f"{b.psnr:.2f}",
            "yes" if b.reached_46_db else "no",
        ]
        for b in found
    ]
    return ["## Bright scenes at quality 100\n", tables.markdown(head, rows)]


def _rgb_point(one: Contender, frame: Place, bands: list[int], setting: float) -> tuple[float, float]:
    blob = one.encode(frame.dn, setting)
    db = psnr(frame.dn[:, bands], one.decode(blob)[:, bands], offset=frame.offset)
    return bpppb(len(blob), frame.dn.shape), db


def _bright(codec: str, name: str, dn: np.ndarray) -> Bright:
    blob = api.encode(dn, codec, 100.0)
    db = psnr(dn, api.decode(blob))
    return Bright(
        name,
        codec,
        api.inspect(blob).header.codec,
        float(dn.mean()),
        float((dn > 10_000).mean()),
        bpppb(len(blob), dn.shape),
        db,
        db >= 46,
    )


def _settings(name: str, step: float) -> list[float]:
    is_ours = isinstance(contender(name), Learned)
    if name.startswith("flextec"):
        return np.linspace(0, 100, SECTIONS).round(2).tolist()  # it has no more rates
    return [float(q) for q in np.arange(0, 100 + step / 2, step)] if is_ours else list(sweep_of(name))


def _progress(done: int, total: int, what: str) -> None:
    print(f"\r\x1b[K{done}/{total} {what}", end="" if what else "\n", file=sys.stderr, flush=True)


def _shipped() -> list[str]:
    """Short names of every codec of this sensor in the registry."""
    full = [name for name in registry.names() if "-s2l2a-v" in name]
    return list(dict.fromkeys(name.rpartition("-s2l2a-v")[0] for name in full))


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    data = Path(os.environ.get("EOZIP_DATA") or root.parent / "shared") / "data"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data, help="folder with val/ and train/")
    parser.add_argument("--codecs", nargs="*", default=_shipped(), help="default: all that are registered")
    parser.add_argument("--baselines", nargs="*", default=list(BASELINES))
    parser.add_argument(
        "--reuse", type=Path, help="rd.json of an earlier run: what it measured is taken from it"
    )
    parser.add_argument("--step", type=float, default=5.0, help="between qualities")
    parser.add_argument("--out", type=Path, default=root / "results")
    options = parser.parse_args()
    if not (options.data / "val").is_dir():
        print(f"no {options.data / 'val'}: set EOZIP_DATA, or give --data; nothing measured", file=sys.stderr)
        sys.exit(0)
    return options


if __name__ == "__main__":
    main()
