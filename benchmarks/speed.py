"""CPU seconds of the shipped codecs against OpenJPEG, x265 and SVT-AV1 at the same PSNR, in the same run, as ratios.

    python benchmarks/speed.py [--sizes 256] [--psnr 40] [--repeats 3] [--data ../shared/data] [--out results]

One stack of 4 x 12 bands from memory to bytes and back as one chunk, on one thread; larger sizes are mirrored.
Every contender is set to the PSNR first; then they take turns, and medians count. CPU seconds are those of all threads of
the process: other work on the machine changes them little, wall seconds (beside them) much. At the first size: what parts of
a chunk cost to decode, what the default codec takes without its kernel in C, and a fresh process' first chunk, imports and
all. Writes speed.json; ratios below 1 mean that eozip is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import eozip
from eozip import threads
from eozip.codecs.pyramid.native import library
from eozip_lab.evaluate.baselines import Contender, Learned
from eozip_lab.evaluate.baselines.klt import klt_av1
from eozip_lab.evaluate.baselines.openjpeg import Jpeg2000
from eozip_lab.evaluate.baselines.videos import hevc
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.evaluate.methods import learned
from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.rate import bpppb
from eozip_lab.simulate import render, season
from eozip_lab.train.recipe import data_root

SIZE, DATES = 256, 4
IMAGE = "tec-elic-small"
NEAR = 0.05  # dB within which two PSNRs count as the same, where a contender's settings are that fine
SEARCH_STEPS = 10
BUSY_ABOVE = 0.5  # load average of one minute before the first measurement
PARTS: dict[str, dict[str, Any]] = {
    "all": {},
    "reduce=8": {"reduce": 8},
    "three bands of 10 m": {"bands": [1, 2, 3]},
    "bands of 20 m": {"bands": [4, 5, 6, 8, 10, 11]},
    "bands of 60 m": {"bands": [0, 9]},
}
_FIRST = "import time, eozip; eozip.decode(open({blob!r}, 'rb').read()); print(time.process_time())"
_NUMPY = """
import json, sys
from dataclasses import asdict
import numpy as np
sys.path.insert(0, {here!r})
from eozip.codecs.pyramid import haar, narrowing, ports, references, registration, spectral, stages
for module in (haar, narrowing, ports, references, registration, spectral, stages):
    module.library = lambda: None
import speed
one, dn = speed.Learned({codec!r}), np.load({stack!r})
print(json.dumps(asdict(speed.interleaved({{"": (one, {setting})}}, dn, {repeats})[""])))
"""


@dataclass(frozen=True)
class Timing:
    """Medians of one contender.

    Attributes:
        setting: quality, target dB, CRF.
        encode, decode: CPU seconds of all threads; `total`: of both.
        encode_wall, decode_wall: seconds by the clock.
        spread: (most - least) / median of the sums of CPU seconds.
        bytes, bpppb, psnr: of what it wrote.
    """

    setting: float
    encode: float
    decode: float
    total: float
    encode_wall: float
    decode_wall: float
    spread: float
    bytes: int
    bpppb: float
    psnr: float


@dataclass(frozen=True)
class Turn:
    """All contenders at one PSNR and chunk size, taking turns.

    Attributes:
        ours, others: name > timing.
        ratios: codec > baseline > "encode", "decode", "total" > CPU seconds of eozip / of the baseline.
    """

    psnr: float
    size: int
    ours: dict[str, Timing]
    others: dict[str, Timing]
    ratios: dict[str, dict[str, dict[str, float]]]


def main() -> None:
    """Measures, prints, writes."""
    options, load = _options(), os.getloadavg()[0]
    threads.choose(1)
    dn, pixels = _stack(options.data)
    turns = []
    for size in options.sizes:
        turns.append(taken(mirrored(dn, size), options.codecs, options.psnr, options.repeats))
        print(_turn_text(turns[-1]), flush=True)
    results = {"provenance": provenance(), "pixels": pixels, "repeats": options.repeats, "load_before": load}
    results |= {"machine_busy": load > BUSY_ABOVE, "kernel": library() is not None, "turns": turns}
    image = turns[0].ours.get(IMAGE)
    if image is not None:
        results |= beside(mirrored(dn, options.sizes[0]), image, options.repeats)
    write_text(options.out / "speed.json", as_json(results))
    if load > BUSY_ABOVE:
        _note(f"load average {load:.1f} before the start: no wall seconds for the record")


def taken(dn: np.ndarray, codecs: Sequence[str], target: float, repeats: int) -> Turn:
    """Finds every contender's setting and lets them take turns."""
    names: dict[str, tuple[Contender, float, float]] = {
        "OpenJPEG": (Jpeg2000(), 20.0, 80.0),
        "x265": (hevc(workers=1), 51.0, 0.0),
        "klt-t+av1": (klt_av1("time"), 62.0, 0.0),
    }
    others = {name: (one, same_psnr(one, dn, target, *ends)) for name, (one, *ends) in names.items()}
    ours = {name: (one := Learned(name), same_psnr(one, dn, target, 0.0, 100.0)) for name in codecs}
    _note(f"{dn.shape} at {target:g} dB: settings found")
    timings = interleaved({**ours, **others}, dn, repeats)
    mine, theirs = ({name: timings[name] for name in part} for part in (ours, others))
    ratios = {name: {other: _ratios(t, o) for other, o in theirs.items()} for name, t in mine.items()}
    return Turn(target, dn.shape[-1], mine, theirs, ratios)


def same_psnr(one: Contender, dn: np.ndarray, target: float, coarse: float, fine: float) -> float:
    """The setting at which a contender comes nearest to a PSNR in dB, by bisection on real decodes."""
    tries = []
    for _ in range(SEARCH_STEPS):
        setting = round((coarse + fine) / 2, 2)
        got = eozip.psnr(dn, one.decode(one.encode(dn, setting)))
        tries.append((abs(got - target), setting))
        if abs(got - target) <= NEAR:
            break
        coarse, fine = (setting, fine) if got < target else (coarse, setting)
    return min(tries)[1]


def interleaved(
    contenders: dict[str, tuple[Contender, float]], dn: np.ndarray, repeats: int
) -> dict[str, Timing]:
    """Timings of contenders that take turns, after one that is not counted."""
    rounds = [
        {name: _run(one, dn, setting) for name, (one, setting) in contenders.items()}
        for _ in range(repeats + 1)
    ][1:]
    return {
        name: _timing(setting, [one[name] for one in rounds], dn) for name, (_, setting) in contenders.items()
    }


def beside(dn: np.ndarray, image: Timing, repeats: int) -> dict[str, Any]:
    """What the default codec for images takes for parts, without its kernel, and in a fresh process."""
    with TemporaryDirectory() as folder:
        blob, stack = Path(folder) / "chunk", Path(folder) / "stack.npy"
        blob.write_bytes(eozip.encode(dn[0], IMAGE, image.setting))
        first = float(_fresh(_FIRST.format(blob=str(blob))))
        np.save(stack, dn)
        asked = {"here": str(Path(__file__).parent), "stack": str(stack), "codec": IMAGE}
        plain = json.loads(_fresh(_NUMPY.format(**asked, setting=image.setting, repeats=repeats)))
    return {
        "shares_of_decode": shares(eozip.encode(dn, IMAGE, image.setting), repeats),
        "without_kernel": plain,
        "without_kernel_over_with": plain["total"] / image.total,
        "first_date_in_a_fresh_process": first,
    }


def shares(blob: bytes, repeats: int) -> dict[str, float]:
    """CPU time of decoding a part over that of all, medians of turns beside each other."""
    turns: dict[str, list[float]] = {name: [] for name in PARTS}
    for _ in range(max(3, repeats)):
        for name, wanted in PARTS.items():
            started = time.process_time()
            eozip.decode(blob, **wanted)
            turns[name].append(time.process_time() - started)
    whole = statistics.median(turns["all"])
    return {name: statistics.median(own) / whole for name, own in turns.items()}


def mirrored(dn: np.ndarray, size: int) -> np.ndarray:
    """[..., size, size]: cut, or mirrored at its right and lower edges."""
    more = max(0, size - dn.shape[-1])
    padded = np.pad(dn, ((0, 0), (0, 0), (0, more), (0, more)), mode="symmetric")
    return np.ascontiguousarray(padded[..., :size, :size])


def _ratios(mine: Timing, other: Timing) -> dict[str, float]:
    return {way: getattr(mine, way) / getattr(other, way) for way in ("encode", "decode", "total")}


def _run(one: Contender, dn: np.ndarray, setting: float) -> tuple[np.ndarray, bytes, np.ndarray]:
    """[encode, decode] x [CPU, wall] seconds, stream, pixels."""
    clocks = [_clocks()]
    blob = one.encode(dn, setting)
    clocks.append(_clocks())
    back = one.decode(blob)
    clocks.append(_clocks())
    return np.diff(clocks, axis=0), blob, back


def _clocks() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _timing(setting: float, runs: list[tuple[np.ndarray, bytes, np.ndarray]], dn: np.ndarray) -> Timing:
    seconds = np.array([run[0] for run in runs])
    (encode, encode_wall), (decode, decode_wall) = np.median(seconds, axis=0).tolist()
    totals = seconds[..., 0].sum(1)
    total, (_, blob, back) = float(np.median(totals)), runs[0]
    spread = float(np.ptp(totals)) / total
    rate = bpppb(len(blob), dn.shape)
    facts = (spread, len(blob), rate, eozip.psnr(dn, back))
    return Timing(setting, encode, decode, total, encode_wall, decode_wall, *facts)


def _turn_text(turn: Turn) -> str:
    rows = [f"{turn.psnr:g} dB, {turn.size} x {turn.size}, CPU seconds:"]
    for name, one in {**turn.ours, **turn.others}.items():
        told = ", ".join(f"{r['total']:.2f} of {other}" for other, r in turn.ratios.get(name, {}).items())
        rows.append(
            f"  {name:16} {one.psnr:6.2f} dB {one.bpppb:.4f} bpppb  encode {one.encode:7.3f} s  decode {one.decode:7.3f} s"
            f"  {told}"
        )
    return "\n".join(rows)


def _fresh(code: str) -> str:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"a process of its own failed:\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1]


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
    parser.add_argument("--sizes", nargs="+", type=int, default=[256], help="sides of a chunk, pixels")
    parser.add_argument("--psnr", type=float, default=40.0, help="dB that all are set to")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
