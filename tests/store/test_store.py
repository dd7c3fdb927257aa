"""Stores there and back, and opened by plain xarray."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest

import eozip
from eozip import store
from eozip.codecs import registry
from eozip.errors import InputError
from eozip.raster import open_scene
from eozip.sensors import get
from eozip.store import decode_store, describe, make_request, verify_store
from rasterfiles import everything, write_tif
from storefiles import (
    DATES,
    ENDINGS,
    NAMES,
    Coarse,
    coarse_codec,
    codes_exactly,
    listed,
    make_store,
    opened,
    scene_pixels,
    write_dates,
)


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


# --- there and back ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_geotiffs_come_back_whole(tmp_path, ending):
    paths = write_dates(tmp_path)
    summary = make_store(paths, tmp_path / f"s{ending}")
    assert summary.shape == (3, 12, 50, 41)
    assert summary.psnr is None
    assert summary.ratio == pytest.approx(3 * 12 * 50 * 41 * 2 / summary.bytes)
    assert summary.bpppb == pytest.approx(8 * summary.bytes / (3 * 12 * 50 * 41))
    decode_store(tmp_path / f"s{ending}", tmp_path / "back")
    assert listed(tmp_path / "back") == [path.name for path in sorted(paths)]
    for path in paths:
        assert everything(tmp_path / "back" / path.name) == everything(path)


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
@pytest.mark.parametrize("nodata", [None, 0, 77])
def test_lossy_stores_keep_what_must_be_exact(tmp_path, dtype, nodata):
    dn = write_tif(tmp_path / "a.tif", scene_pixels(dtype=dtype), NAMES, nodata=nodata)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, quality=70, gop=4)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    before, after = everything(tmp_path / "a.tif"), everything(tmp_path / "b.tif")
    back = np.array(after.pop("pixels"))
    assert {**before, "pixels": None} == {**after, "pixels": None}
    if nodata is not None:
        np.testing.assert_array_equal(back == nodata, dn == nodata)
    assert back[0, -1, -1] == 30_000
    valid = np.ones(dn.shape, bool) if nodata is None else dn != nodata
    assert summary.psnr == pytest.approx(eozip.psnr(dn, back.astype(dtype), valid), abs=1e-6)
    assert summary.psnr > 38


def test_bands_in_another_order_come_back_in_theirs(tmp_path):
    path = write_dates(tmp_path, names=NAMES[::-1], dates=DATES[:1])[0]
    make_store(path, tmp_path / "s.zarr")
    assert list(opened(tmp_path / "s.zarr").band.values) == list(NAMES)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(path)


def test_a_choice_of_bands_and_dates(tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr")
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif", bands=["nir", 2], dates=["2021-07-15"])
    full, part = everything(paths[0]), everything(tmp_path / "b.tif")
    assert part["pixels"] == [full["pixels"][7], full["pixels"][1]]
    assert part["header"][4] == ("B08", "B02")
    with pytest.raises(InputError, match="B99"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif", bands=["B99"])
    with pytest.raises(InputError, match="2019"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif", dates=["2019"])
    with pytest.raises(InputError, match="folder"):
        decode_store(tmp_path / "s.zarr", tmp_path / "c.tif")


@pytest.mark.parametrize("name", registry.names())
def test_every_codec_through_a_store(tmp_path, name):
    own = "any" if codes_exactly(name) else registry.get(name).sensor
    sensor = get("s2-l2a" if own == registry.ANY_SENSOR else own)
    dn = write_tif(tmp_path / "a.tif", scene_pixels(shape=(len(sensor.bands), 50, 41)), sensor.band_names)
    quality = None if codes_exactly(name) else 60.0
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", name, quality=quality, chunk=None)
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    back = np.array(everything(tmp_path / "b.tif")["pixels"])
    np.testing.assert_array_equal(back == 0, dn == 0)
    assert (back == dn).all() if codes_exactly(name) else summary.psnr > 25
    assert verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif")).failures == []


@pytest.mark.parametrize("names", [("red", "nir", "thermal"), (None, None, None), ("B02", "B02", "B03")])
def test_bands_of_no_sensor_keep_their_order_and_names(tmp_path, names):
    dn = write_tif(tmp_path / "a.tif", scene_pixels(shape=(3, 40, 41)), names)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr", None, quality=60)
    found = describe(tmp_path / "s.zarr")
    assert (found.codec.codec, found.codec.sensor) == ("tec-tt-small-any-v1", "any")
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    back = everything(tmp_path / "b.tif")
    assert back["header"] == everything(tmp_path / "a.tif")["header"]
    assert eozip.psnr(dn, np.array(back["pixels"], dn.dtype)) > 30
    assert verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif")).failures == []


def test_bands_of_no_sensor_are_refused_by_codecs_of_one(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(shape=(3, 40, 41)), ("red", "nir", "thermal"))
    with pytest.raises(InputError, match="supported are"):
        make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id)


def test_a_scene_without_any_pixel(tmp_path):
    write_tif(tmp_path / "a.tif", np.zeros((12, 20, 20), "uint16"), NAMES)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert summary.empty == summary.chunks == 4
    assert not opened(tmp_path / "s.zarr").reflectance.values.any()
    assert verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif")).ok


def test_one_pixel(tmp_path):
    write_tif(tmp_path / "a.tif", np.full((12, 1, 1), 321, "uint16"), NAMES)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr.zip", chunk=None)
    decode_store(tmp_path / "s.zarr.zip", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")


def test_target_psnr_counts_the_chunks_that_fall_short(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES)
    summary = make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, target_psnr=45.0)
    assert summary.missed == 0
    assert abs(summary.psnr - 45) < 0.5
    assert summary.quality[0] < summary.quality[1]
    hopeless = make_store(tmp_path / "a.tif", tmp_path / "t.zarr", Coarse.id, target_psnr=70.0)
    assert hopeless.missed == 0  # beyond the codec's reach: what is missing was added
    assert hopeless.layered + hopeless.without_network > 0


def test_both_ways_of_asking_for_quality_are_refused(tmp_path):
    scene = open_scene(write_dates(tmp_path))
    with pytest.raises(InputError, match="two of them"):
        make_request(scene, Coarse.id, quality=50, target_psnr=40)


# --- by xarray ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_plain_xarray_opens_it_quietly(tmp_path, ending):
    """Another process that imports nothing of ours: warnings are errors, torch and rasterio stay away."""
    make_store(write_dates(tmp_path), tmp_path / f"s{ending}")
    prefix = "zip::" if ending == ".zarr.zip" else ""
    code = (
        "import sys, warnings, hashlib; warnings.simplefilter('error')\n"
        "import xarray as xr\n"
        f"ds = xr.open_zarr({prefix + str(tmp_path / f's{ending}')!r})\n"
        "assert not {'torch', 'rasterio'} & set(sys.modules), 'heavy imports'\n"
        "print(hashlib.sha256(ds.reflectance.values.tobytes()).hexdigest(), ds.reflectance.dtype)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert run.returncode == 0, run.stderr
    expected = np.stack([scene_pixels(seed) for seed in np.argsort(DATES)])
    assert run.stdout.split() == [hashlib.sha256(expected.tobytes()).hexdigest(), "uint16"]


def test_coordinates_and_facts(tmp_path):
    summary = make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id, quality=50)
    ds = opened(tmp_path / "s.zarr")
    assert ds.reflectance.dims == ("time", "band", "y", "x")
    assert ds.reflectance.dtype == "uint16"
    assert list(ds.time.dt.strftime("%Y%m%d").values) == sorted(DATES)
    assert ds.reflectance.sel(band="B8A").shape == (3, 50, 41)
    assert ds.x.values[:2].tolist() == [399965.0, 399975.0]
    assert ds.y.values[:2].tolist() == [5300035.0, 5300025.0]
    assert ds.x.dtype == ds.y.dtype == "float64"
    assert ds.reflectance.attrs["nodata"] == 0
    assert ds.spatial_ref.attrs["GeoTransform"] == "399960.0 10.0 0.0 5300040.0 0.0 -10.0"
    assert "UTM zone 33N" in ds.spatial_ref.attrs["crs_wkt"]
    assert "spatial_ref" in ds.coords
    facts = json.loads(ds.attrs["eozip"])
    assert facts["psnr"] == summary.psnr
    assert facts["weights_hash"] == Coarse.weights_hash.hex()
    assert (facts["codec"], facts["quality"]) == (Coarse.id, 50.0)
    assert facts["eozip_version"] == eozip.__version__


def test_unknown_dates_give_an_index(tmp_path):
    for name in ("b", "a"):
        write_tif(tmp_path / f"{name}.tif", scene_pixels(ord(name)), NAMES)
    make_store([tmp_path / "b.tif", tmp_path / "a.tif"], tmp_path / "s.zarr")
    assert opened(tmp_path / "s.zarr").time.values.tolist() == [0, 1]
    decode_store(tmp_path / "s.zarr", tmp_path / "back")
    assert everything(tmp_path / "back" / "a.tif") == everything(tmp_path / "a.tif")


def test_no_nodata_means_no_attribute(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES, nodata=None)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert "nodata" not in opened(tmp_path / "s.zarr").reflectance.attrs


def test_dask_reads_windows(tmp_path):
    path = write_dates(tmp_path, dates=DATES[:1])[0]
    make_store(path, tmp_path / "s.zarr.zip")
    window = opened(tmp_path / "s.zarr.zip").reflectance[0, 3, 10:30, 5:40]
    np.testing.assert_array_equal(window.compute().values, scene_pixels()[3, 10:30, 5:40])


def test_a_store_written_without_further_facts_is_readable(tmp_path):
    scene = open_scene(write_dates(tmp_path))
    store.encode_store(scene, tmp_path / "s.zarr", store.EozipChunkCodec("lossless"))
    found = store.describe(tmp_path / "s.zarr")
    assert found.facts["eozip_version"] == eozip.__version__
    assert found.facts["weights_hash"] is None
