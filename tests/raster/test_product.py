"""What a product is: scenes by grid, offsets by band and date, what lies beside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rasterfiles
from eozip.errors import InputError
from eozip.raster import open_product, open_reader
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


# --- floats ---


def _floats(folder: Path, values: np.ndarray, **options: object) -> Path:
    rasterfiles.write_tif(folder / "S2_20210715.tif", values, **({"nodata": np.nan} | options))
    return folder / "S2_20210715.tif"


def _reflectance(dtype: str = "float32") -> np.ndarray:
    values = np.round(np.random.default_rng(0).uniform(-0.05, 1.2, (3, 16, 16)), 4).astype(dtype)
    values[:, 3:6, 4:9] = np.nan
    return values


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reflectance_is_read_as_dn_and_comes_back(tmp_path: Path, dtype: str) -> None:
    values = _reflectance(dtype)
    [scene] = open_product(_floats(tmp_path, values)).scenes
    with open_reader(scene) as reader:
        dn = reader.read(slice(None), slice(None), slice(None))
    assert (dn.dtype, scene.dtype, scene.offset, scene.profile.nodata) == (np.uint16, np.uint16, 1000, 0)
    assert scene.lattice is not None
    back = scene.lattice.values(dn[0], scene.fill)
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    np.testing.assert_allclose(back, values, rtol=0, atol=1e-6)


def test_values_off_the_lattice_are_rounded_and_it_is_said_how_far(tmp_path: Path) -> None:
    values = np.full((3, 8, 8), 0.12344, np.float64)
    [scene] = open_product(_floats(tmp_path, values)).scenes
    with open_reader(scene) as reader:
        reader.read(slice(None), slice(None), slice(None))
        assert reader.rounding == pytest.approx(0.00004)


def test_a_nodata_number_of_floats_comes_back(tmp_path: Path) -> None:
    values = np.where(np.isnan(_reflectance()), np.float32(-9999), _reflectance())
    [scene] = open_product(_floats(tmp_path, values, nodata=-9999)).scenes
    with open_reader(scene) as reader:
        dn = reader.read(slice(None), slice(None), slice(None))
    assert scene.lattice is not None
    np.testing.assert_allclose(scene.lattice.values(dn[0], scene.fill), values, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [7.0, -0.2, np.inf, 1234.0])
def test_values_beyond_the_lattice_are_refused_with_the_way_out(tmp_path: Path, value: float) -> None:
    values = _reflectance()
    values[0, 0, 0] = value
    [scene] = open_product(_floats(tmp_path, values)).scenes
    with open_reader(scene) as reader, pytest.raises(InputError, match=r"S2_20210715.*--lattice STEP"):
        reader.read(slice(None), slice(None), slice(None))


def test_floats_of_digital_numbers_have_a_lattice_of_whole_numbers(tmp_path: Path) -> None:
    values = np.array([[[0.0, 1234.0, np.nan]]] * 3, np.float32)
    [scene] = open_product(_floats(tmp_path, values), lattice=1).scenes
    with open_reader(scene) as reader:
        dn = reader.read(slice(None), slice(None), slice(None))[0]
        assert reader.rounding == 0
    assert scene.lattice is not None
    np.testing.assert_array_equal(scene.lattice.values(dn, scene.fill), values)


@pytest.mark.parametrize("lattice", [0, -1, np.nan, [1e-4, 0, 0], "0.1"])
def test_what_is_no_lattice_is_refused(tmp_path: Path, lattice: object) -> None:
    with pytest.raises(InputError, match="lattice"):
        open_product(_floats(tmp_path, _reflectance()), lattice=lattice)  # type: ignore[arg-type]
