"""CPU seconds of the pyramid codec against another generation's codec and OpenJPEG, at the same PSNR, in the same run.

    python benchmarks/pyramid.py [--data ../shared/data] [--other /path/of/an/older/work/tree] [--out results]

One stack of 4 x 12 bands of 256 x 256 pixels, from memory to bytes and back, on one thread. CPU seconds (process_time,
the least of a few turns) say what wall time cannot on a busy machine. The other generation runs in its own process
with its work tree's src on PYTHONPATH; a fresh process says what the first chunk costs, imports and all. Writes
pyramid.json; ratios below 1 mean that the pyramid codec is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import eozip

PYRAMID, OTHER = "tec-elic-small-any-v1", "tec-elic-small"  # the newest of an older generation
SEARCH_STEPS, NEAR = 10, 0.05
_OTHERS = """
import sys, numpy as np
sys.path.insert(0, {here!r})
import pyramid, eozip, json, torch
torch.set_num_threads(1)
dn = np.load({stack!r})
print(json.dumps(pyramid.asdict(pyramid.timed(dn, *pyramid.codec({codec!r}), {psnr}, {repeats}))))
"""
_FIRST = "import time, eozip; eozip.decode(open({blob!r}, 'rb').read()); print(time.process_time())"


@dataclass(frozen=True)
class Timing:
    """The least CPU seconds of one contender.

    Attributes:
        setting: quality or target dB.
        encode, decode: seconds.
        bytes, psnr: of what it wrote.
    """

    setting: float
    encode: float
    decode: float
    bytes: int
    psnr: float


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    dn = _stack(options.data)
    found = {"pyramid": timed(dn, *codec(PYRAMID), options.psnr, options.repeats)}
    found["openjpeg"] = timed(dn, *_openjpeg(), options.psnr, options.repeats)
    with TemporaryDirectory() as folder:
        blob, stack = Path(folder) / "chunk", Path(folder) / "stack.npy"
        blob.write_bytes(eozip.encode(dn[0], PYRAMID, found["pyramid"].setting))
        first = float(_fresh(_FIRST.format(blob=str(blob)), None))
        if options.other is not None:
            np.save(stack, dn)
            here = str(Path(__file__).parent)
            asked = {"here": here, "stack": str(stack), "codec": OTHER, "psnr": options.psnr}
            said = _fresh(_OTHERS.format(**asked, repeats=options.repeats), options.other / "src")
            found["other"] = Timing(**json.loads(said.splitlines()[-1]))
    mine = found["pyramid"]
    ratios = {
        name: {"encode": mine.encode / one.encode, "decode": mine.decode / one.decode}
        for name, one in found.items()
        if one is not mine
    }
    results: dict[str, Any] = {"shape": dn.shape, "psnr": options.psnr, "load": os.getloadavg()[0]}
    results |= {"cpu_seconds": {name: asdict(one) for name, one in found.items()}, "ratios": ratios}
    results["ratios"]["openjpeg"]["encode and decode"] = _both(mine) / _both(found["openjpeg"])
    results["shares_of_decode"] = _shares(eozip.encode(dn, PYRAMID, mine.setting), options.repeats)
    results["first_date_in_a_fresh_process"] = first
    text = json.dumps(results, indent=1)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "pyramid.json").write_text(text + "\n", encoding="utf-8")


def _both(one: Timing) -> float:
    return one.encode + one.decode


def _shares(blob: bytes, repeats: int) -> dict[str, float]:
    """CPU time of decoding a part over that of all, medians of turns beside each other."""
    parts: dict[str, dict[str, Any]] = {
        "all": {},
        "reduce=8": {"reduce": 8},
        "three bands of 10 m": {"bands": [1, 2, 3]},
        "bands of 20 m": {"bands": [4, 5, 6, 8, 10, 11]},
        "bands of 60 m": {"bands": [0, 9]},
    }
    turns: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(max(3, repeats)):
        for name, wanted in parts.items():
            started = time.process_time()
            eozip.decode(blob, **wanted)
            turns[name].append(time.process_time() - started)
    whole = float(np.median(turns["all"]))
    return {name: float(np.median(own)) / whole for name, own in turns.items()}


def codec(
    name: str,
) -> tuple[Callable[[np.ndarray, float], bytes], Callable[[bytes], np.ndarray], float, float]:
    """Encoder, decoder, coarsest and finest setting of one of our codecs."""
    return lambda dn, quality: eozip.encode(dn, name, quality), eozip.decode, 0.0, 100.0


def timed(
    dn: np.ndarray,
    encode: Callable[[np.ndarray, float], Any],
    decode: Callable[[Any], np.ndarray],
    coarse: float,
    fine: float,
    target: float,
    repeats: int,
) -> Timing:
    """Finds the setting that comes nearest to a PSNR by bisection, and takes turns."""
    tries = []
    for _ in range(SEARCH_STEPS):
        setting = round((coarse + fine) / 2, 2)
        got = eozip.psnr(dn, decode(encode(dn, setting)))
        tries.append((abs(got - target), setting, got))
        if abs(got - target) <= NEAR:
            break
        coarse, fine = (setting, fine) if got < target else (coarse, setting)
    _, setting, got = min(tries)
    turns = []
    for _ in range(repeats):
        started = time.process_time()
        blob = encode(dn, setting)
        between = time.process_time()
        decode(blob)
        turns.append((between - started, time.process_time() - between))
    size = len(blob) if isinstance(blob, bytes) else sum(map(len, blob))
    return Timing(setting, min(t[0] for t in turns), min(t[1] for t in turns), size, got)


def _openjpeg() -> tuple[Callable[[np.ndarray, float], Any], Callable[[Any], np.ndarray], float, float]:
    from eozip_lab.evaluate.baselines.openjpeg import Jpeg2000

    one = Jpeg2000()
    return one.encode, one.decode, 20.0, 80.0


def _fresh(code: str, source: Path | None) -> str:
    more = {} if source is None else {"PYTHONPATH": str(source)}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | more
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"a process of its own failed:\n{done.stderr}")
    return done.stdout.strip()


def _stack(data: Path) -> np.ndarray:
    from eozip_lab.evaluate.inputs import load_places

    return load_places(data / "val", 256)[0].dn


def _options() -> argparse.Namespace:
    from eozip_lab.train.recipe import data_root  # not where another generation imports this file

    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--other", type=Path, help="a work tree of another generation")
    parser.add_argument("--psnr", type=float, default=40.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
