"""Stores interrupted, damaged, misnamed: nothing half-written, and every fault named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from eozip.errors import FormatError, InputError, LimitError, OutputError
from eozip.raster import open_scene
from eozip.store import decode_store, describe, encode_store, make_request, verify_store
from eozip.store.shards import _unpack_shard, pack_shard
from rasterfiles import everything, write_tif
from storefiles import (
    DATES,
    ENDINGS,
    NAMES,
    Coarse,
    coarse_codec,
    listed,
    make_store,
    opened,
    scene_pixels,
    write_dates,
)


@pytest.fixture(autouse=True)
def _coarse():
    with coarse_codec():
        yield


# --- nothing half-written ---


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, Stop])
def test_an_interrupt_leaves_nothing(tmp_path, ending, error):
    paths = write_dates(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done == total // 2:
            raise error

    with pytest.raises(error):
        make_store(paths, tmp_path / f"s{ending}", progress=interrupt)
    assert listed(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_nothing(tmp_path, ending):
    paths = write_dates(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {os.path.dirname(os.path.dirname(__file__))!r})\n"
        "from pathlib import Path\nfrom rasterfiles import limit_files\nfrom storefiles import make_store\n"
        "from eozip.errors import OutputError\n"
        "limit_files(20_000)\n"
        f"try: make_store({[str(p) for p in paths]!r}, Path({str(tmp_path / f's{ending}')!r}))\n"
        "except OutputError as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
    )
    assert "cannot write" in run.stdout, run.stderr
    assert listed(tmp_path) == sorted(path.name for path in paths)


@pytest.mark.parametrize("ending", ENDINGS)
def test_existing_outputs_are_kept_until_replaced(tmp_path, ending):
    first, second = write_dates(tmp_path, dates=DATES[:2])
    out = tmp_path / f"s{ending}"
    make_store(first, out)
    with pytest.raises(OutputError, match="exists"):
        make_store(second, out)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_store(second, out, overwrite=True, progress=interrupt)
    assert describe(out).files == (first.name,)
    make_store(second, out, overwrite=True)
    assert describe(out).files == (second.name,)
    assert len(listed(tmp_path)) == 3


@pytest.mark.parametrize("name", ["s.tif", "s", "s.zip"])
def test_other_names_are_refused(tmp_path, name):
    with pytest.raises(OutputError, match="zarr"):
        make_store(write_dates(tmp_path), tmp_path / name)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(OutputError, match="does not exist"):
        make_store(write_dates(tmp_path), tmp_path / "no" / "s.zarr")


def test_the_same_input_gives_the_same_bytes(tmp_path):
    paths = write_dates(tmp_path)
    for name in "ab":
        make_store(paths, tmp_path / f"{name}.zarr.zip", Coarse.id, quality=50)
    assert (tmp_path / "a.zarr.zip").read_bytes() == (tmp_path / "b.zarr.zip").read_bytes()


# --- verify ---


def damage(path: Path, at: int = 40) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def shard_of(store: Path) -> Path:
    return store / "reflectance" / "c" / "0" / "0" / "0" / "0"


def test_verify_names_damaged_chunks(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr", Coarse.id, quality=50)
    assert verify_store(tmp_path / "s.zarr").ok
    damage(shard_of(tmp_path / "s.zarr"))
    for full in (True, False):
        failures = verify_store(tmp_path / "s.zarr", full=full).failures
        assert len(failures) == 1
        assert "dates 0:2, rows 0:16, columns 0:16" in failures[0]
    with pytest.raises(FormatError, match="rows 0:16, columns 0:16"):
        decode_store(tmp_path / "s.zarr", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_verify_finds_a_damaged_index_and_a_lost_shard(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr")
    shard = shard_of(tmp_path / "s.zarr")
    shutil.copytree(tmp_path / "s.zarr", tmp_path / "lost.zarr")
    damage(shard, at=-30)
    assert "index" in verify_store(tmp_path / "s.zarr").failures[0]
    shard_of(tmp_path / "lost.zarr").unlink()
    assert "expected 24 stored chunks, found 12" in verify_store(tmp_path / "lost.zarr").failures[0]


def test_verify_finds_swapped_chunks(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels(shape=(12, 32, 32)), NAMES, nodata=None)
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id, quality=50)
    shard = shard_of(tmp_path / "s.zarr")
    streams = _unpack_shard(shard.read_bytes(), (1, 1, 2, 2))
    first, second = (0, 0, 0, 1), (0, 0, 1, 0)
    streams[first], streams[second] = streams[second], streams[first]
    shard.write_bytes(pack_shard(streams, (1, 1, 2, 2)))
    report = verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "a.tif"))
    assert any("PSNR" in line for line in report.failures)


@pytest.mark.parametrize(("change", "is_kept"), [(0, True), (60, False)])
def test_verify_checks_the_largest_error_that_was_promised(tmp_path, change, is_kept):
    dn = scene_pixels(shape=(12, 32, 32))
    write_tif(tmp_path / "a.tif", dn, NAMES)
    scene = open_scene(tmp_path / "a.tif")
    wanted = make_request(scene, Coarse.id, quality=90, max_error=20)
    encode_store(scene, tmp_path / "s.zarr", wanted.codec, order=wanted.order, facts=wanted.facts)
    dn[3, 20, 20] += change
    write_tif(tmp_path / "b.tif", dn, NAMES)
    report = verify_store(tmp_path / "s.zarr", against=open_scene(tmp_path / "b.tif"))
    assert report.ok == is_kept
    assert is_kept or "more than 20 DN" in report.failures[0]


def test_verify_wants_the_same_kind_of_source(tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, tmp_path / "s.zarr")
    with pytest.raises(InputError, match="expected a source"):
        verify_store(tmp_path / "s.zarr", against=open_scene(paths[0]))


@pytest.mark.parametrize("key", ["zarr.json", "reflectance/zarr.json"])
@pytest.mark.parametrize("change", ["missing", "empty", "list", "other", "cut"])
def test_bad_metadata_is_named(tmp_path, key, change):
    make_store(write_dates(tmp_path, dates=DATES[:1]), tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / key
    text = path.read_text()
    contents = {"empty": "", "list": "[]", "other": "{}", "cut": text[: len(text) // 2]}
    path.unlink()
    if change != "missing":
        path.write_text(contents[change])
    with pytest.raises(FormatError):
        describe(tmp_path / "s.zarr")


def test_a_damaged_zip_is_named(tmp_path):
    make_store(write_dates(tmp_path, dates=DATES[:1]), tmp_path / "s.zarr.zip")
    data = (tmp_path / "s.zarr.zip").read_bytes()
    (tmp_path / "cut.zarr.zip").write_bytes(data[:-60])
    with pytest.raises(FormatError, match="zip"):
        describe(tmp_path / "cut.zarr.zip")
    with pytest.raises(FormatError, match="neither"):
        describe(tmp_path / "none.zarr")
    damage(tmp_path / "s.zarr.zip", at=200)
    assert not verify_store(tmp_path / "s.zarr.zip").ok


def test_zip_entries_are_stored_once_and_streams_as_they_are(tmp_path):
    make_store(write_dates(tmp_path), tmp_path / "s.zarr.zip")
    with zipfile.ZipFile(tmp_path / "s.zarr.zip") as archive:
        assert len(set(archive.namelist())) == len(archive.namelist())
        streams = [info for info in archive.infolist() if info.filename.startswith("reflectance/c/")]
        assert {info.compress_type for info in streams} == {zipfile.ZIP_STORED}
        assert sum(info.compress_size for info in archive.infolist() if info not in streams) < 6000


def test_wrong_bands_list_what_is_supported(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels()[:4], NAMES[:4])
    with pytest.raises(InputError, match="s2-l2a"):
        make_store(tmp_path / "a.tif", tmp_path / "s.zarr", Coarse.id)


def test_floats_are_refused(tmp_path):
    write_tif(tmp_path / "a.tif", scene_pixels().astype("float32"), NAMES)
    with pytest.raises(InputError, match="uint16 or int16"):
        make_store(tmp_path / "a.tif", tmp_path / "s.zarr")


def test_rotated_grids_have_no_axes_but_come_back(tmp_path):
    from rasterio.transform import Affine

    write_tif(tmp_path / "a.tif", scene_pixels(), NAMES, transform=Affine(8, 6, 0, 6, -8, 0))
    make_store(tmp_path / "a.tif", tmp_path / "s.zarr")
    assert "x" not in opened(tmp_path / "s.zarr").coords
    decode_store(tmp_path / "s.zarr", tmp_path / "b.tif")
    assert everything(tmp_path / "b.tif") == everything(tmp_path / "a.tif")


def test_progress_counts_every_chunk(tmp_path):
    seen = []
    path = write_dates(tmp_path, dates=DATES[:1])
    scene = open_scene(path)
    wanted = make_request(scene, "lossless")
    encode_store(scene, tmp_path / "s.zarr", wanted.codec, chunk=16, progress=lambda *pair: seen.append(pair))
    assert seen == [(i, 12) for i in range(1, 13)]


def test_a_declared_size_beyond_the_limits_is_refused(tmp_path):
    make_store(write_dates(tmp_path, dates=DATES[:1]), tmp_path / "s.zarr")
    path = tmp_path / "s.zarr" / "reflectance" / "zarr.json"
    document = json.loads(path.read_text())
    huge = [1, 12, 10**6, 10**6]
    document["chunk_grid"]["configuration"]["chunk_shape"] = huge
    document["codecs"][0]["configuration"]["chunk_shape"] = huge
    path.write_text(json.dumps(document))
    with pytest.raises(LimitError):
        describe(tmp_path / "s.zarr")
