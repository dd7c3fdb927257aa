"""Archives under what goes wrong: files that change, stores of others, full disks, schedulers, status at any time."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

import eozip
from archivefiles import DATES, SETTINGS, beside, one_cluster, stored, write_items
from eozip.archive import cluster as cluster_of
from eozip.archive import inputs, run, work
from eozip.archive.record import RUN, open_record
from eozip.cli import cli
from eozip.errors import ClusterError, FormatError, InputError, OutputError
from eozip.keys import LocalKeys, only_writer
from eozip.outputs import locked
from eozip.raster import open_scene
from eozip.store import describe, verify_store
from rasterfiles import write_tif
from storefiles import NAMES, scene_pixels

STATES = []
"""What jobs leave for their test: they run in this process, and are found by name."""


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch) as client:
        yield client


@pytest.fixture
def archive(cluster):
    def call(items, out, **options):
        return eozip.archive([str(item) for item in items], out, **{**SETTINGS, **options})

    return call


def one_tile(folder: Path, count: int = 3) -> list[Path]:
    return write_items(folder, tiles=("31TCJ",), dates=DATES[:count])


# --- inputs ---


def changing(job, often: bool):
    """A job before which the first of the items is written again."""
    path = Path(job.out).parent / "in" / f"S2_T31TCJ_{DATES[0]}.tif"
    STATES.append(path)
    write_tif(path, scene_pixels(len(STATES) if often else 7, (12, 20, 24)), NAMES)
    return work.do_job(job)


def test_an_item_that_changes_while_it_is_archived_is_archived_as_it_is_then(archive, tmp_path, monkeypatch):
    paths, notes = one_tile(tmp_path / "in"), []
    monkeypatch.setattr(run, "do_job", partial(changing, often=False))
    report = archive(paths, tmp_path / "out", note=notes.append)
    assert report.ok, report.failed
    assert [note for note in notes if str(paths[0]) in note and "was changed while it was archived" in note]
    assert verify_store(tmp_path / "out" / "31TCJ.zarr", against=open_scene(paths)).ok
    assert archive(paths, tmp_path / "out").skipped == 3


def test_an_item_that_never_stays_the_same_is_set_aside(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")
    monkeypatch.setattr(run, "do_job", partial(changing, often=True))
    report = archive(paths, tmp_path / "out")
    assert list(report.failed) == [str(paths[0])]
    assert "was changed while it was archived" in report.failed[str(paths[0])]
    assert verify_store(tmp_path / "out" / "31TCJ.zarr", against=open_scene(paths[1:])).ok


def test_an_item_that_became_unreadable_after_it_was_coded_is_set_aside(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")
    monkeypatch.setattr(run, "do_job", spoiling)
    report = archive(paths, tmp_path / "out")
    assert list(report.failed) == [str(paths[0])]
    assert verify_store(tmp_path / "out" / "31TCJ.zarr", against=open_scene(paths[1:])).ok


def spoiling(job):
    """A job behind which the first of the items is no raster any more."""
    found = work.do_job(job)
    (Path(job.out).parent / "in" / f"S2_T31TCJ_{DATES[0]}.tif").write_bytes(b"spoilt")
    return found


def test_one_file_by_several_names_is_one_item(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in", 2)
    (tmp_path / "link.tif").symlink_to(paths[0])
    monkeypatch.chdir(tmp_path)
    given = [paths[0], Path("in") / paths[0].name, tmp_path / "link.tif", paths[1], paths[1]]
    report = archive(given, tmp_path / "out")
    assert (report.ok, report.items, report.done) == (True, 2, 2)


def features(*items: tuple[str, str]) -> str:
    table = [{"id": name, "assets": {"data": {"href": href}}} for name, href in items]
    return json.dumps({"type": "FeatureCollection", "features": table})


def test_items_of_a_collection_that_share_an_id_are_all_there(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "search.json").write_text(features(("x", f"{folder}.tif"), ("x", "other.tif")))
    found = inputs.items_of([tmp_path / "a" / "search.json", tmp_path / "b" / "search.json"])
    assert len({item.name for item in found}) == len({item.feature for item in found}) == len(found) == 4


def test_the_same_feature_twice_is_one_item(tmp_path):
    (tmp_path / "search.json").write_text(features(("x", "x.tif"), ("x", "x.tif")))
    assert [item.name for item in inputs.items_of(tmp_path / "search.json")] == ["search.json#x"]


# --- what lies in OUT ---


def test_a_store_that_the_archive_did_not_write_is_left_alone(archive, tmp_path):
    paths = write_items(tmp_path / "in")
    archive(paths[:3], tmp_path / "out")
    eozip.encode_store(paths[3], tmp_path / "out" / "33UUP.zarr", "lossless", chunk=8)
    before = stored(tmp_path / "out")
    report = archive(paths, tmp_path / "out")
    assert sorted(report.failed) == sorted(map(str, paths[3:]))
    assert "33UUP.zarr is there, and is not of this archive" in report.failed[str(paths[3])]
    assert stored(tmp_path / "out") == before


@pytest.mark.parametrize("document", [b"{", b"{}"])
def test_a_store_that_cannot_be_read_sets_its_items_aside_and_the_others_go_on(archive, tmp_path, document):
    paths = write_items(tmp_path / "in")
    archive([paths[0], paths[3]], tmp_path / "out")
    (tmp_path / "out" / "31TCJ.zarr" / "zarr.json").write_bytes(document)
    report = archive(paths, tmp_path / "out")
    assert sorted(report.failed) == sorted(map(str, paths[1:3]))
    assert describe(tmp_path / "out" / "33UUP.zarr").grid.shape[0] == 3


def test_a_full_disk_is_named_and_the_run_continues_where_it_was(archive, tmp_path, monkeypatch):
    paths = write_items(tmp_path / "in")
    archive(paths, tmp_path / "whole")
    write_bytes = Path.write_bytes

    def full(self, data):
        if self.parent.name == LocalKeys.PART and len(list((tmp_path / "out").rglob("c/*/*/*/*"))) >= 2:
            raise OSError(28, "No space left on device")
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left on device; free disk space"):
            archive(paths, tmp_path / "out")
    assert archive(paths, tmp_path / "out").ok
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")
    assert beside(tmp_path / "out") == beside(tmp_path / "whole")


def test_a_full_disk_of_a_worker_is_no_fault_of_its_item(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in", 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(work, "look_at", full)
    with pytest.raises(OutputError, match="No space left"):
        archive(paths, tmp_path / "out")
    assert open_record(tmp_path / "out").failed() == {}


# --- schedulers ---


@pytest.mark.parametrize("says", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64])
def test_what_is_no_scheduler_is_named(tmp_path, monkeypatch, says):
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    monkeypatch.setattr(cluster_of, "_SCHEDULER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = []

        def answer():
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return
                held[-1].sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with (
            pytest.raises(ClusterError, match="expected a Dask scheduler at"),
            cluster_of._connected(distributed.Client, address),
        ):
            pass
        for one in held:
            one.close()


@pytest.mark.parametrize(
    "address", ["nonsense://x", "tcp://", "tls://127.0.0.1:9", "", "tcp://no.such.host:1"]
)
def test_addresses_of_nothing_are_named(monkeypatch, address):
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    monkeypatch.setattr(cluster_of, "_SCHEDULER_SECONDS", 1.0)
    with (
        pytest.raises(ClusterError, match="expected a Dask scheduler at"),
        cluster_of._connected(distributed.Client, address),
    ):
        pass


def test_a_worker_that_joins_with_another_eozip_ends_the_run_by_name(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")
    monkeypatch.setattr(work, "found_on_worker", lambda codec: {"eozip": "0.0.1", "codec": codec})
    with pytest.raises(ClusterError, match=r"this worker differs from the client: eozip: .* got 0\.0\.1"):
        archive(paths, tmp_path / "out")
    assert stored(tmp_path / "out") == {}
    assert open_record(tmp_path / "out").failed() == {}


# --- status ---


def status(out: Path, code: int = 0) -> dict:
    told = CliRunner().invoke(cli, ["archive", str(out), "--status", "--json"])
    assert told.exit_code == code, told.output
    return json.loads(told.stdout) if code == 0 else {}


def job_with_status(job):
    STATES.append(status(Path(job.out)))
    return work.do_job(job)


def test_status_during_a_run_from_its_first_moment(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")
    opened = run.opened_cluster
    STATES.clear()

    def opening(*args, **options):
        STATES.append(status(tmp_path / "out"))
        return opened(*args, **options)

    monkeypatch.setattr(run, "opened_cluster", opening)
    monkeypatch.setattr(run, "do_job", job_with_status)
    archive(paths, tmp_path / "out")
    archive(paths, tmp_path / "out")
    assert [one["state"] for one in STATES] == ["running"] * 4
    assert [one["items"] for one in STATES] == [3] * 4
    assert status(tmp_path / "out")["state"] == "finished"


def test_status_tells_why_a_run_ended(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")

    def gone(*args, **options):
        raise ClusterError("expected a Dask scheduler at tcp://x, got no answer")

    monkeypatch.setattr(run, "opened_cluster", gone)
    with pytest.raises(ClusterError):
        archive(paths, tmp_path / "out")
    found = status(tmp_path / "out")
    assert (found["state"], found["message"]) == (
        "stopped",
        "expected a Dask scheduler at tcp://x, got no answer",
    )


def test_status_of_a_run_that_was_killed_before_it_wrote_any(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out")
    (tmp_path / "out" / ".eozip-archive" / "status.json").unlink()
    assert status(tmp_path / "out")["state"] == "stopped"
    with only_writer(tmp_path / "out", RUN):
        assert status(tmp_path / "out")["state"] == "running"


@pytest.mark.parametrize("make", ["nothing", "empty", "foreign", "file", "store"])
def test_status_of_what_is_no_archive_is_refused_and_writes_nothing(tmp_path, make):
    out = tmp_path / ("x.zarr" if make == "store" else "x")
    if make in ("empty", "foreign", "store"):
        out.mkdir()
    if make == "foreign":
        (out / "thesis.doc").write_text("mine")
    if make == "file":
        out.write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    told = CliRunner().invoke(cli, ["archive", str(out), "--status"])
    assert isinstance(told.exception, SystemExit | InputError | OutputError)
    assert "expected an archive of eozip" in (told.stderr or str(told.exception))
    assert sorted(tmp_path.rglob("*")) == before


def test_a_look_at_the_status_keeps_no_run_from_starting(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out")
    looked = tmp_path / "out" / RUN
    looked.touch()
    at_it = locked(looked)
    at_it.__enter__()
    threading.Timer(0.2, lambda: at_it.__exit__(None, None, None)).start()
    assert archive(paths, tmp_path / "out").ok


def test_status_of_an_archive_that_nobody_may_write(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out")
    monkeypatch.setattr(LocalKeys, "_write", lambda *args: pytest.fail("it is only looked at"))
    assert status(tmp_path / "out")["state"] == "finished"


def test_settings_that_are_refused_leave_the_status_of_the_run_before(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out")
    with pytest.raises(InputError, match="other settings"):
        archive(paths, tmp_path / "out", gop=3)
    assert status(tmp_path / "out")["state"] == "finished"
    shutil.rmtree(tmp_path / "in")


# --- what others removed ---


def test_a_store_that_somebody_removed_is_made_again(archive, tmp_path):
    paths, notes = write_items(tmp_path / "in"), []
    archive(paths, tmp_path / "out")
    before = stored(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "31TCJ.zarr")
    report = archive(paths, tmp_path / "out", note=notes.append)
    assert (report.ok, report.skipped, report.stores) == (True, 3, ["31TCJ.zarr"])
    assert any("31TCJ.zarr is gone" in note for note in notes)
    assert stored(tmp_path / "out") == before


def test_shards_that_are_recorded_and_gone_are_made_again(archive, tmp_path, monkeypatch):
    paths = one_tile(tmp_path / "in")
    archive(paths, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(run, "publish", lambda *args: (_ for _ in ()).throw(OutputError("killed")))
        with pytest.raises(OutputError, match="killed"):
            archive(paths, tmp_path / "out")
    shards = (tmp_path / "out" / "31TCJ.zarr" / "reflectance" / "c").rglob("*")
    next(path for path in shards if path.is_file()).unlink()
    report = archive(paths, tmp_path / "out")
    assert (report.ok, report.jobs) == (True, 1)
    assert stored(tmp_path / "out") == stored(tmp_path / "whole")
    assert beside(tmp_path / "out") == beside(tmp_path / "whole")


def test_a_record_that_is_no_json_is_named(archive, tmp_path):
    paths = one_tile(tmp_path / "in", 1)
    archive(paths, tmp_path / "out")
    (tmp_path / "out" / ".eozip-archive" / "failed.json").write_text("{")
    with pytest.raises(FormatError, match=r"failed\.json: expected JSON"):
        archive(paths, tmp_path / "out")
