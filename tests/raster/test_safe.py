""".SAFE products in, by their XML: pixels as GDAL's own SENTINEL2 driver has them, offsets by band_id, what lies beside."""

from __future__ import annotations

import itertools
import re
import shutil
import zipfile
from collections import Counter, OrderedDict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio

from eozip.errors import InputError
from eozip.raster import Product, open_product, open_reader
from eozip.raster.read import CACHE_BYTES, JPEG2000_CACHE_BYTES
from eozip.sensors.sensor import canonical_name
from eozip.store.grid import plan
from products import Safe, made, real, write_raster


def pixels(product: Product) -> dict[str, np.ndarray]:
    """[T, h, w] by band."""
    found: dict[str, np.ndarray] = {}
    for scene in product.scenes:
        with open_reader(scene) as reader:
            whole = reader.read(slice(None), slice(None), slice(None))
        found |= {str(code): whole[:, i] for i, code in enumerate(scene.band_codes)}
    return found


def by_gdal(path: Path, level: str) -> dict[str, np.ndarray]:
    """Bands as GDAL's SENTINEL2 driver reads them, by band; what lies beside left out."""
    main = path if path.suffix == ".zip" else path / f"MTD_MSI{level}.xml"
    with rasterio.open(main) as product:
        parts = [name for name in product.subdatasets if "TCI" not in name and "PREVIEW" not in name]
    found: dict[str, np.ndarray] = {}
    for part in parts:
        with rasterio.open(part) as source:
            for i, text in enumerate(source.descriptions, start=1):
                code = canonical_name(text)
                if code is not None:
                    found[code] = source.read(i)
    return found


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("level", ["L2A", "L1C"])
def test_bands_are_those_of_gdals_own_driver(tmp_path: Path, level: str, zipped: bool) -> None:
    path = Safe(made(level=level), level).write(tmp_path, zipped)
    expected, found = by_gdal(path, level), pixels(open_product(path))
    assert found.keys() == expected.keys()
    for band, plane in expected.items():
        np.testing.assert_array_equal(found[band][0], plane, err_msg=band)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("place", ["brazil_l1c", "finland", "vietnam_l1c"])
def test_real_bands_are_those_of_gdals_own_driver(tmp_path: Path, place: str) -> None:
    grids = real(place)
    if grids is None:
        pytest.skip("needs shared/data/other (EOZIP_DATA)")
    level = "L1C" if "l1c" in place else "L2A"
    path = Safe(grids, level).write(tmp_path)
    wanted = [band for bands in grids.values() for band in bands]
    found = pixels(open_product(path, bands=wanted))
    expected = by_gdal(path, level)
    for band in wanted:
        np.testing.assert_array_equal(found[band][0], expected[band], err_msg=band)


def test_each_grid_is_a_scene_the_finest_first(tmp_path: Path) -> None:
    product = open_product(Safe(made()).write(tmp_path))
    assert [scene.shape for scene in product.scenes] == [(1, 4, 96, 96), (1, 6, 48, 48), (1, 2, 16, 16)]
    assert product.scenes[1].band_codes == ("B05", "B06", "B07", "B8A", "B11", "B12")


def test_offsets_are_by_band_id(tmp_path: Path) -> None:
    # of 13 in Level-2A too, which has 12 bands: 8 is B8A, 11 is B11, 12 is B12
    safe = Safe(made(), offsets={8: -1008, 10: -1, 11: -1011, 12: -1012})
    product = open_product(safe.write(tmp_path))
    assert product.offsets[1] == ((1000, 1000, 1000, 1008, 1011, 1012),)
    assert product.offsets[0] == ((1000,) * 4,)


def test_what_the_metadata_say_is_known(tmp_path: Path) -> None:
    product = open_product(Safe(made()).write(tmp_path))
    [told] = product.acquisitions
    assert told.sensing == datetime(2022, 1, 26, 10, 13, 11, 500000)
    assert (told.level, told.baseline) == ("L2A", "05.11")
    assert told.specials == {"NODATA": 0, "SATURATED": 65535}
    assert "BOA_ADD_OFFSET of MTD_MSIL2A.xml" in told.offset_source
    assert (product.sensor, product.scale, product.scenes[0].profile.nodata) == ("s2-l2a", 1e-4, 0)


def test_classes_and_probabilities_lie_beside(tmp_path: Path) -> None:
    product = open_product(Safe(made()).write(tmp_path))
    kinds = {layer.name: layer.kind for layer in product.beside}
    assert kinds == {
        "scl": "classes", "aot": "quantity", "wvp": "quantity", "cld": "probability", "snw": "probability"
    }  # fmt: skip
    scl = product.beside[0]
    assert scl.attributes["flag_meanings"].split()[9] == "cloud_high_probability"
    assert scl.scene.shape == (1, 1, 48, 48)


def test_masks_of_level_1c_lie_beside(tmp_path: Path) -> None:
    safe = Safe(made(level="L1C"), "L1C")
    product = open_product(safe.write(tmp_path))
    assert [(layer.name, layer.kind) for layer in product.beside] == [
        ("clouds", "classes"), ("cirrus", "classes"), ("snow", "classes")
    ]  # fmt: skip
    for layer, plane in zip(product.beside, safe.classification(), strict=True):
        with open_reader(layer.scene) as reader:
            np.testing.assert_array_equal(reader.read(slice(None), slice(None), slice(None))[0, 0], plane)


def test_level_1c_of_an_old_baseline_has_no_such_masks(tmp_path: Path) -> None:
    path = Safe(made(level="L1C"), "L1C", "20200126T101311", "02.09", offset=None).write(tmp_path)
    assert open_product(path).beside == ()


def test_a_mask_of_level_1c_with_other_bands_is_refused(tmp_path: Path) -> None:
    safe = Safe(made(level="L1C"), "L1C")
    path = safe.write(tmp_path)
    write_raster(
        path / "GRANULE" / safe.granule / "QI_DATA" / "MSK_CLASSI_B00.jp2", safe.classification()[:2], 60
    )
    refused(path, r"MSK_CLASSI_B00\.jp2: expected 3 bands, clouds, cirrus, snow, got 2")


def test_an_old_baseline_without_offsets_has_none(tmp_path: Path) -> None:
    safe = Safe(made(), date="20200126T101311", baseline="02.14", offset=None)
    product = open_product(safe.write(tmp_path))
    assert product.scenes[0].offset == 0
    assert product.acquisitions[0].offset_source == "PROCESSING_BASELINE 02.14"


def test_an_old_date_of_collection_1_has_the_offset(tmp_path: Path) -> None:
    safe = Safe(made(), date="20180126T101311", baseline="05.00")
    assert open_product(safe.write(tmp_path)).scenes[0].offset == 1000


def test_dates_of_two_baselines_keep_their_offsets(tmp_path: Path) -> None:
    old = Safe(made(1), date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    new = Safe(made(2), date="20220131T101311").write(tmp_path)
    product = open_product([new, old])
    assert product.offsets[0] == ((0,) * 4, (1000,) * 4)
    assert product.scenes[0].offset == 1000
    assert [one.baseline for one in product.acquisitions] == ["03.01", "05.11"]


def test_harmonised_dates_have_one_offset_and_their_special_values(tmp_path: Path) -> None:
    grids = made(1)
    old = Safe(grids, date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    new = Safe(made(2), date="20220131T101311").write(tmp_path)
    product = open_product([new, old], harmonise=True)
    blue = pixels(product)["B02"][0]
    expected = grids[10]["B02"].astype(int)
    expected[~np.isin(expected, (0, 65535))] += 1000
    np.testing.assert_array_equal(blue, expected)
    assert product.scenes[0].band_offsets == ((1000,) * 4, (1000,) * 4)


# --- refused ---


def refused(path: Path | list[Path], match: str, **options) -> None:
    with pytest.raises(InputError, match=match):
        open_product(path, **options)


def test_an_xml_without_offsets_is_refused_from_baseline_4_on(tmp_path: Path) -> None:
    path = Safe(made(), offset=None).write(tmp_path)
    refused(path, r"BASELINE is 05\.11, but MTD_MSIL2A\.xml lists no BOA_ADD_OFFSET.*--offset 1000 or")
    assert open_product(path, offset=1000).scenes[0].offset == 1000


def test_an_offset_that_contradicts_its_baseline_shows_both(tmp_path: Path) -> None:
    path = Safe(made(), date="20200126T101311", baseline="02.14", offset=-1000).write(tmp_path)
    refused(path, r"BOA_ADD_OFFSET of .* says 1000 DN, but PROCESSING_BASELINE 02\.14 says 0 DN.*--offset")


def test_a_missing_band_file_is_named(tmp_path: Path) -> None:
    path = Safe(made(), drop=("B05",)).write(tmp_path)
    refused(path, r"band B05 \(20 m\) is missing.*--bands B01,")
    assert open_product(path, bands=["B02", "B11"]).scenes[1].band_codes == ("B11",)


def test_grids_that_do_not_align_are_refused(tmp_path: Path) -> None:
    grids = made()
    grids[20] = {band: plane[:40] for band, plane in grids[20].items()}
    refused(Safe(grids).write(tmp_path), r"grids do not align: 40 x 48 pixels of 20 .*96 x 96 pixels of 10")


def test_two_dates_on_different_grids_are_refused(tmp_path: Path) -> None:
    one = Safe(made()).write(tmp_path)
    other = Safe(made(side=108), date="20220131T101311").write(tmp_path)
    refused([one, other], r"height differs.*expected 96, got 108")


def test_a_damaged_xml_is_refused(tmp_path: Path) -> None:
    path = Safe(made()).write(tmp_path)
    (path / "MTD_MSIL2A.xml").write_text("<n1:Level-2A", encoding="utf-8")
    refused(path, r"MTD_MSIL2A\.xml is no XML")


def test_a_jp2_that_cannot_be_opened_is_named_with_its_band(tmp_path: Path) -> None:
    safe = Safe(made())
    path = safe.write(tmp_path)
    (path / f"{safe.image('B03', 10)}.jp2").write_bytes(b"no image")
    refused(path, r"20220126T101311.*: band B03: ")


def test_a_folder_of_products_is_a_series(tmp_path: Path) -> None:
    Safe(made(1)).write(tmp_path, zipped=True)
    Safe(made(2), date="20220131T101311").write(tmp_path)
    assert len(open_product(tmp_path).dates) == 2


def test_products_of_one_solar_day_are_merged_when_asked(tmp_path: Path) -> None:
    first, second = made(1), made(2)
    for grids, columns in ((first, slice(None, None)), (second, slice(None, None))):
        for bands in grids.values():
            for plane in bands.values():
                half = len(plane) // 2
                plane[:half, columns] = 0 if grids is first else plane[:half, columns]
    one = Safe(first).write(tmp_path)
    two = Safe(second, date="20220126T101321").write(tmp_path)
    assert len(open_product([one, two]).dates) == 2
    merged = pixels(open_product([one, two], mosaic="solar-day"))
    for metres, bands in first.items():
        for band, plane in bands.items():
            expected = np.where(plane == 0, second[metres][band], plane)
            np.testing.assert_array_equal(merged[band], expected[None], err_msg=band)


def test_products_of_other_solar_days_are_not_merged(tmp_path: Path) -> None:
    one = Safe(made(1)).write(tmp_path)
    two = Safe(made(2), date="20220127T101321").write(tmp_path)
    assert len(open_product([one, two], mosaic="solar-day").dates) == 2


def test_bands_are_chosen_over_all_grids(tmp_path: Path) -> None:
    product = open_product(Safe(made()).write(tmp_path), bands=["swir16", "red", "B09"])
    assert [scene.band_codes for scene in product.scenes] == [("B04",), ("B11",), ("B09",)]


def test_unpacked_metadata_name_the_product(tmp_path: Path) -> None:
    path = Safe(made()).write(tmp_path)
    renamed = tmp_path / "renamed"
    shutil.move(path, renamed)
    assert len(open_product(renamed / "MTD_MSIL2A.xml").scenes) == 3


# --- damaged dates ---


def damage(safe: Safe, path: Path, band: str = "B03") -> None:
    """Cuts a JPEG 2000 file short behind its header: it opens, and cannot be read."""
    image = path / f"{safe.image(band, 10)}.jp2"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])


def test_a_damaged_jp2_is_named_with_its_date_and_band_when_it_is_read(tmp_path: Path) -> None:
    safe = Safe(made())
    path = safe.write(tmp_path)
    damage(safe, path)
    with pytest.raises(InputError, match=r"2022-01-26, band B03: cannot read"):
        pixels(open_product(path))


def test_a_damaged_date_is_left_out_and_said(tmp_path: Path) -> None:
    safe = Safe(made())
    damage(safe, safe.write(tmp_path))
    Safe(made(2), date="20220131T101311").write(tmp_path)
    Safe(made(3), date="20220205T101311", drop=("B05",)).write(tmp_path)
    product = open_product(tmp_path, skip_bad=True)
    assert [f"{date:%m%d}" for date in product.dates if date] == ["0131"]
    assert "2022-01-26, band B03: cannot be read" in product.left_out[0]
    assert "band B05 (20 m) is missing" in product.left_out[1]


def test_where_every_date_is_damaged_all_are_named(tmp_path: Path) -> None:
    safe = Safe(made())
    damage(safe, safe.write(tmp_path))
    with pytest.raises(InputError, match=r"every date is damaged.*band B03"):
        open_product(tmp_path, skip_bad=True)


@pytest.mark.parametrize("encoding", ["A" * 200, "utf-7", "idna", "nonsense"])
def test_an_xml_of_another_encoding_is_refused(tmp_path: Path, encoding: str) -> None:
    product = Safe(made()).write(tmp_path)
    main = product / "MTD_MSIL2A.xml"
    text = re.sub(r"<[?]xml.*?[?]>", "", main.read_text())
    main.write_text(f'<?xml version="1.0" encoding="{encoding}"?>{text}')
    with pytest.raises(InputError, match="is no XML"):
        open_product(product)


@pytest.mark.parametrize("damage", ["encrypted", "method", "deflate", "cut"])
def test_a_damaged_zip_file_of_a_product_is_refused(tmp_path: Path, damage: str) -> None:
    product = Safe(made()).write(tmp_path, zipped=True)
    name = "S/MTD_MSIL2A.xml"
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, "<a>" + "x" * 1000 + "</a>")
    data = bytearray((tmp_path / "p.zip").read_bytes())
    directory = data.rindex(b"PK\1\2")
    for local, at in ((0, 6), (directory, 8)):
        if damage == "encrypted":
            data[local + at] |= 1
        if damage == "method":
            data[local + at + 2] = 99
    if damage == "deflate":
        data[30 + len(name)] ^= 0xFF
    if damage == "cut":
        data = bytearray(product.read_bytes())[:5000]
    (tmp_path / "p.zip").write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"p\.zip"):
        open_product(tmp_path / "p.zip")


def test_dark_pixels_that_wrapped_around_are_not_harmonised(tmp_path: Path) -> None:
    grids = made(1)
    grids[10]["B04"][20, 60] = 65000  # an offset was taken off below 0, as in some files of one catalogue
    old = Safe(grids, date="20211227T101311", baseline="03.01", offset=None).write(tmp_path)
    new = Safe(made(2), date="20220131T101311").write(tmp_path)
    with pytest.raises(InputError, match=r"cannot be harmonised.*wrapped around.*without --harmonise"):
        pixels(open_product([old, new], harmonise=True))


def test_products_in_folders_of_folders_are_found(tmp_path: Path) -> None:
    Safe(made()).write(tmp_path / "2022" / "01")
    assert len(open_product(tmp_path).scenes) == 3


# --- whole tiles ---


def decoded_tiles(cache: int) -> float:
    """How often each JPEG 2000 tile of a whole product is decoded, with a cache that forgets what was used longest ago."""
    grid = plan((1, 12, 10980, 10980), alignment=48)
    kept: OrderedDict[tuple[int, ...], None] = OrderedDict()
    decoded, bands = Counter(), {1: 4, 2: 6, 6: 2}
    for shard in grid.shards():
        for strip in grid.strips(shard):
            sides = strip[0].rows, (strip[0].columns[0], strip[-1].columns[1])
            for factor, count in bands.items():
                rows, columns = (
                    range(a // factor // 1024, (-(-b // factor) - 1) // 1024 + 1) for a, b in sides
                )
                for tile in itertools.product([factor], range(count), rows, columns):
                    decoded[tile] += tile not in kept
                    kept[tile] = kept.pop(tile, None)
                    while len(kept) > cache // (2 * 1024**2):
                        kept.popitem(last=False)
    return sum(decoded.values()) / len(decoded)


def test_tiles_of_a_whole_product_are_decoded_once() -> None:
    assert decoded_tiles(JPEG2000_CACHE_BYTES) == 1
    assert decoded_tiles(CACHE_BYTES) > 1.4


def test_products_are_read_with_the_larger_cache(tmp_path: Path) -> None:
    scene = open_product(Safe(made()).write(tmp_path)).scenes[0]
    with open_reader(scene):
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == JPEG2000_CACHE_BYTES
