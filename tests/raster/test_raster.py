"""GeoTIFFs in: what a scene is, and what is refused."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from eozip import raster
from eozip.errors import InputError
from eozip.raster.files import _date_of as date_of
from rasterfiles import NAMES, pixels, write_tif

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_a_folder_is_a_stack_in_time_order(tmp_path: Path) -> None:
    days = {"b_20250801.tif": 8, "a_20251201.tif": 12, "S2A_2025-04-15T101559_x.tif": 4}
    for name, seed in days.items():
        write_tif(tmp_path / name, pixels(seed))
    (tmp_path / "notes.txt").write_text("no raster")
    scene = raster.open_scene(tmp_path)
    assert scene.shape == (3, 3, 37, 53)
    assert scene.dates == (datetime(2025, 4, 15, 10, 15, 59), datetime(2025, 8, 1), datetime(2025, 12, 1))
    whole = raster.read_window(scene, slice(None), slice(None), slice(None))
    np.testing.assert_array_equal(whole, np.stack([pixels(4), pixels(8), pixels(12)]))
    part = raster.read_window(scene, slice(1, 3), slice(5, 9), slice(50, 53))
    np.testing.assert_array_equal(part, whole[1:3, :, 5:9, 50:53])


def test_files_without_dates_keep_the_order_given(tmp_path: Path) -> None:
    for name in ("z.tif", "a.tif"):
        write_tif(tmp_path / name, pixels())
    scene = raster.open_scene([tmp_path / "z.tif", tmp_path / "a.tif"])
    assert [Path(p).name for p in scene.paths] == ["z.tif", "a.tif"]
    assert scene.dates == (None, None)
    assert [Path(p).name for p in raster.open_scene(tmp_path).paths] == ["a.tif", "z.tif"]


def test_bands_in_files_of_their_own_are_joined(tmp_path: Path) -> None:
    for day in ("20250415", "20250801"):
        for band, name in enumerate(NAMES):
            one = pixels(int(day) + band, shape=(1, 37, 53))
            write_tif(tmp_path / f"T33_{day}_{name}.tif", one, (None,))
    scene = raster.open_scene(tmp_path)
    assert scene.shape == (2, 3, 37, 53)
    assert scene.band_names == NAMES
    assert scene.dates == (datetime(2025, 4, 15), datetime(2025, 8, 1))
    got = raster.read_window(scene.select([2, 0]), slice(1, 2), slice(None), slice(None))
    expected = np.concatenate([pixels(20250803, shape=(1, 37, 53)), pixels(20250801, shape=(1, 37, 53))])
    np.testing.assert_array_equal(got[0], expected)


@pytest.mark.parametrize("bands", [["B04", "B02"], ["red", "Band 2"], [3, 1]])
def test_bands_are_chosen_by_name_or_position(tmp_path: Path, bands: list) -> None:
    data = write_tif(tmp_path / "in.tif", pixels())
    scene = raster.open_scene(tmp_path / "in.tif", bands=bands)
    assert scene.band_names == ("B04", "B02")
    got = raster.read_window(scene, slice(None), slice(None), slice(None))
    np.testing.assert_array_equal(got[0], data[[2, 0]])


def test_names_describe_bands_that_have_none(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels(), (None,) * 3)
    scene = raster.open_scene(tmp_path / "in.tif", bands=["red", "green", "blue"])
    assert scene.band_names == ("red", "green", "blue")
    assert [s.index for s in scene.sources[0]] == [1, 2, 3]
    with pytest.raises(InputError, match="must name all of them"):
        raster.open_scene(tmp_path / "in.tif", bands=["red"])


def test_positions_of_undescribed_bands_follow_the_sensor(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels(shape=(14, 4, 4)), (None,) * 14)
    scene = raster.open_scene(tmp_path / "in.tif", bands=[14, *range(2, 13)])
    assert scene.band_names[:2] == ("B01", "B02")
    assert scene.band_names[-1] == "B12"
    assert [s.index for s in scene.sources[0]] == [14, *range(2, 13)]
    with pytest.raises(InputError, match="got 2 bands"):
        raster.open_scene(tmp_path / "in.tif", bands=[1, 2])


def test_offset_comes_from_tags_or_the_argument_never_from_pixels(tmp_path: Path) -> None:
    path = tmp_path / "in.tif"
    write_tif(path, np.full((3, 8, 8), 1500, "uint16"))
    assert raster.open_scene(path).offset == 0
    with rasterio.open(path, "r+") as dst:
        dst.scales, dst.offsets = (1e-4,) * 3, (-0.1,) * 3
    assert raster.open_scene(path).offset == 1000
    assert raster.open_scene(path, offset=0).offset == 0
    with rasterio.open(path, "r+") as dst:
        dst.offsets = (-0.1, 0, 0)
    with pytest.raises(InputError, match="different radiometric offsets"):
        raster.open_scene(path)
    assert raster.open_scene(path, offset=1000).offset == 1000


@pytest.mark.parametrize(
    ("name", "tags", "expected"),
    [
        ("sim_20250415.tif", {}, datetime(2025, 4, 15)),
        ("S2B_MSIL2A_20240229T100559_N0510_R022_20240301T1.tif", {}, datetime(2024, 2, 29, 10, 5, 59)),
        ("x_2025-12-31.tif", {"TIFFTAG_DATETIME": "2025:12:31 09:08:07"}, datetime(2025, 12, 31, 9, 8, 7)),
        ("x_20250415.tif", {"TIFFTAG_DATETIME": "2026:01:01 00:00:00"}, datetime(2025, 4, 15)),
        ("scene.tif", {"acquisition_date": "2025-04-15T10:00:00+02:00"}, datetime(2025, 4, 15, 8)),
        ("ssl4eos12_val_0080717_0.tif", {}, None),
        ("x_20251345_0001.tif", {"TIFFTAG_DATETIME": "yesterday"}, None),
        ("id_9202504159.tif", {}, None),
        ("20210701101559.tif", {}, datetime(2021, 7, 1, 10, 15, 59)),
        ("x_202107011015.tif", {}, datetime(2021, 7, 1, 10, 15)),
        ("x_20210701T1015.tif", {}, datetime(2021, 7, 1, 10, 15)),
        ("x_20210701_0001.tif", {}, datetime(2021, 7, 1)),
        ("HLS.S30.T33UUP.2021183T101559.v2.0.B04.tif", {}, datetime(2021, 7, 2, 10, 15, 59)),
        ("a_2021183.tif", {}, datetime(2021, 7, 2)),
        ("a_2021-183.tif", {}, datetime(2021, 7, 2)),
        ("a_2021366.tif", {}, None),
        ("a_2021-07.tif", {}, datetime(2021, 7, 1)),
        ("a_15Jul2021.tif", {}, datetime(2021, 7, 15)),
        ("S2B_52SFA_20220126_0_L2A/scene.tif", {}, datetime(2022, 1, 26)),
        ("S2B_52SFA_20220126_0_L2A/R10m/B04.tif", {}, datetime(2022, 1, 26)),
        ("S2_20210101/x_20210701.tif", {}, datetime(2021, 7, 1)),
        ("2022/1/26/0/B04.jp2", {}, datetime(2022, 1, 26)),
        ("/vsizip//data/S2_20210701.zip/scene.tif", {}, datetime(2021, 7, 1)),
        ("s3://bucket/2021-07-01/scene.tif", {}, datetime(2021, 7, 1)),
        ("20210701/scene.tif", {"TIFFTAG_DATETIME": "2024:01:01 00:00:00"}, datetime(2021, 7, 1)),
        ("20210701/scene.tif", {"TIFFTAG_DATETIME": "2021:07:01 10:15:59"}, datetime(2021, 7, 1, 10, 15, 59)),
        ("20210701/scene.tif", {"SENSING_TIME": "2021-07-03T10:15:59Z"}, datetime(2021, 7, 3, 10, 15, 59)),
        (
            "x.tif",
            {"SENSING_TIME": "2021-07-02T10:15:59Z; 2021-07-02T10:20:00Z"},
            datetime(2021, 7, 2, 10, 15, 59),
        ),
        ("x.tif", {"TIFFTAG_DATETIME": "2024:01:01 0:0:0", "SENSING_TIME": "2021183"}, datetime(2021, 7, 2)),
        ("x.tif", {"system:time_start": "1625220959000"}, datetime(2021, 7, 2, 10, 15, 59)),
        ("roi_20031012_20210701.tif", {"ACQUISITION_DATE": "2021-07-01"}, datetime(2021, 7, 1)),
    ],
)
def test_dates_come_from_names_tags_and_folders(name: str, tags: dict, expected: datetime | None) -> None:
    assert date_of(name, tags) == expected


def written(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tif(path, pixels())
    return paths


def test_dates_in_folders_put_files_in_time_order(tmp_path: Path) -> None:
    paths = written(tmp_path, "S2B_52SFA_20220126_0_L2A/scene.tif", "S2B_52SFA_20210105_0_L2A/scene.tif")
    scene = raster.open_scene(paths)
    assert scene.dates == (datetime(2021, 1, 5), datetime(2022, 1, 26))
    assert [Path(p) for p in scene.paths] == paths[::-1]
    assert "that of the folder" in scene.notes[0]


def test_the_date_of_a_folder_of_a_series_is_that_of_no_file(tmp_path: Path) -> None:
    scene = raster.open_scene(written(tmp_path, "run_20240101/b.tif", "run_20240101/a.tif"))
    assert scene.dates == (None, None)
    assert [Path(p).name for p in scene.paths] == ["b.tif", "a.tif"]


def test_of_two_dates_in_names_the_one_that_changes_counts(tmp_path: Path) -> None:
    scene = raster.open_scene(written(tmp_path, "roi_20031012_20210715.tif", "roi_20031012_20210701.tif"))
    assert scene.dates == (datetime(2021, 7, 1), datetime(2021, 7, 15))
    assert "several dates in the name; taken: 2021-07-15" in scene.notes[0]


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["a.tif"], "neither its name"),
        (["a.tif", "b.tif"], "no file tells a date"),
        (["x_20210701.tif", "b.tif"], "1 of 2 files"),
        (["roi_20031012_20210701.tif"], "several dates in the name"),
    ],
)
def test_unknown_and_ambiguous_dates_are_said(tmp_path: Path, names: list[str], note: str) -> None:
    assert any(note in said for said in raster.open_scene(written(tmp_path, *names)).notes)


@pytest.mark.parametrize(
    "name",
    [
        "S2A_MSIL2A_20210105T021101_N0214_R003_T52SFA_20210106T043520.tif",
        "LC08_L2SP_193026_20210715_20210722_02_T1.tif",
        "20210105T021101_20210106T021101_T52SFA.tif",
    ],
)
def test_the_second_date_of_a_product_is_not_ambiguous(tmp_path: Path, name: str) -> None:
    assert raster.open_scene(written(tmp_path, name)).notes == ()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"data": pixels(shape=(3, 37, 54))}, "width"),
        ({"data": pixels(shape=(3, 36, 53))}, "height"),
        ({"data": pixels(dtype="int16")}, "dtype"),
        ({"crs": "EPSG:32632"}, "crs"),
        ({"transform": Affine(10, 0, 399970, 0, -10, 5300040)}, "transform"),
        ({"nodata": None}, "nodata"),
        ({"names": ("B02", "B03", "B08")}, "band_names"),
    ],
)
def test_a_date_on_another_grid_is_named_with_what_differs(tmp_path: Path, change: dict, what: str) -> None:
    write_tif(tmp_path / "a.tif", pixels())
    write_tif(tmp_path / "b.tif", **({"data": pixels()} | change))
    with pytest.raises(InputError, match=rf"b\.tif: {what} differs from .*a\.tif: expected .*, got "):
        raster.open_scene(tmp_path)


def test_unusable_inputs_are_refused_with_a_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "S2A.SAFE").mkdir()
    (tmp_path / "text.tif").write_text("no raster")
    cases = {
        tmp_path / "missing.tif": "no such file",
        tmp_path / "empty": "no GeoTIFF in this folder",
        tmp_path / "S2A.SAFE": "grids of 10, 20 and 60 m",
        tmp_path / "text.tif": "cannot be read as a raster",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            raster.open_scene(path)
    with pytest.raises(InputError, match="no input"):
        raster.open_scene([])


@pytest.mark.parametrize("bands", [["B08"], [0], [4], ["nonsense"]])
def test_bands_that_do_not_exist_are_refused(tmp_path: Path, bands: list) -> None:
    write_tif(tmp_path / "in.tif", pixels())
    with pytest.raises(InputError, match="no band"):
        raster.open_scene(tmp_path / "in.tif", bands=bands)


@pytest.mark.parametrize("rows", [slice(0, 38), slice(5, 5), slice(-1, 4), slice(0, 8, 2)])
def test_windows_outside_are_refused(tmp_path: Path, rows: slice) -> None:
    write_tif(tmp_path / "in.tif", pixels())
    with pytest.raises(InputError, match="expected 0 <= start < stop <= 37"):
        raster.read_window(raster.open_scene(tmp_path / "in.tif"), slice(None), rows, slice(None))


def test_a_file_cut_short_is_an_input_error(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels(shape=(3, 200, 200)))
    scene = raster.open_scene(tmp_path / "in.tif")
    os.truncate(tmp_path / "in.tif", 60_000)
    with pytest.raises(InputError, match="cut short or damaged"):
        raster.read_window(scene, slice(None), slice(None), slice(None))


def test_profile_survives_json(tmp_path: Path) -> None:
    points = [GroundControlPoint(0, 0, 12, 47, 5), GroundControlPoint(1, 9, 13, 48, 5)]
    crs = rasterio.crs.CRS.from_epsg(4326)
    write_tif(tmp_path / "in.tif", pixels(), crs=None, transform=Affine.identity(), gcps=(points, crs))
    profile = raster.open_scene(tmp_path / "in.tif").profile
    table = json.loads(json.dumps(profile.to_dict()))
    assert raster.Profile.from_dict(table) == profile
    del table["nodata"]
    with pytest.raises(InputError, match="nodata"):
        raster.Profile.from_dict(table)


def test_statistics_of_the_original_pixels_are_not_carried_over(tmp_path: Path) -> None:
    write_tif(tmp_path / "in.tif", pixels())
    with rasterio.open(tmp_path / "in.tif", "r+") as dst:
        dst.update_tags(1, STATISTICS_MEAN="7", kept="yes")
    assert raster.open_scene(tmp_path / "in.tif").band_tags[0] == {"kept": "yes"}
