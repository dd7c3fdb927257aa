"""The cluster of an archive: a worker that dies at any moment costs time and never the run."""

from __future__ import annotations

import threading
import time

import pytest

from eozip.archive import cluster as cluster_of
from eozip.archive.cluster import bounded, settled
from eozip.errors import ClusterError

GATE = threading.Event()


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed", reason="needs dask.distributed")
    made = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
    )
    with made, distributed.Client(made) as client:
        yield client
    GATE.set()


def through_the_gate(k):
    GATE.wait(30)
    return k


def until(so, seconds=20.0):
    """Waits for what another thread brings about."""
    stop = time.monotonic() + seconds
    while not so():
        assert time.monotonic() < stop
        time.sleep(0.01)


def lose_all_workers(client):
    """As SIGKILL does; what they held is lost, and the client knows."""
    for address in client.scheduler_info()["workers"]:
        client.run_on_scheduler(drop_worker, address)


async def drop_worker(address, dask_scheduler):
    await dask_scheduler.remove_worker(address, stimulus_id="test")


def test_results_that_die_with_their_worker_are_made_again(cluster):
    GATE.set()
    given = bounded(cluster, through_the_gate, ((k, (k,)) for k in range(4)), lambda: 4, "call")
    got = [next(given)]
    until(lambda: all(one.status == "finished" for one in cluster.futures.values()))
    GATE.clear()
    lose_all_workers(cluster)
    until(lambda: any(one.status == "lost" for one in cluster.futures.values()))
    cluster.cluster.scale(2)
    threading.Timer(0.3, GATE.set).start()
    assert sorted([*got, *given]) == [(k, k) for k in range(4)]


def test_workers_that_die_while_they_are_compared_end_nothing(cluster, monkeypatch):
    def asked(*args, **options):
        return {
            "tcp://1": CommClosedError("in <TCP> Connection to tcp://1: Stream is closed"),
            "tcp://2": here,
        }

    here = cluster_of.installed("lossless")
    CommClosedError = pytest.importorskip("distributed.comm.core").CommClosedError
    monkeypatch.setattr(cluster, "run", asked)
    assert cluster_of.check_workers(cluster, "lossless") == here


def test_a_worker_without_weights_is_named(cluster, monkeypatch):
    def unreadable(codec):
        raise PermissionError("weights: Permission denied")

    cluster_of.installed("lossless")
    with monkeypatch.context() as patch:
        patch.setattr(cluster_of, "installed", unreadable)
        found = cluster_of.found_on_worker("lossless")
    monkeypatch.setattr(cluster, "run", lambda *args, **options: {"tcp://1": found})
    with pytest.raises(ClusterError, match="weights: expected None, got weights: Permission denied"):
        cluster_of.check_workers(cluster, "lossless")


def test_the_end_of_a_run_waits_for_calls_that_are_made_again(cluster):
    GATE.clear()
    future = cluster.submit(through_the_gate, 0, key="call-again")
    until(lambda: any(cluster.processing().values()))
    threading.Timer(0.2, GATE.set).start()
    settled(cluster, "call")
    assert not any(cluster.processing().values())
    assert future.result() == 0
