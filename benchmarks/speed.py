"""Encode and decode seconds of the shipped codecs against OpenJPEG at the same PSNR, in the same run, as ratios.

    python benchmarks/speed.py [--qualities 40 60 80] [--threads 1 2] [--repeats 7] [--out results]

One stack of 4 x 12 x 256 x 256 pixels from memory to bytes and back, models loaded. OpenJPEG (imagecodecs) codes each
band alone: on 1 thread, on as many of its own threads, and with bands spread over a pool of as many threads.
Runs are interleaved, medians count. Writes speed.json: ratios below 1 mean that eozip is faster. Beside them: seconds
by stage, operations, and what a float32 matrix product reaches on this machine before and after.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from eozip import api
from eozip.codecs import registry
from eozip.evaluate.baselines import Contender, Learned
from eozip.evaluate.openjpeg import Jpeg2000
from eozip.evaluate.places import load_places
from eozip.evaluate.provenance import as_json, provenance, write_text
from eozip.evaluate.rate import bpppb
from eozip.evaluate.stages import offers_stages, watched
from eozip.pixels import psnr
from eozip.simulate import render, season

SIZE, DATES = 256, 4
NEAR = 0.05  # dB within which two PSNRs count as the same, where OpenJPEG reaches it
SEARCH_STEPS = 12
MATRIX = 2048
TIMED_PRODUCTS = 5


@dataclass(frozen=True)
class Timing:
    """Median seconds of one contender.

    Attributes:
        encode, decode: medians over the repeats; `total`: median of their sums; `spread`: (max - min) / median of the sums.
        bpppb, psnr: of what it wrote.
    """

    encode: float
    decode: float
    total: float
    spread: float
    bpppb: float
    psnr: float


@dataclass(frozen=True)
class Row:
    """One codec at one quality on so many threads.

    Attributes:
        ours: eozip.
        openjpeg: "one thread", "own threads", "pool of bands" > timing.
        ratios: the same > total seconds of eozip / of OpenJPEG; `mpx_per_s` counts pixels of all bands at once.
        stages: "encode", "decode" > stage > median seconds; {} if the codec does not offer it.
        gmac: "encode", "decode" > 10^9 multiply-adds in convolutions and matrix products.
        share_of_peak: of the float32 matrix product on as many threads: operations of both directions / total seconds.
    """

    codec: str
    quality: float
    threads: int
    ours: Timing
    openjpeg: dict[str, Timing]
    ratios: dict[str, float]
    mpx_per_s: float
    stages: dict[str, dict[str, float]]
    gmac: dict[str, float]
    share_of_peak: float


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    dn, pixels = _stack(options.data)
    rows, peaks = [], {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        before = peak_gflops()
        found = [
            measured(dn, c, q, threads, options.repeats) for c in options.codecs for q in options.qualities
        ]
        peaks[threads] = max(before, peak_gflops())
        rows += [_with_share(row, peaks[threads]) for row in found]
    results = {"provenance": provenance(), "pixels": pixels, "repeats": options.repeats, "peak_gflops": peaks}
    write_text(options.out / "speed.json", as_json({**results, "rows": rows}))
    print(
        f"float32 matrix product: {', '.join(f'{p:.0f} GFLOP/s on {n}' for n, p in peaks.items())}; {pixels}"
    )
    for row in rows:
        print(_line(row))


def measured(dn: np.ndarray, codec: str, quality: float, threads: int, repeats: int) -> Row:
    """One row; `share_of_peak` still open."""
    ours = Learned(codec)
    target = psnr(dn, ours.decode(ours.encode(dn, quality)))
    setting = same_psnr(dn, target)
    runners = {"eozip": _run(ours, dn, quality), "one thread": _run(Jpeg2000(), dn, setting)}
    if threads > 1:
        runners["own threads"] = _run(Jpeg2000(threads=threads), dn, setting)
        runners["pool of bands"] = _run(Jpeg2000(workers=threads), dn, setting)
    _note(f"{codec} quality {quality:g}, {threads} threads: {target:.2f} dB")
    timings = interleaved(runners, dn, repeats)
    mine = timings.pop("eozip")
    return Row(
        codec,
        quality,
        threads,
        mine,
        timings,
        {name: mine.total / other.total for name, other in timings.items()},
        dn.shape[0] * dn.shape[2] * dn.shape[3] / 1e6 / mine.total,
        staged(codec, dn, quality, repeats),
        operations(codec, dn, quality),
        math.nan,
    )


def same_psnr(dn: np.ndarray, target: float) -> float:
    """The setting at which OpenJPEG comes nearest to a PSNR in dB, by bisection on real decodes."""
    codec, low, high, tries = Jpeg2000(workers=2), 20.0, 80.0, []
    for _ in range(SEARCH_STEPS):
        setting = (low + high) / 2
        got = psnr(dn, codec.decode(codec.encode(dn, setting)))
        tries.append((abs(got - target), setting))
        if abs(got - target) <= NEAR:
            break
        low, high = (setting, high) if got < target else (low, setting)
    return min(tries)[1]


def interleaved(
    runners: dict[str, Callable[[], tuple[float, float, bytes, np.ndarray]]], dn: np.ndarray, repeats: int
) -> dict[str, Timing]:
    """Timings of runners that take turns, after one untimed round."""
    rounds = [{name: run() for name, run in runners.items()} for _ in range(1 + repeats)][1:]
    return {name: _timing([one[name] for one in rounds], dn) for name in runners}


def staged(codec: str, dn: np.ndarray, quality: float, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds by stage of encoding and decoding."""
    loaded = registry.get(registry.resolve(codec))
    if not offers_stages(loaded):
        return {}
    found: dict[str, list[dict[str, float]]] = {"encode": [], "decode": []}
    with watched(loaded) as watch:
        for _ in range(repeats):
            watch.restart()
            blob = api.encode(dn, codec, quality)
            found["encode"].append(watch.stop())
            watch.restart()
            api.decode(blob)
            found["decode"].append(watch.stop())
    return {way: _medians(runs) for way, runs in found.items()}


def operations(codec: str, dn: np.ndarray, quality: float) -> dict[str, float]:
    """10^9 multiply-adds of encoding and decoding, as torch counts convolutions and matrix products."""
    counted = {}
    with FlopCounterMode(display=False) as counter:
        blob = api.encode(dn, codec, quality)
    counted["encode"] = counter.get_total_flops() / 2e9
    with FlopCounterMode(display=False) as counter:
        api.decode(blob)
    counted["decode"] = counter.get_total_flops() / 2e9
    return counted


def peak_gflops() -> float:
    """10^9 operations per second (2 per multiply-add) of the best of a few float32 matrix products."""
    a, b = torch.randn(MATRIX, MATRIX), torch.randn(MATRIX, MATRIX)
    best = math.inf
    for _ in range(TIMED_PRODUCTS):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * MATRIX**3 / best / 1e9


def _run(
    codec: Contender, dn: np.ndarray, setting: float
) -> Callable[[], tuple[float, float, bytes, np.ndarray]]:
    """A run: encode seconds, decode seconds, stream, pixels."""

    def run() -> tuple[float, float, bytes, np.ndarray]:
        started = time.perf_counter()
        blob = codec.encode(dn, setting)
        encoded = time.perf_counter()
        back = codec.decode(blob)
        return encoded - started, time.perf_counter() - encoded, blob, back

    return run


def _timing(runs: list[tuple[float, float, bytes, np.ndarray]], dn: np.ndarray) -> Timing:
    totals = [encode + decode for encode, decode, _, _ in runs]
    total = statistics.median(totals)
    return Timing(
        statistics.median(run[0] for run in runs),
        statistics.median(run[1] for run in runs),
        total,
        (max(totals) - min(totals)) / total,
        bpppb(len(runs[0][2]), dn.shape),
        psnr(dn, runs[0][3]),
    )


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    stages = dict.fromkeys(stage for run in runs for stage in run)
    return {stage: statistics.median(run.get(stage, 0.0) for run in runs) for stage in stages}


def _with_share(row: Row, peak: float) -> Row:
    done = 2 * sum(row.gmac.values()) / row.ours.total
    return Row(**{**vars(row), "share_of_peak": done / peak})


def _line(row: Row) -> str:
    ratios = ", ".join(f"{ratio:.2f} of {name}" for name, ratio in row.ratios.items())
    parts = [
        f"{row.codec} quality {row.quality:g} ({row.ours.psnr:.1f} dB), {row.threads} threads: encode "
        f"{row.ours.encode:.3f} s, decode {row.ours.decode:.3f} s, {row.mpx_per_s:.2f} MPx/s; time as a share of "
        f"OpenJPEG's: {ratios}; {row.share_of_peak:.0%} of peak"
    ]
    for way, stages in row.stages.items():
        parts.append(
            f"    {way}: " + ", ".join(f"{stage} {seconds:.3f}" for stage, seconds in stages.items())
        )
    return "\n".join(parts)


def _stack(data: Path) -> tuple[np.ndarray, str]:
    if (data / "val").is_dir():
        place = load_places(data / "val", SIZE)[0]
        return place.dn, f"{place.name} {place.dn.shape}"
    _note(f"no {data / 'val'}: measuring a simulated scene")
    return render(0, season(DATES, 0), range(SIZE), range(SIZE)), "simulated (eozip.simulate, seed 0)"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    data = Path(os.environ.get("EOZIP_DATA") or root.parent / "shared") / "data"
    shipped = [name.rpartition("-s2l2a-v")[0] for name in registry.names() if "-s2l2a-v" in name]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data, help="folder with val/")
    parser.add_argument("--codecs", nargs="+", default=list(dict.fromkeys(shipped)))
    parser.add_argument("--qualities", nargs="+", type=float, default=[40.0, 60.0, 80.0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
