"""Archives: shards a second with 1 and 2 workers, memory of the client while it plans, requests; and a country on paper.

    python benchmarks/archive.py                     on an idle machine: the ratio of two wall clocks
    python benchmarks/archive.py --items 1000        memory of the client alone, with 1,000 small items

The model: a year of Sentinel-2 (10, 20 and 60 m, 12 bands) over one country on 100 workers of one thread.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

import eozip

CODEC = "tec-elic-small"
DAY = 86400


def write_items(folder: Path, count: int, side: int, tiles: int = 1) -> list[str]:
    """Made-up scenes of 12 bands, one date each."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    paths = []
    for k in range(count):
        tile, date = k % tiles, np.datetime64("2021-01-01") + 5 * (k // tiles)
        dn = 1500 + 400 * np.sin(x / 17 + k) * np.cos(y / 23) + rng.normal(0, 25, (12, side, side))
        path = folder / f"S2_T31TC{'ABCDEFGHJK'[tile]}_{str(date).replace('-', '')}.tif"
        options = {"crs": "EPSG:32631", "transform": Affine(10, 0, 399960, 0, -10, 5300040), "nodata": 0}
        with rasterio.open(path, "w", "GTiff", side, side, 12, dtype="uint16", **options) as file:
            file.write(dn.astype("uint16"))
        paths.append(str(path))
    return paths


def throughput(workers: int, side: int = 1024, items: int = 12) -> float:
    """Millions of pixels a second with workers of one thread; the cluster's start, all reading and its end count."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_items(Path(folder), items, side, tiles=4)
        out = Path(folder, "out")
        started = time.perf_counter()
        report = eozip.archive(inputs, out, CODEC, quality=60, gop=1, chunk=256, workers=workers, threads=1)
        assert report.ok, report.failed
        return items * side * side / 1e6 / (time.perf_counter() - started)


def planning(items: int) -> dict[str, float]:
    """Memory of the client as it archives many small items on a worker of its own."""
    with tempfile.TemporaryDirectory() as folder:
        inputs = write_items(Path(folder), items, 16, tiles=10)
        import distributed  # noqa: F401 - what every client has

        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        report = eozip.archive(inputs, Path(folder, "out"), "lossless", workers=1)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert report.ok, report.failed
        return {"items": items, "client_mib": grown, "seconds": report.seconds}


@dataclass(frozen=True)
class Country:
    """What a year over one country takes, on paper.

    Attributes:
        tiles: of the MGRS grid.
        dates: in the year.
        workers: of one thread.
        mpx_per_s: of one worker, coding and decoding, as this program measured it (12 bands of 10 m).
        ratio: of raw samples to streams.
        put, get: price of 1,000 requests in dollars.
    """

    tiles: int = 60
    dates: int = 146
    workers: int = 100
    mpx_per_s: float = 0.316
    ratio: float = 20.0
    put: float = 0.005
    get: float = 0.0004

    def figures(self) -> dict[str, float]:
        """Days, requests and their price, bytes."""
        pixels = 10980**2
        samples = 4 * pixels + 6 * pixels // 4 + 2 * pixels // 36
        scenes = self.tiles * self.dates
        shards = self.tiles * -(-self.dates // 4) * math.ceil(46 / 8) ** 2
        days = scenes * pixels / 1e6 / self.mpx_per_s / self.workers / DAY
        puts, gets = 4 * shards + 30 * self.tiles, 3 * shards  # a shard, its record, two stored levels
        puts, gets = puts + round(days * DAY * (1 / 2 + 1 / 5)), gets + round(days * DAY / 5)  # status, lease
        return {
            "scenes": scenes,
            "raw_terabytes": 2e-12 * samples * scenes,
            "stored_terabytes": 2e-12 * samples * scenes / self.ratio,
            "shards": shards,
            "days": days,
            "requests": puts + gets,
            "dollars_for_requests": (puts * self.put + gets * self.get) / 1000,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, help="measure planning alone")
    parser.add_argument(
        "--mpx-per-s", type=float, help="of one worker, for the model; default: measured with one worker"
    )
    asked = parser.parse_args()
    if asked.items:
        print(json.dumps(planning(asked.items)))
        return
    if asked.mpx_per_s:
        print(json.dumps(Country(mpx_per_s=asked.mpx_per_s).figures(), indent=1))
        return
    one, two = throughput(1), throughput(2)
    print(json.dumps({"one_worker_mpx_per_s": one, "two_workers_mpx_per_s": two, "ratio": two / one}))
    print(json.dumps(Country(mpx_per_s=one).figures(), indent=1))


if __name__ == "__main__":
    main()
