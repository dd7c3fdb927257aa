"""Stores on an object store: the same bytes as on a disk, a bounded number of requests, refusals of all kinds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

import eozip
import eozip.keys
from eozip.arguments import RemotePath, place
from eozip.cli import cli
from eozip.errors import FormatError, InputError, OutputError
from eozip.keys import RemoteKeys, coalesced, leased
from eozip.raster import open_scene
from eozip.store import describe, verify_store
from eozip.store.pixels import read_pixels
from objectstore import BUCKET, s3_server
from storefiles import make_store as made
from storefiles import write_dates


@pytest.fixture(scope="module")
def one_server():
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as found:
        yield found


@pytest.fixture
def server(one_server, request):
    one_server.url = f"s3://{BUCKET}/{request.node.name.replace('[', '-').strip(']')}"
    one_server.refused = 0.0
    one_server.forget()
    return one_server


@pytest.fixture
def paths(tmp_path):
    return write_dates(tmp_path)


def make_store(inputs, out, **options):
    return made(inputs, out, **{"chunk": 24, **options})


def remote_bytes(url: str) -> dict[str, bytes]:
    keys = RemoteKeys(RemotePath(url))
    return {key: keys.get(key) for key in keys.sizes()}


def local_bytes(folder) -> dict[str, bytes]:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def test_encode_writes_the_same_keys_as_on_a_disk(server, paths, tmp_path):
    make_store(paths, tmp_path / "a.zarr")
    make_store(paths, f"{server.url}/x/a.zarr")
    assert remote_bytes(f"{server.url}/x/a.zarr") == local_bytes(tmp_path / "a.zarr")


def test_commands_take_urls(server, paths, tmp_path):
    url = f"{server.url}/a.zarr"
    run = CliRunner()
    assert run.invoke(cli, ["encode", *map(str, paths[1:2]), url, "--codec", "lossless"]).exit_code == 0
    assert run.invoke(cli, ["append", url, str(paths[0])]).exit_code == 0
    told = json.loads(run.invoke(cli, ["info", url, "--json"]).stdout)
    assert told["shape"][0] == 2
    assert told["bytes"] == sum(map(len, remote_bytes(url).values()))
    assert (
        run.invoke(cli, ["verify", url, "--against", str(paths[1]), "--against", str(paths[0])]).exit_code
        == 0
    )
    assert run.invoke(cli, ["decode", url, str(tmp_path / "back")]).exit_code == 0


def test_append_gives_the_bytes_that_it_gives_on_a_disk(server, paths, tmp_path):
    for where in (tmp_path / "a.zarr", f"{server.url}/a.zarr"):
        make_store(paths[1:2], where)
        eozip.append_store(where, [paths[0], paths[2]])
    assert remote_bytes(f"{server.url}/a.zarr") == local_bytes(tmp_path / "a.zarr")


def test_a_window_costs_three_requests_for_metadata_and_two_for_a_shard(server, paths):
    make_store(paths, f"{server.url}/a.zarr")
    server.forget()
    found = describe(f"{server.url}/a.zarr")
    assert len(server.requests) == 3
    server.forget()
    read_pixels(found, slice(0, 2), slice(10, 30), slice(5, 25))  # four chunks of one shard
    assert [method for method, _ in server.requests] == ["GET", "GET"]


def test_pixels_come_as_from_a_disk(server, paths, tmp_path):
    make_store(paths, tmp_path / "a.zarr")
    make_store(paths, f"{server.url}/a.zarr")
    window = slice(0, 3), slice(3, 40), slice(2, 41)
    there, here = (read_pixels(describe(w), *window) for w in (f"{server.url}/a.zarr", tmp_path / "a.zarr"))
    assert np.array_equal(here, there)


def test_ranges_that_lie_close_together_are_one():
    assert coalesced([(100, 200), (0, 50), (1_000_000, 1_000_010)]) == [(0, 200), (1_000_000, 1_000_010)]


def test_a_tenth_of_refusals_changes_nothing(server, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(eozip.keys, "_PAUSE", 0.001)
    make_store(paths, tmp_path / "a.zarr")
    server.refused = 0.1
    make_store(paths, f"{server.url}/a.zarr")
    report = verify_store(f"{server.url}/a.zarr", against=open_scene(paths))
    server.refused = 0
    assert report.ok
    assert server.refusals
    assert remote_bytes(f"{server.url}/a.zarr") == local_bytes(tmp_path / "a.zarr")


def test_a_store_that_is_there_is_not_replaced(server, paths):
    make_store(paths, f"{server.url}/a.zarr")
    before = remote_bytes(f"{server.url}/a.zarr")
    with pytest.raises(OutputError, match="exists already"):
        make_store(paths[:1], f"{server.url}/a.zarr")
    assert remote_bytes(f"{server.url}/a.zarr") == before


def test_overwrite_leaves_no_key_of_the_old_store(server, paths, tmp_path):
    make_store(paths, f"{server.url}/a.zarr")
    make_store(paths[:1], f"{server.url}/a.zarr", overwrite=True)
    make_store(paths[:1], tmp_path / "a.zarr")
    assert remote_bytes(f"{server.url}/a.zarr") == local_bytes(tmp_path / "a.zarr")


def test_what_is_no_store_is_never_replaced(server, paths):
    RemoteKeys(RemotePath(server.url)).put("a.zarr/notes.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"notes\.txt"):
            make_store(paths, f"{server.url}/a.zarr", overwrite=overwrite)


def test_a_failed_run_leaves_no_key(server, paths):
    def stop(done, total):
        if done > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_store(paths, f"{server.url}/a.zarr", progress=stop)
    assert remote_bytes(f"{server.url}/a.zarr") == {}


def test_two_writers_at_once_are_refused(server, paths, monkeypatch):
    monkeypatch.setattr(eozip.keys, "LEASE", 1.0)
    make_store(paths[1:2], f"{server.url}/a.zarr")
    with (
        leased(RemoteKeys(RemotePath(f"{server.url}/a.zarr")), ".eozip-writing", watch=1.0),
        pytest.raises(OutputError, match="being written by another eozip"),
    ):
        eozip.append_store(f"{server.url}/a.zarr", paths[0])


def test_a_dead_writers_lease_is_taken_over(server):
    keys = RemoteKeys(RemotePath(f"{server.url}/a.zarr"))
    keys.put(".eozip-writing", b'{"token": "of a killed run", "beat": 7}')
    with leased(keys, ".eozip-writing", watch=0.2) as lease:
        lease.check()
    assert keys.sizes() == {}


def test_create_replaces_nothing(server):
    keys = RemoteKeys(RemotePath(server.url))
    assert keys.create("k", b"first")
    assert keys.create("k", b"first")
    assert not keys.create("k", b"second")
    assert keys.get("k") == b"first"


def test_a_missing_bucket_is_named(server, paths):
    with pytest.raises((InputError, OutputError), match="no such bucket"):
        make_store(paths, "s3://nowhere-at-all/a.zarr")


def test_missing_rights_are_named(server, paths, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("Access Denied")

    keys = RemoteKeys(RemotePath(server.url))
    monkeypatch.setattr(keys._opened[0], "pipe_file", refused)
    with pytest.raises(OutputError, match="no right to write"):
        keys.put("k", b"x")


def test_a_clock_that_is_wrong_is_named(server, monkeypatch):
    def refused(*args, **options):
        raise OSError(
            "RequestTimeTooSkewed: The difference between the request time and the current time is too large."
        )

    keys = RemoteKeys(RemotePath(server.url))
    monkeypatch.setattr(keys._opened[0], "pipe_file", refused)
    with pytest.raises(OutputError, match="set the clock"):
        keys.put("k", b"x")


@pytest.mark.parametrize(
    "value", ["https://host/a.zarr", "s3://", "/vsis3/bucket/a.zarr", b"s3://x/a.zarr", ""]
)
def test_what_names_no_place_is_refused(value):
    with pytest.raises(InputError, match="expected"):
        place("out", value)


@pytest.mark.parametrize(
    ("url", "package"), [("gs://bucket/a.zarr", "gcsfs"), ("az://bucket/a.zarr", "adlfs")]
)
def test_a_missing_package_is_named(url, package):
    pytest.importorskip("fsspec")
    try:
        __import__(package)
    except ImportError:
        with pytest.raises(InputError, match=rf"{package}.*pip install"):
            describe(url)


def test_a_zip_file_on_an_object_store_is_read_by_ranges(server, paths, tmp_path):
    make_store(paths, tmp_path / "a.zarr.zip")
    RemoteKeys(RemotePath(server.url)).put("a.zarr.zip", (tmp_path / "a.zarr.zip").read_bytes())
    server.forget()
    found = describe(f"{server.url}/a.zarr.zip")
    assert len(server.requests) <= 5
    window = slice(0, 3), slice(3, 40), slice(2, 41)
    here = read_pixels(describe(tmp_path / "a.zarr.zip"), *window)
    assert np.array_equal(read_pixels(found, *window), here)
    assert verify_store(f"{server.url}/a.zarr.zip", against=open_scene(paths)).ok


def test_refusals_while_a_zip_file_is_read_change_nothing(server, paths, tmp_path, monkeypatch):
    monkeypatch.setattr(eozip.keys, "_PAUSE", 0.001)
    make_store(paths, tmp_path / "a.zarr.zip")
    RemoteKeys(RemotePath(server.url)).put("a.zarr.zip", (tmp_path / "a.zarr.zip").read_bytes())
    server.refused = 0.2
    report = verify_store(f"{server.url}/a.zarr.zip")
    server.refused = 0.0
    assert report.ok


def test_xarray_reads_what_eozip_reads(server, paths, tmp_path):
    xr = pytest.importorskip("xarray")
    make_store(paths, f"{server.url}/a.zarr")
    make_store(paths, tmp_path / "a.zarr")
    there, here = (xr.open_dataset(str(p)) for p in (f"{server.url}/a.zarr", tmp_path / "a.zarr"))
    assert np.array_equal(there.reflectance[:, :, 3:9].values, here.reflectance[:, :, 3:9].values)


def test_nothing_under_a_name_is_no_store(server):
    for name in ("none.zarr", "none.zarr.zip"):
        with pytest.raises(FormatError, match="expected"):
            describe(f"{server.url}/{name}")


def test_a_zip_file_on_an_object_store_is_not_written(server, paths, tmp_path):
    make_store(paths, tmp_path / "b.zarr.zip")
    RemoteKeys(RemotePath(server.url)).put("b.zarr.zip", (tmp_path / "b.zarr.zip").read_bytes())
    with pytest.raises(InputError, match="copy it to this machine"):
        make_store(paths, f"{server.url}/a.zarr.zip")
    with pytest.raises(InputError, match="copy it to this machine"):
        eozip.append_store(f"{server.url}/b.zarr.zip", paths[0])
