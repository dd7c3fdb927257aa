"""Products to stores by one command: what is said before, what is kept, and how the command ends."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from zarr.errors import ZarrUserWarning

import eozip
import stacitems
from eozip.cli import cli
from eozip.errors import InputError
from eozip.raster.scene import Lattice
from eozip.store import describe
from products import Safe, classes, made, write_bands, write_raster
from rasterfiles import write_tif
from test_band_files import thirty
from test_safe import damage
from test_xarray_in import GRIDS, TEN, eopf, odc, stackstac


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def cube(path: Path) -> xr.DataArray:
    """The joint cube of a store, read by xarray and zarr."""
    return xr.open_zarr(path, consolidated=True).reflectance.load()


def check_exact(path: Path, grids: dict[int, dict[str, np.ndarray]], t: int = 0) -> None:
    found = cube(path)
    names = [str(name).lower() for name in found.band.values]
    for metres, bands in grids.items():
        for band, plane in bands.items():
            step = metres // 10
            pixels = found[t, names.index(band.lower()), ::step, ::step]
            np.testing.assert_array_equal(pixels, plane, err_msg=band)


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_a_safe_product_becomes_a_store(tmp_path: Path, zipped: bool) -> None:
    grids = made()
    path = Safe(grids).write(tmp_path, zipped)
    run("encode", path, tmp_path / "s.zarr", "--codec", "lossless")
    check_exact(tmp_path / "s.zarr", grids)
    run("verify", tmp_path / "s.zarr", "--against", path)


def test_a_stac_item_becomes_a_store(tmp_path: Path) -> None:
    path = stacitems.planetary_computer(tmp_path, GRIDS)
    run("encode", path, tmp_path / "s.zarr", "--codec", "lossless")
    check_exact(tmp_path / "s.zarr", GRIDS)
    assert describe(tmp_path / "s.zarr").codec.offset == 1000


def test_a_dry_run_says_what_was_understood_and_writes_nothing(tmp_path: Path) -> None:
    Safe(made(1), date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    Safe(made(2)).write(tmp_path)
    said = run("encode", tmp_path, tmp_path / "s.zarr", "--dry-run").stdout
    for words in (
        "safe, s2-l2a: 2 dates",
        "L2A, baseline 03.01; offset 0 DN (PROCESSING_BASELINE 03.01)",
        "L2A, baseline 05.11; offset 1000 DN (BOA_ADD_OFFSET of MTD_MSIL2A.xml)",
        "48 x 48 pixels of 20 m: B05 B06 B07 B8A B11 B12",
        "beside: scl (classes), 48 x 48, 2 dates",
        "1 chunk expected",
    ):
        assert words in said
    assert not (tmp_path / "s.zarr").exists()


def test_a_dry_run_names_the_file_of_each_date(tmp_path: Path) -> None:
    dn = made()[10]["B02"][None]
    names = ("one.tif", "two.tif")
    for name in names:
        write_tif(tmp_path / name, dn, ["B02"])
    said = run("encode", *(tmp_path / name for name in names), "--dry-run").stdout
    for name in names:
        assert f"unknown date: {name}; offset 0 DN (no tag of the file says another)\n" in said


def test_trees_call_bands_of_sentinel_2_as_eopf_does(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS)
    run("encode", path, tmp_path / "s.zarr", "--codec", "lossless")
    with xr.open_datatree(tmp_path / "s.zarr") as tree:
        np.testing.assert_array_equal(tree["r20m/b8a"][0], GRIDS[20]["B8A"])
        assert tree["r20m/b8a"].attrs["long_name"] == "nir08"
    with warnings.catch_warnings():
        warnings.simplefilter("error", ZarrUserWarning)  # consolidated metadata, which is meant
        run("decode", tmp_path / "s.zarr", tmp_path / "e.zarr", "--format", "eopf-zarr")
    with xr.open_datatree(tmp_path / "e.zarr", engine="zarr") as tree:
        assert "b8a" in tree["measurements/reflectance/r20m"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_dry_run_needs_no_output(tmp_path: Path, count: int) -> None:
    paths = [Safe(made(k), date=f"2022013{k}T101311").write(tmp_path, zipped=k == 1) for k in range(count)]
    said = run("encode", *paths, "--dry-run").stdout
    assert f": {count} date" in said
    assert f"1 chunk expected, of {count} date" in said


def test_without_an_output_nothing_is_encoded(tmp_path: Path) -> None:
    assert "Expected IN... and OUT" in run("encode", Safe(made()).write(tmp_path), code=2).stderr


def test_a_dry_run_is_one_object_of_json(tmp_path: Path) -> None:
    Safe(made(), offsets={8: -1008}).write(tmp_path)
    found = json.loads(run("encode", tmp_path, tmp_path / "s.zarr", "--dry-run", "--json").stdout)
    assert found["dates"][0]["other_offsets"] == {"B8A": 1008}
    assert [grid["size"] for grid in found["grids"]] == [[96, 96], [48, 48], [16, 16]]
    assert found["raw_bytes"] == 2 * (4 * 96 * 96 + 6 * 48 * 48 + 2 * 16 * 16)


def test_a_mask_on_several_grids_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path, hide = Safe(made()).write(tmp_path), ("--mask", "scl:8,9", "--drop", "masked")
    assert "several (10, 20, 60)" in run("encode", path, tmp_path / "s.zarr", *hide, code=1).stderr
    run("encode", path, tmp_path / "s.zarr", *hide, "--bands", "B02,B03")
    run("encode", path, tmp_path / "t.zarr", *hide[:2], "--masked-quality", 0)


def test_a_raster_beside_the_bands_is_a_mask_by_its_name(tmp_path: Path) -> None:
    safe = Safe(made(level="L1C"), "L1C")
    hide = ("--mask", "clouds", "--drop", "masked", "--bands", "B02,B03", "--json")
    found = json.loads(run("encode", safe.write(tmp_path), tmp_path / "s.zarr", *hide).stdout)
    assert 0 < found["dropped"] < safe.classification()[0].mean() + 0.05
    hide = ("--mask", "fog", "--drop", "masked")
    said = run("encode", tmp_path / safe.name, tmp_path / "t.zarr", *hide, code=1).stderr
    assert "no file fog, and no such raster beside the bands; there are: clouds, cirrus, snow" in said


def test_a_contradiction_ends_the_command_before_anything_is_written(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS, applied=True, offset=-0.1)
    said = run("encode", path, tmp_path / "s.zarr", code=1).stderr
    assert "--offset 1000 if" in said
    assert not (tmp_path / "s.zarr").exists()
    run("encode", path, tmp_path / "s.zarr", "--offset", 0, "--codec", "lossless")


def test_a_damaged_date_ends_the_command_and_leaves_nothing(tmp_path: Path) -> None:
    safe = Safe(made())
    damage(safe, safe.write(tmp_path))
    said = run("encode", tmp_path, tmp_path / "s.zarr", "--codec", "lossless", code=1).stderr
    assert "2022-01-26, band B03" in said
    assert not (tmp_path / "s.zarr").exists()


def test_a_damaged_date_that_is_skipped_is_in_the_summary_and_the_exit_code(tmp_path: Path) -> None:
    safe = Safe(made())
    damage(safe, safe.write(tmp_path))
    Safe(made(2), date="20220131T101311").write(tmp_path)
    out = tmp_path / "s.zarr"
    found = json.loads(
        run("encode", tmp_path, out, "--codec", "lossless", "--skip-bad", "--json", code=4).stdout
    )
    assert "2022-01-26, band B03" in found["left_out"][0]
    assert found["shape"][0] == 1
    check_exact(out, made(2))


def test_harmonised_dates_have_one_offset(tmp_path: Path) -> None:
    Safe(made(1), date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    Safe(made(2)).write(tmp_path)
    run("encode", tmp_path, tmp_path / "s.zarr", "--codec", "lossless", "--harmonise")
    assert describe(tmp_path / "s.zarr").codec.offset == 1000
    check_exact(tmp_path / "s.zarr", made(2), t=1)


def test_a_mask_of_classes_needs_no_path(tmp_path: Path) -> None:
    grids = made()
    all_fine = {
        10: grids[10]
        | {b: p.repeat(m // 10, 0).repeat(m // 10, 1) for m in (20, 60) for b, p in grids[m].items()}
    }
    write_bands(tmp_path / "in", all_fine, "T32TQM_20210715T101031_{band}.tif")
    scl = classes(48)
    write_raster(tmp_path / "in" / "T32TQM_20210715T101031_SCL.tif", scl, 20)
    options = ("--mask", "scl:8,9", "--drop", "masked", "--codec", "tec-tt-small", "--json")
    found = json.loads(run("encode", tmp_path / "in", tmp_path / "s.zarr", *options).stdout)
    assert found["date_dropped"] == [4 * int(np.isin(scl, (8, 9)).sum())]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_reflectance_with_nan_becomes_a_store_and_comes_back(tmp_path: Path, dtype: str) -> None:
    values = np.round(np.random.default_rng(0).uniform(-0.05, 1.2, (3, 40, 40)), 4).astype(dtype)
    values[:, 3:6, 4:9] = np.nan
    write_tif(tmp_path / "20210715.tif", values, nodata=np.nan)
    out = tmp_path / "s.zarr"
    found = json.loads(run("encode", tmp_path / "20210715.tif", out, "--codec", "lossless", "--json").stdout)
    assert found["rounding"] < 1e-6
    product = describe(out).product
    assert product is not None
    assert product.lattice is not None
    lattice = Lattice(product.lattice.step, product.lattice.base, product.lattice.dtype)
    back = lattice.values(cube(out).values[0], 0)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(back), np.isnan(values))
    np.testing.assert_allclose(back, values, rtol=0, atol=1e-6)


def test_dates_without_data_alike_where_that_is_nan_make_one_store(tmp_path: Path) -> None:
    values = np.full((3, 40, 40), 0.1234, np.float32)
    values[:, 3:6, 4:9] = np.nan
    for day in ("20210715", "20210716"):
        write_tif(tmp_path / f"{day}.tif", values, nodata=np.nan)
    run(
        "encode",
        tmp_path / "20210715.tif",
        tmp_path / "20210716.tif",
        tmp_path / "s.zarr",
        "--codec",
        "lossless",
    )
    assert describe(tmp_path / "s.zarr").grid.shape == (2, 3, 40, 40)


def test_values_that_were_rounded_are_told(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210715.tif", np.full((3, 40, 40), 0.12344), nodata=np.nan)
    said = run("encode", tmp_path / "20210715.tif", tmp_path / "s.zarr", "--codec", "lossless").stdout
    assert "rounded by at most 4e-05" in said


def test_values_beyond_the_lattice_end_the_command_and_leave_nothing(tmp_path: Path) -> None:
    write_tif(tmp_path / "20210715.tif", np.full((3, 40, 40), 1234.0), nodata=np.nan)
    assert "--lattice STEP" in run("encode", tmp_path / "20210715.tif", tmp_path / "s.zarr", code=1).stderr
    assert not (tmp_path / "s.zarr").exists()
    run("encode", tmp_path / "20210715.tif", tmp_path / "s.zarr", "--lattice", "1", "--codec", "lossless")


# --- xarray ---


def test_a_dataset_becomes_a_store(tmp_path: Path) -> None:
    summary = eozip.to_zarr(odc({"time": 1, "y": 50, "x": 41}), tmp_path / "s.zarr", "lossless")
    assert summary.shape == (2, 4, 96, 96)
    check_exact(
        tmp_path / "s.zarr",
        {10: {n: GRIDS[10][b] for n, b in zip(("blue", "green", "red", "nir"), TEN)}},
        t=1,
    )


def test_an_array_of_floats_becomes_a_store(tmp_path: Path) -> None:
    eozip.to_zarr(stackstac(), tmp_path / "s.zarr", "lossless")
    check_exact(tmp_path / "s.zarr", {10: GRIDS[10]})


def test_a_tree_becomes_a_store_on_its_grids(tmp_path: Path) -> None:
    summary = eozip.to_zarr(eopf(masked=True), tmp_path / "s.zarr.zip", "lossless")
    assert summary.grids == ["r10m", "r20m", "r60m"]


@pytest.mark.parametrize(
    "data", [odc, stackstac, lambda: eopf(masked=False)], ids=["dataset", "array", "tree"]
)
def test_accessors_encode(tmp_path: Path, data: Any) -> None:

    assert data().eozip.to_zarr(tmp_path / "s.zarr", codec="lossless").shape[2:] == (96, 96)


def test_default_quality_of_an_array(tmp_path: Path) -> None:
    assert eozip.to_zarr(odc(), tmp_path / "s.zarr", quality=60).quality == [60, 60]


def test_an_output_that_exists_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    with pytest.raises(eozip.errors.EozipError, match="exists"):
        eozip.to_zarr(odc(), tmp_path / "s.zarr")


def test_what_is_no_xarray_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got ndarray"):
        eozip.to_zarr(np.zeros((3, 4, 4)), tmp_path / "s.zarr")  # type: ignore[arg-type]


def test_products_are_appended(tmp_path: Path) -> None:
    first = Safe(made(1), date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    second = Safe(made(2)).write(tmp_path)
    run("encode", first, tmp_path / "s.zarr", "--codec", "lossless")
    run("append", tmp_path / "s.zarr", second)
    check_exact(tmp_path / "s.zarr", made(1), t=0)
    check_exact(tmp_path / "s.zarr", made(2), t=1)
    product = describe(tmp_path / "s.zarr").product
    assert product is not None
    assert [set(of_date) for of_date in product.offsets] == [{0.0}, {1000.0}]


@pytest.mark.parametrize("name", ["HLS", "Landsat"])
def test_other_sensors_become_stores(tmp_path: Path, name: str) -> None:
    if name == "HLS":
        bands = thirty(["B01", "B02", "B03", "B04", "B05", "B06", "B07"])
        path = stacitems.hls(tmp_path, bands, "L30")
    else:
        bands = thirty([f"SR_B{i}" for i in range(1, 8)], "uint16", 0)
        path = stacitems.landsat(tmp_path, bands)
    run("encode", path, tmp_path / "s.zarr", "--codec", "lossless")
    np.testing.assert_array_equal(cube(tmp_path / "s.zarr").values[0], np.stack(list(bands.values())))
