"""Writes README.md's figures: what it costs, tables by kind, and from results/report sentences, table and picture.

    python benchmarks/readme.py [--results results/report/report.json] [--kinds results/kinds/kinds.json]
                                [--costs results] [--readme README.md] [--check]

Replaces what stands between three pairs of markers, and draws readme.png beside the report's folder, which carries the
SHA-256 of the JSON it was drawn from. The report has every method; shown are all codecs, the baselines of `SHOWN`, and
every baseline that is the best of them at some PSNR. `--check` writes nothing; exit code 1 if the README or the picture
does not agree with the JSON.
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

from eozip.errors import InputError
from eozip_lab.evaluate.html_report.plots import COLOURS, DASHES, MEANS, OWN_STYLE
from eozip_lab.evaluate.html_report.sentences import beginnings, best, bound_verdicts, place_losses, verdicts
from eozip_lab.evaluate.kinds import measure, tables
from eozip_lab.evaluate.provenance import write_bytes, write_text
from eozip_lab.evaluate.rate import mean_rate_at
from eozip_lab.evaluate.tables import markdown

BEGIN = "<!-- results: written by benchmarks/readme.py, do not edit -->"
END = "<!-- end of results -->"
KINDS_BEGIN = "<!-- by kind: written by benchmarks/readme.py, do not edit -->"
KINDS_END = "<!-- end of by kind -->"
COSTS_BEGIN = "<!-- costs: written by benchmarks/readme.py, do not edit -->"
COSTS_END = "<!-- end of costs -->"
IMAGE, SERIES, GROUP = "tec-elic-small", "tec-tt-small", 4
KEY = "eozip-source-sha256"
AT = "40"  # dB at which the last column compares
DBS = ("36", "40", "44", "48")
SHOWN = (
    "jpeg2000",
    "klt+jpeg2000",
    "jpegxl",
    "avif",
    "hevc",
    "klt-t+jpeg2000-lean",
    "klt-t+hevc",
    "klt-t+av1",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Rewrites or checks; arguments of the command line, by default its own."""
    options = _options(arguments)
    data = options.results.read_bytes()
    picture = options.results.parent.with_name("readme.png")
    text = options.readme.read_text()
    wanted = replaced(text, section(json.loads(data), _link(picture, options.readme)))
    wanted = replaced(wanted, by_kind(options.kinds), (KINDS_BEGIN, KINDS_END))
    held = {
        name: json.loads((options.costs / f"{name}.json").read_text())
        for name in ("scaling", "speed", "path")
    }
    wanted = replaced(wanted, costs(**held), (COSTS_BEGIN, COSTS_END))
    if options.check:
        return _checked(options.readme, text == wanted, picture, source_of(picture) == digest(data))
    write_text(options.readme, wanted)
    write_bytes(picture, drawn(json.loads(data), digest(data)))
    return 0


def section(results: Mapping[str, Any], picture: str) -> str:
    """Markdown of the part, every number from `results`.

    Args:
        results: what report.json holds.
        picture: address of the picture from the README.
    """
    made, own = results["provenance"], own_names(results)
    rates, bounded = results["summary"]["rates_at_psnr"], results["summary"]["at_bound"]
    losses = place_losses(rates, own, beginnings(results["points"]))
    parts = [
        f"![rate-distortion, mean over {len(results['places'])} places]({picture})\n",
        table(rates, own),
        f"Mean over {_places(results)}: bits per pixel per band of all bytes at equal PSNR; **bold**: codecs of eozip. "
        f"The report has {len(rates)} methods, all of them real encoders.\n",
        _bullets([*verdicts(rates, own, beginnings(results["points"])), *bound_verdicts(bounded, own)]),
        *(["Place by place, a baseline wins here:\n", _bullets(losses)] if losses else []),
        f"Made by `{made['command']}`, commit {made['commit']}, {made['when'][:10]}.\n",
    ]
    return "\n".join(parts)


def by_kind(path: Path) -> str:
    """Markdown of the part by kind, every number from the points in a kinds.json."""
    found, made = measure.load(path), json.loads(path.read_text())["provenance"]
    lost = tables.losses(found)
    parts = [
        tables.equal_psnr(found),
        tables.means(found),
        f"{'Where another codec is best:' if lost else 'Nowhere is another codec best.'}\n",
        _bullets(lost),
        "At the bytes with which eozip has 40 dB: PSNR of everything and of each resolution, and what the best other "
        "codec has with as many bytes:\n",
        tables.equal_bytes(found),
        "The same pixels in fewer bands and in smaller stacks, at equal PSNR:\n",
        tables.compared(found),
        f"Made by `{made['command']}`, commit {made['commit']}, {made['when'][:10]}.\n",
    ]
    return "\n".join(part for part in parts if part.strip())


def costs(scaling: Mapping[str, Any], speed: Mapping[str, Any], path: Mapping[str, Any]) -> str:
    """Markdown of what it costs, every number from the JSON of three scripts."""
    turn, largest = speed["turns"][0], max(scaling["by_size"], key=lambda case: case["size"])
    groups = [case for case in scaling["by_dates"] if case["dates"] == GROUP]
    alike = [case for case in scaling["by_size"] if case["size"] in {group["size"] for group in groups}]
    cases = [(f"1 date, {IMAGE}", case) for case in (*alike, largest)]
    cases += [(f"{GROUP} dates, {SERIES}", case) for case in groups]
    scenes = [
        [
            f"{case['size']} x {case['size']}, {what}",
            f"{case['encode']['cpu_seconds']:.1f} s",
            f"{case['decode']['cpu_seconds']:.1f} s",
            f"{max(case[way]['peak_gib'] for way in ('encode', 'decode')):.2f} GiB",
        ]
        for what, case in cases
    ]
    return "\n".join(
        [
            markdown(["GeoTIFF to store, and back", "encode, CPU", "decode, CPU", "peak memory"], scenes),
            markdown(
                [
                    f"a chunk in memory at {turn['psnr']:g} dB",
                    "bytes",
                    "encode, CPU",
                    "decode, CPU",
                    "both over OpenJPEG",
                ],
                [_costed(name, one, turn) for name, one in {**turn["ours"], **turn["others"]}.items()],
            ),
            _told(turn, speed, path),
        ]
    )


def _told(turn: Mapping[str, Any], speed: Mapping[str, Any], path: Mapping[str, Any]) -> str:
    """Sentences around the two tables."""
    shares, ratios, size = speed["shares_of_decode"], path["ratios"], path["shape"][3]
    fresh, plain = speed["first_date_in_a_fresh_process"], speed["without_kernel_over_with"]
    encode, decode = (ratios[f"{way} (1.3 asked)"]["cpu"] for way in ("encode", "decode"))
    files = ", ".join(f"[results/{name}.json](results/{name}.json)" for name in ("scaling", "speed", "path"))
    return (
        f"A chunk is {GROUP} dates of 12 bands of {turn['size']} x {turn['size']} pixels, on one thread. "
        "Without the kernel in C, which an installation from source builds where it finds a compiler, numpy gives "
        f"the same pixels in {plain:.1f} times the time; on other machines than x86-64 the networks, and the "
        "reading of details by them, are numpy's in any case. A fresh process has decoded a first chunk of one date after "
        f"{fresh:.1f} CPU seconds, imports and all, and has a first window of a store after {_first_window(path):.1f}. A "
        f"picture at 1/8 takes {shares['reduce=8']:.2f} of a chunk's decoding, its bands of 20 m "
        f"{shares['bands of 20 m']:.2f}. A GeoTIFF of {size} x {size} pixels is encoded in {encode:.1f} and decoded in "
        f"{decode:.1f} times the CPU time of its chunks ({files}).\n"
    )


def _costed(name: str, one: Mapping[str, Any], turn: Mapping[str, Any]) -> list[str]:
    over = one["total"] / turn["others"]["OpenJPEG"]["total"]
    shown = f"**{name}**" if name in turn["ours"] else name
    return [shown, f"{one['bytes']:,}", f"{one['encode']:.2f} s", f"{one['decode']:.2f} s", f"{over:.2f}"]


def _first_window(path: Mapping[str, Any]) -> float:
    """CPU seconds in a fresh process."""
    return next(value for key, value in path.items() if key.startswith("first window"))


def table(rates: Mapping[str, Any], own: list[str]) -> str:
    """Mean bpppb at each PSNR, and bits at 40 dB as multiples of the best codec's."""
    least = min(
        (rates[name][AT]["mean"] for name in own if rates[name][AT]["mean"] is not None), default=None
    )
    head = ["bpppb at", *(f"{db} dB" for db in DBS), f"bits at {AT} dB"]
    rows = [
        [
            f"**{name}**" if name in own else name,
            *("-" if (mean := rates[name][db]["mean"]) is None else f"{mean:.4f}" for db in DBS),
            _multiple(rates[name][AT]["mean"], least),
        ]
        for name in shown(rates, own)
    ]
    return markdown(head, rows)


def shown(rates: Mapping[str, Any], own: list[str]) -> list[str]:
    """Codecs that reach 40 dB everywhere, then baselines: `SHOWN`, and the best at any PSNR of the report."""
    others = [name for name in rates if name not in own]
    dbs = next(iter(rates.values()), {})
    winners = {found[0] for db in dbs if (found := best(rates, others, db))}
    codecs = [name for name in own if rates[name][AT]["mean"] is not None]
    return [*codecs, *(name for name in others if name in {*SHOWN, *winners})]


def own_names(results: Mapping[str, Any]) -> list[str]:
    """Methods measured that are codecs of eozip."""
    codecs = [method["id"] for method in results["methods"] if method["kind"] == "codec"]
    return [name for name in codecs if name in results["summary"]["rates_at_psnr"]]


def replaced(text: str, part: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """The README with `part` between two markers.

    Raises:
        InputError: not exactly one pair of markers.
    """
    first, last = marks
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end or first in rest or last in before + after:
        raise InputError(f"expected {first!r} and behind it {last!r}, each once; put them into the README")
    return f"{before}{first}\n{part}{last}{after}"


def drawn(results: Mapping[str, Any], source: str) -> bytes:
    """PNG of PSNR over log rate, mean over places; `source` goes into its text."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    panel = figure.subplots()
    rates, own, curves_of = results["summary"]["rates_at_psnr"], own_names(results), _curves(results)
    for number, name in enumerate(shown(rates, own)):
        curves = curves_of[name]
        dashes = {"linestyle": DASHES[number // len(COLOURS) % len(DASHES)], "linewidth": 1.2}
        style = {"color": COLOURS[number % len(COLOURS)], **(OWN_STYLE if name in own else dashes)}
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
    """Method > one curve a place; exact points have no PSNR and are left out."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for point in results["points"]:
        if point["psnr"] is not None:
            curve = found.setdefault(point["method"], {}).setdefault(point["place"], [])
            curve.append((point["bpppb"], point["psnr"]))
    return {name: list(places.values()) for name, places in found.items()}


def _places(results: Mapping[str, Any]) -> str:
    """Such as "2 places of 4 dates", in the order measured."""
    counted: dict[int, int] = {}
    for place in results["places"]:
        counted[place["shape"][0]] = counted.get(place["shape"][0], 0) + 1
    each = [
        f"{count} place{'s' * (count > 1)} of {dates} date{'s' * (dates > 1)}"
        for dates, count in counted.items()
    ]
    return " and ".join(each)


def _bullets(sentences: Sequence[str]) -> str:
    return "".join(f"- {sentence}\n" for sentence in sentences)


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
    parser.add_argument("--results", type=Path, default=root / "results" / "report" / "report.json")
    parser.add_argument("--kinds", type=Path, default=root / "results" / "kinds" / "kinds.json")
    parser.add_argument("--costs", type=Path, default=root / "results", help="folder of scaling, speed, path")
    parser.add_argument(
        "--readme", type=Path, default=root / "README.md", help="in or above the results' folder"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if something does not agree")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
