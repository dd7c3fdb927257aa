"""xarray in: the layouts of odc-stac, stackstac and EOPF, lazily; grids by their coordinates."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import stacitems
from eozip.errors import InputError
from eozip.raster import open_reader
from eozip.raster.delivered.arrays import product_of
from products import CORNER, classes, made, write_raster
from test_safe import pixels

GRIDS = made()
DATES = np.array(["2021-07-20T10:10:31", "2021-07-15T10:10:31"], "datetime64[ns]")
TEN = ("B02", "B03", "B04", "B08")


def centres(side: int, metres: float) -> dict[str, Any]:
    """Coordinates y and x of pixel centres."""
    steps = (np.arange(side) + 0.5) * metres
    return {"y": CORNER[1] - steps, "x": CORNER[0] + steps}


def odc(chunks: dict[str, int] | None = None) -> xr.Dataset:
    """As odc-stac gives it: a variable for each band, the source's dtype, `spatial_ref`."""
    coords = {"time": DATES, **centres(96, 10), "spatial_ref": 32632}
    variables = {
        name: (("time", "y", "x"), np.stack([GRIDS[10][band], GRIDS[10][band] // 2]), {"nodata": 0})
        for name, band in zip(("blue", "green", "red", "nir"), TEN)
    }
    variables["scl"] = (("time", "y", "x"), np.stack([classes(96)] * 2), {"nodata": 0})
    found = xr.Dataset(variables, coords)
    found.spatial_ref.attrs = {"crs_wkt": _wkt(), "GeoTransform": "0 1 0 0 0 1"}
    for variable in found.data_vars.values():
        variable.encoding["grid_mapping"] = "spatial_ref"
    return found if chunks is None else found.chunk(chunks)


def _wkt() -> str:
    from rasterio.crs import CRS

    return str(CRS.from_epsg(32632).to_wkt())


def stackstac(corners: bool = True) -> xr.DataArray:
    """As stackstac gives it: float64 [time, band, y, x] with NaN, coordinates of upper left corners."""
    cube = np.stack([GRIDS[10][band] for band in TEN]).astype(np.float64)
    values = np.where(cube == 0, np.nan, cube * 1e-4 - 0.1)
    steps = np.arange(96) * 10.0 + (0 if corners else 5)
    coords = {
        "time": DATES[:1],
        "band": ["B02", "B03", "B04", "B08"],
        "y": CORNER[1] - steps,
        "x": CORNER[0] + steps,
    }
    coords["epsg"] = 32632
    attrs = {
        "crs": "epsg:32632",
        "transform": (10.0, 0.0, CORNER[0], 0.0, -10.0, CORNER[1]),
        "resolution": 10.0,
    }
    array = xr.DataArray(values[None], coords, ("time", "band", "y", "x"), "stackstac", attrs)
    return array.chunk({"time": 1, "band": 1, "y": 40, "x": 33})


def eopf(masked: bool) -> xr.DataTree:
    """As EOPF's products are opened: groups by resolution, coarse copies among them."""
    groups: dict[str, xr.Dataset] = {}
    for metres, bands in GRIDS.items():
        held = dict(bands)
        if metres == 20:
            held |= {"B02": GRIDS[10]["B02"][::2, ::2]}
        place = centres(960 // metres, metres)
        variables = {}
        for band, plane in held.items():
            values = np.where(plane == 0, np.nan, plane * 1e-4 - 0.1) if masked else plane
            told = {"scale_factor": 1e-4, "add_offset": -0.1}
            variables[band.lower()] = xr.DataArray(values, place, ("y", "x"), attrs={} if masked else told)
            variables[band.lower()].encoding = (
                {**told, "dtype": np.dtype("u2"), "_FillValue": 0} if masked else {}
            )
        groups[f"/measurements/reflectance/r{metres}m"] = xr.Dataset(variables)
    groups["/conditions/mask/l2a_classification/r20m"] = xr.Dataset(
        {"scl": (("y", "x"), classes(48))}, centres(48, 20)
    )
    groups["/quality/probability/r20m"] = xr.Dataset({"cld": (("y", "x"), classes(48))}, centres(48, 20))
    tree = xr.DataTree.from_dict(groups)
    properties = {
        "start_datetime": "2025-04-15T10:10:31Z",
        "datetime": None,
        "eopf:baseline": "05.11",
        "proj:epsg": 32632,
    }
    tree.attrs["stac_discovery"] = {"id": "S2B_MSIL2A_20250415T101031", "properties": properties}
    return tree


@pytest.mark.parametrize("chunks", [None, {"time": 1, "y": 50, "x": 41}, {"time": 2, "y": 96, "x": 96}])
def test_a_variable_for_each_band(chunks: dict[str, int] | None) -> None:
    product = product_of(odc(chunks))
    [scene] = product.scenes
    assert scene.dates == (datetime(2021, 7, 15, 10, 10, 31), datetime(2021, 7, 20, 10, 10, 31))
    assert scene.profile.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    assert "32632" in str(scene.profile.crs)
    assert (scene.dtype, scene.profile.nodata) == (np.uint16, 0)
    np.testing.assert_array_equal(pixels(product)["B04"], [GRIDS[10]["B04"] // 2, GRIDS[10]["B04"]])


def test_classes_of_a_dataset_lie_beside() -> None:
    [layer] = product_of(odc()).beside
    assert (layer.name, layer.kind, layer.scene.dtype, layer.dates) == ("scl", "classes", np.uint8, (0, 1))
    with open_reader(layer.scene) as reader:
        np.testing.assert_array_equal(reader.read(slice(None), slice(None), slice(None))[0, 0], classes(96))


@pytest.mark.parametrize("corners", [True, False])
def test_an_array_of_floats_with_nan(corners: bool) -> None:
    product = product_of(stackstac(corners))
    [scene] = product.scenes
    assert scene.profile.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    assert scene.offset == 1000
    np.testing.assert_array_equal(pixels(product)["B02"][0], GRIDS[10]["B02"])


@pytest.mark.parametrize("masked", [True, False], ids=["decoded", "digital numbers"])
def test_a_tree_of_eopf_gives_its_native_bands(masked: bool) -> None:
    product = product_of(eopf(masked))
    assert [len(scene.band_names) for scene in product.scenes] == [4, 6, 2]
    found = pixels(product)
    for bands in GRIDS.values():
        for band, plane in bands.items():
            np.testing.assert_array_equal(found[band][0], plane, err_msg=band)
    assert product.scenes[0].offset == 1000
    assert product.dates == (datetime(2025, 4, 15, 10, 10, 31),)
    assert {layer.name for layer in product.beside} == {"scl", "cld"}


def test_a_block_is_computed_once() -> None:
    computed: list[int] = []

    def count(block: np.ndarray) -> np.ndarray:
        computed.append(block.size)
        return block

    lazy = odc({"time": 1, "y": 96, "x": 96})[["red"]].map(
        lambda one: one.copy(data=one.data.map_blocks(count, dtype="u2"))
    )
    computed.clear()
    [scene] = product_of(lazy).scenes
    assert computed == []
    with open_reader(scene) as reader:
        for row in range(0, 96, 16):
            reader.read(slice(0, 1), slice(row, row + 16), slice(0, 96))
    assert computed == [96 * 96]


def test_offsets_of_dates_are_by_their_baselines() -> None:
    data = odc().assign_coords({"s2:processing_baseline": ("time", ["05.09", "02.14"])})
    product = product_of(data)
    assert product.offsets[0] == ((0,) * 4, (1000,) * 4)


def test_a_scalar_time_is_one_date() -> None:
    product = product_of(odc().isel(time=0))
    assert product.dates == (datetime(2021, 7, 20, 10, 10, 31),)


def test_a_part_of_an_array_lies_where_its_coordinates_say() -> None:
    [scene] = product_of(odc().isel(y=slice(3, 50), x=slice(7, 60))).scenes
    assert scene.profile.transform == (10, 0, CORNER[0] + 70, 0, -10, CORNER[1] - 30)


def test_other_variables_are_left_out_and_said() -> None:
    data = odc()
    data["ndvi"] = data.red.astype("uint16")
    assert any("ndvi" in note for note in product_of(data).notes)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda data: data.assign_coords(x=np.arange(96.0) ** 2), "not evenly spaced"),
        (lambda data: data.expand_dims("run"), "run"),
        (lambda data: data[["scl"]], "no bands"),
        (lambda data: xr.Dataset({"a": ("n", [1, 2])}), "dimensions y and x"),
        (lambda data: np.zeros((3, 4)), "got ndarray"),
        (lambda data: data.assign(red=data.red.astype("uint8")), "data type"),
    ],
)
def test_what_is_no_raster_is_refused(change: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        product_of(change(odc()))


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_what_odc_stac_loads_is_taken(tmp_path: Path) -> None:
    load = pytest.importorskip("odc.stac").load
    pystac = pytest.importorskip("pystac")
    item = pystac.Item.from_file(str(stacitems.earth_search(tmp_path, GRIDS)))
    item.make_asset_hrefs_absolute()
    data = load([item], bands=["blue", "red", "swir16"], chunks={"x": 50, "y": 50}, resampling="nearest")
    product = product_of(data, offset=1000)
    [scene] = product.scenes
    assert scene.profile.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    found = pixels(product)
    np.testing.assert_array_equal(found["B04"][0], GRIDS[10]["B04"])
    np.testing.assert_array_equal(found["B11"][0, ::2, ::2], GRIDS[20]["B11"])


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning", "ignore::DeprecationWarning")
def test_what_rioxarray_opens_is_taken(tmp_path: Path) -> None:
    rioxarray = pytest.importorskip("rioxarray")
    write_raster(tmp_path / "a.tif", np.stack([GRIDS[10][band] for band in TEN]), 10, nodata=0)
    [scene] = product_of(rioxarray.open_rasterio(tmp_path / "a.tif", chunks={"x": 50})).scenes
    assert scene.shape == (1, 4, 96, 96)
    assert scene.profile.transform == (10, 0, CORNER[0], 0, -10, CORNER[1])
    with open_reader(scene) as reader:
        np.testing.assert_array_equal(
            reader.read(slice(None), slice(3, 9), slice(7, 60))[0, 2], GRIDS[10]["B04"][3:9, 7:60]
        )


def test_digital_numbers_as_floats_may_use_all_of_16_bits() -> None:
    data = odc().astype("float32").drop_vars("scl")
    product = product_of(data, lattice=(1, 0), nodata=0)
    np.testing.assert_array_equal(pixels(product)["B02"][1], GRIDS[10]["B02"])


def test_a_variable_that_holds_the_crs_is_heeded() -> None:
    data = odc().drop_vars(["scl", "spatial_ref"]).rename(time="t")  # as openEO writes NetCDF
    data["crs"] = xr.DataArray(0, attrs={"crs_wkt": _wkt()})
    assert "32632" in str(product_of(data).scenes[0].profile.crs)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.isel(time=slice(0, 0)),
        lambda found: found.isel(x=slice(0, 0)),
        lambda found: found.assign(blue=found.blue.assign_attrs(scale_factor="x")),
        lambda found: found.assign(blue=found.blue.assign_attrs(add_offset={})),
    ],
)
def test_arrays_without_pixels_or_with_words_for_numbers_are_refused(change: Any) -> None:
    with pytest.raises(InputError, match="expected"):
        product_of(change(odc()))
