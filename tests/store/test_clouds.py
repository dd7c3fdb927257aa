"""Google's and Azure's object stores, by their emulators: the same bytes, conditional writes, archives that continue.

Google: `gcp-storage-emulator` from PyPI, to which conditions on writes are added here, as it has none. Azure: Azurite (npm
install azurite), whose program `azurite-blob` EOZIP_AZURITE names.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

import pytest

import eozip
from archivefiles import DATES, SETTINGS, one_cluster, stored, write_items
from eozip.arguments import RemotePath
from eozip.errors import InputError, OutputError
from eozip.keys import RemoteKeys
from eozip.raster import open_scene
from eozip.store import describe, verify_store
from storefiles import make_store, write_dates

BUCKET = "eozip-test"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Not a secret: the key that every installation of the emulator has (its documentation)."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def google(patch: pytest.MonkeyPatch) -> Iterator[str]:
    patch.setenv(
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false"
    )  # asks the control service of Google whatever the endpoint
    pytest.importorskip("gcsfs", reason="needs gcsfs")
    emulator = pytest.importorskip("gcp_storage_emulator.server", reason="needs gcp-storage-emulator")
    from gcp_storage_emulator.handlers import objects

    for name in ("_multipart_upload", "_create_resumable_upload"):
        patch.setattr(objects, name, conditional(getattr(objects, name)))
    port = free_port()
    server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    patch.setenv("FSSPEC_GS_TOKEN", "anon")
    import fsspec

    fsspec.config.conf.setdefault("gs", {})["token"] = "anon"
    fsspec.config.conf["gs"]["endpoint_url"] = f"http://127.0.0.1:{port}"
    fsspec.get_filesystem_class("gs").clear_instance_cache()
    server.start()
    try:
        yield f"gs://{BUCKET}"
    finally:
        server.stop()
        fsspec.config.conf.pop("gs")
        fsspec.get_filesystem_class("gs").clear_instance_cache()


def conditional(upload):
    """Google's ifGenerationMatch=0: nothing is written where something is (412)."""
    from gcp_storage_emulator.exceptions import NotFound

    def asked(request, response, storage):
        name = request.query.get("name", [None])[0] or (request.data or {}).get("meta", {}).get("name")
        name = name or (request.data or {}).get("name")
        if request.query.get("ifGenerationMatch") == ["0"] and "upload_id" not in request.query:
            try:
                storage.get_file_obj(request.params["bucket_name"], name)
            except NotFound:
                pass
            else:
                response.status = HTTPStatus.PRECONDITION_FAILED
                response.json({"error": {"message": "conditionNotMet"}})
                return None
        return upload(request, response, storage)

    return asked


@contextmanager
def azure(patch: pytest.MonkeyPatch, folder: Path) -> Iterator[str]:
    pytest.importorskip("adlfs", reason="needs adlfs")
    program = os.environ.get("EOZIP_AZURITE")
    if program is None:
        pytest.skip("needs Azurite: EOZIP_AZURITE=/path/of/azurite-blob")
    from azure.storage.blob import BlobServiceClient

    port = free_port()
    options = ["--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    server = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
    text = (
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
        f"AccountKey={AZURE_KEY};BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
    patch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    try:
        for _ in range(600):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        BlobServiceClient.from_connection_string(text).create_container(BUCKET)
        yield f"az://{BUCKET}"
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module", params=["google", "azure"])
def cloud(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        given = (
            google(patch) if request.param == "google" else azure(patch, tmp_path_factory.mktemp("azurite"))
        )
        with given as url:
            yield url


@pytest.fixture
def url(cloud, request):
    return f"{cloud}/{request.node.name.partition('[')[0]}"


def remote_bytes(url: str) -> dict[str, bytes | None]:
    keys = RemoteKeys(RemotePath(url))
    return {key: keys.get(key) for key in keys.sizes()}


def test_a_store_has_the_bytes_that_it_has_on_a_disk(url, tmp_path):
    paths = write_dates(tmp_path)
    for where in (tmp_path / "a.zarr", f"{url}/a.zarr"):
        make_store(paths[1:2], where)
        eozip.append_store(where, [paths[0], paths[2]])
    assert remote_bytes(f"{url}/a.zarr") == stored(tmp_path / "a.zarr")
    assert verify_store(f"{url}/a.zarr", against=open_scene(paths)).ok
    assert describe(f"{url}/a.zarr").grid.shape[0] == 3


def test_what_is_created_replaces_nothing(url):
    keys = RemoteKeys(RemotePath(url))
    assert keys.create("k", b"first")
    assert keys.create("k", b"first")
    assert not keys.create("k", b"second")
    assert keys.get("k") == b"first"
    assert keys.get("none") is None
    assert keys.tail("k", 3) == b"rst"
    assert keys.read("k", 1, 3) == b"ir"
    keys.remove(["k", "none"])
    assert keys.sizes() == {}


def test_a_store_that_is_there_is_not_replaced(url, tmp_path):
    paths = write_dates(tmp_path)
    make_store(paths, f"{url}/a.zarr")
    with pytest.raises(OutputError, match="exists already"):
        make_store(paths, f"{url}/a.zarr")


def test_a_missing_bucket_is_named(cloud, tmp_path):
    scheme = cloud.partition("://")[0]
    with pytest.raises((InputError, OutputError), match=r"cannot|no such bucket"):
        make_store(write_dates(tmp_path), f"{scheme}://nowhere-at-all/a.zarr")


def test_an_archive_that_died_is_continued_to_the_bytes_of_a_disk(url, tmp_path, monkeypatch):
    paths = [str(path) for path in write_items(tmp_path / "in", dates=DATES[:2], tiles=("31TCJ",))]
    with pytest.MonkeyPatch.context() as patch, one_cluster(patch):
        eozip.archive(paths, tmp_path / "out", **SETTINGS)
        writes: list[str] = []
        put = RemoteKeys.put

        def dying(self, key, data):
            writes.append(key)
            if len([one for one in writes if "/jobs/" in one or "/c/" in one]) >= 2:
                raise OutputError("killed")
            put(self, key, data)

        with monkeypatch.context() as killer:
            killer.setattr(RemoteKeys, "put", dying)
            with pytest.raises(OutputError, match="killed"):
                eozip.archive(paths, f"{url}/out", **SETTINGS)
        assert eozip.archive(paths, f"{url}/out", **SETTINGS).ok
    found, want = remote_bytes(f"{url}/out"), stored(tmp_path / "out")
    if url.startswith("gs://"):  # whose emulator takes line ends off the end of an upload
        found, want = ({key: data.rstrip(b"\r\n") for key, data in one.items()} for one in (found, want))
    assert {key: data for key, data in found.items() if not key.startswith(".eozip")} == want
