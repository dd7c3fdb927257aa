"""The cluster of an archive: opened, compared with the client, given a bounded number of calls at a time."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import eozip
from eozip import arguments
from eozip.codecs import registry
from eozip.codecs.registry import LOSSLESS
from eozip.errors import ClusterError, EozipError, InputError
from eozip.store.codec import BITSTREAM

_SCHEDULER_SECONDS = 20
"""How long a scheduler may take to answer."""
_GONE = "the scheduler went away, and with it what was under way; what is finished is recorded: run again to continue"
_NO_SCHEDULER = (
    OSError,
    ValueError,
    TimeoutError,
    TypeError,
    LookupError,
    RuntimeError,
    MemoryError,
    OverflowError,
)
"""What a call raises where nobody answers, or not in Dask's language."""
_RETRIES = 2  # of a job whose worker died, beyond those of dask


@cache
def installed(codec: str) -> dict[str, Any]:
    """What coding depends on in this process: eozip, the bitstream, the weights."""
    weights = None if codec == LOSSLESS else registry.get(codec).weights_hash.hex()
    return {"eozip": eozip.__version__, "bitstream": BITSTREAM, "codec": codec, "weights": weights}


def found_on_worker(codec: str) -> dict[str, Any]:
    """The same where weights may be missing or broken: the reason stands in their place, and differs from the client's."""
    try:
        return installed(codec)
    except (EozipError, OSError) as error:
        return {"eozip": eozip.__version__, "bitstream": BITSTREAM, "codec": codec, "weights": str(error)}


def check_workers(client: Any, codec: str) -> dict[str, Any]:
    """Compare what every worker has with what is here; those that die meanwhile need none of it.

    Returns:
        what is here.

    Raises:
        ClusterError: one has another eozip, other weights, or none.
    """
    here = installed(codec)
    try:
        found = client.run(found_on_worker, codec, on_error="return")
    except (OSError, TimeoutError) as error:
        raise ClusterError(
            f"the workers do not answer: {error}; see the scheduler's log, then run again"
        ) from error
    for address, there in found.items():
        if isinstance(there, OSError | TimeoutError):
            continue  # it cannot be reached any more; if it comes back, every job compares again
        if isinstance(there, BaseException):
            raise ClusterError(
                f"worker {address}: expected eozip {here['eozip']}, got {there!r}; install it there"
            )
        if there != here:
            raise ClusterError(difference(f"worker {address}", here, there))
    return here


def difference(who: str, expected: Mapping[str, Any], got: Mapping[str, Any]) -> str:
    other = [name for name in expected if expected[name] != got.get(name)]
    told = "; ".join(f"{name}: expected {expected[name]}, got {got.get(name)}" for name in other)
    return f"{who} differs from the client: {told}. Install the same eozip with the same weights everywhere"


@contextmanager
def opened_cluster(
    workers: int | None,
    scheduler: str | None,
    note: Callable[[str], None] = lambda text: None,
    threads: int | None = None,
) -> Iterator[Any]:
    """A client of a cluster: of a scheduler's, or of processes on this machine, with one job each at a time.

    Raises:
        InputError: dask.distributed is missing, or both are given; `threads` are of processes here, too.
        ClusterError: the scheduler does not answer.
    """
    try:
        from distributed import Client, LocalCluster  # optional, and slow to import
    except ImportError as error:
        raise InputError(
            f'eozip archive needs dask.distributed: pip install "eozip[dask]" ({error})'
        ) from error
    if scheduler is not None and (workers, threads) != (None, None):
        raise InputError(
            "expected workers and their threads, or the address of a scheduler, got both; give one"
        )
    each = None if threads is None else arguments.whole("threads", threads, 1)
    if scheduler is not None:
        with _connected(Client, scheduler) as client:
            note(f"dashboard: {client.dashboard_link}")
            yield client
        return
    cores = os.cpu_count() or 1
    count = cores if workers is None else arguments.whole("workers", workers, 1)
    share = str(each or max(1, cores // count))
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        processes=True,
        dashboard_address=":0",
        silence_logs=50,
        env={"OMP_NUM_THREADS": share, "MKL_NUM_THREADS": share, "OPENBLAS_NUM_THREADS": share},
    )
    with cluster, Client(cluster) as client:
        note(f"dashboard: {client.dashboard_link}")
        yield client


@contextmanager
def losses_named(client: Any) -> Iterator[None]:
    """Errors of a connection that is lost in the block, wherever it was needed, say so.

    Raises:
        ClusterError: the scheduler went away.
    """
    from distributed import CancelledError  # optional, and slow to import
    from distributed.comm.core import CommClosedError  # optional, and slow to import

    try:
        yield
    except EozipError:
        raise
    except (CommClosedError, CancelledError) as error:
        raise ClusterError(f"{_GONE} ({error})") from error
    except (OSError, RuntimeError, TimeoutError, ValueError, KeyError) as error:
        if client.status == "running":
            raise
        raise ClusterError(f"{_GONE} ({error})") from error


@contextmanager
def _connected(client: Any, scheduler: str) -> Iterator[Any]:
    try:
        # a client waits for ever where somebody takes the call and says nothing
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, _greeted(scheduler)).result()
        opened = client(scheduler, timeout=_SCHEDULER_SECONDS)
    except _NO_SCHEDULER as error:
        raise ClusterError(
            f"expected a Dask scheduler at {scheduler}, got no answer in {_SCHEDULER_SECONDS} s ({error}); check the "
            "address (tcp://host:8786) and that it runs, then run again"
        ) from error
    try:
        yield opened
    finally:
        with suppress(OSError, TimeoutError):
            opened.close(timeout=2)


async def _greeted(scheduler: str) -> None:
    """Returns once a scheduler has answered.

    Raises:
        TimeoutError: it has not.
        OSError, ValueError and others: nobody is there, or something else.
    """
    from distributed.comm.core import connect  # optional, and slow to import
    from distributed.security import Security  # optional, and slow to import

    secured = Security().get_connection_args("client")
    calling = connect(scheduler, timeout=_SCHEDULER_SECONDS, **secured)
    comm = await asyncio.wait_for(calling, _SCHEDULER_SECONDS)
    comm.abort()


def bounded(
    client: Any,
    function: Callable[..., Any],
    calls: Iterable[tuple[Any, tuple[Any, ...]]],
    most: Callable[[], int],
    name: str,
) -> Iterator[tuple[Any, Any]]:
    """What a function gives on the workers, as it comes; only so many calls are known to the scheduler at a time.

    Args:
        client: of the cluster.
        function: importable on the workers.
        calls: a label of the caller's, and arguments; taken as there is room.
        most: calls under way.
        name: with which the keys of these calls begin, and no others do.

    Yields:
        the label, and the result or the exception.

    Raises:
        ClusterError: the scheduler went away.
    """
    from distributed import as_completed  # optional, and slow to import

    labels: dict[Any, Any] = {}
    done = as_completed(raise_errors=False)
    calls = iter(calls)
    ended = False
    while True:
        while not ended and len(labels) < most():
            call = next(calls, None)
            if call is None:
                ended = True
                break
            label, given = call
            key = f"{name}-{secrets.token_hex(8)}"
            future = client.submit(function, *given, key=key, pure=False, retries=_RETRIES)
            labels[future] = label
            done.add(future)
        if not labels:
            return
        future = next(done)
        label, outcome = labels.pop(future), _outcome(client, future)
        del future  # and nobody makes it again where its worker dies from here on
        yield label, outcome


def settled(client: Any, name: str, seconds: float = 30.0) -> None:
    """Wait until no worker is at a call of this name any more: one whose worker died after it is done again by another."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(str(key).startswith(name) for keys in client.processing().values() for key in keys):
            return
        time.sleep(0.05)


def _outcome(client: Any, future: Any) -> Any:
    """The result of a call, or its exception. What died with its worker is made again by another, and waited for.

    Raises:
        ClusterError: the scheduler went away.
    """
    while True:
        found = client.gather([future], errors="skip")
        if found:
            return found[0]
        if future.status == "error":
            return future.exception()
        if future.status == "cancelled" or client.status != "running":
            raise ClusterError(_GONE)
