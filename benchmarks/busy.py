"""Encoding, decoding, reading and training beside busy programs, against a machine that is left alone.

    python benchmarks/busy.py [--loops 0 2] [--threads default one torch] [--repeats 2] [--seconds 120] [--out results]

Loops are endless programs in Python, as many as asked for beside each measurement; by default none, and one for each
core. Each measurement is a process of its own, with torch imported and weights loaded before the clock starts, and
the best of its repeats counts. Threads are left to eozip ("default"), held to one ("one"), or spin within each chunk as
torch does by itself ("torch"). Writes busy.json, which names a machine that had other work as shared: its figures compare
ways of using threads, and are none for the record.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eozip_lab.evaluate.provenance import as_json, provenance, write_text

SHARED_ABOVE = 0.5  # load average of one minute before the first measurement
THREADS = ("default", "one", "torch")
TASKS = ("encode_chunk", "decode_chunk", "encode_series", "decode_series", "read_series", "train")
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
from eozip import threads
if how == "one":
    threads.choose(1)
if how == "torch":  # as many as there are cores, whoever else uses them, and chunks one after the other
    threads.choose(os.cpu_count())
    threads.each = lambda code, items, count, network=True: map(code, items)
import eozip, xarray
from eozip import store
from eozip.store import pixels, writer
if how == "torch":
    pixels.each = writer.each = threads.each
dn = np.load(folder / "dn.npy")
files = sorted((folder / "dates").iterdir())
blob = eozip.encode(dn[:4], quality=60, nodata=0)
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
def train():
    from eozip_lab.train import loop
    count = None if how == "default" else 1 if how == "one" else os.cpu_count()
    with tempfile.TemporaryDirectory() as out:
        loop.run(folder / "tiny.toml", out=Path(out) / "run", progress=False, threads=count)
found = {}
for task in (globals()[name] for name in tasks):
    runs = []
    for _ in range(repeats):
        started, cpu = time.perf_counter(), time.process_time()
        task()
        runs.append((time.perf_counter() - started, time.process_time() - cpu))
    found[task.__name__] = min(runs)
print(json.dumps(found))
"""
_RECIPE = """kind = "tec-elic-small"
lr = 2e-3
start_crops = 20
log_steps = 10
steps = {steps}

[network]
groups = [4, 12, 32]
fine = 8
coarse = 8
pixel = 8
blocks = 1
hyper = 8
hyper_latent = 4
context = 8
levels = 3
lmbda_max = 60.0

[[data]]
kind = "npz"
path = "train"
crop = 64
batch = 4

[validation]
size = 64
qualities = [0, 100]

[[validation.places]]
name = "place"
paths = ["val.npz"]
array = "stack"
"""


def main() -> int:
    """Measures and writes."""
    options = _options()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _prepare(folder, options.dates, options.steps)
        cases = [
            {"loops": loops, "threads": how, "seconds": _measured(folder, how, loops, options)}
            for loops in options.loops
            for how in options.threads
        ]
    results = {
        "provenance": provenance(),
        "data": f"simulated, {options.dates} dates of 256 x 256 x 12; one chunk is 4 dates",
        "machine_shared": load > SHARED_ABOVE,
        "load_before": load,
        "unit": "wall and CPU seconds, best of repeats",
        "cases": cases,
    }
    write_text(options.out / "busy.json", as_json(results))
    print("\n".join(lines(cases)))
    return 0


def lines(cases: Sequence[dict[str, Any]]) -> list[str]:
    """A table: tasks by loops and ways of using threads, wall seconds."""
    tasks = list(dict.fromkeys(task for case in cases for task in case["seconds"] or ()))
    title = f"{'loops':>5} {'threads':8}" + "".join(f"{task:>15}" for task in tasks)
    return [title, *(_line(case, tasks) for case in cases)]


def _line(case: dict[str, Any], tasks: Sequence[str]) -> str:
    seconds = case["seconds"] or {}
    values = (f"{seconds[task][0]:13.2f} s" if task in seconds else f"{'too long':>15}" for task in tasks)
    return f"{case['loops']:5} {case['threads']:8}{''.join(values)}"


def _measured(folder: Path, how: str, loops: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Wall and CPU seconds by task; None where they took too long together."""
    command = [sys.executable, "-c", _CHILD, how, str(options.repeats), str(folder), *options.tasks]
    free = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    with _busy(loops):
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=options.seconds, env=free, check=True
            )
        except subprocess.TimeoutExpired:
            return None
    return json.loads(done.stdout.splitlines()[-1])


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
    np.savez(folder / "train" / "places.npz", a=dn[:2])
    np.savez(folder / "val.npz", stack=dn[2:3, :, :64, :64])
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
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of one measurement")
    parser.add_argument("--out", type=Path, default=Path("results"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
