"""Quality by place in stores: regions, masks, errors in proportion to brightness."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from click.testing import CliRunner
from rasterio.warp import transform_geom

import eozip
from eozip import store as stores
from eozip.cli import cli
from eozip.errors import InputError
from pyramidscenes import texture
from rasterfiles import UTM, write_tif

SIDE = 64
INSIDE = np.zeros((SIDE, SIDE), bool)
INSIDE[16:48, 16:32] = True


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    """A georeferenced GeoTIFF of three textured bands, dark in its left half."""
    dn = texture((1, 3, SIDE, SIDE), 3)[0]
    dn[..., : SIDE // 2] /= 6
    path = tmp_path_factory.mktemp("scene") / "20200101.tif"
    write_tif(path, np.rint(dn).astype(np.uint16))
    return path


def region_tif(folder: Path, inside: np.ndarray = INSIDE, **profile) -> Path:
    path = folder / "roi.tif"
    write_tif(
        path, inside[None].astype(profile.pop("dtype", "uint8")), names=(), **{"nodata": None, **profile}
    )
    return path


def region_json(folder: Path, left: float, top: float, right: float, bottom: float, **more) -> Path:
    """A rectangle given in pixels, as GeoJSON in longitude and latitude."""
    corners = [UTM @ one for one in ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))]
    utm = {"type": "Polygon", "coordinates": [corners]}
    geometry = transform_geom("EPSG:32633", "OGC:CRS84", utm)
    path = folder / "roi.geojson"
    features = [{"type": "Feature", "properties": {}, "geometry": geometry}]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features, **more}))
    return path


def encoded(scene: Path, folder: Path, **options) -> Path:
    out = folder / "out.zarr"
    eozip.encode_store(scene, out, **{"quality": 80, **options})
    return out


def errors(store: Path, scene: Path) -> np.ndarray:
    """Squared, of each pixel of the last date."""
    with rasterio.open(scene) as file:
        dn = file.read().astype(float)
    return np.square(pixels_of(store)[-1] - dn).mean(0)


def pixels_of(store: Path) -> np.ndarray:
    found = stores.describe(store)
    times, _, height, width = found.grid.shape
    return stores.read_pixels(found, slice(0, times), slice(0, height), slice(0, width))


def test_a_region_stays_good_and_the_rest_costs_less(scene, tmp_path):
    (tmp_path / "a").mkdir()
    plain = encoded(scene, tmp_path / "a")
    store = encoded(scene, tmp_path, roi=region_tif(tmp_path), outside_quality=10)
    assert errors(store, scene)[INSIDE].mean() < 1.4 * errors(plain, scene)[INSIDE].mean()
    assert errors(store, scene)[~INSIDE].mean() > 4 * errors(plain, scene)[~INSIDE].mean()
    assert stores.describe(store).bytes < stores.describe(plain).bytes


def test_a_vector_is_the_same_region(scene, tmp_path):
    (tmp_path / "a").mkdir()
    by_raster = encoded(scene, tmp_path / "a", roi=region_tif(tmp_path), outside_quality=10)
    by_vector = encoded(
        scene, tmp_path, roi=region_json(tmp_path, 16.2, 16.2, 31.8, 47.8), outside_quality=10
    )
    assert np.array_equal(pixels_of(by_raster), pixels_of(by_vector))


def test_a_coarser_raster_fits(scene, tmp_path):
    region = region_tif(tmp_path, INSIDE[::2, ::2], transform=UTM @ UTM.scale(2))
    store = encoded(scene, tmp_path, roi=region, outside_quality="none")
    assert errors(store, scene)[~INSIDE].mean() > 10 * errors(store, scene)[INSIDE].mean()


def test_what_a_mask_hides_gets_another_quality(scene, tmp_path):
    store = encoded(scene, tmp_path, mask=str(region_tif(tmp_path)), masked_quality=10)
    found = errors(store, scene)
    assert found[16:48, 20:28].mean() > 3 * found[:, 48:].mean()
    assert "date_dropped" not in stores.describe(store).facts


def test_dark_pixels_can_be_finer(scene, tmp_path):
    (tmp_path / "a").mkdir()
    plain, store = (
        encoded(scene, tmp_path / "a", quality=60),
        encoded(scene, tmp_path, quality=60, relative=1),
    )
    dark = np.s_[:, : SIDE // 2]
    assert errors(store, scene)[dark].mean() < 0.5 * errors(plain, scene)[dark].mean()
    assert 0.5 < errors(store, scene)[:, SIDE // 2 :].mean() / errors(plain, scene)[:, SIDE // 2 :].mean() < 2


def test_a_store_tells_what_was_asked_for(scene, tmp_path):
    store = encoded(scene, tmp_path, roi=region_tif(tmp_path), outside_quality=10, relative=0.5)
    told = CliRunner().invoke(cli, ["info", "--json", str(store)])
    assert json.loads(told.stdout)["places"] == {"roi": "roi.tif", "outside_quality": 10, "relative": 0.5}
    told = CliRunner().invoke(cli, ["info", str(store)])
    assert "roi roi.tif, outside_quality 10, relative 0.5\n" in told.stdout


def test_a_store_by_places_is_verified(scene, tmp_path):
    store = encoded(scene, tmp_path, roi=region_tif(tmp_path), outside_quality=10, relative=1)
    told = CliRunner().invoke(cli, ["verify", str(store), "--against", str(scene)])
    assert told.exit_code == 0, told.output


def test_the_largest_error_holds_outside_of_a_region(scene, tmp_path):
    store = encoded(scene, tmp_path, roi=region_tif(tmp_path), outside_quality="none", max_error=40)
    assert np.sqrt(errors(store, scene).max()) <= 40


def test_new_dates_take_regions_of_their_own_and_the_power_of_the_store(scene, tmp_path):
    store = encoded(scene, tmp_path, relative=1)
    later = tmp_path / "20200201.tif"
    later.write_bytes(scene.read_bytes())
    stores.append_files(store, later, places=stores.Places(roi=region_tif(tmp_path), outside_quality=0))
    assert errors(store, later)[~INSIDE].mean() > 3 * errors(store, later)[INSIDE].mean()
    with pytest.raises(InputError, match="relative: expected 1, as the store was encoded, got 2"):
        stores.append_files(store, later, places=stores.Places(relative=2))


def test_the_command_line_takes_a_region(scene, tmp_path):
    out = tmp_path / "cli.zarr"
    asked = ["--roi", str(region_tif(tmp_path)), "--outside-quality", "none", "--relative", "1"]
    told = CliRunner().invoke(cli, ["encode", str(scene), str(out), "--quality", "70", *asked])
    assert told.exit_code == 0, told.output
    assert stores.describe(out).facts["places"]["outside_quality"] == "none"


# --- bad input: nothing is written ---


def moved(folder: Path) -> Path:
    return region_tif(folder, transform=UTM @ UTM.translation(3, 0))


def other_system(folder: Path) -> Path:
    return region_tif(folder, crs="EPSG:32634")


def of_nan(folder: Path) -> Path:
    values = INSIDE.astype("float32")
    values[3, 3] = np.nan
    return region_tif(folder, values, dtype="float32")


def text(folder: Path, content: str, name: str = "roi.geojson") -> Path:
    (folder / name).write_text(content)
    return folder / name


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (lambda f: region_tif(f, INSIDE[:40]), "wrong size: expected 64 x 64"),
        (moved, "expected the grid of the scene"),
        (other_system, "coordinate system"),
        (of_nan, "NaN or infinity"),
        (lambda f: region_tif(f, np.zeros_like(INSIDE)), "covers pixels of the scene"),
        (lambda f: region_json(f, 900, 900, 950, 950), "covers pixels of the scene"),
        (
            lambda f: region_json(f, 1, 1, 9, 9, crs={"properties": {"name": "nowhere"}}),
            "coordinates that fit",
        ),
        (lambda f: text(f, "{"), "expected GeoJSON"),
        (lambda f: text(f, "[1]"), "expected a GeoJSON object"),
        (lambda f: text(f, '{"type": "FeatureCollection", "features": 3}'), "list of GeoJSON features"),
        (lambda f: text(f, '{"type": "FeatureCollection", "features": []}'), "expected geometries, got none"),
        (lambda f: text(f, '{"type": "Polygon", "coordinates": 3}'), "some that are none"),
        (lambda f: text(f, "", "roi.gpkg"), "fiona|expected a vector file"),
        (lambda f: f / "missing.geojson", "expected GeoJSON"),
        (lambda f: f / "missing.tif", "missing.tif"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(scene, tmp_path, region, message):
    with pytest.raises(InputError, match=message):
        encoded(scene, tmp_path, roi=region(tmp_path), outside_quality=10)
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"roi": "roi.tif"}, "go together"),
        ({"outside_quality": 3}, "go together"),
        ({"masked_quality": 3}, "expected a mask"),
        ({"mask": "roi.tif", "masked_quality": 90}, "at most the store's quality 80"),
        ({"mask": "roi.tif", "masked_quality": 101}, "expected 0..100"),
        ({"mask": "roi.tif", "masked_quality": float("nan")}, "expected 0..100"),
        ({"mask": "roi.tif", "masked_quality": "low"}, "masked_quality"),
        ({"mask": "roi.tif", "masked_quality": 5, "quality": None, "target_psnr": 40}, "to set it against"),
        ({"relative": -1}, "power of 0 to 4"),
        ({"relative": float("nan")}, "power of 0 to 4"),
        ({"relative": 1, "codec": "lossless", "quality": None}, "codes all cells alike"),
    ],
)
def test_what_does_not_go_together_is_refused(scene, tmp_path, options, message):
    region_tif(tmp_path)
    paths = {key: str(tmp_path / value) for key, value in options.items() if key in ("roi", "mask")}
    with pytest.raises(InputError, match=message):
        encoded(scene, tmp_path, **{**options, **paths})
    assert not (tmp_path / "out.zarr").exists()


def test_a_vector_needs_a_scene_with_coordinates(tmp_path):
    plain = tmp_path / "20200101.tif"
    write_tif(plain, np.full((3, SIDE, SIDE), 500, np.uint16), crs=None)
    with pytest.raises(InputError, match="coordinates for a vector"):
        encoded(plain, tmp_path, roi=region_json(tmp_path, 1, 1, 9, 9), outside_quality=10)


def test_a_mask_needs_something_to_be_done_with_it(scene, tmp_path):
    asked = ["encode", str(scene), str(tmp_path / "o.zarr"), "--mask", "roi.tif", "--drop", "masked"]
    told = CliRunner().invoke(cli, [*asked, "--masked-quality", "3"])
    assert told.exit_code == 2
    assert "two ways" in told.output
