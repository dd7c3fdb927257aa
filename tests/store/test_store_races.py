"""Two programs at one output, outputs that appear, vanish or are links: nobody's data are lost, and every loser is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from eozip import outputs
from eozip.errors import EozipError, OutputError
from eozip.raster import open_scene
from eozip.store import append, append_store, decode_store, describe, verify_store
from rasterfiles import everything, write_tif
from storefiles import ENDINGS, NAMES, listed, make_store, opened, scene_pixels

DAYS = [f"202107{day:02}" for day in range(1, 9)]


def date_files(folder: Path, *numbers: int, side: int = 16) -> list[Path]:
    """GeoTIFFs of some days, each with pixels of its own."""
    paths = [folder / f"tile_{DAYS[number]}.tif" for number in numbers]
    for number, path in zip(numbers, paths):
        write_tif(path, scene_pixels(number, (12, side, side)), NAMES)
    return paths


def assert_dates_hold_their_pixels(store: Path, side: int = 16) -> None:
    """Whatever dates a lossless store has, xarray shows each with its own pixels, and eozip finds no fault."""
    ds = opened(store)
    days = list(ds.time.dt.strftime("%Y%m%d").values)
    expected = [scene_pixels(DAYS.index(day), (12, side, side)) for day in days]
    np.testing.assert_array_equal(ds.reflectance.values, expected)
    assert [date[:10].replace("-", "") for date in describe(store).dates] == days
    assert verify_store(store).ok


def hidden(folder: Path) -> list[str]:
    return [name for name in listed(folder) if name.startswith(".")]


# --- two at once ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_append_between_reading_and_writing_of_another_is_refused(tmp_path, monkeypatch, ending):
    store = tmp_path / f"s{ending}"
    make_store(date_files(tmp_path, 0, 1, 2, 3), store, gop=4)
    first, second = open_scene(date_files(tmp_path, 4)), open_scene(date_files(tmp_path, 5, 6))
    real, refused = append._check_weights, []

    def meanwhile(found):
        monkeypatch.setattr(append, "_check_weights", real)
        with pytest.raises(OutputError, match="written by another eozip") as error:
            append_store(store, second)
        refused.append(error)
        real(found)

    monkeypatch.setattr(append, "_check_weights", meanwhile)
    append_store(store, first)
    assert len(refused) == 1
    assert_dates_hold_their_pixels(store)
    assert describe(store).grid.shape[0] == 5


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_change_without_a_lock_is_noticed(tmp_path, monkeypatch, ending):
    store, other = tmp_path / f"s{ending}", tmp_path / f"other{ending}"
    make_store(date_files(tmp_path, 0, 1), store)
    (shutil.copytree if store.is_dir() else shutil.copy)(store, other)
    append_store(other, open_scene(date_files(tmp_path, 2, 3)))
    real = append._check_weights

    def meanwhile(found):
        outputs.remove(store)
        os.rename(other, store)
        real(found)

    monkeypatch.setattr(append, "_check_weights", meanwhile)
    with pytest.raises(OutputError, match="somebody else"):
        append_store(store, open_scene(date_files(tmp_path, 4)))
    assert_dates_hold_their_pixels(store)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("rounds", [3, pytest.param(100, marks=pytest.mark.slow)])
def test_a_race_of_appends_leaves_a_whole_store(tmp_path, ending, rounds):
    base, store = tmp_path / f"base{ending}", tmp_path / f"s{ending}"
    make_store(date_files(tmp_path, 0, 1), base)
    scenes = [open_scene(date_files(tmp_path, 2)), open_scene(date_files(tmp_path, 3, 4))]
    for _ in range(rounds):
        outputs.remove(store)
        (shutil.copytree if base.is_dir() else shutil.copy)(base, store)
        outcomes: list[object] = []
        start = threading.Barrier(2)

        def one(scene, outcomes=outcomes, start=start):
            start.wait()
            try:
                outcomes.append(append_store(store, scene).shape[0])
            except EozipError as error:
                outcomes.append(error)

        threads = [threading.Thread(target=one, args=[scene]) for scene in scenes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 2
        assert any(isinstance(outcome, int) for outcome in outcomes), outcomes
        assert_dates_hold_their_pixels(store)
        assert hidden(tmp_path) == []


def test_a_store_that_is_appended_to_is_not_replaced(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0, 1), store)
    refused = []

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(OutputError, match="written by another eozip"):
            make_store(date_files(tmp_path, 5), store, overwrite=True)
        refused.append(done)

    append_store(store, open_scene(date_files(tmp_path, 2)), progress=meanwhile)
    assert refused
    assert_dates_hold_their_pixels(store)


def test_a_store_that_is_replaced_is_not_appended_to(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0, 1), store)
    new = open_scene(date_files(tmp_path, 2))

    def meanwhile(done: int, total: int) -> None:
        with pytest.raises(OutputError, match="written by another eozip"):
            append_store(store, new)

    make_store(date_files(tmp_path, 5), store, overwrite=True, progress=meanwhile)
    assert describe(store).grid.shape[0] == 1
    append_store(store, open_scene(date_files(tmp_path, 6)))
    assert_dates_hold_their_pixels(store)


# --- what appears under the name meanwhile ---


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_appears_is_not_replaced(tmp_path, overwrite):
    out = tmp_path / "mine.zarr"

    def appear(done: int, total: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "precious.txt").write_text("x")

    with pytest.raises(OutputError, match="exists already"):
        make_store(date_files(tmp_path, 0), out, overwrite=overwrite, progress=appear)
    assert listed(out) == ["precious.txt"]
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("content", [None, b"mine"])
def test_an_empty_folder_or_a_file_that_appears_is_not_replaced(tmp_path, content):
    out = tmp_path / ("mine.zarr.zip" if content else "mine.zarr")
    with pytest.raises(OutputError, match="exists already"):
        make_store(
            date_files(tmp_path, 0),
            out,
            progress=lambda *_: out.write_bytes(content) if content else out.mkdir(exist_ok=True),
        )
    assert out.read_bytes() == content if content else listed(out) == []


@pytest.mark.parametrize("supported", [True, False])
@pytest.mark.parametrize("is_folder", [True, False])
def test_publishing_never_replaces_unasked(tmp_path, monkeypatch, supported, is_folder):
    if not supported:
        monkeypatch.setattr(outputs, "_rename", lambda *_: False)
    target = tmp_path / "out"
    with outputs.temporary(target, folder=is_folder) as part:
        target.mkdir() if is_folder else target.write_text("mine")
        with pytest.raises(OutputError, match="exists already"):
            outputs.publish(part, target, overwrite=False)
        outputs.remove(target)
        outputs.publish(part, target, overwrite=False)
    assert listed(tmp_path) == ["out"]


def test_decode_does_not_replace_what_appears(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0, 1), store)
    for name, dates in (("b.tif", [1]), ("back", None)):
        out = tmp_path / name
        with pytest.raises(OutputError, match="exists already"):
            decode_store(store, out, dates=dates, progress=lambda *_, out=out: out.mkdir(exist_ok=True))
        assert listed(out) == []


def test_a_file_beside_a_geotiff_is_not_replaced(tmp_path):
    store, beside = tmp_path / "s.zarr", tmp_path / "b.tif.aux.xml"
    make_store(date_files(tmp_path, 0), store)
    beside.write_text("mine")
    with pytest.raises(OutputError, match=r"aux\.xml exists already"):
        decode_store(store, tmp_path / "b.tif")
    assert beside.read_text() == "mine"


def test_a_picture_does_not_replace_what_appears(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from eozip import picture

    out, plane = tmp_path / "p.png", np.zeros((3, 8, 8), np.uint16)
    real = picture._draw
    monkeypatch.setattr(picture, "_draw", lambda *args: (out.write_text("mine"), real(*args))[1])
    with pytest.raises(OutputError, match="exists already"):
        picture.comparison(plane, plane, "", out, np.ones((8, 8), bool))
    assert out.read_text() == "mine"


# --- what vanishes meanwhile ---


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("what", ["all", "a shard"])
def test_a_part_that_vanishes_is_named(tmp_path, ending, what):
    out = tmp_path / f"s{ending}"

    def take(done: int, total: int) -> None:
        for part in tmp_path.glob(".s.*.part"):
            shards = sorted(part.glob("reflectance/c/*/*/*/*")) if part.is_dir() else []
            if what == "all" or ending != ".zarr":
                outputs.remove(part)
            elif shards:
                shards[0].unlink()

    with pytest.raises(OutputError, match="removed by somebody else"):
        make_store(date_files(tmp_path, 0, 1, 2), out, gop=1, progress=take)
    assert not out.exists()
    assert hidden(tmp_path) == []


# --- replacing ---


def test_only_stores_are_replaced(tmp_path):
    files = date_files(tmp_path, 0)
    folder = tmp_path / "data.zarr"
    folder.mkdir()
    for name in ("", "notes.txt"):
        if name:
            make_store(files, tmp_path / "s.zarr")
            shutil.rmtree(folder)
            (tmp_path / "s.zarr").rename(folder)
            (folder / name).write_text("mine")
        with pytest.raises(OutputError, match="is not replaced"):
            make_store(files, folder, overwrite=True)
    (folder / "notes.txt").unlink()
    make_store(files, folder, overwrite=True)
    other = tmp_path / "other.zarr.zip"
    other.write_bytes(b"mine")
    with pytest.raises(OutputError, match="is not replaced"):
        make_store(files, other, overwrite=True)
    assert other.read_bytes() == b"mine"


def test_decode_replaces_folders_of_geotiffs_only(tmp_path):
    store, out = tmp_path / "s.zarr", tmp_path / "back"
    make_store(date_files(tmp_path, 0, 1), store)
    (out / "a.tif").mkdir(parents=True)
    (out / "a.tif" / "precious.txt").write_text("x")
    with pytest.raises(OutputError, match="more than GeoTIFFs"):
        decode_store(store, out, overwrite=True)
    assert (out / "a.tif" / "precious.txt").exists()


class Killed(BaseException):
    """Ends a run as SIGKILL does."""


@pytest.mark.parametrize("step", [1, 2])
def test_without_an_exchange_the_old_store_can_be_found(tmp_path, monkeypatch, step):
    """Killed before or after each rename of a replacement where the system cannot exchange two names."""
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0), store)
    monkeypatch.setattr(outputs, "_rename", lambda *_: False)
    calls = []

    def dying(real):
        def call(source, target):
            calls.append(target)
            if len(calls) >= step:
                raise Killed
            return real(source, target)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(outputs.os, "rename", dying(os.rename))
        with pytest.raises(Killed):
            make_store(date_files(tmp_path, 1), store, overwrite=True)
    place = store if store.exists() else tmp_path / ".s.zarr.old"
    assert describe(place).files == (f"tile_{DAYS[0]}.tif",)


def test_a_store_left_aside_is_put_back(tmp_path):
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0), store)
    store.rename(tmp_path / ".s.zarr.old")
    with pytest.raises(OutputError, match="exists already"):
        make_store(date_files(tmp_path, 1), store)
    assert describe(store).files == (f"tile_{DAYS[0]}.tif",)


def test_a_failure_puts_the_old_store_back(tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    make_store(date_files(tmp_path, 0), store)
    monkeypatch.setattr(outputs, "_rename", lambda *_: False)

    real = os.rename

    def refused(source, target):
        if source.name.endswith(".part"):
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr(outputs.os, "rename", refused)
    with pytest.raises(OutputError, match="Input/output error"):
        make_store(date_files(tmp_path, 1), store, overwrite=True)
    assert describe(store).files == (f"tile_{DAYS[0]}.tif",)
    assert hidden(tmp_path) == []


# --- links ---


@pytest.mark.parametrize("ending", ENDINGS)
def test_through_a_link_its_target_is_written(tmp_path, ending):
    store, link = tmp_path / f"a{ending}", tmp_path / f"l{ending}"
    make_store(date_files(tmp_path, 0, 1), store)
    link.symlink_to(store.name)
    append_store(link, open_scene(date_files(tmp_path, 2)))
    assert link.is_symlink()
    assert describe(store).grid.shape[0] == 3
    make_store(date_files(tmp_path, 4), link, overwrite=True)
    assert link.is_symlink()
    assert describe(store).grid.shape[0] == 1


def test_decode_and_dangling_links(tmp_path):
    store, link = tmp_path / "s.zarr", tmp_path / "l.zarr"
    link.symlink_to(store.name)
    make_store(date_files(tmp_path, 0), link)
    assert describe(store).grid.shape[0] == 1
    (tmp_path / "b.tif").symlink_to("real.tif")
    decode_store(store, tmp_path / "b.tif")
    assert (tmp_path / "b.tif").is_symlink()
    assert everything(tmp_path / "real.tif") == everything(tmp_path / f"tile_{DAYS[0]}.tif")
    (tmp_path / "x.zarr").symlink_to("y.zarr")
    (tmp_path / "y.zarr").symlink_to("x.zarr")
    with pytest.raises(OutputError, match="links in a circle"):
        make_store(date_files(tmp_path, 0), tmp_path / "x.zarr")
    (tmp_path / "z.zarr").symlink_to("none/z.zarr")
    with pytest.raises(OutputError, match="does not exist"):
        make_store(date_files(tmp_path, 0), tmp_path / "z.zarr")


@pytest.mark.parametrize("at", ["reflectance", "reflectance/c", "reflectance/c/1", "time"])
def test_append_never_leaves_the_store(tmp_path, at):
    store, outside = tmp_path / "s.zarr", tmp_path / "outside"
    make_store(date_files(tmp_path, 0, 1, 2), store, gop=2)
    (store / at).rename(outside)
    (store / at).symlink_to(outside)
    before = {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="leads out of the store"):
        append_store(store, open_scene(date_files(tmp_path, 3)))
    assert before == {path: path.read_bytes() for path in outside.rglob("*") if path.is_file()}
    assert describe(store).grid.shape[0] == 3


# --- what killed runs leave ---


def start(folder: Path, code: str) -> subprocess.Popen:
    """A process that runs some code with the test helpers and says when it is in the middle of its work."""
    tests = os.path.dirname(os.path.dirname(__file__))
    head = f"import sys, time; sys.path.insert(0, {tests!r})\nfrom pathlib import Path\n"
    head += f"import os; os.chdir({str(folder)!r})\nfrom storefiles import make_store\n"
    head += "def wait(*_): print('here', flush=True); time.sleep(60)\n"
    run = subprocess.Popen([sys.executable, "-c", head + code], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "here\n"
    return run


def stop(run: subprocess.Popen, number: int) -> int:
    run.send_signal(number)
    code = run.wait(30)
    assert run.stdout is not None
    run.stdout.close()
    return code


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_next_run_clears_what_a_killed_one_left_and_nothing_else(tmp_path, ending):
    (file,) = date_files(tmp_path, 0)
    code = f"make_store({str(file)!r}, Path({f's{ending}'!r}), progress=wait)"
    dead, living = start(tmp_path, code), start(tmp_path, code.replace("'s.", "'t."))
    stop(dead, signal.SIGKILL)
    (tmp_path / ".mine.part").write_text("of another program")
    assert len(hidden(tmp_path)) == 3
    make_store(file, tmp_path / f"s{ending}")
    left = hidden(tmp_path)
    assert [name.split(".")[1] for name in left] == ["mine", "t"]
    stop(living, signal.SIGKILL)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_killed_append_blocks_nobody(tmp_path, ending):
    store = tmp_path / f"s{ending}"
    make_store(date_files(tmp_path, 0, 1), store)
    (file,) = date_files(tmp_path, 2)
    code = "from eozip.store import append_store\nfrom eozip.raster import open_scene\n"
    code += f"append_store('s{ending}', open_scene({str(file)!r}), progress=wait)"
    run = start(tmp_path, code)
    with pytest.raises(OutputError, match="written by another eozip"):
        append_store(store, open_scene(file))
    stop(run, signal.SIGKILL)
    append_store(store, open_scene(file))
    assert_dates_hold_their_pixels(store)
    assert hidden(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_polite_kill_cleans_up(tmp_path, number):
    (file,) = date_files(tmp_path, 0)
    code = (
        "from eozip import cli\nfrom eozip.store import writer\n"
        "writer._write_shards = wait\n"
        f"sys.argv = ['eozip', 'encode', {str(file)!r}, 's.zarr', '--codec', 'lossless']\ncli.main()"
    )
    assert stop(start(tmp_path, code), number) == 128 + number
    assert hidden(tmp_path) == []
    assert not (tmp_path / "s.zarr").exists()


def test_bytes_reach_the_disk_before_the_name(tmp_path, monkeypatch):
    """Every file and folder of a store is flushed before the rename, and the folder that holds the name after it."""
    order: list[str] = []
    real, rename = outputs._flush_one, outputs._rename
    monkeypatch.setattr(outputs, "_flush_one", lambda path: (order.append(path.name), real(path))[1])
    monkeypatch.setattr(outputs, "_rename", lambda *args: (order.append("rename"), rename(*args))[1])
    make_store(date_files(tmp_path, 0), tmp_path / "s.zarr")
    at = order.index("rename")
    everything_written = {path.name for path in (tmp_path / "s.zarr").rglob("*")}
    assert everything_written <= set(order[:at])
    assert order[at + 1 :] == [tmp_path.name]
