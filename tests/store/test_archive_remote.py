"""Archives on an object store that gives only some rights, and their status from elsewhere."""

from __future__ import annotations

import pytest

import eozip
from archivefiles import DATES, SETTINGS, one_cluster, stored, write_items
from eozip import keys
from eozip.archive import read_status, run
from eozip.arguments import RemotePath
from eozip.errors import InputError, OutputError
from eozip.keys import RemoteKeys
from objectstore import s3_server


@pytest.fixture(scope="module")
def server():
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as found, one_cluster(patch):
        patch.setattr(keys, "LEASE", 1.0)
        patch.setattr(keys, "_PAUSE", 0.01)
        yield found


@pytest.fixture
def rights(server):
    """What is refused with 403, by method and path."""
    yield server
    server.denied = None


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return [str(path) for path in write_items(tmp_path_factory.mktemp("in"), dates=DATES[:2])]


def archive(paths, out, **options):
    return eozip.archive(paths, out, **{**SETTINGS, **options})


def remote(url: str) -> dict[str, bytes | None]:
    found = RemoteKeys(RemotePath(url))
    return {key: found.get(key) for key in found.sizes() if not key.startswith(".eozip-archive")}


@pytest.mark.parametrize(
    ("name", "method", "part"),
    [
        ("any", "PUT", ""),
        ("shards", "PUT", ".zarr/"),
        ("records", "PUT", "/jobs/"),
        ("groups", "PUT", "zarr.json"),
    ],
)
def test_missing_rights_to_write_are_named_and_set_nothing_aside(rights, paths, tmp_path, name, method, part):
    url = f"{rights.url}/no-{name}"
    rights.denied = lambda asked, path: asked == method and part in path
    with pytest.raises(OutputError, match="no right to write"):
        archive(paths, url)
    rights.denied = None
    assert archive(paths, url).ok
    archive(paths, tmp_path / "out")
    assert remote(url) == stored(tmp_path / "out")


def test_missing_rights_to_remove_are_named(rights, paths):
    url = f"{rights.url}/no-delete"
    rights.denied = lambda asked, path: asked == "DELETE"
    with pytest.raises(OutputError, match="no right to write"):
        archive(paths, url)
    rights.denied = None
    assert archive(paths, url).ok
    assert read_status(url).state == "finished"


def test_missing_rights_to_read_are_named(rights, paths):
    rights.denied = lambda asked, path: asked in ("GET", "HEAD")
    for call in (
        lambda: archive(paths, f"{rights.url}/no-read"),
        lambda: read_status(f"{rights.url}/no-read"),
    ):
        with pytest.raises((InputError, OutputError), match="no right to read"):
            call()


def test_the_status_of_a_run_that_lives_is_killed_or_has_ended(server, paths, monkeypatch):
    url = f"{server.url}/status"
    with pytest.raises(InputError, match="none that was ever run"):
        read_status(url)
    told = []
    publish = run.publish

    def publishing(*args):
        told.append(read_status(url, watch=1.0).state)
        publish(*args)

    with monkeypatch.context() as patch:
        patch.setattr(run, "publish", publishing)
        archive(paths, url)
    assert told == ["running", "running"]
    assert read_status(url).state == "finished"
    record = RemoteKeys(RemotePath(url))
    record.put(".eozip-archive/status.json", b'{"state": "running", "items": 4}')
    assert read_status(url, watch=1.0).state == "stopped"
    record.put(".eozip-archive/run", b'{"token": "dead", "beat": 3}')
    assert read_status(url, watch=1.0).state == "stopped"
    assert archive(paths, url).ok


def test_a_prefix_of_something_else_is_refused_and_has_no_status(server, paths):
    url = f"{server.url}/thesis"
    RemoteKeys(RemotePath(url)).put("chapter-1.doc", b"mine")
    with pytest.raises(OutputError, match=r"something else \(chapter-1\.doc\)"):
        archive(paths, url)
    with pytest.raises(InputError, match="expected an archive of eozip"):
        read_status(url)
    assert remote(url) == {"chapter-1.doc": b"mine"}
