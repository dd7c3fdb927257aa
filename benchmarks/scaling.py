"""Time, memory and bytes against scene size and against number of dates, on simulated scenes.

    python benchmarks/scaling.py [--sizes 512 1024 2048 4096] [--dates 1 2 4 8 16] [--date-size 512]
                                 [--codec tec-elic-small] [--series-codec tec-tt-small] [--out results]

Writes scaling.json and scaling.png. Every encoding and decoding is a process of its own (GeoTIFF to Zarr store and
back, imports before the clock starts); peak RSS is what the kernel says at its end. Exponents are the slopes of
log cost over log work: 1 is linear, 0 is flat; CPU seconds suffer less from other work than wall seconds. A machine with
other work on it is named as busy in the JSON and in the plot. Exit code 1 if memory is not flat: a peak over `--flat`
times that of the first case which fills a chunk with dates, or GDAL's cache with pixels (below, peaks rise to that
bound; without such a case nothing is judged).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eozip.raster.read import CACHE_BYTES
from eozip.store.grid import GOP
from eozip_lab.evaluate.provenance import as_json, provenance, write_bytes, write_text

SIZES, DATES = (512, 1024, 2048, 4096), (1, 2, 4, 8, 16)
BUSY_ABOVE = 0.5  # load average of one minute before the first measurement
COSTS = {
    "encode, s": lambda case: case.encode.seconds,
    "decode, s": lambda case: case.decode.seconds,
    "encode, CPU s": lambda case: case.encode.cpu_seconds,
    "decode, CPU s": lambda case: case.decode.cpu_seconds,
    "encode, peak GiB": lambda case: case.encode.peak_gib,
    "decode, peak GiB": lambda case: case.decode.peak_gib,
    "bytes": lambda case: case.bytes,
}

_CHILD = (
    "import json, resource, sys, time\n"
    "from eozip.cli import cli\n"
    "started, cpu = time.perf_counter(), time.process_time()\n"
    "cli(sys.argv[1:], standalone_mode=False)\n"
    "facts = {'seconds': time.perf_counter() - started, 'cpu_seconds': time.process_time() - cpu}\n"
    "facts['peak'] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "print(json.dumps(facts))\n"
)


@dataclass(frozen=True)
class Run:
    """One command in a process of its own: wall and CPU seconds, and peak RSS in GiB (of everything)."""

    seconds: float
    cpu_seconds: float
    peak_gib: float


@dataclass(frozen=True)
class Case:
    """One scene there and back.

    Attributes:
        size: side in pixels of 10 m.
        dates: acquisitions.
        bytes: of the store.
        bpppb: bits per pixel per band.
    """

    size: int
    dates: int
    bytes: int
    bpppb: float
    encode: Run
    decode: Run

    @property
    def raw_bytes(self) -> int:
        """Of the pixels: 12 bands of 16 bits."""
        return self.pixels * self.dates * 12 * 2

    @property
    def pixels(self) -> int:
        return self.size**2


def main() -> int:
    """Measures, fits, draws; 1 if memory grows."""
    options = _options()
    load = os.getloadavg()[0]
    by_size = [measured(size, 1, options.codec) for size in options.sizes]
    by_dates = [measured(options.date_size, dates, options.series_codec) for dates in options.dates]
    results = {
        "provenance": provenance(),
        "data": "simulated (eozip simulate)",
        "machine_busy": load > BUSY_ABOVE,
        "load_before": load,
        "codec": options.codec,
        "series_codec": options.series_codec,
        "memory_flat_below": options.flat,
        **found_in(by_size, by_dates),
    }
    write_text(options.out / "scaling.json", as_json(results))
    write_bytes(options.out / "scaling.png", drawn(by_size, by_dates, results))
    print(summary(results))
    growth = [found for found in results["memory_growth"].values() if found is not None]
    return int(max(growth, default=0.0) > options.flat)


def found_in(by_size: Sequence[Case], by_dates: Sequence[Case]) -> dict[str, Any]:
    """The cases with their exponents, and growth of memory where it is judged."""
    return {
        "by_size": by_size,
        "by_dates": by_dates,
        "exponents": {
            "per pixel": exponents(by_size, lambda c: c.pixels),
            "per date": exponents(by_dates, lambda c: c.dates),
        },
        "memory_growth": {
            "size": memory_growth(beyond_cache(by_size)),
            # fewer dates than a chunk has need less memory, more must not need more
            "dates": memory_growth([c for c in by_dates if c.dates >= GOP]),
        },
    }


def beyond_cache(cases: Sequence[Case]) -> list[Case]:
    """Scenes larger than the cache of the raster library: those below hold all of their pixels in it."""
    return [case for case in cases if case.raw_bytes >= CACHE_BYTES]


def measured(size: int, dates: int, codec: str) -> Case:
    """Simulates a scene in a folder that goes away again, encodes and decodes it."""
    with tempfile.TemporaryDirectory() as folder:
        source, store, back = Path(folder, "scene"), Path(folder, "s.zarr.zip"), Path(folder, "back")
        _run("simulate", source, "--size", size, "--dates", dates)
        encode = _run("encode", source, store, "--codec", codec)
        decode = _run("decode", store, back.with_suffix(".tif") if dates == 1 else back)
        count = store.stat().st_size
    case = Case(size, dates, count, 8 * count / (size**2 * dates * 12), encode, decode)
    print(f"{size:6} px {dates:3} dates  {_one_line(case)}", flush=True)
    return case


def exponents(cases: Sequence[Case], work: Callable[[Case], float]) -> dict[str, dict[str, float] | None]:
    """Cost > fitted exponent over all cases, and between the last two; None with fewer than two cases."""
    return {name: _exponent([(work(c), cost(c)) for c in cases]) for name, cost in COSTS.items()}


def memory_growth(cases: Sequence[Case]) -> float | None:
    """Largest peak over that of the first case, of encode or decode, whichever grows more; None without cases."""
    runs = [[getattr(case, step).peak_gib for case in cases] for step in ("encode", "decode")]
    return max(max(peaks) / peaks[0] for peaks in runs) if cases else None


def summary(results: dict[str, Any]) -> str:
    """Exponents and growth of memory as lines."""
    lines = [
        f"{what} {name:18} exponent {found['fitted']:.2f}, between the last two {found['last']:.2f}"
        for what, costs in results["exponents"].items()
        for name, found in costs.items()
        if found
    ]
    limit = results["memory_flat_below"]
    for what, growth in results["memory_growth"].items():
        judged = "not judged: no case is large enough" if growth is None else f"grows {growth:.2f} times"
        lines.append(f"memory by {what} {judged} (flat: at most {limit:g})")
    return "\n".join(lines)


def drawn(by_size: Sequence[Case], by_dates: Sequence[Case], results: dict[str, Any]) -> bytes:
    """PNG: a row for sizes, a row for dates; time, memory, bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, 3)
    sizes, dates = f"megapixels, {results['codec']}", f"dates, {results['series_codec']}"
    _draw_row(rows[0], by_size, [c.pixels / 1e6 for c in by_size], sizes, results, "per pixel")
    _draw_row(rows[1], by_dates, [c.dates for c in by_dates], dates, results, "per date")
    busy = "MADE ON A BUSY MACHINE, no figures for the record: " if results["machine_busy"] else ""
    figure.suptitle(f"{busy}12 bands, simulated scenes")
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    return png.getvalue()


def _draw_row(
    panels: Any, cases: Sequence[Case], work: list[float], unit: str, results: Any, fit: str
) -> None:
    for panel, word in zip(panels, (" s", "peak GiB", "bytes")):
        for name in (name for name in COSTS if word in name):
            found = results["exponents"][fit][name]
            label = name if found is None else f"{name}: exponent {found['fitted']:.2f}"
            panel.plot(work, [COSTS[name](case) for case in cases], marker="o", label=label)
        panel.set(xscale="log", yscale="linear" if "GiB" in word else "log", xlabel=unit)
        if "GiB" in word:
            panel.set_ylim(bottom=0)
        panel.set_xticks(work, [f"{value:.3g}" for value in work])
        panel.set_xticks([], minor=True)
        panel.grid(True, which="both", alpha=0.25)
        panel.legend(fontsize="small")


def _exponent(points: Sequence[tuple[float, float]]) -> dict[str, float] | None:
    if len({x for x, _ in points}) < 2:
        return None
    x, y = np.log(np.array(points)).T
    return {"fitted": float(np.polyfit(x, y, 1)[0]), "last": float((y[-1] - y[-2]) / (x[-1] - x[-2]))}


def _one_line(case: Case) -> str:
    return (
        f"encode {case.encode.seconds:7.1f} s {case.encode.peak_gib:5.2f} GiB  "
        f"decode {case.decode.seconds:7.1f} s {case.decode.peak_gib:5.2f} GiB  {case.bytes:12,} bytes"
    )


def _run(*arguments: object) -> Run:
    command = [sys.executable, "-c", _CHILD, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    facts = json.loads(done.stdout.splitlines()[-1])
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(facts["seconds"], facts["cpu_seconds"], facts["peak"] * unit / 2**30)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES), help="sides in pixels, rising")
    parser.add_argument("--dates", type=int, nargs="*", default=list(DATES), help="numbers of dates, rising")
    parser.add_argument("--date-size", type=int, default=512, help="side of the scenes with several dates")
    parser.add_argument("--codec", default="tec-elic-small", help="of the sizes, one date each")
    parser.add_argument("--series-codec", default="tec-tt-small", help="of the numbers of dates")
    parser.add_argument("--flat", type=float, default=1.5, help="most growth of the peak that counts as flat")
    parser.add_argument("--out", type=Path, default=root / "results")
    options = parser.parse_args()
    for name in ("sizes", "dates"):
        setattr(options, name, sorted(set(getattr(options, name))))
    return options


if __name__ == "__main__":
    sys.exit(main())
