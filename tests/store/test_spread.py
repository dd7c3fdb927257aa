"""Arrays of dask on a cluster: one task a shard, the bytes of a single process, unaligned blocks refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import eozip
from eozip.errors import InputError
from storefiles import NAMES, scene_pixels

xr = pytest.importorskip("xarray")
distributed = pytest.importorskip("distributed", reason="needs dask.distributed")


@pytest.fixture(scope="module")
def client():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as found,
    ):
        yield found


def lazy(time: int, y: int, x: int):
    dn = np.stack([scene_pixels(seed, (12, 48, 40)) for seed in range(3)])
    data = xr.DataArray(
        dn,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(["2021-07-01", "2021-07-06", "2021-07-11"], "datetime64[ns]"),
            "band": list(NAMES),
            "y": 5300035.0 - 10 * np.arange(48),
            "x": 399965.0 + 10 * np.arange(40),
        },
        attrs={"crs": "EPSG:32633", "nodata": 0},
    )
    return data.chunk({"time": time, "band": 5, "y": y, "x": x})


def written(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


SETTINGS = {"codec": "lossless", "chunk": 16, "gop": 2}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The store that one process writes, without a cluster."""
    out = tmp_path_factory.mktemp("alone") / "a.zarr"
    eozip.to_zarr(lazy(2, 48, 40).compute(), out, **SETTINGS)
    return written(out)


def test_a_cluster_writes_the_bytes_of_one_process(client, alone, tmp_path):
    eozip.to_zarr(lazy(2, 48, 40), tmp_path / "a.zarr", **SETTINGS)
    assert written(tmp_path / "a.zarr") == alone


def test_workers_code_and_the_client_does_not(client, tmp_path, monkeypatch):
    def refused(*args):
        raise AssertionError("coded in the client")

    monkeypatch.setattr("eozip.store.writer._write_shards", refused)
    eozip.to_zarr(lazy(1, 48, 20), tmp_path / "a.zarr", **SETTINGS)


def test_a_zip_file_gets_the_same_streams(client, alone, tmp_path):
    import zipfile

    eozip.to_zarr(lazy(2, 48, 40), tmp_path / "a.zarr.zip", **SETTINGS)
    with zipfile.ZipFile(tmp_path / "a.zarr.zip") as file:
        assert {name: file.read(name) for name in file.namelist()} == alone


def test_persisted_arrays_are_taken_as_they_are(client, alone, tmp_path):
    eozip.to_zarr(lazy(2, 48, 40).persist(), tmp_path / "a.zarr", **SETTINGS)
    assert written(tmp_path / "a.zarr") == alone


def test_blocks_across_shards_are_refused_with_the_call_to_make(client, tmp_path):
    with pytest.raises(InputError, match=r'data\.chunk\(\{"time": 2, "y": 48, "x": 48\}\)'):
        eozip.to_zarr(lazy(3, 48, 40), tmp_path / "a.zarr", **SETTINGS)
    assert not list(tmp_path.iterdir())


def test_an_error_on_a_worker_leaves_nothing(client, tmp_path, monkeypatch):
    def refused(*args):
        raise AssertionError("coded in the client")

    monkeypatch.setattr("eozip.store.writer._write_shards", refused)
    reflectance = lazy(2, 48, 40).astype("float64") / 1e4
    late = reflectance.where(reflectance.time < reflectance.time[-1], 1e30)
    with pytest.raises(InputError, match=r"1e\+30 do not fit a lattice"):
        eozip.to_zarr(late, tmp_path / "a.zarr", **SETTINGS)
    assert not list(tmp_path.iterdir())
