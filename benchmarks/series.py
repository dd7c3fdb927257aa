"""What past dates save: tec-tt-small and flextec-small against tec-elic-small, on real bytes.

    python benchmarks/series.py [--data ../shared/data] [--out results]

Measured are the stacks of DATA/val (top left 256 x 256 pixels, four dates as one chunk), each of their dates alone, and the
series of DATA/val/series12.npz (twelve dates as one chunk). Writes series.json and series.md: bytes at equal PSNR, what each
date costs of what the first costs, and every cut of a flextec-small stream. Rates at a PSNR by log-linear interpolation.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from eozip import bitstream
from eozip.chunk import api
from eozip.chunk.pixels import psnr
from eozip.codecs import registry
from eozip.codecs.base import Encoded
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import bpppb, rate_at
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

IMAGE, SERIES, FLEXIBLE, FACTORISED = "tec-elic-small", "tec-tt-small", "flextec-small", "tec-fp-small"
PSNRS = (36.0, 40.0, 44.0, 48.0)
SIZE = 256
BELOW_THE_FLOOR = 99.99  # at 100 a layer may be added that is not the network's

Curve = list[tuple[float, float]]  # (bpppb, dB)


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    qualities = [*np.arange(0, 100, options.step).tolist(), BELOW_THE_FLOOR]
    stacks = {place.name: place.dn for place in load_places(options.data / "val", SIZE)}
    stacks |= long_series(options.data / "val" / "series12.npz")
    results: dict[str, Any] = {"provenance": provenance(), "stacks": {}}
    for name, dn in stacks.items():
        print(name, file=sys.stderr)
        results["stacks"][name] = measured(dn, qualities)
    text = report(results)
    print(text)
    write_text(options.out / "series.json", as_json(results))
    write_text(options.out / "series.md", text)


def long_series(path: Path) -> dict[str, np.ndarray]:
    """Twelve dates [12, 12, 256, 256]; none where the file is missing."""
    if not path.is_file():
        print(f"no {path}: the long series is left out", file=sys.stderr)
        return {}
    with np.load(path) as held:
        return {"series12": held["reflectance"]}


def measured(dn: np.ndarray, qualities: list[float]) -> dict[str, Any]:
    """Everything about one stack [T, C, H, W]."""
    curves = {name: curve(dn, name, qualities) for name in (FACTORISED, IMAGE, SERIES)}
    cuts = flexible(dn)
    return {
        "dates": len(dn),
        "rates": {name: [rate_at(c, db) for db in PSNRS] for name, c in curves.items()},
        "curves": curves,
        "single_date_over_image": alone(dn[:1], qualities),
        "bits_of_dates": {f"{q:g}": by_date(dn, q) for q in (20.0, 40.0, 60.0)},
        "cuts": [{**cut, "over_series": over(cut, curves[SERIES]), **low_end(cut, curves)} for cut in cuts],
    }


def curve(dn: np.ndarray, name: str, qualities: list[float]) -> Curve:
    found = []
    for quality in qualities:
        blob = api.encode(dn, codec=name, quality=quality)
        found.append((bpppb(len(blob), dn.shape), psnr(dn, api.decode_array(blob))))
    return found


def alone(date: np.ndarray, qualities: list[float]) -> list[float | None]:
    """Bytes of one date by the series codec over those of the image codec, at PSNRS."""
    own, image = (curve(date, name, qualities) for name in (SERIES, IMAGE))
    pairs = [(rate_at(own, db), rate_at(image, db)) for db in PSNRS]
    return [None if a is None or b is None else a / b for a, b in pairs]


def by_date(dn: np.ndarray, quality: float) -> dict[str, list[float]]:
    """Bits of every date of the series, over those of the first and over those that the same date costs alone."""
    codec = registry.get(registry.resolve(SERIES))
    x = dn.astype(np.float32)
    together = codec.encode(x, quality).bits
    single = [codec.encode(x[k : k + 1], quality).bits[0] for k in range(len(x))]
    return {
        "over_first": [bits / together[0] for bits in together],
        "over_alone": [a / b for a, b in zip(together, single)],
    }


def flexible(dn: np.ndarray) -> list[dict[str, float]]:
    """Every cut of one stream: sections, bytes of what is left, dB, and how far the estimate of the last section is off."""
    blob = api.encode(dn, codec=FLEXIBLE, quality=BELOW_THE_FLOOR)
    chunk = bitstream.unpack(blob)
    codec = registry.get(registry.resolve(FLEXIBLE))
    sections, shape = chunk.sections, dn.shape
    estimates = codec.estimate_sections(dn.astype(np.float32), [len(sections)] * len(dn))
    head = len(blob) - sum(map(len, sections))
    found = []
    for k in range(1, len(sections) + 1):
        coded = Encoded(tuple(sections[:k]), chunk.header.checks, chunk.header.budgets)
        size = head + sum(map(len, sections[:k]))
        x_hat = codec.decode(coded, shape, BELOW_THE_FLOOR)
        off = len(sections[k - 1]) - estimates[k - 1] / 8
        decibels = psnr(dn, np.clip(np.rint(x_hat), 0, 65535).astype(dn.dtype))
        found.append(
            {"sections": k, "bpppb": bpppb(size, shape), "psnr": decibels, "bytes_over_estimate": off}
        )
    return found


def over(cut: dict[str, float], series: Curve) -> float | None:
    rate = rate_at(series, cut["psnr"])
    return None if rate is None else cut["bpppb"] / rate


def low_end(cut: dict[str, float], curves: dict[str, Curve]) -> dict[str, float | None]:
    return {"over_factorised": over(cut, curves[FACTORISED])}


def report(results: dict[str, Any]) -> str:
    """The tables as Markdown; every number comes from `results`."""
    made = results["provenance"]
    parts = ["# What past dates save\n", f"`{made['command']}`, commit {made['commit']}, {made['when']}\n"]
    four = [s for s in results["stacks"].values() if s["dates"] == 4]
    if four:
        parts += ["## Four dates, mean over places\n", rates_table([s["rates"] for s in four])]
    for name, stack in results["stacks"].items():
        parts += [f"## {name}, {stack['dates']} dates\n", rates_table([stack["rates"]])]
        parts += [
            "Bits of each date over the first date's, and over its own without a past:\n",
            dates_table(stack),
        ]
        one = ", ".join("-" if r is None else f"{r:.3f}" for r in stack["single_date_over_image"])
        parts += [f"The first date alone, {SERIES} over {IMAGE} at {named(PSNRS)} dB: {one}\n"]
        parts += [f"Cuts of one {FLEXIBLE} stream:\n", cuts_table(stack["cuts"])]
    return "\n".join(parts) + "\n"


def rates_table(rates: list[dict[str, list[float | None]]]) -> str:
    rows, base = [], mean_rates(rates, IMAGE)
    for name in (FACTORISED, IMAGE, SERIES):
        own = mean_rates(rates, name)
        ratios = ["-" if a is None or b is None else f"{a / b:.3f}" for a, b in zip(own, base)]
        rows.append([name, *("-" if r is None else f"{r:.4f}" for r in own), *ratios])
    heads = [f"{db:g} dB" for db in PSNRS]
    return markdown(["bpppb", *heads, *(f"over {IMAGE}, {h}" for h in heads)], rows)


def mean_rates(rates: list[dict[str, list[float | None]]], name: str) -> list[float | None]:
    columns = zip(*(r[name] for r in rates))
    return [None if None in column else float(np.mean(column)) for column in columns]


def dates_table(stack: dict[str, Any]) -> str:
    rows = [
        [f"{q}, {what.replace('_', ' ')}", *(f"{v:.3f}" for v in values)]
        for q, kinds in stack["bits_of_dates"].items()
        for what, values in kinds.items()
    ]
    return markdown(["quality", *(f"date {k + 1}" for k in range(stack["dates"]))], rows)


def cuts_table(cuts: list[dict[str, Any]]) -> str:
    head = ["sections", "bpppb", "dB", f"over {SERIES}", f"over {FACTORISED}", "bytes over estimate"]
    rows = [
        [
            str(c["sections"]),
            f"{c['bpppb']:.4f}",
            f"{c['psnr']:.2f}",
            *("-" if c[k] is None else f"{c[k]:.3f}" for k in ("over_series", "over_factorised")),
            f"{c['bytes_over_estimate']:.1f}",
        ]
        for c in cuts
    ]
    return markdown(head, rows)


def named(values: tuple[float, ...]) -> str:
    return " / ".join(f"{v:g}" for v in values)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--step", type=float, default=10.0, help="between qualities")
    parser.add_argument("--out", type=Path, default=root / "results")
    options = parser.parse_args()
    if not (options.data / "val").is_dir():
        print(f"no {options.data / 'val'}: set EOZIP_DATA, or give --data; nothing measured", file=sys.stderr)
        sys.exit(0)
    return options


if __name__ == "__main__":
    main()
