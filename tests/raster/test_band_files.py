"""One file per band, as catalogues and processors name them: bands, dates, grids, offsets, and what lies beside."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eozip.errors import InputError
from eozip.raster import open_product
from products import Safe, classes, made, write_bands, write_raster
from test_safe import pixels

OLD = "20210715T101031"
SENTINEL2 = {
    "planetary computer": f"T32TQM_{OLD}_{{band}}_{{metres}}m.tif",
    "cdse": f"R{{metres}}m/T32TQM_{OLD}_{{band}}_{{metres}}m.jp2",
    "earth search, old": "S2B_32TQM_20210715_0_L2A/{band}.tif",
    "sentinel hub": "2021-07-15/{band}.tif",
}
COMMON = {
    "B01": "coastal", "B02": "blue", "B03": "green", "B04": "red", "B05": "rededge1", "B06": "rededge2", "B07": "rededge3",
    "B08": "nir", "B8A": "nir08", "B09": "nir09", "B11": "swir16", "B12": "swir22",
}  # fmt: skip


@pytest.mark.parametrize("name", SENTINEL2.values(), ids=SENTINEL2.keys())
def test_sentinel_2_bands_come_on_their_own_grids(tmp_path: Path, name: str) -> None:
    grids = made()
    write_bands(tmp_path, grids, name)
    product = open_product(tmp_path)
    assert [scene.shape for scene in product.scenes] == [(1, 4, 96, 96), (1, 6, 48, 48), (1, 2, 16, 16)]
    assert product.dates[0].date() == datetime(2021, 7, 15).date()
    found = pixels(product)
    for bands in grids.values():
        for band, plane in bands.items():
            np.testing.assert_array_equal(found[band][0], plane)


def test_bands_called_by_common_names_are_bands(tmp_path: Path) -> None:
    grids = made()
    called = {m: {COMMON[band]: plane for band, plane in bands.items()} for m, bands in grids.items()}
    for metres, bands in called.items():
        for name, plane in bands.items():
            write_raster(tmp_path / "S2B_32TQM_20210715_0_L2A" / f"{name}.tif", plane, metres)
    found = pixels(open_product(tmp_path))
    np.testing.assert_array_equal(found["B8A"][0], grids[20]["B8A"])


def test_copies_on_other_grids_are_left_out_and_said(tmp_path: Path) -> None:
    grids = made()
    name = f"T32TQM_{OLD}_{{band}}_{{metres}}m.jp2"
    write_bands(tmp_path, grids, name)
    write_raster(tmp_path / f"T32TQM_{OLD}_B02_20m.jp2", grids[10]["B02"][::2, ::2].copy(), 20)
    product = open_product(tmp_path)
    assert product.scenes[0].band_codes == ("B02", "B03", "B04", "B08")
    assert any("B02_20m.jp2" in note for note in product.notes)


def test_classes_beside_are_kept(tmp_path: Path) -> None:
    write_bands(tmp_path, made(), f"T32TQM_{OLD}_{{band}}_{{metres}}m.tif")
    for metres in (20, 60):
        side = 960 // metres
        write_raster(tmp_path / f"T32TQM_{OLD}_SCL_{metres}m.tif", classes(side), metres)
    product = open_product(tmp_path)
    [layer] = product.beside
    assert (layer.name, layer.kind, layer.scene.shape) == ("scl", "classes", (1, 1, 48, 48))


def test_dates_without_a_layer_are_known(tmp_path: Path) -> None:
    for day in ("20210715T101031", "20210720T101031"):
        write_bands(tmp_path, made(), f"T32TQM_{day}_{{band}}_{{metres}}m.tif")
    write_raster(tmp_path / "T32TQM_20210720T101031_SCL_20m.tif", classes(48), 20)
    assert open_product(tmp_path).beside[0].dates == (1,)


@pytest.mark.parametrize("folder", ["S2B_32TQM_20220715_0_L2A", "2022-07-15"])
def test_a_date_that_says_an_offset_which_no_tag_tells_is_refused(tmp_path: Path, folder: str) -> None:
    write_bands(tmp_path / folder, made(), "{band}.tif")
    with pytest.raises(
        InputError, match=r"its date, 2022-07-15, says 1000 DN.*no tag.*--offset 1000 if.*--offset 0 if"
    ):
        open_product(tmp_path)
    assert open_product(tmp_path, offset=0).scenes[0].offset == 0


def test_an_offset_tag_is_believed(tmp_path: Path) -> None:
    for path in write_bands(tmp_path / "S2B_32TQM_20220715_0_L2A", made(), "{band}.tif"):
        with rasterio.open(path, "r+") as file:
            file.scales, file.offsets = (1e-4,), (-0.1,)
    product = open_product(tmp_path)
    assert product.offsets[1] == ((1000,) * 6,)
    assert "offset -0.1" in product.acquisitions[0].offset_source


def test_a_tag_that_contradicts_the_baseline_in_the_name_shows_both(tmp_path: Path) -> None:
    folder = tmp_path / "S2B_MSIL2A_20180126T101311_N0500_R022_T32TQM_20230126T130000"
    for path in write_bands(folder, made(), "{band}.tif"):
        with rasterio.open(path, "r+") as file:
            file.scales = (1e-4,)
    with pytest.raises(InputError, match=r"offset 0 says 0 DN, but the baseline .* 05\.00 says 1000 DN"):
        open_product(folder)


def test_a_baseline_in_the_name_tells_the_offset_of_an_old_date(tmp_path: Path) -> None:
    folder = tmp_path / "S2B_MSIL2A_20180126T101311_N0500_R022_T32TQM_20230126T130000"
    write_bands(folder, made(), "{band}.tif")
    assert open_product(folder).scenes[0].offset == 1000


def test_bands_of_one_date_on_grids_that_do_not_align_are_refused(tmp_path: Path) -> None:
    grids = made()
    write_bands(tmp_path, grids, f"T32TQM_{OLD}_{{band}}_{{metres}}m.tif")
    write_raster(tmp_path / f"T32TQM_{OLD}_B05_20m.tif", grids[20]["B05"][:47], 20)
    with pytest.raises(InputError, match="grids do not align"):
        open_product(tmp_path)


def test_a_date_that_lacks_a_band_is_named_with_it(tmp_path: Path) -> None:
    for day in ("20210715T101031", "20210720T101031"):
        write_bands(tmp_path, made(), f"T32TQM_{day}_{{band}}_{{metres}}m.tif")
    (tmp_path / "T32TQM_20210720T101031_B05_20m.tif").unlink()
    with pytest.raises(
        InputError, match=r"\(2021-07-20\): no band B05, which .*\(2021-07-15\) has; .*--bands"
    ):
        open_product(tmp_path)


# --- other sensors and processors ---


def thirty(
    names: list[str], dtype: str = "int16", nodata: int = -9999, side: int = 24
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    found = {name: rng.integers(0, 4000, (side, side)).astype(dtype) for name in names}
    for plane in found.values():
        plane[:2] = nodata
    return found


def write_thirty(folder: Path, bands: dict[str, np.ndarray], name: str, **options: object) -> None:
    for band, plane in bands.items():
        write_raster(folder / name.format(band=band), plane, 30, **options)


def test_hls_l30_bands_mean_those_of_sentinel_2(tmp_path: Path) -> None:
    bands = thirty(["B01", "B02", "B03", "B04", "B05", "B06", "B07"])
    write_thirty(tmp_path, bands, "HLS.L30.T32TQM.2021123T101559.v2.0.{band}.tif", nodata=-9999)
    fmask = np.full((24, 24), 64, np.uint8)
    write_raster(tmp_path / "HLS.L30.T32TQM.2021123T101559.v2.0.Fmask.tif", fmask, 30, nodata=255)
    product = open_product(tmp_path)
    [scene] = product.scenes
    assert scene.band_names == ("B01", "B02", "B03", "B04", "B05", "B06", "B07")
    assert scene.band_codes == ("B01", "B02", "B03", "B04", "B8A", "B11", "B12")
    assert (scene.profile.nodata, scene.dtype, scene.offset) == (-9999, np.int16, 0)
    assert product.dates == (datetime(2021, 5, 3, 10, 15, 59),)
    assert [layer.name for layer in product.beside] == ["fmask"]
    assert (product.sensor, product.acquisitions[0].level) == ("hls", "L30")


def test_hls_l30_and_s30_share_a_store_by_what_their_bands_mean(tmp_path: Path) -> None:
    write_thirty(
        tmp_path, thirty(["B04", "B05"]), "HLS.L30.T32TQM.2022123T101559.v2.0.{band}.tif", nodata=-9999
    )
    write_thirty(
        tmp_path, thirty(["B04", "B8A"]), "HLS.S30.T32TQM.2022125T101559.v2.0.{band}.tif", nodata=-9999
    )
    [scene] = open_product(tmp_path).scenes
    assert scene.band_codes == ("B04", "B8A")
    assert [source.path.rpartition(".v2.0.")[2] for source in scene.sources[1]] == ["B04.tif", "B8A.tif"]


def test_landsat_has_its_offset_and_its_quality_beside(tmp_path: Path) -> None:
    bands = thirty([f"SR_B{i}" for i in range(1, 8)], "uint16", 0)
    name = "LC08_L2SP_193029_20220715_20220725_02_T1_{band}.TIF"
    write_thirty(tmp_path, bands | thirty(["ST_B10", "QA_PIXEL", "QA_RADSAT"], "uint16", 0), name, nodata=0)
    write_thirty(tmp_path, thirty(["SR_QA_AEROSOL"], "uint8", 0), name)
    product = open_product(tmp_path)
    [scene] = product.scenes
    assert scene.band_names == tuple(f"SR_B{i}" for i in range(1, 8))
    assert scene.offset == pytest.approx(7272.73)
    assert scene.band_offsets[0] == pytest.approx((7272.73,) * 7)
    assert product.sensor == "landsat-c2-l2"
    assert {layer.name for layer in product.beside} == {
        "surface_temperature",
        "qa_pixel",
        "qa_radsat",
        "qa_aerosol",
    }


def test_of_theias_two_reflectances_the_flat_one_is_taken_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "SENTINEL2B_20220715-105852-555_L2A_T31TCJ_C_V3-0"
    grids = made()
    del grids[60]
    low = {
        m: {b: (p.astype(int) - 1000).clip(-10000).astype(np.int16) for b, p in g.items()}
        for m, g in grids.items()
    }
    for kind in ("FRE", "SRE"):
        write_bands(folder, low, f"{folder.name}_{kind}_{{short}}.tif")
    write_raster(folder / "MASKS" / f"{folder.name}_CLM_R1.tif", np.zeros((96, 96), np.uint8), 10)
    write_raster(folder / "MASKS" / f"{folder.name}_CLM_R2.tif", np.zeros((48, 48), np.uint8), 20)
    product = open_product(folder)
    assert all("_FRE_" in source.path for scene in product.scenes for source in scene.sources[0])
    assert any("SRE is left out" in note for note in product.notes)
    assert (product.scenes[0].offset, product.scenes[0].profile.nodata) == (0, -10000)
    assert [layer.name for layer in product.beside] == ["clm"]


@pytest.mark.parametrize(("metres", "eighth"), [(10, "B08"), (20, "B8A")])
def test_sen2r_stacks_have_their_bands_by_its_own_order(tmp_path: Path, metres: int, eighth: str) -> None:
    stack = np.random.default_rng(0).integers(1, 4000, (11, 24, 24)).astype(np.uint16)
    write_raster(tmp_path / f"S2B2A_20210715_022_place_BOA_{metres}.tif", stack, metres)
    write_raster(tmp_path / f"S2B2A_20210715_022_place_SCL_{metres}.tif", classes(24), metres)
    product = open_product(tmp_path)
    assert product.scenes[0].band_codes[7] == eighth
    assert [layer.name for layer in product.beside] == ["scl"]


def test_dates_with_a_damaged_or_a_missing_file_are_left_out(tmp_path: Path) -> None:
    for day in (
        "20210715T101031",
        "20210720T101031",
        "20210725T101031",
        "20210730T101031",
        "20210804T101031",
    ):
        write_bands(tmp_path, made(), f"T32TQM_{day}_{{band}}_{{metres}}m.tif")
    (tmp_path / "T32TQM_20210720T101031_B05_20m.tif").unlink()
    (tmp_path / "T32TQM_20210725T101031_B05_20m.tif").write_bytes(b"no image")
    product = open_product(tmp_path, skip_bad=True)
    assert [f"{date:%m%d}" for date in product.dates if date] == ["0715", "0730", "0804"]
    assert sorted("B05" in text for text in product.left_out) == [True, True]


def test_a_nodata_value_that_is_none_of_whole_numbers_is_refused(tmp_path: Path) -> None:
    write_bands(tmp_path, made(), f"T32TQM_{OLD}_{{band}}_{{metres}}m.tif")
    path = tmp_path / f"T32TQM_{OLD}_B05_20m.tif"
    write_raster(path, made()[20]["B05"], 20, nodata=12345)
    path.write_bytes(path.read_bytes().replace(b"12345\0", b"nan\0\0\0"))  # as programs of floats write it
    with pytest.raises(InputError, match=r"B05_20m\.tif: nodata nan is no uint16.*gdal_edit"):
        open_product(sorted(tmp_path.glob("*.tif")))


def test_the_granule_of_a_product_is_a_folder_of_band_files(tmp_path: Path) -> None:
    safe = Safe(made())
    root = safe.write(tmp_path)
    granule = root / "GRANULE" / safe.granule
    write_raster(granule / "QI_DATA" / "MSK_DETFOO_B02.jp2", np.ones((96, 96), np.uint8), 10)
    product = open_product(granule)
    assert [scene.shape[1] for scene in product.scenes] == [4, 6, 2]
    assert product.scenes[0].offset == 1000  # by the product's name


def test_a_stack_whose_name_and_tags_contradict_each_other_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "S2B_MSIL2A_20220126T101311_N0400_R022_T32TQM_20220126T130000.tif"
    write_raster(path, np.ones((3, 8, 8), np.uint16), 10)
    with pytest.raises(
        InputError, match=r"no tag of the file.* says 0 DN, but the baseline .* 04\.00 says 1000 DN"
    ):
        open_product(path)
    assert open_product(path, offset=1000).scenes[0].offset == 1000
