"""Stores in xarray without engine: what is offered, what it is, and how little is decoded for it."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from eozip.errors import InputError
from eozip.store import decode_store, encode_files, windows
from eozip.store.exports import export_store
from eozip.store.xarray_backend import EozipBackendEntrypoint
from products import made as made_bands
from products import write_bands
from productstores import DATES, SIZE, a_product, classes, pixels, store_product
from storefiles import make_store, scene_pixels, write_dates

Backend = EozipBackendEntrypoint


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a lossless product of two dates and offsets, as a directory and as a zip file."""
    folder = tmp_path_factory.mktemp("stores")
    product = a_product(folder / "in", offsets=(0, 1000))
    store_product(product, folder / "s.zarr", "lossless")
    store_product(product, folder / "s.zarr.zip", "lossless")
    return folder


@pytest.fixture(params=["s.zarr", "s.zarr.zip", "memory"])
def place(request, made):
    """The store as a path, and as the URL of something remote."""
    if request.param != "memory":
        return made / request.param
    memory = fsspec.filesystem("memory")
    memory.put(str(made / "s.zarr.zip"), "/there/s.zarr.zip")
    return "memory://there/s.zarr.zip"


def test_stores_are_recognised(place, made, tmp_path):
    assert Backend().guess_can_open(place)
    xr.Dataset({"a": ("x", [1])}).to_zarr(tmp_path / "plain.zarr")
    assert not Backend().guess_can_open(tmp_path / "plain.zarr")
    assert not Backend().guess_can_open(tmp_path / "none.zarr")


def test_a_tree_has_every_grid_exactly(place):
    tree = xr.open_datatree(place, engine=Backend)
    assert list(tree.children) == ["r10m", "r20m", "r60m"]
    assert list(tree["r60m"].data_vars) == ["b01", "b09"]
    np.testing.assert_array_equal(tree["r20m/b8a"][0], pixels(20, 0)[3])
    np.testing.assert_array_equal(tree["r60m/b09"][1], pixels(60, 1, offset=1000)[1])
    np.testing.assert_array_equal(
        tree["r10m/b08"][:, 5:9, ::3], [pixels(10, 0)[3, 5:9, ::3], pixels(10, 1, offset=1000)[3, 5:9, ::3]]
    )
    np.testing.assert_array_equal(tree["r20m/scl"], [classes(0), classes(1)])
    assert tree["r20m"].x.values[:2].tolist() == [600_010, 600_030]
    assert tree["r20m/scl"].attrs["flag_meanings"]


def test_a_dataset_is_the_joint_cube(place):
    ds = xr.open_dataset(place, engine=Backend)
    assert ds.reflectance.dims == ("time", "band", "y", "x")
    assert ds.reflectance.shape == (2, 12, *SIZE)
    assert ds.reflectance.dtype == np.uint16
    np.testing.assert_array_equal(ds.reflectance.sel(band="B11")[0, ::2, ::2], pixels(20, 0)[4])
    assert ds.radiometric_offset.values.tolist() == [0, 1000]
    assert ds.time.dt.year.values.tolist() == [2021, 2022]


@pytest.mark.parametrize("resolution", [10, 20, 30, 60, 120])
def test_resolutions_are_averages_of_what_is_finer(made, resolution):
    ds = xr.open_dataset(
        made / "s.zarr", engine=Backend, resolution=resolution, bands=["B02", "B09"], dates=["2021"]
    )
    times = resolution // 10
    assert ds.x.values[0] == 600_000 + resolution / 2
    expected = windows.block_means(pixels(10, 0)[0], times, 0)
    inside = slice(2, -2), slice(3, -1)  # neither holes nor what is left at the edge
    np.testing.assert_allclose(ds.reflectance[0, 0].values[inside], expected[inside], atol=1)
    np.testing.assert_allclose(ds.reflectance[0, 0], expected, atol=9)
    if resolution <= 60:
        fine = pixels(60, 0)[1].repeat(60 // resolution, 0).repeat(60 // resolution, 1)
        np.testing.assert_array_equal(
            ds.reflectance[0, 1], fine[: -(-SIZE[0] // times), : -(-SIZE[1] // times)]
        )


def test_masked_and_scaled_values_are_reflectance(made):
    ds = xr.open_dataset(made / "s.zarr", engine=Backend, group="r20m", mask_and_scale=True)
    assert ds.b05.dtype == np.float32
    expected = np.where(pixels(20, 1) == 0, np.nan, pixels(20, 1) * 1e-4)[0]
    raw = pixels(20, 1, offset=1000)[0]
    expected = np.where(raw == 0, np.nan, (raw.astype(float) - 1000) * 1e-4)
    np.testing.assert_allclose(ds.b05[1], expected, rtol=1e-5)
    assert ds.scl.dtype == np.uint8


def test_a_band_of_20_m_decodes_no_more_than_it_touches(tmp_path, monkeypatch):
    product = a_product(tmp_path / "in", DATES[:1])
    store_product(product, tmp_path / "s.zarr", quality=40)
    seen = []
    decode = windows.api.decode

    def counting(blob, **asked):
        seen.append((len(blob), asked))
        return decode(blob, **asked)

    monkeypatch.setattr(windows.api, "decode", counting)
    tree = xr.open_datatree(tmp_path / "s.zarr", engine=Backend)
    assert seen == []
    window = tree["r20m/b05"][0, :10, :10].values
    assert len(seen) == 1
    assert seen[0][1]["groups"] == [20]
    assert window.shape == (10, 10)
    tree["r20m/b11"][0, :10, :10].load()
    assert len(seen) == 1  # one stream holds both
    size = sum(
        path.stat().st_size for path in (tmp_path / "s.zarr/reflectance/c").rglob("*") if path.is_file()
    )
    assert seen[0][0] < size / 3


def test_dask_chunks_are_those_of_the_store(made):
    tree = xr.open_datatree(made / "s.zarr", engine=Backend, chunks={})
    assert tree["r20m/b05"].chunks == ((2,), (24, 24), (24, 15))
    auto = xr.open_dataset(made / "s.zarr", engine=Backend, chunks="auto").reflectance
    assert all(size % 48 == 0 for size in auto.chunks[2][:-1])
    np.testing.assert_array_equal(tree["r60m/b01"].compute()[0], pixels(60, 0)[0])


def test_a_dataset_travels_to_another_process(made):
    ds = xr.open_dataset(made / "s.zarr.zip", engine=Backend, group="r60m")
    again = pickle.loads(pickle.dumps(ds))
    np.testing.assert_array_equal(again.b01[0], pixels(60, 0)[0])


def test_stores_of_one_grid_open_too(tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr")
    ds = xr.open_dataset(tmp_path / "s.zarr", engine=Backend)
    plain = xr.open_zarr(tmp_path / "s.zarr")
    np.testing.assert_array_equal(ds.reflectance, plain.reflectance)
    np.testing.assert_array_equal(ds.x, plain.x)
    np.testing.assert_array_equal(ds.time, plain.time)
    assert ds.reflectance.sel(band="B04").shape[1:] == scene_pixels().shape[1:]


def test_a_scene_of_one_grid_is_a_tree_of_its_bands_too(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", "lossless")
    tree = xr.open_datatree(tmp_path / "s.zarr", engine=Backend)
    assert list(tree.data_vars) == ["reflectance"]
    [group] = tree.children
    np.testing.assert_array_equal(tree[group].b04, tree.reflectance.sel(band="B04"))


def test_files_of_one_band_each_on_one_grid_are_a_product(tmp_path):
    bands = {10: made_bands()[10]}
    write_bands(tmp_path / "in", bands, "T32TQM_20210715T101031_{band}_{metres}m.tif")
    encode_files(tmp_path / "in", tmp_path / "s.zarr", "lossless")
    np.testing.assert_array_equal(
        xr.open_datatree(tmp_path / "s.zarr", engine=Backend)["r10m/b04"][0], bands[10]["B04"]
    )
    export_store(tmp_path / "s.zarr", tmp_path / "out", "bands")
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    decode_store(tmp_path / "s.zarr", tmp_path / "all")
    [whole] = (tmp_path / "all").iterdir()
    assert whole.name == "T32TQM_20210715T101031.tif"


def test_netcdf_can_hold_it(made, tmp_path):
    pytest.importorskip("h5netcdf")
    ds = xr.open_dataset(made / "s.zarr", engine=Backend, group="r60m", mask_and_scale=True)
    ds.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as back:
        np.testing.assert_array_equal(back.b01, ds.b01)


def test_the_entry_point_is_found(made):
    if "eozip" not in xr.backends.list_engines():
        pytest.skip("eozip was installed before it had this entry point: pip install -e . again")
    assert list(xr.open_datatree(made / "s.zarr.zip").children) == ["r10m", "r20m", "r60m"]
    assert xr.open_dataset(made / "s.zarr.zip", resolution=20).sizes["y"] == SIZE[0] // 2
    shutil.rmtree(made / "none", ignore_errors=True)


@pytest.mark.parametrize(
    "name", ["group", "bands", "dates", "resolution", "storage_options", "drop_variables"]
)
@pytest.mark.parametrize("value", [2.5, 1 + 2j, slice(3), np.zeros(()), object()])
def test_options_of_any_kind_are_refused_by_name(made, name, value):
    with pytest.raises(InputError, match="expected"):
        xr.open_dataset(made / "s.zarr", engine="eozip", **{name: value})
