"""A .SAFE product of a whole tile, and the same pixels as one GeoTIFF for each band: CPU time and memory of encoding both.

    python benchmarks/tile.py [--side 10980] [--place vietnam_l1c] [--data ../shared/data] [--out results]

Pixels are those of DATA/other/native_PLACE.npz, mirrored until they fill the tile: noise and edges are an instrument's. The
product is made in the true layout (tests/products.py): JPEG 2000 in tiles of 1024 pixels, SCL, AOT, WVP, cloud and snow
probability beside. Every encoding is a process of its own; CPU seconds are of all its threads, from the command on, memory
is its peak. Writes tile.json and tile.md; exit code 1 where SAFE takes over 1.3 of the time, or 2 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from eozip_lab.evaluate.provenance import as_json, provenance, write_text
from eozip_lab.evaluate.tables import markdown
from eozip_lab.train.recipe import data_root

TESTS = Path(__file__).parents[1] / "tests"
TIMES, GIB = 1.3, 2.0
STEP = 6  # pixels; sides that all grids share
_CHILD = (
    "import json, resource, sys, time\n"
    "from eozip.cli import cli\n"
    "started, cpu = time.perf_counter(), time.process_time()\n"
    "cli(sys.argv[1:], standalone_mode=False)\n"
    "facts = {'cpu_s': time.process_time() - cpu, 'wall_s': time.perf_counter() - started}\n"
    "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    "facts['peak_gib'] = peak * (1 if sys.platform == 'darwin' else 1024) / 2**30\n"
    "print(json.dumps(facts))\n"
)
_MAKE = (
    "import json, sys\n"
    "from pathlib import Path\n"
    "import numpy as np\n"
    "import products\n"
    "folder = Path(sys.argv[1])\n"
    "grids = {int(m): dict(np.load(folder / f'r{m}.npz')) for m in sys.argv[2:]}\n"
    "print(products.Safe(grids).write(folder / 'safe'))\n"
    "products.write_bands(folder / 'bands', grids, 'T32TQM_20220126T101311_{band}_{metres}m.tif')\n"
)


def main() -> int:
    """Makes, encodes twice, prints, writes."""
    options = _options()
    path = options.data / "other" / f"native_{options.place}.npz"
    if not path.exists():
        print(f"no {path}: set EOZIP_DATA, or --data; nothing measured", file=sys.stderr)
        return 0
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        folder = Path(name)
        safe = _made(folder, path, options.side)
        found = {
            "SAFE": _encoded(safe, folder / "safe.zarr"),
            "GeoTIFFs": _encoded(folder / "bands", folder / "bands.zarr", "--offset", "1000"),
        }
    ratio = found["SAFE"]["cpu_s"] / found["GeoTIFFs"]["cpu_s"]
    report = {
        "made": provenance(),
        "side": options.side,
        "place": options.place,
        "load": load,
        "ratio": ratio,
    }
    write_text(options.out / "tile.json", as_json(report | {"runs": found}))
    rows = [
        [name, str(options.side), f"{run['cpu_s']:.0f}", f"{run['wall_s']:.0f}", f"{run['peak_gib']:.2f}"]
        for name, run in found.items()
    ]
    table = markdown(["given as", "side, pixels", "CPU s", "wall s", "peak GiB"], rows)
    text = f"{table}\nSAFE takes {ratio:.2f} of the CPU time; load of the machine before: {load:.1f}.\n"
    write_text(options.out / "tile.md", text)
    print(text)
    return int(ratio > TIMES or found["SAFE"]["peak_gib"] > GIB)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--side", type=int, default=10980)
    parser.add_argument("--place", default="vietnam_l1c")
    parser.add_argument("--data", type=Path, default=data_root() / "data")
    parser.add_argument("--scratch", type=Path, help="folder for 3 GB (of a whole tile)")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args()
    if options.side < STEP or options.side % STEP:
        parser.error(f"--side: expected a multiple of {STEP}, got {options.side}")
    return options


def _made(folder: Path, path: Path, side: int) -> str:
    """Both forms of the product, made in a process of its own; the path of the .SAFE."""
    metres = []
    with np.load(path) as held:
        for m in (10, 20, 60):
            names = [str(name) for name in held[f"bands{m}"]] if f"r{m}" in held else []
            bands = {
                name: _mirrored(band, side * 10 // m)
                for name, band in zip(names, held[f"r{m}"][0] if names else [], strict=True)
                if name != "B10"
            }
            if bands:
                np.savez(folder / f"r{m}.npz", **bands)
                metres.append(str(m))
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", _MAKE, str(folder), *metres]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | {"PYTHONPATH": paths}
    )
    return done.stdout.strip()


def _mirrored(band: np.ndarray, side: int) -> np.ndarray:
    return np.pad(band, [(0, max(0, side - length)) for length in band.shape], mode="symmetric")[:side, :side]


def _encoded(source: str | Path, store: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, "encode", str(source), str(store), *more]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
