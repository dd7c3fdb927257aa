"""Archives on a real S3 server and a real cluster: SIGKILL at any request, refusals, bad items; equal bytes at the end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archivefiles import DATES, write_items
from eozip.keys import RemoteKeys, RemotePath
from objectstore import BUCKET, s3_server

pytestmark = pytest.mark.slow

MOMENTS = int(os.environ.get("EOZIP_KILLS", "20"))  # of each kind
SHORT_LEASE = "import eozip.keys as k; k.LEASE = 1.0; k._PAUSE = 0.02; "


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("distributed", reason="needs dask.distributed")
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as found:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        yield found


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("items"), dates=DATES[:5], size=(40, 44))


def client(items, out: str, scheduler: str) -> subprocess.Popen:
    """`eozip archive`, its lease short."""
    code = SHORT_LEASE + "from eozip.cli import main; main()"
    options = ["--codec", "lossless", "--chunk", "16", "--gop", "2", "--scheduler", scheduler, "--json"]
    return subprocess.Popen(
        [sys.executable, "-c", code, "archive", *map(str, items), out, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Cluster:
    """A scheduler and its workers, each a process that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.workers: list[subprocess.Popen] = []
        self.start()

    def start(self) -> None:
        self.count += 1
        file = self.folder / f"scheduler-{self.count}.json"
        self.scheduler = self._run(
            "distributed.cli.dask_scheduler", "--port", "0", "--scheduler-file", str(file), "--no-dashboard"
        )
        while not file.exists():
            time.sleep(0.05)
        self.address = json.loads(file.read_text())["address"]
        self.workers = []
        for _ in range(2):
            self.add_worker()

    def add_worker(self) -> None:
        options = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "10")
        self.workers.append(self._run("distributed.cli.dask_worker", self.address, *options))

    def _run(self, module: str, *options: str) -> subprocess.Popen:
        call = [sys.executable, "-m", module, *options]
        return subprocess.Popen(call, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(server, tmp_path_factory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


def stores(url: str) -> dict[str, bytes | None]:
    keys = RemoteKeys(RemotePath(url))
    return {key: keys.get(key) for key in keys.sizes() if not key.startswith(".eozip-archive")}


def beside(url: str) -> list[str]:
    return [key for key in RemoteKeys(RemotePath(url)).sizes() if key.startswith(".eozip-archive")]


def finished(process: subprocess.Popen, code: int = 0) -> dict:
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    return json.loads(out)


@pytest.fixture(scope="module")
def undisturbed(server, items, cluster):
    """What a run gives that nobody disturbs, and how many requests it makes."""
    server.forget()
    finished(client(items, f"s3://{BUCKET}/undisturbed", cluster.address))
    return stores(f"s3://{BUCKET}/undisturbed"), beside(f"s3://{BUCKET}/undisturbed"), len(server.requests)


@contextmanager
def killing(server, process: subprocess.Popen, at: int) -> Iterator[None]:
    """Kills a process as the server hears its n-th request from here on."""
    server.forget()
    server.at = at, lambda: process.send_signal(signal.SIGKILL)
    try:
        yield
    finally:
        server.at = None


def moments(kind: str) -> list[int]:
    return [random.Random(f"{kind} {k}").randrange(10**6) for k in range(MOMENTS)]


@pytest.mark.parametrize("moment", moments("client"))
def test_a_killed_client(server, items, cluster, undisturbed, moment):
    want, want_beside, count = undisturbed
    url = f"s3://{BUCKET}/client-{moment}"
    process = client(items, url, cluster.address)
    with killing(server, process, 1 + moment % count):
        process.communicate(timeout=300)
    finished(client(items, url, cluster.address))
    assert stores(url) == want
    assert beside(url) == want_beside


@pytest.mark.parametrize("moment", moments("worker"))
def test_a_killed_worker(server, items, cluster, undisturbed, moment):
    want, want_beside, count = undisturbed
    url = f"s3://{BUCKET}/worker-{moment}"
    process = client(items, url, cluster.address)
    victim = cluster.workers.pop(0)
    with killing(server, victim, 1 + moment % count):
        assert finished(process)["failed"] == {}
    victim.kill()
    victim.wait()
    cluster.add_worker()
    assert stores(url) == want
    assert beside(url) == want_beside


@pytest.mark.parametrize("moment", moments("scheduler"))
def test_a_killed_scheduler(server, items, cluster, undisturbed, moment):
    want, want_beside, count = undisturbed
    url = f"s3://{BUCKET}/scheduler-{moment}"
    process = client(items, url, cluster.address)
    try:
        with killing(server, cluster.scheduler, 1 + moment % count):
            _, err = process.communicate(timeout=300)
    finally:
        cluster.stop()
        cluster.start()
    if process.returncode:
        assert process.returncode == 1
        assert "run again" in err
    finished(client(items, url, cluster.address))
    assert stores(url) == want
    assert beside(url) == want_beside


def test_a_tenth_of_refusals(server, items, cluster, undisturbed):
    url = f"s3://{BUCKET}/refused"
    server.refused, before = 0.1, server.refusals
    try:
        assert finished(client(items, url, cluster.address))["failed"] == {}
    finally:
        server.refused = 0.0
    assert server.refusals > before
    assert stores(url) == undisturbed[0]


def test_forty_items_of_which_two_are_bad(server, cluster, tmp_path):
    dates = [f"2021{month:02}{day:02}" for month in range(3, 8) for day in (3, 9, 15, 27)]
    items = write_items(tmp_path / "in", dates=dates, size=(16, 16))
    items[7].write_bytes(items[7].read_bytes()[:3000])
    items[25].write_bytes(b"no raster")
    report = finished(client(items, f"s3://{BUCKET}/forty", cluster.address), code=4)
    assert sorted(report["failed"]) == sorted(map(str, (items[7], items[25])))
    assert (report["done"], report["stores"]) == (38, ["31TCJ.zarr", "33UUP.zarr"])
