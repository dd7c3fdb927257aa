"""`eozip serve` and the readers of stores that lie elsewhere: in memory, behind a plain web server, on S3."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from eozip.arguments import place
from eozip.cli import cli
from eozip.errors import InputError
from eozip.notebook.explorer import source_of
from eozip.raster import open_scene
from eozip.serve import create_app, open_layers
from eozip.serve.run import start_app
from eozip.store import append_store, decode_store, describe, level_store
from objectstore import s3_server
from storefiles import make_store, opened, write_dates
from test_serve import fetch


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    make_store(write_dates(folder), folder / "a.zarr", "tec-elic-small", quality=50)
    return folder / "a.zarr"


@pytest.fixture(scope="module")
def in_memory(local: Path) -> Iterator[str]:
    fs = fsspec.filesystem("memory")
    fs.put(str(local), "/serve-test/a.zarr", recursive=True)
    yield "memory://serve-test/a.zarr"
    fs.rm("/serve-test", recursive=True)


@pytest.fixture(scope="module")
def on_the_web(local: Path) -> Iterator[str]:
    """Python's own server, which knows nothing of ranges."""
    pytest.importorskip("aiohttp")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Says nothing."""

    handler = functools.partial(Quiet, directory=str(local.parent))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/a.zarr"
    server.shutdown()
    server.server_close()


@pytest.fixture
def on_s3(local: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server(monkeypatch) as server:
        fs, root = fsspec.core.url_to_fs(f"{server.url}/a.zarr")
        fs.put(str(local), root, recursive=True)
        yield f"{server.url}/a.zarr"


@pytest.fixture(params=["in_memory", "on_the_web", "on_s3"])
def url(request: pytest.FixtureRequest) -> str:
    return request.getfixturevalue(request.param)


def test_pixels_tiles_and_costs_are_those_of_the_store_here(local: Path, url: str) -> None:
    running = start_app(create_app(open_layers([local, url])))
    try:
        asked = {"row": 30, "column": 20}
        here, there = (
            json.loads(fetch(f"{running.address}/layers/{n}/point.json", **asked)[1]) for n in (0, 1)
        )
        assert here["dates"] == there["dates"]
        for path, more in (
            ("image.png", {}),
            ("chunk.json", asked),
            ("histogram.json", {"bands": "B04,B03,B02"}),
        ):
            pair = [fetch(f"{running.address}/layers/{n}/{path}", date=2, **more) for n in (0, 1)]
            assert pair[0][0] == pair[1][0] == 200
            assert pair[0][1] == pair[1][1]
    finally:
        running.stop()


def test_describe_decode_and_info_read_it(local: Path, url: str, tmp_path: Path) -> None:
    assert describe(url).grid.shape == describe(local).grid.shape
    decode_store(url, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("*.tif"))) == 3
    done = CliRunner().invoke(cli, ["info", url, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["shape"] == list(describe(local).grid.shape)
    assert found["bytes"] > 0.5 * describe(local).bytes


def test_levels_of_a_store_elsewhere(local: Path, in_memory: str) -> None:
    here, there = (
        zarr.open_array(level_store(store), path="levels/2/reflectance", mode="r")[:]
        for store in (local, in_memory)
    )
    np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_written_to_a_web_server(scheme: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="object store"):
        append_store(f"{scheme}://example.invalid/a.zarr", [tmp_path / "b.tif"])
    with pytest.raises(InputError, match="object store"):
        place("out", place("store", f"{scheme}://example.invalid/a.zarr", reading=True))


def test_a_web_server_without_the_store_is_said(on_the_web: str) -> None:
    done = CliRunner().invoke(cli, ["serve", on_the_web.replace("a.zarr", "none.zarr"), "--port", "0"])
    assert done.exit_code == 1
    assert "none.zarr" in done.output
    assert "Traceback" not in done.output


def test_a_server_that_is_not_there_is_said_without_a_traceback() -> None:
    pytest.importorskip("aiohttp")
    done = CliRunner().invoke(cli, ["info", "http://127.0.0.1:9/a.zarr"])
    assert done.exit_code == 1
    assert "127.0.0.1:9" in done.output


def test_explore_finds_where_a_dataset_was_opened(local: Path, in_memory: str) -> None:
    assert source_of(opened(local)) == str(local)
    found = xr.open_zarr(in_memory)
    assert found.encoding["source"] == in_memory
    assert source_of(found) == in_memory


def test_a_date_appended_elsewhere_is_shown(local: Path, tmp_path: Path) -> None:
    """Somebody replaces the store in memory while it is served."""
    fs = fsspec.filesystem("memory")
    first = write_dates(tmp_path)
    make_store(first[:2], tmp_path / "g.zarr", "tec-elic-small", quality=50)
    fs.put(str(tmp_path / "g.zarr"), "/serve-grow/g.zarr", recursive=True)
    running = start_app(create_app(open_layers(["memory://serve-grow/g.zarr"])))
    try:
        assert len(json.loads(fetch(f"{running.address}/api/layers")[1])["layers"][0]["dates"]) == 2
        append_store(tmp_path / "g.zarr", open_scene(first[2:]))
        fs.put(str(tmp_path / "g.zarr"), "/serve-grow/", recursive=True)
        assert len(json.loads(fetch(f"{running.address}/api/layers")[1])["layers"][0]["dates"]) == 3
    finally:
        running.stop()
        fs.rm("/serve-grow", recursive=True)
        shutil.rmtree(tmp_path / "g.zarr")
