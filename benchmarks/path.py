"""What surrounds the codec: a GeoTIFF to a store and back, and a scan of the store, over what its chunks take in it.

    python benchmarks/path.py [--size 2048] [--threads 2] [--quality 60] [--repeats 3] [--data ...] [--out results]

One date of 12 bands, a place of data/val mirrored to the size, from GeoTIFF to a store of default chunks. The codec's own
time is that of the same chunks from memory to bytes and back, as many at once as there are threads. Each is told in CPU
seconds of the process and in wall seconds, medians of turns; trust wall seconds of an idle machine alone. Then a window
of 16 x 16 pixels, over a decode of its chunk, and the CPU seconds of the first one in a fresh process. Writes path.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import rasterio
import xarray as xr
import zarr

import eozip
from eozip import sensors, threads
from eozip.store import describe
from eozip.store.documents import ARRAY
from eozip_lab.evaluate.inputs import load_places
from eozip_lab.train.recipe import data_root
from speed import mirrored

CODEC = "tec-elic-small"
_FIRST = """
import sys, time, zarr
zarr.open_group(sys.argv[1], mode="r")[sys.argv[2]][0, :, :16, :16]
print(time.process_time())
"""


@dataclass(frozen=True)
class Seconds:
    """Medians of one way.

    Attributes:
        cpu: of all threads of the process.
        wall: by the clock.
    """

    cpu: float
    wall: float


def main() -> None:
    """Measures, prints, writes."""
    options = _options()
    threads.choose(options.threads)
    dn = mirrored(load_places(options.data / "val", 256)[0].dn[:1], options.size)
    with tempfile.TemporaryDirectory() as name:
        results = measured(dn, Path(name), options)
    text = json.dumps(results, indent=1)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "path.json").write_text(text + "\n", encoding="utf-8")


def _write_scene(dn: np.ndarray, folder: Path) -> None:
    """A GeoTIFF a date, tiled and compressed as they come."""
    folder.mkdir()
    t, count, height, width = dn.shape
    profile = {"driver": "GTiff", "dtype": dn.dtype, "count": count, "height": height, "width": width}
    layout = {"tiled": True, "blockxsize": 256, "blockysize": 256, "compress": "deflate", "predictor": 2}
    layout["transform"] = rasterio.transform.from_origin(399960.0, 5300040.0, 10.0, 10.0)
    for k in range(t):
        with rasterio.open(folder / f"date_{k}.tif", "w", **profile, **layout) as file:
            file.write(dn[k])
            file.descriptions = sensors.get("s2-l2a").band_names


def measured(dn: np.ndarray, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each way, and ratios."""
    _write_scene(dn, folder / "dates")
    source, store, back = folder / "dates" / "date_0.tif", folder / "s.zarr", folder / "back.tif"
    asked: dict[str, Any] = {"codec": CODEC, "quality": options.quality}
    eozip.encode_store(source, store, **asked)
    description = describe(store)
    side = description.grid.chunk[2]
    chunks = [
        np.ascontiguousarray(dn[:, :, y : y + side, x : x + side])
        for y in range(0, options.size, side)
        for x in range(0, options.size, side)
    ]
    blobs = [eozip.encode(chunk, **asked) for chunk in chunks]
    array = zarr.open_group(str(store), mode="r")[ARRAY]
    pool = ThreadPoolExecutor(options.threads)
    ways: dict[str, Callable[[], Any]] = {
        "chunks, encode": lambda: list(pool.map(lambda chunk: eozip.encode(chunk, **asked), chunks)),
        "chunks, decode": lambda: list(pool.map(eozip.decode, blobs)),
        "eozip encode": lambda: eozip.encode_store(source, store, **asked, overwrite=True),
        "eozip decode": lambda: eozip.decode_store(store, back, overwrite=True),
        "scan by xarray and dask": lambda: _scanned(store, ARRAY, options.threads),
        "a chunk": lambda: eozip.decode(blobs[0]),
        "a warm window": lambda: array[0, :, :16, :16],
    }
    found = timed(ways, options.repeats)
    first = [sys.executable, "-c", _FIRST, str(store), ARRAY]
    fresh = float(subprocess.run(first, check=True, capture_output=True, text=True).stdout)
    pairs = {
        "encode (1.3 asked)": ("eozip encode", "chunks, encode"),
        "decode (1.3 asked)": ("eozip decode", "chunks, decode"),
        "scan, times the codec's own (1.25 asked)": ("scan by xarray and dask", "chunks, decode"),
        "warm window over its chunk (1 asked)": ("a warm window", "a chunk"),
    }
    return {
        "shape": dn.shape,
        "chunk": side,
        "threads": options.threads,
        "load": os.getloadavg()[0],
        "seconds": {way: asdict(one) for way, one in found.items()},
        "ratios": {
            what: {"cpu": found[a].cpu / found[b].cpu, "wall": found[a].wall / found[b].wall}
            for what, (a, b) in pairs.items()
        },
        "first window of a fresh process, CPU seconds (1.0 asked)": fresh,
    }


def timed(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, Seconds]:
    """Medians; the ways take turns, after one that is not counted."""
    turns: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for run in ways.values():
        run()
    for _ in range(repeats):
        for way, run in ways.items():
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            turns[way].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        way: Seconds(*(statistics.median(turn[k] for turn in own) for k in (0, 1)))
        for way, own in turns.items()
    }


def _scanned(store: Path, name: str, count: int) -> None:
    with dask.config.set(scheduler="threads", num_workers=count):
        found = xr.open_zarr(store, chunks={}, consolidated=None)
        float(found[name].data.max().compute())


def _options() -> argparse.Namespace:
    root = Path(__file__).parents[1]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=data_root() / "data", help="folder with val/")
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quality", type=float, default=60.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=root / "results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
