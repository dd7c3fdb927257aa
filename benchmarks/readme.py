"""Writes the rate-distortion part of README.md, sentences, table and picture, from results/rd.json.

    python benchmarks/readme.py [--results results/rd.json] [--readme README.md] [--check]

Replaces what stands between the two markers, and draws results/readme.png, which carries the SHA-256 of the JSON it was
drawn from. `--check` writes nothing; exit code 1 if the README or the picture does not agree with the JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eozip.errors import InputError
from eozip.evaluate.figure import BASELINE_STYLE, COLOURS, MEANS, OWN_STYLE
from eozip.evaluate.provenance import write_bytes, write_text
from eozip.evaluate.rate import mean_rate_at
from eozip.evaluate.report_words import verdicts
from eozip.evaluate.tables import markdown

BEGIN = "<!-- results: written by benchmarks/readme.py, do not edit -->"
END = "<!-- end of results -->"
KEY = "eozip-source-sha256"
AT = "40"  # dB at which the last column compares


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites or checks; arguments of the command line, by default its own."""
    options = _options(arguments)
    data = options.results.read_bytes()
    picture = options.results.with_name("readme.png")
    text = options.readme.read_text()
    wanted = replaced(text, section(json.loads(data), _link(picture, options.readme)))
    if options.check:
        return _checked(options.readme, text == wanted, picture, source_of(picture) == digest(data))
    write_text(options.readme, wanted)
    write_bytes(picture, drawn(json.loads(data), digest(data)))
    return 0


def section(results: Mapping[str, Any], picture: str) -> str:
    """Markdown of the part, every number from `results`.

    Args:
        results: what results/rd.json holds.
        picture: address of the picture from the README.
    """
    made, own = results["provenance"], own_names(results)
    count = len(next(iter(results["rates"].values()))[AT]["places"])
    parts = [
        f"![rate-distortion, mean over {count} places]({picture})\n",
        table(results["rates"], own),
        f"Mean over {count} places, bits per pixel per band of all bytes at equal PSNR; **bold**: codecs of eozip.\n",
        "\n".join(f"- {sentence}" for sentence in verdicts(results["rates"], own)) + "\n",
        f"Made by `{made['command']}`, commit {made['commit']}, {made['when'][:10]}.\n",
    ]
    return "\n".join(parts)


def table(rates: Mapping[str, Any], own: list[str]) -> str:
    """Mean bpppb at each PSNR, and bits at 40 dB as multiples of the best codec's."""
    least = min(
        (rates[name][AT]["mean"] for name in own if rates[name][AT]["mean"] is not None), default=None
    )
    head = ["bpppb at", *(f"{db} dB" for db in next(iter(rates.values()))), f"bits at {AT} dB"]
    rows = [
        [
            f"**{name}**" if name in own else name,
            *("-" if cell["mean"] is None else f"{cell['mean']:.4f}" for cell in row.values()),
            _multiple(row[AT]["mean"], least),
        ]
        for name, row in rates.items()
    ]
    return markdown(head, rows)


def own_names(results: Mapping[str, Any]) -> list[str]:
    """Contenders that are codecs of eozip, by the settings the results name."""
    return [name for name, text in results["settings"].items() if text.startswith("eozip.encode(")]


def replaced(text: str, part: str) -> str:
    """The README with `part` between its markers.

    Raises:
        InputError: not exactly one pair of markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in before + after:
        raise InputError(f"expected {BEGIN!r} and behind it {END!r}, each once; put them into the README")
    return f"{before}{BEGIN}\n{part}{END}{after}"


def drawn(results: Mapping[str, Any], source: str) -> bytes:
    """PNG of PSNR over log rate, mean over places; `source` goes into its text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    own = own_names(results)
    for number, (name, curves) in enumerate(_curves(results).items()):
        style = {"color": COLOURS[number % len(COLOURS)], **(OWN_STYLE if name in own else BASELINE_STYLE)}
        found = [(rate, db) for db in MEANS if (rate := mean_rate_at(curves, float(db))) is not None]
        panel.plot([rate for rate, _ in found], [db for _, db in found], label=name, **style)
    panel.set(xscale="log", xlabel="bits per pixel per band, all bytes (log)")
    panel.set_ylabel("PSNR, dB (peak 10,000 DN, all bands and dates)")
    panel.grid(True, which="both", alpha=0.25)
    panel.legend(fontsize="small")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100, metadata={KEY: source})
    return png.getvalue()


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def source_of(picture: Path) -> str | None:
    """SHA-256 of the JSON a picture was drawn from, as its PNG text says; None without picture or text."""
    if not picture.is_file():
        return None
    from PIL import Image

    with Image.open(picture) as image:
        return image.info.get(KEY)


def _curves(results: Mapping[str, Any]) -> dict[str, list[list[tuple[float, float]]]]:
    """Contender > one curve a place."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for point in results["points"]:
        db = point["quality"]["psnr"]
        curve = found.setdefault(point["contender"], {}).setdefault(point["place"], [])
        curve.append((point["bpppb"], np.inf if db is None else db))
    return {name: list(places.values()) for name, places in found.items()}


def _multiple(mean: float | None, least: float | None) -> str:
    return "-" if mean is None or least is None else f"{mean / least:.2f} x"


def _checked(readme: Path, same_text: bool, picture: Path, same_source: bool) -> int:
    wrong = [str(path) for path, same in ((readme, same_text), (picture, same_source)) if not same]
    if wrong:
        print(
            f"{', '.join(wrong)}: does not agree with the results; run benchmarks/readme.py", file=sys.stderr
        )
    return int(bool(wrong))


def _link(picture: Path, readme: Path) -> str:
    return picture.resolve().relative_to(readme.resolve().parent).as_posix()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=root / "results" / "rd.json")
    parser.add_argument(
        "--readme", type=Path, default=root / "README.md", help="in or above the results' folder"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if something does not agree")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
