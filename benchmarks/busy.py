"""Encoding, decoding, reading and training beside busy programs, against a machine that is left alone.

    python benchmarks/busy.py [--loops 0 2] [--threads default one torch] [--repeats 2] [--limit 220] [--out results]

Loops are endless programs in Python, as many as asked for beside each measurement; by default none, and one for each
core. Each case is a process of its own, with torch imported and weights loaded before the clock starts, and the best of
a task's repeats counts (training runs once). Threads are left to eozip ("default"), held to one ("one"), or spin within
each chunk as torch and BLAS do by themselves, chunk after chunk ("torch").

Cases share the time limit: those of eozip come first, and a task that its case had no time left for is said to be so.
Writes busy.json, which names a machine that had other work as shared: its figures compare ways of using threads, and are
none for the record.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eozip_lab.evaluate.provenance import as_json, provenance, write_text

SHARED_ABOVE = 0.5  # load average of one minute before the first measurement
THREADS = ("default", "one", "torch")
CHUNK_TASKS = ("encode_date", "decode_date", "encode_chunk", "decode_chunk")
SERIES_TASKS = ("encode_series", "decode_series", "read_series", "read_window")
TASKS = (*CHUNK_TASKS, *SERIES_TASKS, "train")
_LOOP = """
import os, sys
x = 0
while os.getppid() == int(sys.argv[1]):  # ends with its parent, however that ends
    for _ in range(100_000):
        x = (x * 1103515245 + 12345) % 2147483648
"""
_CHILD = """
import json, os, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
how, repeats, folder, tasks = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]
from contextlib import nullcontext
from types import SimpleNamespace
from eozip import threads
if how == "one":
    threads.choose(1)
if how == "torch":  # as many as there are cores, whoever else uses them, and chunks one after the other
    threads.choose(os.cpu_count())
    threads.each = lambda code, items, count, network=True: map(code, items)
    threads.one_blas_thread._libraries = SimpleNamespace(limit=lambda **_: nullcontext())
import eozip, xarray
from eozip import store
from eozip.store import pixels, writer
if how == "torch":
    pixels.each = writer.each = threads.each
dn = np.load(folder / "dn.npy")
files = sorted((folder / "dates").iterdir())
one, blob = (eozip.encode(part, quality=60, nodata=0) for part in (dn[:1], dn[:4]))
def encode_date():
    eozip.encode(dn[:1], quality=60, nodata=0)
def decode_date():
    eozip.decode(one)
def encode_chunk():
    eozip.encode(dn[:4], quality=60, nodata=0)
def decode_chunk():
    eozip.decode(blob)
def encode_series():
    eozip.encode_store(files, folder / f"{how}.zarr", overwrite=True, quality=60)
def decode_series():
    eozip.decode_store(folder / f"{how}.zarr", folder / f"{how}-back", overwrite=True)
def read_series():
    xarray.open_zarr(folder / f"{how}.zarr", chunks=None).reflectance.values
def read_window():
    xarray.open_zarr(folder / f"{how}.zarr", chunks=None).reflectance[:1, :3, :16, :16].values
def train():
    from eozip_lab.train import run
    count = None if how == "default" else 1 if how == "one" else os.cpu_count()
    with tempfile.TemporaryDirectory() as out:
        run(folder / "tiny.toml", out=Path(out) / "run", progress=False, threads=count)
for name in tasks:
    runs = []
    for _ in range(1 if name == "train" else repeats):
        started, cpu = time.perf_counter(), time.process_time()
        globals()[name]()
        runs.append((time.perf_counter() - started, time.process_time() - cpu))
    print(json.dumps({name: min(runs)}), flush=True)
"""
_RECIPE = """kind = "tec-elic-small-any"
name = "tec-elic-small-any-v9"
data = "train"
width = 32
steps = {steps}
log_steps = 10
fit_crops = 3
bfloat16 = false

[[crops]]
groups = 1
side = 96
batch = 4
share = 1.0
"""


def main() -> int:
    """Measures and writes."""
    options = _options()
    load, until = os.getloadavg()[0], time.monotonic() + options.limit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, options.dates, options.steps)
        cases: list[dict[str, Any]] = []
        for how, loops in _ordered(options.threads, options.loops):
            print(f"{loops} loops, {how}", file=sys.stderr)
            cases.append(_measured(folder, how, loops, options, until))
    results = {
        "provenance": provenance(),
        "data": f"simulated, {options.dates} dates of 256 x 256 x 12; one chunk is 4 dates; a window is 16 x 16 of 3 bands",
        "machine_shared": load > SHARED_ABOVE,
        "load_before": load,
        "unit": "wall and CPU seconds, best of repeats (of training: one run)",
        "cases": cases,
    }
    write_text(options.out / "busy.json", as_json(results))
    print("\n".join(lines(cases)))
    return 0


def lines(cases: Sequence[dict[str, Any]]) -> list[str]:
    """A table: a row for each task, a column for each case, wall seconds."""
    tasks = list(dict.fromkeys(task for case in cases for task in case["seconds"]))
    names = [f"{case['threads']}, {case['loops']} loops" for case in cases]
    title = f"{'':14}" + "".join(f"{name:>18}" for name in names)
    return [title, *(f"{task:14}" + "".join(f"{_cell(case, task):>18}" for case in cases) for task in tasks)]


def _cell(case: dict[str, Any], task: str) -> str:
    if task in case["seconds"]:
        return f"{case['seconds'][task][0]:.2f} s"
    return f"not in {case['limit']:.0f} s"


def _ordered(threads: Sequence[str], loops: Sequence[int]) -> list[tuple[str, int]]:
    """Cases in the order in which they may spend the time: torch's own threads, which may never end, come last."""
    pairs = [(how, count) for how in threads for count in loops]
    return sorted(pairs, key=lambda pair: pair[0] == "torch")


def _measured(
    folder: Path, how: str, loops: int, options: argparse.Namespace, until: float
) -> dict[str, Any]:
    """Wall and CPU seconds of each task that ended in the time that is left."""
    command = [sys.executable, "-c", _CHILD, how, str(options.repeats), str(folder), *options.tasks]
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    limit = min(options.seconds, max(1.0, until - time.monotonic()))
    with _busy(loops):
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, timeout=limit, env=free, check=True)
            said = done.stdout
        except subprocess.TimeoutExpired as error:
            said = error.stdout or b""
    found = [
        json.loads(line) for line in said.decode().splitlines() if line.startswith("{") and line.endswith("}")
    ]
    seconds = {task: values for one in found for task, values in one.items()}
    return {"loops": loops, "threads": how, "limit": limit, "seconds": seconds}


@contextmanager
def _busy(loops: int) -> Iterator[None]:
    """So many programs that never rest, while the block runs."""
    command = [sys.executable, "-c", _LOOP, str(os.getpid())]
    running = [subprocess.Popen(command) for _ in range(loops)]
    try:
        yield
    finally:
        for program in running:
            program.kill()
            program.wait()


def _prepare(folder: Path, dates: int, steps: int) -> None:
    """A simulated season as files and as an array, and a recipe of seconds."""
    import numpy as np

    from eozip.raster import open_scene, read_window
    from eozip_lab.simulate import simulate

    simulate(folder / "dates", dates, 256, 0)
    every = slice(None)
    dn = read_window(open_scene(folder / "dates"), every, every, every)
    np.save(folder / "dn.npy", dn)
    (folder / "train").mkdir()
    np.savez(folder / "train" / "places.npz", places=dn[:, [1, 2, 3, 7]])  # of one grid
    (folder / "tiny.toml").write_text(_RECIPE.format(steps=steps))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Speed beside busy programs.")
    parser.add_argument("--loops", type=int, nargs="+", default=[0, os.cpu_count() or 1])
    parser.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=TASKS, help="a series is encoded before it is read"
    )
    parser.add_argument("--threads", nargs="+", choices=THREADS, default=THREADS)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--dates", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10, help="of training")
    parser.add_argument("--seconds", type=float, default=60.0, help="limit of one case")
    parser.add_argument("--limit", type=float, default=220.0, help="seconds for all cases together")
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
