"""What a product is: scenes by grid, offsets by band and date, what lies beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

import rasterfiles
from eozip.raster import open_product
from eozip.raster.scene import Lattice


def _geotiff(folder: Path) -> Path:
    rasterfiles.write_tif(folder / "S2_20210715.tif", np.ones((3, 8, 8), np.uint16))
    return folder / "S2_20210715.tif"


def test_a_geotiff_is_a_product_of_one_scene(tmp_path: Path) -> None:
    path = _geotiff(tmp_path)
    product = open_product(path, offset=1000)
    assert [scene.band_names for scene in product.scenes] == [("B02", "B03", "B04")]
    assert product.offsets == (((1000.0, 1000.0, 1000.0),),)
    assert product.acquisitions[0].sensing == product.dates[0]


def test_offsets_of_bands_follow_a_choice_of_bands(tmp_path: Path) -> None:
    path = _geotiff(tmp_path)
    scene = replace(open_product(path).scenes[0], offsets=((1.0, 2.0, 3.0),))
    assert scene.select([2, 0]).band_offsets == ((3.0, 1.0),)


def test_values_of_a_lattice_come_back_with_nan() -> None:
    dn = np.array([[0, 1, 11000]], np.uint16)
    values = Lattice(1e-4, -0.1, "float64").values(dn, fill=0)
    np.testing.assert_array_equal(values, np.array([[np.nan, -0.0999, 1.0]], np.float32))
