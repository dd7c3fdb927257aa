"""What `eozip decode` writes for others, read by others: rasterio, rio-cogeo, xarray."""

from __future__ import annotations

import json
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from click.testing import CliRunner

from eozip.cli import cli
from eozip.errors import FormatError, InputError, OutputError
from eozip.store import decode_store, encode_files
from eozip.store.exports import export_store
from eozip.store.xarray_backend import EozipBackendEntrypoint
from productstores import CORNER, DATES, SIZE, a_product, classes, pixels, store_product
from rasterfiles import NAMES, write_tif
from rasterfiles import pixels as raster_pixels


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """A lossless product of two dates with two offsets."""
    folder = tmp_path_factory.mktemp("stores")
    store_product(a_product(folder / "in", offsets=(0, 1000)), folder / "s.zarr.zip", "lossless")
    return folder / "s.zarr.zip"


def test_bands_come_back_on_their_own_grids(store, tmp_path):
    done = export_store(store, tmp_path / "out", "bands", dates=[2])
    assert "SCL_20220315.tif" in [path.name for path in (tmp_path / "out").iterdir()]
    assert len(done.files) == 12
    with rasterio.open(tmp_path / "out" / f"t_{DATES[1]}_60m_B09.tif") as src:
        np.testing.assert_array_equal(src.read(1), pixels(60, 1, offset=1000)[1])
        assert src.res == (60, 60)
        assert (src.transform.c, src.transform.f) == CORNER
        assert src.nodata == 0
        assert src.descriptions == ("B09",)
    with rasterio.open(tmp_path / "out" / "SCL_20220315.tif") as src:
        np.testing.assert_array_equal(src.read(1), classes(1))


def test_cogs_are_valid_and_have_the_streams_overviews(tmp_path):
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    size = (1200, 660)
    product = a_product(tmp_path / "in", DATES[:1], size, has_scl=False)
    store_product(product, tmp_path / "s.zarr", "lossless", chunk=240)
    export_store(tmp_path / "s.zarr", tmp_path / "a.tif", "cog", bands=["B04", "B11"])
    is_valid, errors, warnings = cogeo.cog_validate(tmp_path / "a.tif", strict=True)
    assert is_valid, (errors, warnings)
    with rasterio.open(tmp_path / "a.tif") as src:
        np.testing.assert_array_equal(src.read(1), pixels(10, 0, size)[2])
        assert src.overviews(1) == [2, 4]
        assert src.descriptions == ("B04", "B11")
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as src:
        np.testing.assert_array_equal(src.read(2), pixels(20, 0, size)[4])
    with rasterio.open(tmp_path / "a.tif", overview_level=1) as src:
        blocks = pixels(10, 0, size)[2].reshape(300, 4, 165, 4).mean((1, 3))
        np.testing.assert_allclose(src.read(1)[:, 30:], blocks[:, 30:], atol=1)


@pytest.mark.parametrize("form", ["geotiff", "cog"])
def test_a_window_is_the_windows_pixels(store, tmp_path, form):
    export_store(
        store, tmp_path / "w.tif", form, dates=["2021"], window=(13, 21, 30, 40), bands=["B08", "B05"]
    )
    with rasterio.open(tmp_path / "w.tif") as src:
        np.testing.assert_array_equal(src.read(1), pixels(10, 0)[3, 21:61, 13:43])
        fine = pixels(20, 0)[0].repeat(2, 0).repeat(2, 1)
        np.testing.assert_array_equal(src.read(2), fine[21:61, 13:43])
        assert (src.transform.c, src.transform.f) == (CORNER[0] + 130, CORNER[1] - 210)


def test_a_box_in_another_crs_reads_only_what_it_touches(store, tmp_path):
    whole = export_store(store, tmp_path / "all.tif", "geotiff", dates=[1], resolution=10)
    from rasterio.warp import transform_bounds

    box = CORNER[0] + 600, CORNER[1] - 200, CORNER[0] + 700, CORNER[1] - 100
    there = transform_bounds("EPSG:32633", "EPSG:4326", *box)
    done = export_store(store, tmp_path / "b.tif", "geotiff", dates=[1], bbox=there, crs="EPSG:4326")
    assert done.bytes_read < whole.bytes_read
    with rasterio.open(tmp_path / "b.tif") as src:
        assert src.bounds.left <= box[0]
        assert src.bounds.right >= box[2]
        assert src.width <= 13


def test_joint_pictures_at_a_coarser_resolution(store, tmp_path):
    export_store(store, tmp_path / "c.tif", "geotiff", dates=[1], resolution=20, bands=["B11"])
    with rasterio.open(tmp_path / "c.tif") as src:
        np.testing.assert_array_equal(src.read(1), pixels(20, 0)[4])
        assert src.res == (20, 20)


def test_eopf_zarr_is_read_as_reflectance_by_plain_xarray(store, tmp_path):
    export_store(store, tmp_path / "p.zarr", "eopf-zarr", dates=[2])
    group = xr.open_dataset(tmp_path / "p.zarr", engine="zarr", group="measurements/reflectance/r20m")
    raw = pixels(20, 1, offset=1000)[5]
    np.testing.assert_allclose(group.b12, np.where(raw == 0, np.nan, (raw - 1000.0) * 1e-4), atol=1e-6)
    tree = xr.open_datatree(tmp_path / "p.zarr", engine="zarr")
    np.testing.assert_array_equal(tree["conditions/mask/l2a_classification/r20m/scl"], classes(1))
    assert tree.attrs["stac_discovery"]["properties"]["proj:epsg"] == 32633


def test_netcdf_has_a_group_for_each_grid(store, tmp_path):
    pytest.importorskip("h5netcdf")
    export_store(store, tmp_path / "a.nc", "netcdf", dates=[2])
    with xr.open_dataset(tmp_path / "a.nc", group="r60m", engine="h5netcdf") as ds:
        raw = pixels(60, 1, offset=1000)[0]
        np.testing.assert_allclose(ds.b01[0], np.where(raw == 0, np.nan, (raw - 1000.0) * 1e-4), atol=1e-6)
    with xr.open_dataset(tmp_path / "a.nc", group="r20m", engine="h5netcdf") as ds:
        np.testing.assert_array_equal(ds.scl[0], classes(1))
    export_store(store, tmp_path / "b.nc", "netcdf", resolution=60)
    with xr.open_dataset(tmp_path / "b.nc", group="r60m", engine="h5netcdf") as ds:
        raw = pixels(60, 1, offset=1000)[0]
        np.testing.assert_array_equal(ds.b01[1], np.where(raw == 0, np.nan, raw))
        assert ds.radiometric_offset.values.tolist() == [0, 1000]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (90, 0, 30, 30)}, "window"),
        ({"bbox": (0, 0, 1, 1)}, "touches"),
        ({"bbox": (0, 0, 1, 1), "crs": "EPSG:nonsense"}, "crs"),
        ({"resolution": 15}, "multiple"),
        ({"bands": ["B99"]}, "B99"),
        ({"dates": ["1999"]}, "1999"),
        ({"window": (0, 0, 5, 5), "bbox": (0, 0, 1, 1)}, "both"),
    ],
)
def test_what_a_store_has_not_is_refused(store, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export_store(store, tmp_path / "x", "bands", **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "has_place"), [("uint16", True), ("int16", False)])
@pytest.mark.parametrize("names", [NAMES, ("B02",), (None, None, None)])
def test_netcdf_of_a_store_of_one_grid_has_its_bands_at_the_root(tmp_path, names, dtype, has_place):
    pytest.importorskip("h5netcdf")
    dn = [(raster_pixels(t, "uint8", (len(names), 37, 53)) // 2).astype(dtype) for t in range(2)]
    for t, letter in enumerate("ab"):  # of no date
        options = {} if has_place else {"crs": None, "transform": None}
        write_tif(tmp_path / f"{letter}.tif", dn[t], [name or "" for name in names], **options)
    encode_files([tmp_path / "a.tif", tmp_path / "b.tif"], tmp_path / "s.zarr", "lossless")
    arguments = ["decode", tmp_path / "s.zarr", tmp_path / "x.nc", "--format", "netcdf"]
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    with xr.open_dataset(tmp_path / "x.nc", engine="h5netcdf", mask_and_scale=False) as ds:
        bands = [name for name in ds.data_vars if ds[name].dims == ("time", "y", "x")]
        assert len(bands) == len(names)
        np.testing.assert_array_equal(np.stack([ds[name] for name in bands], 1), dn)
        assert dict(ds.sizes) == {"time": 2, "y": 37, "x": 53}


@pytest.mark.parametrize(("name", "form"), [("x.tif", "netcdf"), ("x", "eopf-zarr")])
def test_names_that_do_not_fit_the_format_are_refused(store, tmp_path, name, form):
    with pytest.raises(OutputError):
        export_store(store, tmp_path / name, form, dates=[1])


def test_by_the_command_line(store, tmp_path):
    target = tmp_path / "w.tif"
    arguments = [
        "decode",
        str(store),
        str(target),
        "--format",
        "cog",
        "--dates",
        "1",
        "--window",
        "0,0,24,12",
    ]
    result = CliRunner().invoke(cli, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["shape"] == [1, 12, 12, 24]
    assert CliRunner().invoke(cli, arguments).exit_code == 1
    assert SIZE[0] > 12


def test_a_stac_item_says_what_a_store_is(store):
    pystac = pytest.importorskip("pystac")
    from eozip.store.stac import write_item

    item = pystac.Item.from_file(str(write_item(store, overwrite=True)))
    assert item.properties["proj:code"] == "EPSG:32633"
    assert item.properties["eozip:sources"] == ["product 0", "product 1"]
    assert item.properties["eozip:codec"] == "lossless"
    assert item.properties["start_datetime"].startswith("2021-07-01")
    bands = {band["name"]: band for band in item.assets["data"].extra_fields["bands"]}
    assert bands["B09"]["gsd"] == 60
    assert item.bbox[0] == pytest.approx(16.33, abs=0.05)


def test_floats_come_back_as_floats(tmp_path):
    rng = np.random.default_rng(3)
    values = rng.uniform(0.02, 0.6, (4, 64, 48)).astype(np.float32)
    values[:, :5, :7] = np.nan
    write_tif(tmp_path / "f_20210701.tif", values, ("B02", "B03", "B04", "B08"), nodata=float("nan"))
    store = tmp_path / "f.zarr"
    encode_files(tmp_path / "f_20210701.tif", store, max_error=2, note=lambda text: None)
    decode_store(store, tmp_path / "back.tif")
    with rasterio.open(tmp_path / "back.tif") as src:
        assert src.dtypes == ("float32",) * 4
        back = src.read()
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    assert np.nanmax(np.abs(back - values)) < 2.6e-4
    ds = xr.open_dataset(store, engine=EozipBackendEntrypoint)
    np.testing.assert_array_equal(ds.reflectance[0], back)
    with rasterio.open(tmp_path / "back.tif") as src:
        assert src.descriptions == ("B02", "B03", "B04", "B08")


OUTPUTS = {"bands": "out", "eopf-zarr": "out.zarr", "netcdf": "out.nc"}


def with_layer(store: Path, folder: Path, change: dict) -> tuple[Path, str]:
    """A copy of the store whose layer says something else of itself; and the layer's name."""
    copy = folder / "s.zarr"
    with zipfile.ZipFile(store) as archive:
        archive.extractall(copy)
    (document,) = copy.glob("*/scl/zarr.json")
    document.write_text(json.dumps({**json.loads(document.read_text()), **change}))
    return copy, f"{document.parent.parent.name}/scl"


@pytest.mark.parametrize("form", OUTPUTS)
@pytest.mark.parametrize(
    "change",
    [
        {"data_type": "nan"},
        {"node_type": []},
        {"shape": [2, 1, 1]},
        {"shape": [0, 40, 50]},
        {"codecs": []},
        {"chunk_key_encoding": {"name": "default", "configuration": {"separator": math.nan}}},
    ],
)
def test_a_layer_that_is_none_is_named(store, tmp_path, form, change):
    copy, name = with_layer(store, tmp_path, change)
    with pytest.raises(FormatError, match=name):
        export_store(copy, tmp_path / OUTPUTS[form], form, dates=[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


@pytest.mark.parametrize("form", OUTPUTS)
def test_attributes_of_a_layer_that_a_format_cannot_hold_are_left_out(store, tmp_path, form):
    attributes = {"a/b": 1, "c": {}, "d": [[1]], "e": [10**30], "_FillValue": "x", "long_name": "classes"}
    copy, _ = with_layer(store, tmp_path, {"attributes": attributes})
    export_store(copy, tmp_path / OUTPUTS[form], form, dates=[1])
    assert (tmp_path / OUTPUTS[form]).exists()


@pytest.mark.parametrize(
    "value", [5, "x", b"x", {}, slice(3), np.int64(2), (math.nan,) * 4, ("a",) * 4, [[1, 2, 3, 4]]]
)
@pytest.mark.parametrize("name", ["window", "bbox", "resolution", "crs"])
def test_places_of_any_kind_are_refused_by_name(store, tmp_path, name, value):
    if name == "resolution" and isinstance(value, int | np.integer):
        pytest.skip("a number")
    options = {name: value} | ({"bbox": (0, 0, 1, 1)} if name == "crs" else {})
    with pytest.raises(InputError, match=f"{name}|touches"):
        export_store(store, tmp_path / "out", "bands", **options)


def test_files_of_all_bands_bear_the_name_of_the_product(store, tmp_path):
    done = export_store(store, tmp_path / "out", "cog")
    assert done.files == ["product_0.tif", "product_1.tif"]
