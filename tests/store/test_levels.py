"""Virtual levels: averages of what is decoded, from a part of the bytes, as plain Zarr and xarray see them."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
import zarr

from eozip.errors import InputError
from eozip.raster import open_scene
from eozip.store import describe, encode_store, make_request
from eozip.store.levels import level_store
from eozip.store.windows import block_means
from rasterfiles import write_tif
from storefiles import NAMES, scene_pixels


@pytest.fixture(scope="module", params=["lossless", "tec-elic-small"])
def store(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("levels")
    for seed, date in enumerate(("20210701", "20210706")):
        dn = scene_pixels(seed, (12, 150, 130))
        dn[dn > 0] += np.random.default_rng(seed).integers(0, 900, dn.shape, "uint16")[dn > 0]
        write_tif(folder / f"T31TCJ_{date}.tif", dn, NAMES)
    scene = open_scene(folder)
    wanted = make_request(scene, request.param, quality=None if request.param == "lossless" else 95)
    encode_store(
        scene, folder / "a.zarr", wanted.codec, order=wanted.order, facts=wanted.facts, chunk=64, gop=2
    )
    return folder / "a.zarr"


def test_a_level_is_the_average_of_the_pixels(store):
    level = zarr.open_array(level_store(store), path="levels/8/reflectance", mode="r")[:]
    whole = zarr.open_array(store, path="reflectance", mode="r")[:]
    expected = block_means(whole, 8, 0)
    assert level.shape == expected.shape == (2, 12, 19, 17)
    apart = np.abs(level.astype(int) - expected)[
        :, :, :18, :16
    ]  # a codec repeats what is left over at the edge
    clear = block_means((whole == 0).astype("uint16") * 64, 8, None)[:, :, :18, :16] == 0
    if describe(store).codec.codec == "lossless":
        assert apart[clear].max() <= 1
    else:  # values out of a codec's range do not show in its reduced pictures
        assert np.median(apart) <= 2


def test_xarray_opens_a_level_with_coordinates(store):
    found = xr.open_dataset(level_store(store), engine="zarr", group="levels/2", chunks=None)
    assert found.reflectance.dims == ("time", "band", "y_2", "x_2")
    assert found.x_2.values[:2].tolist() == [399970.0, 399990.0]


def test_the_root_names_its_levels(store):
    told = zarr.open_group(level_store(store), mode="r").attrs["multiscales"]["layout"]
    assert [one["asset"] for one in told] == [".", "levels/2", "levels/4", "levels/8"]
    assert told[3]["derived_from"] == "levels/4"
    assert told[3]["spatial:shape"] == [19, 17]


def test_a_level_reads_a_part_of_the_bytes(store):
    if describe(store).codec.codec == "lossless":
        pytest.skip("has no scales")
    opened = level_store(store)
    before = opened._source.files.bytes_read
    zarr.open_array(opened, path="levels/8/reflectance", mode="r")[:]
    read = opened._source.files.bytes_read - before
    assert read < 0.5 * sum(p.stat().st_size for p in (store / "reflectance" / "c").rglob("*") if p.is_file())


def test_levels_are_not_written(store):
    array = zarr.open_array(level_store(store), path="levels/2/reflectance", mode="r")
    with pytest.raises((InputError, ValueError)):
        array[:] = 1
