"""STAC items in: assets by catalogue, fields heeded, offsets by every source, contradictions shown."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stacitems
from eozip.errors import InputError
from eozip.raster import Product, open_product
from products import made, write_raster
from test_band_files import thirty
from test_safe import pixels

GRIDS = made()


def check_pixels(product: Product, count: int = 12) -> None:
    found = pixels(product)
    assert len(found) == count
    for bands in GRIDS.values():
        for band, plane in bands.items():
            np.testing.assert_array_equal(found[band][0], plane, err_msg=band)


def changed(path: Path, change: Any) -> Path:
    found = json.loads(path.read_text(encoding="utf-8"))
    change(found)
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_earth_search(tmp_path: Path) -> None:
    product = open_product(stacitems.earth_search(tmp_path, GRIDS))
    check_pixels(product)
    assert [scene.shape[2] for scene in product.scenes] == [96, 48, 16]
    assert product.scenes[0].offset == 1000
    assert [layer.name for layer in product.beside] == ["scl"]
    assert product.scenes[0].band_names == ("blue", "green", "red", "nir")
    assert (product.acquisitions[0].baseline, product.sensor) == ("05.09", "s2-l2a")


@pytest.mark.parametrize("flag", [True, False])
def test_earth_search_v0_needs_its_flag(tmp_path: Path, flag: bool) -> None:
    product = open_product(stacitems.earth_search_v0(tmp_path, GRIDS, "04.00", flag))
    check_pixels(product)
    assert product.scenes[0].offset == (0 if flag else 1000)


def test_earth_search_v0_without_its_flag_is_refused(tmp_path: Path) -> None:
    path = stacitems.earth_search_v0(tmp_path, GRIDS, "04.00")
    with pytest.raises(
        InputError, match=r"baseline 04\.00 says 1000 DN.*neither boa_offset_applied.*--offset"
    ):
        open_product(path)


def test_earth_search_v0_of_an_old_baseline_has_no_offset(tmp_path: Path) -> None:
    assert open_product(stacitems.earth_search_v0(tmp_path, GRIDS, "02.14")).scenes[0].offset == 0


def test_planetary_computer_leaves_the_offset_in(tmp_path: Path) -> None:
    product = open_product(stacitems.planetary_computer(tmp_path, GRIDS))
    check_pixels(product)
    assert product.scenes[0].offset == 1000
    assert product.scenes[0].profile.nodata == 0  # its files do not say so
    assert "processing baseline 05.09" in product.acquisitions[0].offset_source


def test_planetary_computer_of_an_old_baseline_has_none(tmp_path: Path) -> None:
    product = open_product(stacitems.planetary_computer(tmp_path, GRIDS, "02.12", "2020-07-15T10:10:31Z"))
    assert product.scenes[0].offset == 0


def test_cdse_takes_bands_on_their_native_grids(tmp_path: Path) -> None:
    product = open_product(stacitems.cdse(tmp_path, GRIDS))
    check_pixels(product)
    assert product.scenes[0].offset == 1000
    aot = next(layer for layer in product.beside if layer.name == "aot")
    assert aot.attributes["scale_factor"] == 0.001  # not the reflectance's, which the item says


def test_landsat(tmp_path: Path) -> None:
    bands = thirty([f"SR_B{i}" for i in range(1, 8)], "uint16", 0)
    product = open_product(stacitems.landsat(tmp_path, bands))
    [scene] = product.scenes
    assert scene.offset == pytest.approx(7272.73)
    assert scene.band_offsets[0] == pytest.approx((7272.73,) * 7)
    assert scene.band_names == ("coastal", "blue", "green", "red", "nir08", "swir16", "swir22")
    np.testing.assert_array_equal(pixels(product)["B8A"][0], bands["SR_B5"])
    assert {layer.name for layer in product.beside} == {"qa_pixel", "surface_temperature"}


def test_hls(tmp_path: Path) -> None:
    bands = thirty(["B01", "B02", "B03", "B04", "B05", "B06", "B07"])
    product = open_product(stacitems.hls(tmp_path, bands, "L30"))
    assert product.scenes[0].band_codes == ("B01", "B02", "B03", "B04", "B8A", "B11", "B12")
    assert (product.sensor, product.acquisitions[0].level, product.scenes[0].offset) == ("hls", "L30", 0)
    assert [layer.name for layer in product.beside] == ["fmask"]


def test_an_item_collection_is_a_series(tmp_path: Path) -> None:
    features = []
    for seed, day in enumerate(("2023-07-20T10:10:31Z", "2023-07-15T10:10:31Z")):
        folder = tmp_path / str(seed)
        folder.mkdir()
        one = json.loads(
            stacitems.planetary_computer(folder, made(seed), day=day).read_text(encoding="utf-8")
        )
        for asset in one["assets"].values():
            asset["href"] = str(folder / asset["href"])
        features.append(one)
    path = tmp_path / "items.json"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")
    product = open_product(path)
    assert [f"{date:%d}" for date in product.dates if date] == ["15", "20"]
    np.testing.assert_array_equal(pixels(product)["B02"], [made(1)[10]["B02"], made(0)[10]["B02"]])


def test_assets_are_chosen_by_key(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS)
    product = open_product(path, assets=["red", "swir16", "scl"])
    assert [scene.band_codes for scene in product.scenes] == [("B04",), ("B11",)]
    assert [layer.name for layer in product.beside] == ["scl"]
    with pytest.raises(InputError, match=r"no asset 'purple'; it has coastal|no asset 'purple'; it has blue"):
        open_product(path, assets=["purple"])


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A folder by HTTP, from another process: rasterio opens files without letting other threads of this one run."""
    command = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        "0",
        "--bind",
        "127.0.0.1",
        "--directory",
        str(folder),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        found = re.search(r"port (\d+)", server.stdout.readline())
        assert found is not None
        try:
            yield f"http://127.0.0.1:{found.group(1)}"
        finally:
            server.terminate()


def test_an_item_and_its_assets_may_be_remote(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS)
    with served(tmp_path) as url:
        product = open_product(f"{url}/{path.name}", bands=["B04", "B11"])
        found = pixels(product)
    np.testing.assert_array_equal(found["B11"][0], GRIDS[20]["B11"])


# --- contradictions and refusals ---


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match):
        open_product(path)


def test_a_flag_that_the_offset_contradicts_shows_both(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS, applied=True, offset=-0.1)
    refused(
        path,
        r"boa_offset_applied true says 0 DN, but raster:scale 0\.0001, offset -0\.1 says 1000 DN.*--offset 1000 if",
    )
    assert open_product(path, offset=0).scenes[0].offset == 0


def test_a_flag_and_an_offset_that_agree_are_believed(tmp_path: Path) -> None:
    product = open_product(stacitems.earth_search(tmp_path, GRIDS, applied=True, offset=0.0))
    assert product.scenes[0].offset == 0
    assert "boa_offset_applied true" in product.acquisitions[0].offset_source


def test_an_offset_of_an_old_baseline_shows_both(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS, applied=None, baseline="02.14")
    refused(path, r"processing baseline 02\.14 says 0 DN, but raster:scale .* says 1000 DN")


def test_an_offset_of_0_from_baseline_4_on_shows_both(tmp_path: Path) -> None:
    path = stacitems.cdse(tmp_path, GRIDS, offset=0.0)
    refused(path, r"processing baseline 05\.09 says 1000 DN, but raster:scale .* offset 0 says 0 DN")


def test_an_item_without_usable_assets_is_refused(tmp_path: Path) -> None:
    path = changed(
        stacitems.earth_search(tmp_path, GRIDS),
        lambda one: one.update(assets={"thumbnail": {"href": "./t.jpg"}}),
    )
    refused(path, r"no usable assets.*It has thumbnail.*--asset")


def test_a_missing_file_of_an_asset_is_named(tmp_path: Path) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS)
    (tmp_path / "rededge1.tif").unlink()
    refused(path, r"S2B_32TQM_20230715_0_L2A: asset rededge1: .*no such file")


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [("proj:shape", [95, 96], "shape is 96 x 96"), ("proj:transform", [10, 0, 0, 0, -10, 0], "transform")],
)
def test_a_projection_that_the_file_contradicts_shows_both(
    tmp_path: Path, field: str, value: list[int], shown: str
) -> None:
    path = stacitems.earth_search(tmp_path, GRIDS)
    refused(
        changed(path, lambda one: one["assets"]["blue"].update({field: value})),
        rf"asset blue: .*{shown}.*but the item",
    )


def test_a_crs_that_files_lack_is_the_items(tmp_path: Path) -> None:
    path = stacitems.planetary_computer(tmp_path, GRIDS)
    write_raster(tmp_path / "B02.tif", GRIDS[10]["B02"], 10, crs=None)
    product = open_product(path)
    assert "32632" in str(product.scenes[0].profile.crs)
    assert product.scenes[0].shape[1] == 4


@pytest.mark.parametrize(
    "text", ["[1, 2]", "{", '{"type": "Catalog"}', '{"type": "FeatureCollection", "features": []}']
)
def test_what_is_no_item_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "item.json").write_text(text, encoding="utf-8")
    refused(tmp_path / "item.json", r"item\.json: .*STAC item")


@pytest.mark.parametrize(
    ("key", "value"),
    [("links", 5), ("links", [1]), ("properties", True), ("properties", [1]), ("collection", 7), ("id", [])],
)
def test_fields_of_other_kinds_are_refused_or_left_out(tmp_path: Path, key: str, value: object) -> None:
    item = changed(stacitems.cdse(tmp_path, GRIDS), lambda found: found.update({key: value}))
    try:
        check_pixels(open_product(item))
    except InputError as error:
        assert item.name in str(error)  # noqa: PT017


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "\ufeff", "null"])
def test_json_that_is_no_item_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "item.json").write_text(text)
    with pytest.raises(InputError, match="STAC item"):
        open_product(tmp_path / "item.json")


@pytest.mark.parametrize(
    ("key", "value"),
    [("proj:epsg", "/etc/passwd"), ("proj:code", "EPSG:nonsense"), ("proj:transform", ["x"] * 6)],
)
def test_places_of_other_kinds_are_refused(tmp_path: Path, key: str, value: object) -> None:
    def change(found: dict[str, Any]) -> None:
        for table in (found["properties"], *found["assets"].values()):
            table.pop("proj:code", None)
            table.pop("proj:epsg", None)
            table[key] = value

    item = changed(stacitems.planetary_computer(tmp_path, GRIDS), change)
    with pytest.raises(InputError, match=r"no CRS|proj:transform"):
        open_product(item)
