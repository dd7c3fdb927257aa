"""Readers that are not of eozip open what it wrote: rioxarray, odc-stac, stackstac, GDAL."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

import eozip
from eozip.store.exports import export_store
from eozip.store.xarray_backend import EozipBackendEntrypoint
from productstores import CORNER, DATES, SIZE, a_product, pixels, store_product


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a lossless product of one date, as a store and as one COG per band."""
    folder = tmp_path_factory.mktemp("readers")
    store_product(a_product(folder / "in", DATES[:1]), folder / "s.zarr", "lossless")
    export_store(folder / "s.zarr", folder / "bands", "bands")
    return folder


@pytest.mark.parametrize(("group", "side"), [("r10m", 10), ("r60m", 60), (None, 10)])
def test_rioxarray_knows_where_a_store_lies(made, group, side):
    pytest.importorskip("rioxarray")
    ds = xr.open_dataset(made / "s.zarr", engine=EozipBackendEntrypoint, group=group, decode_coords="all")
    assert ds.rio.crs.to_epsg() == 32633
    assert ds.rio.resolution() == (side, -side)
    assert tuple(ds.rio.transform())[2::3][:2] == CORNER


def an_item(folder: Path, resolution: int, names):
    """A STAC item whose assets are COGs of one grid."""
    pystac = pytest.importorskip("pystac")
    box = [16.3, 47.8, 16.4, 47.9]
    ring = [[box[i], box[j]] for i, j in ((0, 1), (2, 1), (2, 3), (0, 3), (0, 1))]
    item = pystac.Item(
        id="s",
        geometry={"type": "Polygon", "coordinates": [ring]},
        bbox=box,
        datetime=datetime(2021, 7, 1, tzinfo=UTC),
        properties={"proj:code": "EPSG:32633", "proj:epsg": 32633},
    )
    item.stac_extensions.append("https://stac-extensions.github.io/projection/v2.0.0/schema.json")
    for name in names:
        path = folder / f"t_{DATES[0]}_{resolution}m_{name}.tif"
        with rasterio.open(path) as src:
            where = {"proj:transform": list(src.transform)[:6], "proj:shape": list(src.shape)}
        media = pystac.MediaType.COG
        item.add_asset(name, pystac.Asset(str(path), media_type=media, roles=["data"], extra_fields=where))
    return item


def test_odc_stac_loads_the_bands(made):
    odc = pytest.importorskip("odc.stac")
    item = an_item(made / "bands", 20, ["B05", "B11"])
    ds = odc.load([item], bands=["B05", "B11"])
    np.testing.assert_array_equal(
        np.nan_to_num(ds.B11[0].values), pixels(20, 0)[4]
    )  # of odc-stac nodata may be NaN


def test_stackstac_stacks_the_bands(made):
    stackstac = pytest.importorskip("stackstac")
    item = an_item(made / "bands", 10, ["B02", "B08"])
    with warnings.catch_warnings(action="ignore"):
        stack = stackstac.stack([item.to_dict()], epsg=32633, resolution=10, rescale=False)
        values = stack.compute()
    raw = pixels(10, 0)[3].astype(float)
    found = values.sel(band="B08")[0].values
    assert found.shape == SIZE
    np.testing.assert_array_equal(found[raw != 0], raw[raw != 0])


def test_what_stackstac_stacks_becomes_a_store(made, tmp_path):
    stackstac = pytest.importorskip("stackstac")
    item = an_item(made / "bands", 10, ["B02", "B03", "B04", "B08"])
    with warnings.catch_warnings(action="ignore"):
        stack = stackstac.stack([item.to_dict()], epsg=32633, resolution=10, rescale=False, fill_value=0)
    eozip.to_zarr(stack.astype("uint16"), tmp_path / "s.zarr", "lossless", offset=0, nodata=0)
    with xr.open_dataset(tmp_path / "s.zarr", engine=EozipBackendEntrypoint) as ds:
        assert ds.band.values.tolist() == ["B02", "B03", "B04", "B08"]
        np.testing.assert_array_equal(ds.reflectance[0].values, pixels(10, 0))
        assert (float(ds.x[0]), float(ds.y[0])) == (CORNER[0] + 5, CORNER[1] - 5)
