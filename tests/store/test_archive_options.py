"""Settings of an archive: what encode takes, in many stores; what no input could be archived with is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from rasterio.warp import transform_geom

import eozip
from archivefiles import DATES, SETTINGS, one_cluster, stored, write_items
from eozip.archive import run, work
from eozip.archive.asked import Asked
from eozip.archive.record import open_record
from eozip.errors import EozipError, OutputError
from eozip.store import Places, describe, verify_store
from products import Safe, made
from rasterfiles import write_tif
from storefiles import NAMES, coarse_codec, scene_pixels


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch) as client:
        yield client


@pytest.fixture
def archive(cluster):
    def call(items, out, **options):
        return eozip.archive([str(item) for item in items], out, **{"chunk": 16, "gop": 2, **options})

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def assert_same_store(got: Path, want: Path) -> None:
    """Equal keys and bytes, documents as JSON."""
    found, expected = tree(got), tree(want)
    assert found.keys() == expected.keys()
    for key, data in found.items():
        other = expected[key]
        assert json.loads(data) == json.loads(other) if key.endswith(".json") else data == other, key


def one_tile(folder: Path, count: int = 3) -> list[Path]:
    return write_items(folder, tiles=("31TCJ",), dates=DATES[:count])


def test_a_lossy_store_is_that_of_encode(archive, tmp_path):
    paths = one_tile(tmp_path / "in")
    with coarse_codec() as codec:
        archive(paths, tmp_path / "out", codec=codec, quality=40)
        eozip.encode_store(paths, tmp_path / "one.zarr", codec, quality=40, chunk=16, gop=2)
        assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")


def test_purposes_are_held_and_told_as_encode_does(archive, tmp_path):
    paths = one_tile(tmp_path / "in")
    purposes = ["psnr>=45", "max(ndvi)<0.5"]
    archive(paths, tmp_path / "out", codec="tec-elic-small", purposes=purposes)
    eozip.encode_store(paths, tmp_path / "one.zarr", "tec-elic-small", purposes=purposes, chunk=16, gop=2)
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")


def test_later_dates_keep_purposes_and_tell_the_worst_of_all(archive, tmp_path):
    paths = one_tile(tmp_path / "in")
    for count in (2, 3):
        archive(paths[:count], tmp_path / "out", codec="tec-elic-small", purposes="psnr>=45")
    eozip.encode_store(
        paths[:2], tmp_path / "one.zarr", "tec-elic-small", purposes="psnr>=45", chunk=16, gop=2
    )
    eozip.append_store(tmp_path / "one.zarr", paths[2])
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")


def masked_items(folder: Path) -> list[Path]:
    """Items of one tile with a band SCL, a part of which is cloud."""
    folder.mkdir()
    paths = []
    for k, date in enumerate(DATES[:2]):
        scl = np.full((1, 32, 32), 4, "uint16")
        scl[0, : 8 * (k + 1)] = 9
        path = folder / f"S2_T31TCJ_{date}.tif"
        write_tif(path, np.concatenate([scene_pixels(k, (12, 32, 32)), scl]), (*NAMES, "SCL"))
        paths.append(path)
    return paths


def test_what_a_mask_hides_is_not_coded(archive, tmp_path):
    pytest.importorskip("torch")
    paths = masked_items(tmp_path / "in")
    options = {"codec": "tec-tt-small", "mask": "scl:9", "chunk": 32, "gop": 2}
    archive(paths, tmp_path / "out", **options)
    eozip.encode_store(paths, tmp_path / "one.zarr", **options)
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")
    few, many = describe(tmp_path / "out" / "31TCJ.zarr").facts["date_dropped"]
    assert 0 < few < many < 16 * 32


def test_an_item_without_a_mask_is_set_aside(archive, tmp_path):
    pytest.importorskip("torch")
    paths = masked_items(tmp_path / "in")
    write_tif(tmp_path / "in" / f"S2_T31TCJ_{DATES[2]}.tif", scene_pixels(5, (12, 32, 32)), NAMES)
    every = [*paths, tmp_path / "in" / f"S2_T31TCJ_{DATES[2]}.tif"]
    report = archive(every, tmp_path / "out", codec="tec-tt-small", mask="scl:9", chunk=32)
    assert list(report.failed) == [str(every[2])]
    assert "expected a band named SCL" in report.failed[str(every[2])]


def halves(folder: Path, dates=("20210701T103000", "20210701T103015", "20210711T103000")) -> list[Path]:
    """Two halves of one day, and a whole date."""
    folder.mkdir(exist_ok=True)
    paths = []
    for k, date in enumerate(dates):
        dn = np.maximum(scene_pixels(k, (12, 20, 24)), 1)
        if k < 2:
            dn[:, :, slice(12, None) if k == 0 else slice(0, 12)] = 0
        path = folder / f"S2_T31TCJ_{date}_{k}.tif"
        write_tif(path, dn, NAMES)
        paths.append(path)
    return paths


MOSAIC = {"codec": "lossless", "mosaic": "solar-day"}


def test_items_of_one_day_become_one_date(archive, tmp_path):
    paths = halves(tmp_path / "in")
    report = archive(paths, tmp_path / "out", **MOSAIC)
    assert report.ok
    eozip.encode_store(paths, tmp_path / "one.zarr", chunk=16, gop=2, **MOSAIC)
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")
    assert describe(tmp_path / "out" / "31TCJ.zarr").grid.shape[0] == 2
    assert archive(paths, tmp_path / "out", **MOSAIC).skipped == 3


def test_items_that_were_merged_are_known_after_a_run_that_died_at_its_end(archive, tmp_path, monkeypatch):
    paths = halves(tmp_path / "in")
    with monkeypatch.context() as patch:
        patch.setattr(run.Record, "hold", lambda *args: (_ for _ in ()).throw(OutputError("killed")))
        with pytest.raises(OutputError, match="killed"):
            archive(paths, tmp_path / "out", **MOSAIC)
    before = stored(tmp_path / "out")
    report = archive(paths, tmp_path / "out", **MOSAIC)
    assert (report.ok, report.done, report.jobs) == (True, 3, 0)
    assert stored(tmp_path / "out") == before


def test_the_other_half_of_a_day_that_is_stored_is_set_aside(archive, tmp_path):
    paths = halves(tmp_path / "in")
    archive(paths[:1], tmp_path / "out", **MOSAIC)
    report = archive(paths, tmp_path / "out", **MOSAIC)
    assert list(report.failed) == [str(paths[1])]
    assert "expected a solar day after 2021-07-01" in report.failed[str(paths[1])]
    assert describe(tmp_path / "out" / "31TCJ.zarr").grid.shape[0] == 2


def test_halves_that_cannot_be_merged_leave_the_other_days_alone(archive, tmp_path):
    paths = halves(tmp_path / "in", ("20210701T103000", "20210711T103000", "20210711T103015"))
    dn = np.maximum(scene_pixels(7, (12, 20, 24)), 1)
    write_tif(paths[2], dn, NAMES, tags={"RADIO_ADD_OFFSET": "1000"})
    other = tmp_path / "in" / "S2_T31TCJ_20210721T103000.tif"
    write_tif(other, dn[:, ::-1].copy(), NAMES)
    report = archive([*paths, other], tmp_path / "out", **MOSAIC)
    assert str(paths[0]) not in report.failed
    assert str(other) not in report.failed


def test_floats_are_coded_on_the_lattice_asked_for(archive, tmp_path):
    (tmp_path / "in").mkdir()
    paths = []
    for k, date in enumerate(DATES[:3]):
        paths.append(tmp_path / "in" / f"S2_T31TCJ_{date}.tif")
        write_tif(paths[-1], scene_pixels(k, (12, 20, 24)).astype("float32") * 0.002, NAMES, nodata=None)
    for count in (2, 3):
        report = archive(paths[:count], tmp_path / "out", codec="lossless", lattice=[0.002, -1])
        assert report.ok, report.failed
    eozip.encode_store(paths[:2], tmp_path / "one.zarr", "lossless", lattice=[0.002, -1], chunk=16, gop=2)
    eozip.append_store(tmp_path / "one.zarr", paths[2])
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")


# --- quality by place ---

BY_PLACE = {"codec": "tec-elic-small", "quality": 70}


def region(path: Path, rows: slice, columns: slice) -> Path:
    """GeoJSON of a part of the items' grid."""
    with rasterio.open(next(path.parent.glob("**/*.tif"))) as opened:
        crs, a = opened.crs, opened.transform
    (left, top), (right, bottom) = a * (columns.start, rows.start), a * (columns.stop, rows.stop)
    ring = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    shape = transform_geom(crs, "OGC:CRS84", {"type": "Polygon", "coordinates": [ring]})
    path.write_text(json.dumps(shape))
    return path


def test_a_region_of_interest_is_that_of_encode(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES[:2], size=(40, 44))
    roi = region(tmp_path / "roi.geojson", slice(0, 16), slice(0, 20))
    options = {**BY_PLACE, "roi": roi, "outside_quality": 10}
    archive(paths, tmp_path / "out", **options)
    eozip.encode_store(paths, tmp_path / "one.zarr", chunk=16, gop=2, **options)
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")
    assert describe(tmp_path / "out" / "31TCJ.zarr").facts["places"]["roi"] == "roi.geojson"


def test_later_dates_have_the_same_region(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES[:3], size=(40, 44))
    roi = region(tmp_path / "roi.geojson", slice(0, 16), slice(0, 20))
    places = {"roi": roi, "outside_quality": 10, "relative": 0.5}
    for count in (2, 3):
        archive(paths[:count], tmp_path / "out", **BY_PLACE, **places)
    eozip.encode_store(paths[:2], tmp_path / "one.zarr", chunk=16, gop=2, **BY_PLACE, **places)
    eozip.append_store(tmp_path / "one.zarr", paths[2], places=Places(**places))
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")


def test_a_store_outside_of_the_region_is_told_and_has_the_other_quality(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    roi = region(tmp_path / "roi.geojson", slice(500, 600), slice(500, 600))
    notes = []
    archive(paths, tmp_path / "out", **BY_PLACE, roi=roi, outside_quality=10, note=notes.append)
    assert any("31TCJ.zarr: the region of interest covers none of its pixels" in note for note in notes)
    archive(paths, tmp_path / "fine", **BY_PLACE)
    coarse, fine = (describe(tmp_path / name / "31TCJ.zarr").facts["psnr"] for name in ("out", "fine"))
    assert coarse < fine - 1


def test_a_raster_region_sets_items_of_another_grid_aside(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    other = write_items(tmp_path / "other", tiles=("33UUP",), dates=DATES[:1], size=(32, 40))
    roi = tmp_path / "roi.tif"
    inside = np.zeros((1, 20, 24), "uint8")
    inside[:, :8] = 1
    write_tif(roi, inside, ("inside",), nodata=None)
    report = archive([*paths, *other], tmp_path / "out", **BY_PLACE, roi=roi, outside_quality="none")
    assert list(report.failed) == [str(other[0])]
    assert "roi" in report.failed[str(other[0])]
    assert report.stores == ["31TCJ.zarr"]


def test_another_region_is_another_setting(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    roi = region(tmp_path / "roi.geojson", slice(0, 16), slice(0, 20))
    archive(paths, tmp_path / "out", **BY_PLACE, roi=roi, outside_quality=10)
    region(roi, slice(0, 8), slice(0, 20))
    with pytest.raises(EozipError, match="other settings, which are never mixed: region"):
        archive(paths, tmp_path / "out", **BY_PLACE, roi=roi, outside_quality=10)


def test_a_region_that_workers_do_not_see_ends_the_run_and_sets_nothing_aside(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in", 1)
    roi = region(tmp_path / "roi.geojson", slice(0, 16), slice(0, 20))
    monkeypatch.setattr(work, "region_print", lambda path: "another")
    with pytest.raises(EozipError, match="put it where all workers see it"):
        archive(paths, tmp_path / "out", **BY_PLACE, roi=roi, outside_quality=10)
    assert open_record(tmp_path / "out").failed() == {}


def test_what_a_mask_hides_has_a_quality_of_its_own(archive, tmp_path):
    paths = masked_items(tmp_path / "in")
    options = {**BY_PLACE, "mask": "scl:9", "masked_quality": 5, "chunk": 32, "gop": 2}
    archive(paths, tmp_path / "out", **options)
    eozip.encode_store(paths, tmp_path / "one.zarr", **options)
    assert_same_store(tmp_path / "out" / "31TCJ.zarr", tmp_path / "one.zarr")
    assert describe(tmp_path / "out" / "31TCJ.zarr").facts["places"] == {"masked_quality": 5}


def with_a_dark_pixel(grids):
    """Pixels of which one is darker than any offset."""
    for planes in grids.values():
        for plane in planes.values():
            plane[3, 3] = 1
    return grids


def of_two_baselines(folder: Path, *offsets: int | None) -> list[Path]:
    """Products of a tile, later and later, their DN with these offsets."""
    dates = ("20220126T101311", "20220131T101311", "20220205T101311")
    baselines = ("03.01" if offset is None else "05.11" for offset in offsets)
    return [
        Safe(with_a_dark_pixel(made(k)), date=date, baseline=baseline, offset=offset).write(folder)
        for k, (date, baseline, offset) in enumerate(zip(dates, baselines, offsets))
    ]


HARMONISED = {"codec": "lossless", "harmonise": True, "chunk": 12}


def test_harmonised_dates_are_those_of_encode(archive, tmp_path):
    paths = of_two_baselines(tmp_path / "in", -1000, None)
    archive(paths, tmp_path / "out", **HARMONISED)
    eozip.encode_store(paths, tmp_path / "one.zarr", gop=2, **HARMONISED)
    assert_same_store(tmp_path / "out" / "32TQM.zarr", tmp_path / "one.zarr")


def test_later_dates_are_brought_to_the_offset_of_a_harmonised_store(archive, tmp_path):
    paths = of_two_baselines(tmp_path / "in", -1000, None, -1000)
    for out, counts in (("grown", (1, 3)), ("whole", (3,))):
        for count in counts:
            assert archive(paths[:count], tmp_path / out, **HARMONISED).ok
    grown, whole = (decoded(tmp_path / name / "32TQM.zarr") for name in ("grown", "whole"))
    for group, planes in whole.items():
        np.testing.assert_array_equal(grown[group], planes)
    assert describe(tmp_path / "grown" / "32TQM.zarr").codec.offset == 1000


def test_later_dates_that_cannot_have_the_offset_of_the_store_are_set_aside(archive, tmp_path):
    paths = of_two_baselines(tmp_path / "in", None, -1000, None)
    archive(paths[:1], tmp_path / "out", **HARMONISED)
    report = archive(paths, tmp_path / "out", **HARMONISED)
    assert list(report.failed) == [str(paths[1])]
    assert "cannot be harmonised by" in report.failed[str(paths[1])]
    assert describe(tmp_path / "out" / "32TQM.zarr").grid.shape[0] == 2


def decoded(store: Path) -> dict[str, np.ndarray]:
    """Every variable of the groups of a store that has dates."""
    with xr.open_datatree(store, mask_and_scale=False) as tree:
        return {
            f"{group.path}/{name}": values.to_numpy()
            for group in tree.subtree
            for name, values in group.data_vars.items()
            if "time" in values.dims
        }


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 200},
        {"quality": 60, "target_psnr": 40},
        {"target_psnr": -1},
        {"codec": "no-such-codec"},
        {"sensor": "no-such-sensor"},
        {"sensor": "my.toml"},
        {"codec": "tec-elic-small", "budgets": [3]},
        {"mask": "clouds.tif"},
        {"mask": "scl:3,8@clouds.tif"},
        {"mask": "scl:99"},
        {"mask": "scl:9", "codec": "lossless"},
        {"purposes": ["size<100MB"]},
        {"purposes": ["agreement>=99%"]},
        {"purposes": ["nothing"]},
        {"purposes": ["psnr>=42"], "quality": 60},
        {"lattice": -1},
        {"lattice": "fine"},
        {"mosaic": "week"},
        {"assets": "red"},
        {"nodata": 0.5},
        {"offset": "much"},
        {"max_error": -3},
        {"gop": 0},
        {"chunk": 4},
        {"by": "country"},
        {"harmonise": "yes"},
        {"roi": "region.geojson"},
        {"roi": "no-such.geojson", "outside_quality": 10},
        {"outside_quality": 10},
        {"masked_quality": 10},
        {"masked_quality": 80, "mask": "scl:9", "quality": 60},
        {"masked_quality": 10, "mask": "scl:9", "target_psnr": 40},
        {"masked_quality": 10, "mask": "scl:9", "codec": "lossless"},
        {"relative": 9},
        {"relative": 1, "codec": "lossless"},
    ],
)
def test_settings_that_suit_no_input_are_refused_before_anything_is_written(archive, tmp_path, options):
    paths = one_tile(tmp_path / "in", 1)
    with pytest.raises(EozipError, match=r"expected|give|cannot|unknown"):
        archive(paths, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "later",
    [
        {"mosaic": "solar-day"},
        {"lattice": 0.1},
        {"purposes": ["psnr>=42"]},
        {"assets": ["red"]},
        {"harmonise": True},
    ],
)
def test_new_settings_are_compared_with_those_of_the_archive(archive, tmp_path, later):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out", codec="lossless")
    with pytest.raises(EozipError, match=f"other settings, which are never mixed: {next(iter(later))}"):
        archive(paths, tmp_path / "out", codec="lossless", **later)


def test_a_number_is_the_same_setting_however_it_is_written():
    whole, real = (json.dumps(Asked(quality=one).settings()) for one in (60, 60.0))
    assert whole == real


def test_an_archive_of_a_version_that_had_fewer_settings_is_continued(archive, tmp_path):
    paths = one_tile(tmp_path / "in")
    archive(paths[:2], tmp_path / "out", **SETTINGS)
    file = tmp_path / "out" / ".eozip-archive" / "settings.json"
    table = json.loads(file.read_text())
    names = ("quality", "target_psnr", "max_error", "bands", "sensor", "offset", "nodata")
    file.write_text(json.dumps({**dict.fromkeys(names), **table}))
    assert archive(paths, tmp_path / "out", **SETTINGS).ok


def test_items_of_one_name_get_stores_of_their_own(archive, tmp_path):
    folders = [tmp_path / name for name in ("a", "b")]
    paths = []
    for k, folder in enumerate(folders):
        folder.mkdir()
        write_tif(folder / "scene.tif", scene_pixels(k, (12, 20, 24)), NAMES)
        paths.append(folder / "scene.tif")
    archive(paths[:1], tmp_path / "later", codec="lossless", by="item")
    for out in ("at_once", "later"):
        report = archive(paths, tmp_path / out, codec="lossless", by="item")
        assert report.ok
        names = sorted(p.name for p in (tmp_path / out).glob("*.zarr"))
        assert names[0] == "scene.zarr"
        assert names[1].startswith("scene_")
        assert verify_store(tmp_path / out / "scene.zarr", against=eozip.raster.open_scene(paths[0])).ok


def test_one_item_that_does_not_go_with_the_others_is_set_aside_alone(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 3)
    write_tif(paths[1], scene_pixels(1, (12, 20, 24)), [f"X{k}" for k in range(12)])
    report = archive(paths, tmp_path / "out", codec="lossless")
    assert list(report.failed) == [str(paths[1])]
