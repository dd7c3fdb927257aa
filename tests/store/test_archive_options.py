"""Settings of an archive: what encode takes, in many stores; what no input could be archived with is refused at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import eozip
from archivefiles import DATES, SETTINGS, one_cluster, stored, write_items
from eozip.archive import run
from eozip.errors import EozipError, OutputError
from eozip.store import describe, verify_store
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
    ],
)
def test_settings_that_suit_no_input_are_refused_before_anything_is_written(archive, tmp_path, options):
    paths = one_tile(tmp_path / "in", 1)
    with pytest.raises(EozipError, match=r"expected|give|cannot|unknown"):
        archive(paths, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "later", [{"mosaic": "solar-day"}, {"lattice": 0.1}, {"purposes": ["psnr>=42"]}, {"assets": ["red"]}]
)
def test_new_settings_are_compared_with_those_of_the_archive(archive, tmp_path, later):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out", codec="lossless")
    with pytest.raises(EozipError, match=f"other settings, which are never mixed: {next(iter(later))}"):
        archive(paths, tmp_path / "out", codec="lossless", **later)


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
