"""Encode and decode seconds of the shipped codecs against OpenJPEG and x265 at the same PSNR, in the same run, as ratios.

    python benchmarks/speed.py [--sizes 256 512] [--psnr 40] [--threads 1 2] [--repeats 3] [--out results]

One stack of 4 x 12 bands from memory to bytes and back as one chunk, models loaded; 512 is the 256 x 256 stack mirrored.
Every contender is set to the PSNR first. OpenJPEG codes each band alone: on 1 thread, and with bands spread over a pool
of threads, its best; x265 (preset slow) each band as a video of its dates, spread alike. Contenders take turns; medians
count. Writes speed.json: ratios below 1 mean that eozip is faster. Beside them, at the first size and PSNR:
multiply-adds per pixel as torch counts them, and their share of what a float32 matrix product reaches on this machine.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from eozip.chunk import api
from eozip.chunk.pixels import psnr
from eozip_lab.evaluate.baselines import Contender, Learned
from eozip_lab.evaluate.baselines.openjpeg import Jpeg2000
from eozip_lab.evaluate.baselines.videos import hevc
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.methods import learned
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import bpppb
from eozip_lab.simulate import render, season
from eozip_lab.train.recipe import data_root

SIZE, DATES = 256, 4
NEAR = 0.05  # dB within which two PSNRs count as the same, where a contender's settings are that fine
SEARCH_STEPS = 10
MATRIX = 2048
TIMED_PRODUCTS = 5
BUSY_ABOVE = 0.5  # load average of one minute before the first measurement


@dataclass(frozen=True)
class Timing:
    """Median seconds of one contender.

    Attributes:
        setting: quality, target dB, CRF.
        encode, decode: medians over the repeats; `total`: median of their sums; `spread`: (max - min) / median of the sums.
        bpppb, psnr: of what it wrote.
    """

    setting: float
    encode: float
    decode: float
    total: float
    spread: float
    bpppb: float
    psnr: float


@dataclass(frozen=True)
class Turn:
    """All contenders at one PSNR, chunk size and number of threads, taking turns.

    Attributes:
        ours, others: name > timing.
        ratios: codec > baseline > total seconds of eozip / of the baseline.
        mpx_per_s: codec > pixels of all bands at once, per second of encoding and decoding.
    """

    psnr: float
    size: int
    threads: int
    ours: dict[str, Timing]
    others: dict[str, Timing]
    ratios: dict[str, dict[str, float]]
    mpx_per_s: dict[str, float]


@dataclass(frozen=True)
class Cost:
    """Where the time of one codec goes.

    Attributes:
        kmac_per_pixel: "encode", "decode" > 10^3 multiply-adds in convolutions and matrix products, for all bands of a
            pixel.
        share_of_peak: of the float32 matrix product on as many threads: operations of both directions / total seconds.
    """

    codec: str
    size: int
    threads: int
    kmac_per_pixel: dict[str, float]
    share_of_peak: float


def main() -> None:
    """Measures, prints, writes."""
    options, load = _options(), os.getloadavg()[0]
    dn, pixels = _stack(options.data)
    turns: list[Turn] = []
    costs: list[Cost] = []
    peaks: dict[int, float] = {}
    for threads in options.threads:
        torch.set_num_threads(threads)
        peaks[threads] = peak_gflops()
        for size, target in product(options.sizes, options.psnr):
            turns.append(taken(mirrored(dn, size), options.codecs, target, threads, options.repeats))
            print(_turn_text(turns[-1]), flush=True)
        first = next(turn for turn in turns if turn.threads == threads)
        stack = mirrored(dn, first.size)
        for codec in options.codecs:
            costs.append(cost(stack, codec, first.ours[codec], threads, peaks[threads]))
            print(_cost_text(costs[-1]), flush=True)
    results = {"provenance": provenance(), "pixels": pixels, "repeats": options.repeats, "load_before": load}
    results |= {"machine_busy": load > BUSY_ABOVE, "peak_gflops": peaks, "turns": turns, "costs": costs}
    write_text(options.out / "speed.json", as_json(results))
    if load > BUSY_ABOVE:
        _note(f"load average {load:.1f} before the start: no figures for the record")


def taken(dn: np.ndarray, codecs: Sequence[str], target: float, threads: int, repeats: int) -> Turn:
    """Finds every contender's setting and lets them take turns."""
    names = {"OpenJPEG, one thread": Jpeg2000(), "x265": hevc(workers=threads)}
    if threads > 1:
        names["OpenJPEG, pool of bands"] = Jpeg2000(workers=threads)
    others: dict[str, tuple[Contender, float]] = {
        name: (one, same_psnr(one, dn, target, *((51.0, 0.0) if name == "x265" else (20.0, 80.0))))
        for name, one in names.items()
    }
    ours = {name: (one := Learned(name), same_psnr(one, dn, target, 0.0, 100.0)) for name in codecs}
    _note(f"{dn.shape} at {target:g} dB on {threads} threads: settings found")
    timings = interleaved({**ours, **others}, dn, repeats)
    mine, theirs = ({name: timings[name] for name in part} for part in (ours, others))
    return Turn(
        target,
        dn.shape[-1],
        threads,
        mine,
        theirs,
        {name: {other: t.total / o.total for other, o in theirs.items()} for name, t in mine.items()},
        {name: _megapixels(dn) / t.total for name, t in mine.items()},
    )


def same_psnr(one: Contender, dn: np.ndarray, target: float, coarse: float, fine: float) -> float:
    """The setting at which a contender comes nearest to a PSNR in dB, by bisection on real decodes."""
    tries = []
    for _ in range(SEARCH_STEPS):
        setting = round((coarse + fine) / 2, 2)
        got = psnr(dn, one.decode(one.encode(dn, setting)))
        tries.append((abs(got - target), setting))
        if abs(got - target) <= NEAR:
            break
        coarse, fine = (setting, fine) if got < target else (coarse, setting)
    return min(tries)[1]


def interleaved(
    contenders: dict[str, tuple[Contender, float]], dn: np.ndarray, repeats: int
) -> dict[str, Timing]:
    """Timings of contenders that take turns; finding their settings has warmed them up."""
    rounds = [
        {name: _run(one, dn, setting) for name, (one, setting) in contenders.items()} for _ in range(repeats)
    ]
    return {
        name: _timing(setting, [one[name] for one in rounds], dn) for name, (_, setting) in contenders.items()
    }


def cost(dn: np.ndarray, codec: str, timing: Timing, threads: int, peak: float) -> Cost:
    """Operations of one codec at the setting it was timed at; `peak` in GFLOP/s."""
    quality = timing.setting
    macs = operations(codec, dn, quality)
    share = 2 * sum(macs.values()) / 1e9 / timing.total / max(peak, peak_gflops())
    per_pixel = {way: count / _megapixels(dn) / 1e9 for way, count in macs.items()}
    return Cost(codec, dn.shape[-1], threads, per_pixel, share)


def operations(codec: str, dn: np.ndarray, quality: float) -> dict[str, int]:
    """Multiply-adds of encoding and decoding, as torch counts convolutions and matrix products."""
    counted = {}
    with FlopCounterMode(display=False) as counter:
        blob = api.encode(dn, codec, quality)
    counted["encode"] = counter.get_total_flops() // 2
    with FlopCounterMode(display=False) as counter:
        api.decode_array(blob)
    counted["decode"] = counter.get_total_flops() // 2
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


def mirrored(dn: np.ndarray, size: int) -> np.ndarray:
    """[..., size, size]: cut, or mirrored at its right and lower edges."""
    more = max(0, size - dn.shape[-1])
    padded = np.pad(dn, ((0, 0), (0, 0), (0, more), (0, more)), mode="symmetric")
    return np.ascontiguousarray(padded[..., :size, :size])


def _run(one: Contender, dn: np.ndarray, setting: float) -> tuple[float, float, bytes, np.ndarray]:
    """Encode seconds, decode seconds, stream, pixels."""
    started = time.perf_counter()
    blob = one.encode(dn, setting)
    encoded = time.perf_counter()
    back = one.decode(blob)
    return encoded - started, time.perf_counter() - encoded, blob, back


def _timing(setting: float, runs: list[tuple[float, float, bytes, np.ndarray]], dn: np.ndarray) -> Timing:
    totals = [encode + decode for encode, decode, _, _ in runs]
    total = statistics.median(totals)
    return Timing(
        setting,
        statistics.median(run[0] for run in runs),
        statistics.median(run[1] for run in runs),
        total,
        (max(totals) - min(totals)) / total,
        bpppb(len(runs[0][2]), dn.shape),
        psnr(dn, runs[0][3]),
    )


def _megapixels(dn: np.ndarray) -> float:
    """Of all dates; the bands of a pixel are one."""
    return dn.shape[0] * dn.shape[2] * dn.shape[3] / 1e6


def _turn_text(turn: Turn) -> str:
    rows = [f"{turn.psnr:g} dB, {turn.size} x {turn.size}, {turn.threads} threads:"]
    for name, one in {**turn.ours, **turn.others}.items():
        ratios = turn.ratios.get(name, {})
        shares = ", ".join(f"{ratio:.2f} of {other}" for other, ratio in ratios.items())
        rows.append(
            f"  {name:24} {one.psnr:6.2f} dB {one.bpppb:.4f} bpppb  encode {one.encode:7.3f} s  decode {one.decode:7.3f} s"
            f"  {shares}"
        )
    return "\n".join(rows)


def _cost_text(found: Cost) -> str:
    macs = ", ".join(f"{way} {count:.1f}" for way, count in found.kmac_per_pixel.items())
    return (
        f"{found.codec}, {found.size} x {found.size}, {found.threads} threads: kMAC per pixel: {macs}; "
        f"{found.share_of_peak:.0%} of the matrix product's peak"
    )


def _stack(data: Path) -> tuple[np.ndarray, str]:
    if (data / "val").is_dir():
        place = load_places(data / "val", SIZE)[0]
        return place.dn, f"{place.name} {place.dn.shape}"
    _note(f"no {data / 'val'}: measuring a simulated scene")
    return render(0, season(DATES, 0), range(SIZE), range(SIZE)), "simulated (eozip_lab.simulate, seed 0)"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--codecs", nargs="+", default=learned())
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 512], help="sides of a chunk, pixels")
    parser.add_argument("--psnr", nargs="+", type=float, default=[40.0], help="dB that all are set to")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
