"""`xr.open_dataset(..., chunks="auto")` on a cluster of processes: equal bits whatever their number, bounded memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eozip
from eozip.store import windows
from rasterfiles import write_tif
from storefiles import NAMES

xr = pytest.importorskip("xarray")
dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed", reason="needs dask.distributed")

pytestmark = pytest.mark.slow

SIDE, MIB = 768, 1 << 20


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """27 MiB of pixels that are coded fast."""
    folder = tmp_path_factory.mktemp("auto")
    for k, date in enumerate(("20210701", "20210706")):
        blocks = np.random.default_rng(k).integers(1, 9000, (12, SIDE // 32, SIDE // 32), "uint16")
        write_tif(folder / f"T31TCJ_{date}.tif", np.kron(blocks, np.ones((32, 32), "uint16")), NAMES)
    eozip.encode_store(sorted(folder.glob("*.tif")), folder / "a.zarr", "lossless", chunk=128, gop=1)
    return folder / "a.zarr"


def forget_peak(kept: int) -> None:
    """On a worker: keeps so many bytes of decoded pixels from here on, and measures the peak of memory anew."""
    windows._KEPT_BYTES = kept
    Path("/proc/self/clear_refs").write_text("5")


def memory() -> tuple[int, int]:
    """Of a worker: bytes now, and at their peak."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))


@pytest.mark.parametrize("count", [1, 2])
def test_workers_decode_equal_bits_in_bounded_memory(store, count):
    exact = xr.open_dataset(store).reflectance.values
    with (
        dask.config.set({"array.chunk-size": "2MiB"}),
        distributed.LocalCluster(
            n_workers=count, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        found = xr.open_dataset(store, chunks="auto").reflectance
        assert found.data.npartitions > 8
        found[:, :, :128, :128].sum().compute()  # imports
        client.run(forget_peak, 4 * MIB)
        before = client.run(memory)
        sums = found.sum(("y", "x"), dtype="uint64").compute()
        after = client.run(memory)
        assert np.array_equal(sums.values, exact.sum((2, 3), dtype="uint64"))
        assert np.array_equal(found.values, exact)
    for worker, (now, _) in before.items():
        # 4 MiB that are kept, a block of 2 MiB with its sums, and the chunks that it is decoded from
        assert after[worker][1] - now < 20 * MIB < exact.nbytes
