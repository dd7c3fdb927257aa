"""Archives: what belongs into which store, what a killed run leaves and the next one does, what is set aside and refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import eozip
from archivefiles import DATES, SETTINGS, beside, one_cluster, stored, write_items
from eozip.archive import cluster as cluster_of
from eozip.archive import inputs, plan, read_status, run, work
from eozip.archive.record import Record, open_record
from eozip.cli import cli
from eozip.errors import ClusterError, InputError, OutputError
from eozip.raster import open_scene
from eozip.store import describe, verify_store
from products import Safe, made
from rasterfiles import write_tif
from stacitems import earth_search
from storefiles import NAMES, scene_pixels


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch) as client:
        yield client


@pytest.fixture
def archive(cluster):
    def call(items, out, **options):
        return eozip.archive([str(item) for item in items], out, **{**SETTINGS, **options})

    return call


def test_items_go_into_a_store_for_each_tile(archive, tmp_path):
    paths = write_items(tmp_path / "in")
    report = archive(paths, tmp_path / "out")
    assert (report.done, report.failed, report.stores) == (6, {}, ["31TCJ.zarr", "33UUP.zarr"])
    for tile in ("31TCJ", "33UUP"):
        mine = [path for path in paths if tile in path.name]
        assert verify_store(tmp_path / "out" / f"{tile}.zarr", against=open_scene(mine)).ok


def test_a_store_is_that_of_encode(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES[:4])
    archive(paths, tmp_path / "out")
    eozip.encode_store(paths, tmp_path / "31TCJ.zarr", **SETTINGS)
    assert {k.partition("/")[2]: v for k, v in stored(tmp_path / "out").items()} == {
        p.relative_to(tmp_path / "31TCJ.zarr").as_posix(): p.read_bytes()
        for p in (tmp_path / "31TCJ.zarr").rglob("*")
        if p.is_file()
    }


def test_the_same_command_again_does_nothing(archive, tmp_path):
    paths = write_items(tmp_path / "in")
    archive(paths, tmp_path / "out")
    before = stored(tmp_path / "out")
    report = archive(paths, tmp_path / "out")
    assert (report.skipped, report.jobs, report.ok) == (6, 0, True)
    assert stored(tmp_path / "out") == before


def test_later_items_are_appended(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES)
    archive(paths[:3], tmp_path / "out")
    report = archive(paths, tmp_path / "out")
    assert (report.skipped, report.done) == (3, 6)
    found = describe(tmp_path / "out" / "31TCJ.zarr")
    assert found.groups == (2, 1, 1, 2)
    assert verify_store(found.path, against=open_scene(paths)).ok


def test_an_archive_that_grew_is_what_append_gives(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES)
    archive(paths[:3], tmp_path / "out")
    archive(paths, tmp_path / "out")
    eozip.encode_store(paths[:3], tmp_path / "one.zarr", **SETTINGS)
    eozip.append_store(tmp_path / "one.zarr", paths[3:])
    for key, data in stored(tmp_path / "out").items():
        other = (tmp_path / "one.zarr" / key.partition("/")[2]).read_bytes()
        assert json.loads(data) == json.loads(other) if key.endswith(".json") else data == other, key


@pytest.mark.parametrize("dies_at", [0, 1, 3, 5])
def test_a_run_that_dies_is_continued_to_the_same_bytes(archive, tmp_path, monkeypatch, dies_at):
    paths = write_items(tmp_path / "in")
    archive(paths, tmp_path / "whole")
    writes = []
    put = eozip.keys.LocalKeys.put

    def dying(self, key, data):
        if "/c/" in key or "jobs/" in key:
            writes.append(key)
            if len(writes) > 2 * dies_at:
                raise OutputError("the disk is full")
        put(self, key, data)

    with monkeypatch.context() as patch:
        patch.setattr(eozip.keys.LocalKeys, "put", dying)
        with pytest.raises(OutputError, match="disk is full"):
            archive(paths, tmp_path / "out")
    assert read_status(tmp_path / "out").state == "stopped"
    report = archive(paths, tmp_path / "out")
    assert report.ok
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")
    assert beside(tmp_path / "out") == beside(tmp_path / "whole")


def test_what_jobs_left_is_removed_where_a_run_died_at_the_end_of_a_store(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in")
    archive(paths, tmp_path / "whole")
    remove = eozip.keys.LocalKeys.remove

    def dying(self, keys):
        if any("/jobs/" in key for key in keys):
            remove(self, keys[:1])
            raise OutputError("killed")
        remove(self, keys)

    with monkeypatch.context() as patch:
        patch.setattr(eozip.keys.LocalKeys, "remove", dying)
        with pytest.raises(OutputError, match="killed"):
            archive(paths, tmp_path / "out")
    assert archive(paths, tmp_path / "out").ok
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")
    assert beside(tmp_path / "out") == beside(tmp_path / "whole")


def test_a_finished_job_is_not_done_again(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    with monkeypatch.context() as patch:
        patch.setattr(run, "publish", lambda *args: (_ for _ in ()).throw(OutputError("killed")))
        with pytest.raises(OutputError, match="killed"):
            archive(paths, tmp_path / "out")
    report = archive(paths, tmp_path / "out")
    assert (report.jobs, report.reused) == (0, 2)


def test_a_bad_item_is_set_aside_and_the_others_go_on(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    paths[1].write_bytes(paths[1].read_bytes()[:4000])
    report = archive([*paths, tmp_path / "missing_T31TCJ_20210801.tif"], tmp_path / "out")
    assert sorted(report.failed) == sorted([str(paths[1]), str(tmp_path / "missing_T31TCJ_20210801.tif")])
    assert not report.ok
    assert describe(tmp_path / "out" / "31TCJ.zarr").grid.shape[0] == 2


def test_failed_items_are_tried_again_only_where_asked(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    good = paths[2].read_bytes()
    paths[2].write_bytes(good[:4000])
    archive(paths, tmp_path / "out")
    paths[2].write_bytes(good)
    assert list(archive(paths, tmp_path / "out").failed) == [str(paths[2])]
    report = archive(paths, tmp_path / "out", retry_failed=True)
    assert report.ok
    assert verify_store(tmp_path / "out" / "31TCJ.zarr", against=open_scene(paths)).ok


def test_an_item_that_breaks_while_it_is_coded_is_set_aside(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))

    def looked(item, asked):
        seen = look(item, asked)
        if item.name == str(paths[0]):
            paths[0].write_bytes(paths[0].read_bytes()[:4000])
        return seen

    look = run.look
    held = plan.opened

    def opened(items, asked, *others):  # headers were read before the file broke
        whole = paths[0].read_bytes()
        write_tif(paths[0], scene_pixels(0, (12, 20, 24)), NAMES)
        try:
            return held(items, asked, *others)
        finally:
            paths[0].write_bytes(whole)

    monkeypatch.setattr(run, "look", looked)
    monkeypatch.setattr(plan, "opened", opened)
    report = archive(paths, tmp_path / "out")
    assert list(report.failed) == [str(paths[0])]
    assert verify_store(tmp_path / "out" / "31TCJ.zarr", against=open_scene(paths[1:])).ok


def test_an_item_on_another_grid_is_named(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    other = write_items(tmp_path / "other", tiles=("31TCJ",), dates=DATES[3:4], size=(20, 30))
    report = archive([*paths, *other], tmp_path / "out")
    assert "another grid" in report.failed[str(other[0])]
    assert describe(tmp_path / "out" / "31TCJ.zarr").grid.shape[0] == 3


def test_an_item_before_the_last_date_is_named(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    archive([paths[0], paths[2]], tmp_path / "out")
    report = archive(paths, tmp_path / "out")
    assert "expected a date after the last" in report.failed[str(paths[1])]


def test_settings_that_changed_are_refused(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    archive(paths, tmp_path / "out")
    with pytest.raises(InputError, match="gop: expected 2, got 3"):
        archive(paths, tmp_path / "out", gop=3)


def test_a_folder_of_something_else_is_refused(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    with pytest.raises(OutputError, match=r"something else \(thesis\.doc\)"):
        archive(paths, tmp_path / "out")


def test_a_second_run_at_once_is_refused(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    archive(paths, tmp_path / "out")
    from eozip.archive.record import RUN
    from eozip.keys import only_writer

    with (
        only_writer(tmp_path / "out", RUN),
        pytest.raises(OutputError, match="being written by another eozip"),
    ):
        archive(paths, tmp_path / "out")


def test_by_grid_and_by_item(archive, tmp_path):
    paths = write_items(tmp_path / "in")
    assert len(archive(paths, tmp_path / "grid", by="grid").stores) == 1
    assert archive(paths[:2], tmp_path / "item", by="item").stores == [f"{p.stem}.zarr" for p in paths[:2]]


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        ("S2B_MSIL2A_20210715T100029_N0301_R122_T33UUP_20210715T123456.tif", "33UUP"),
        ("31TCJ_20210701.tif", "31TCJ"),
        ("HLS.S30.T07VEG.2021182T201859.v2.0.B04.tif", "07VEG"),
        ("scene_20210701.tif", None),
        ("tile_99ABC.tif", None),
    ],
)
def test_tiles_are_found_in_names(name, tile, tmp_path):
    path = tmp_path / name
    write_tif(path, np.ones((3, 8, 8), "uint16"))
    item = inputs.Item(str(path), (str(path),))
    found = inputs.tile_of(item, open_scene(path))
    assert found == tile


def test_globs_lists_and_folders_are_expanded(tmp_path):
    paths = [str(path) for path in write_items(tmp_path / "in")]
    (tmp_path / "list.txt").write_text("\n".join(paths[:2]))
    assert [item.name for item in inputs.items_of(str(tmp_path / "in" / "*.tif"))] == sorted(paths)
    assert [item.name for item in inputs.items_of(str(tmp_path / "in"))] == sorted(paths)
    assert [item.name for item in inputs.items_of([str(tmp_path / "list.txt"), paths[0]])] == paths[:2]


def test_files_of_one_band_each_are_one_item_a_date(tmp_path):
    for date in DATES[:2]:
        for band in ("B02", "B03"):
            write_tif(tmp_path / f"T31TCJ_{date}_{band}.tif", np.ones((1, 8, 8), "uint16"), names=(None,))
    assert [len(item.paths) for item in inputs.items_of(str(tmp_path))] == [2, 2]


def test_nothing_to_archive_is_refused(tmp_path):
    with pytest.raises(InputError, match="none that fit"):
        inputs.items_of(str(tmp_path / "*.tif"))


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    pytest.importorskip("distributed", reason="needs dask.distributed")
    monkeypatch.setattr(cluster_of, "_SCHEDULER_SECONDS", 0.5)
    with (
        pytest.raises(ClusterError, match="expected a Dask scheduler at"),
        cluster_of._connected(__import__("distributed").Client, "tcp://127.0.0.1:9"),
    ):
        pass


def test_workers_with_another_eozip_are_named(cluster, monkeypatch):
    cluster_of.installed.cache_clear()
    monkeypatch.setattr(cluster_of, "found_on_worker", other_eozip)
    with pytest.raises(ClusterError, match=r"eozip: expected .*, got 0\.0\.1"):
        cluster_of.check_workers(cluster, "lossless")


def other_eozip(codec):
    return {**cluster_of.installed(codec), "eozip": "0.0.1"}


JOBS = []


def kept_job(job):
    JOBS.append(job)
    return {"bad": {"0": "not now"}}


def test_a_job_of_a_run_that_is_over_writes_nothing(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    with monkeypatch.context() as patch:
        patch.setattr(run, "do_job", kept_job)
        archive(paths, tmp_path / "out")
    with pytest.raises(ClusterError, match="is over"):
        work.do_job(JOBS[0])
    assert stored(tmp_path / "out") == {}


def noted_job(job):
    JOBS.append(job)
    return work.do_job(job)


def test_a_job_that_is_done_again_after_its_store_was_published_leaves_no_record(
    archive, cluster, tmp_path, monkeypatch
):
    """As dask does with a job whose worker died when it was done."""
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    archive(paths, tmp_path / "whole")
    forget = Record.forget_jobs
    again = []

    def forgetting(record, store):
        forget(record, store)
        if not again:
            key = f"do_job-{JOBS[-1].token}-again"
            again.append(cluster.submit(work.do_job, JOBS[-1], key=key).result())

    monkeypatch.setattr(run, "do_job", noted_job)
    monkeypatch.setattr(Record, "forget_jobs", forgetting)
    archive(paths, tmp_path / "out")
    assert [one["id"] for one in again] == [JOBS[-1].id]
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")
    assert beside(tmp_path / "out") == beside(tmp_path / "whole")


def job_done_twice(job):
    first = work.do_job(job)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_coded", None)
        JOBS.append(work.do_job(job) == first)
    return first


def test_a_job_that_is_recorded_is_not_coded_again(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    JOBS.clear()
    monkeypatch.setattr(run, "do_job", job_done_twice)
    archive(paths, tmp_path / "out")
    assert JOBS == [True, True]


def test_status_and_report_are_kept(archive, tmp_path):
    paths = write_items(tmp_path / "in")
    archive(paths, tmp_path / "out")
    status = read_status(tmp_path / "out")
    assert (status.state, status.items, status.done, status.published) == ("finished", 6, 6, 2)
    report = json.loads((tmp_path / "out" / ".eozip-archive" / "report.json").read_text())
    assert report["exit"] == 0
    told = CliRunner().invoke(cli, ["archive", str(tmp_path / "out"), "--status"])
    assert "finished" in told.output
    assert "6 of 6 archived" in told.output


def test_the_command_says_what_was_set_aside(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",))
    paths[0].write_bytes(b"no raster")
    call = [
        "archive",
        *map(str, paths),
        str(tmp_path / "out"),
        "--codec",
        "lossless",
        "--chunk",
        "16",
        "--gop",
        "2",
    ]
    done = CliRunner().invoke(cli, call)
    assert done.exit_code == 4
    assert "1 item set aside" in done.output
    assert paths[0].name in done.output
    assert json.loads(CliRunner().invoke(cli, [*call, "--json"]).stdout)["skipped"] == 2


def test_no_status_where_no_archive_is(tmp_path):
    with pytest.raises(InputError, match="none that was ever run"):
        read_status(tmp_path)
    assert open_record(tmp_path).failed() == {}


def test_safe_products_become_the_store_of_encode(archive, tmp_path):
    dates = ("20220126T101311", "20220131T101311", "20220205T101311")
    paths = [Safe(made(k), date=date).write(tmp_path / "in", zipped=k == 1) for k, date in enumerate(dates)]
    report = eozip.archive(str(tmp_path / "in"), tmp_path / "out", codec="lossless", gop=2)
    assert (report.done, report.stores) == (3, ["32TQM.zarr"])
    eozip.encode_store(paths, tmp_path / "one.zarr", "lossless", gop=2)
    for key, data in stored(tmp_path / "out").items():
        other = (tmp_path / "one.zarr" / key.partition("/")[2]).read_bytes()
        assert json.loads(data) == json.loads(other) if key.endswith(".json") else data == other, key


def test_later_safe_products_are_appended(archive, tmp_path):
    for k, date in enumerate(("20220126T101311", "20220131T101311")):
        Safe(made(k), date=date).write(tmp_path / "in")
        report = eozip.archive(str(tmp_path / "in"), tmp_path / "out", codec="lossless", gop=2)
        assert report.ok, report.failed
    assert verify_store(tmp_path / "out" / "32TQM.zarr").ok
    assert describe(tmp_path / "out" / "32TQM.zarr").grid.shape[0] == 2


def test_items_of_a_stac_collection_stand_for_themselves(archive, tmp_path):
    features = []
    for k in range(3):
        (tmp_path / str(k)).mkdir()
        feature = json.loads(earth_search(tmp_path / str(k), made(k)).read_text())
        feature["id"], feature["properties"]["datetime"] = f"item-{k}", f"2022-01-{k + 10}T10:00:00Z"
        for asset in feature["assets"].values():
            asset["href"] = f"{k}/{asset['href']}"
        features.append(feature)
    features[1]["assets"] = {key: {**one, "href": "gone.tif"} for key, one in features[1]["assets"].items()}
    (tmp_path / "search.json").write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    report = eozip.archive(str(tmp_path / "search.json"), tmp_path / "out", codec="lossless", gop=2)
    assert list(report.failed) == ["search.json#item-1"]
    assert report.done == 2


def test_the_grid_of_a_store_counts_and_not_that_of_most_new_items(archive, tmp_path):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES[:2])
    archive(paths[:1], tmp_path / "out")
    other = write_items(tmp_path / "other", tiles=("31TCJ",), dates=DATES[2:5], size=(20, 30))
    report = archive([*paths, *other], tmp_path / "out")
    assert sorted(report.failed) == sorted(map(str, other))
    assert describe(tmp_path / "out" / "31TCJ.zarr").grid.shape[0] == 2


@pytest.mark.parametrize("below", ["file", "proc"])
def test_a_place_where_nothing_can_be_made_is_named(archive, tmp_path, below):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES[:1])
    (tmp_path / "file").write_bytes(b"")
    out = tmp_path / "file" / "out" if below == "file" else Path("/proc/eozip/out")
    with pytest.raises(OutputError, match="expected a folder"):
        archive(paths, out)


def test_a_layer_that_breaks_while_others_are_coded_sets_its_item_aside(archive, tmp_path, monkeypatch):
    dates = ("20220126T101311", "20220131T101311")
    for k, date in enumerate(dates):
        Safe(made(k), date=date).write(tmp_path / "in")
    scl = next(path for path in (tmp_path / "in").rglob("*SCL*20m.jp2") if dates[0] in path.as_posix())
    put = eozip.keys.LocalKeys.put

    def breaking(self, key, data):
        if "/jobs/" in key:  # the bands are coded, layers are read by the client at the end
            scl.write_bytes(scl.read_bytes()[:200])
        put(self, key, data)

    monkeypatch.setattr(eozip.keys.LocalKeys, "put", breaking)
    report = eozip.archive(str(tmp_path / "in"), tmp_path / "out", codec="lossless", gop=2)
    assert [dates[0] in name for name in report.failed] == [True]
    assert describe(tmp_path / "out" / "32TQM.zarr").grid.shape[0] == 1


def test_dates_are_looked_at_once_for_all_shards_of_a_store(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in", tiles=("31TCJ",), dates=DATES)
    asked = []
    monkeypatch.setattr(plan, "days_of", lambda scene: asked.append(1) or inputs.days_of(scene))
    assert archive(paths, tmp_path / "out", gop=1).jobs == len(DATES)
    assert len(asked) == 1
