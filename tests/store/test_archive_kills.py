"""Archives on a real S3 server and a real cluster: SIGKILL at any request, refusals, bad items; equal bytes at the end."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from archivefiles import DATES, write_items
from eozip import keys
from eozip.arguments import RemotePath
from eozip.keys import RemoteKeys
from objectstore import BUCKET, s3_server

pytestmark = pytest.mark.slow

MOMENTS = int(os.environ.get("EOZIP_KILLS", "20"))  # of each kind
FORKS = multiprocessing.get_context("forkserver")
PRELOADED = ["eozip.cli.archive", "eozip.archive.run", "eozip.archive.work", "distributed", "s3fs"]
PRELOADED += ["distributed.cli.dask_scheduler", "distributed.cli.dask_worker"]


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("distributed", reason="needs dask.distributed")
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as found:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "5s")
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        FORKS.set_forkserver_preload(PRELOADED)
        yield found


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("items"), dates=DATES[:5], size=(40, 44))


class Child:
    """A process of a fork server that has imported everything: what is killed here lives for seconds, imports included.

    Args:
        run: what it does, with `call` as its command line.
        call: arguments.
        folder: where it works, and where its output goes.
    """

    def __init__(self, run: Callable[[], object], call: list[str], folder: Path) -> None:
        self._files = [Path(tempfile.mkstemp(dir=folder, prefix=name)[1]) for name in ("out-", "err-")]
        self._process = FORKS.Process(target=_child, args=(run, call, folder, dict(os.environ), self._files))
        self._process.start()

    def kill(self) -> None:
        """By SIGKILL."""
        self._process.kill()

    def wait(self, seconds: float = 600) -> int:
        """Until it has ended; its exit code."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it goes on for ever"
        return self._process.exitcode

    def told(self) -> list[str]:
        """Its output, and its errors."""
        return [file.read_text() for file in self._files]


def _child(
    run: Callable[[], object], call: list[str], folder: Path, environment: dict[str, str], files: list[Path]
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY), number)
    keys.LEASE, keys._PAUSE = 1.0, 0.02
    sys.argv = ["eozip", *call]
    run()


def _archive() -> None:
    from eozip.cli import main

    main()


def _scheduler() -> None:
    from distributed.cli.dask_scheduler import main

    main()


def _worker() -> None:
    from distributed.cli.dask_worker import main

    main()


def client(items, out: str, scheduler: str, folder: Path) -> Child:
    """`eozip archive`, its lease short."""
    options = ["--codec", "lossless", "--chunk", "16", "--gop", "2", "--scheduler", scheduler, "--json"]
    return Child(_archive, ["archive", *map(str, items), out, *options], folder)


class Cluster:
    """A scheduler and its workers, each a process that a test may kill."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.workers: list[Child] = []
        self.start()

    def start(self) -> None:
        self.count += 1
        file = self.folder / f"scheduler-{self.count}.json"
        options = ["--port", "0", "--scheduler-file", str(file), "--no-dashboard"]
        self.scheduler = Child(_scheduler, options, self.folder)
        self.address = _address(file)
        self.workers = []
        for _ in range(2):
            self.add_worker()

    def add_worker(self) -> None:
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--death-timeout", "10"]
        self.workers.append(Child(_worker, [self.address, *options], self.folder))

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def cluster(server, tmp_path_factory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


def _address(file: Path) -> str:
    """What a scheduler writes into a file of its own, once it has written all of it."""
    while True:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return str(json.loads(file.read_text())["address"])
        time.sleep(0.05)


def stores(url: str) -> dict[str, bytes | None]:
    keys = RemoteKeys(RemotePath(url))
    return {key: keys.get(key) for key in keys.sizes() if not key.startswith(".eozip-archive")}


def beside(url: str) -> list[str]:
    return [key for key in RemoteKeys(RemotePath(url)).sizes() if key.startswith(".eozip-archive")]


def finished(process: Child, code: int = 0) -> dict:
    got = process.wait()
    out, err = process.told()
    assert got == code, err
    return json.loads(out)


@pytest.fixture(scope="module")
def undisturbed(server, items, cluster):
    """What a run gives that nobody disturbs, and how many requests it makes."""
    server.forget()
    finished(client(items, f"s3://{BUCKET}/undisturbed", cluster.address, cluster.folder))
    return stores(f"s3://{BUCKET}/undisturbed"), beside(f"s3://{BUCKET}/undisturbed"), len(server.requests)


@contextmanager
def killing(server, process: Child, at: int) -> Iterator[None]:
    """Kills a process as the server hears its n-th request from here on."""
    server.forget()
    server.at = at, process.kill
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
    process = client(items, url, cluster.address, cluster.folder)
    with killing(server, process, 1 + moment % count):
        process.wait()
    finished(client(items, url, cluster.address, cluster.folder))
    assert stores(url) == want
    assert beside(url) == want_beside


@pytest.mark.parametrize("moment", moments("worker"))
def test_a_killed_worker(server, items, cluster, undisturbed, moment):
    want, want_beside, count = undisturbed
    url = f"s3://{BUCKET}/worker-{moment}"
    process = client(items, url, cluster.address, cluster.folder)
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
    process = client(items, url, cluster.address, cluster.folder)
    try:
        with killing(server, cluster.scheduler, 1 + moment % count):
            code = process.wait()
    finally:
        cluster.stop()
        cluster.start()
    if code:
        assert code == 1
        assert "run again" in process.told()[1]
    finished(client(items, url, cluster.address, cluster.folder))
    assert stores(url) == want
    assert beside(url) == want_beside


def test_a_tenth_of_refusals(server, items, cluster, undisturbed):
    url = f"s3://{BUCKET}/refused"
    server.refused, before = 0.1, server.refusals
    try:
        assert finished(client(items, url, cluster.address, cluster.folder))["failed"] == {}
    finally:
        server.refused = 0.0
    assert server.refusals > before
    assert stores(url) == undisturbed[0]


def test_forty_items_of_which_two_are_bad(server, cluster, tmp_path):
    dates = [f"2021{month:02}{day:02}" for month in range(3, 8) for day in (3, 9, 15, 27)]
    items = write_items(tmp_path / "in", dates=dates, size=(16, 16))
    items[7].write_bytes(items[7].read_bytes()[:3000])
    items[25].write_bytes(b"no raster")
    report = finished(client(items, f"s3://{BUCKET}/forty", cluster.address, cluster.folder), code=4)
    assert sorted(report["failed"]) == sorted(map(str, (items[7], items[25])))
    assert (report["done"], report["stores"]) == (38, ["31TCJ.zarr", "33UUP.zarr"])
