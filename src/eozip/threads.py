"""Chunks beside each other with one CPU thread each; several threads within a chunk only where it is alone; and arrays that
threads share.

Threads within a chunk meet after every layer of a network, and spin while they wait for the last. Beside other programs,
whose turns on the same cores they have to wait for, they can be ten times slower than one thread; chunks beside each other
wait for nobody. Where a chunk is alone it gets no more threads than there are idle cores."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController


class _Bound:
    """Keeps numpy's matrix products to one thread while somebody codes: they are small, and threads that wait spin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._libraries: ThreadpoolController | None = None  # found on first use
        self._held = contextlib.ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if not self._inside:
                self._libraries = self._libraries or ThreadpoolController()
                self._held.enter_context(self._libraries.limit(limits=1, user_api="blas"))
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    self._held.close()


one_blas_thread = _Bound()
"""While the block runs; of this process, until the last of those blocks is left."""


Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_AT_ONCE = 8
"""Chunks coded beside each other at most, however many cores there are: each holds its network's activations."""

_LOAD = "/proc/loadavg"
_COUNT = "OMP_NUM_THREADS"  # in the environment: somebody said how many threads there are to be


def choose(count: int | None) -> None:
    """Bounds the CPU threads of this process, and keeps to that number whatever else the machine does.

    Args:
        count: threads; None leaves them to torch and to the idle cores.
    """
    if count is not None:
        os.environ[_COUNT] = str(count)  # which torch reads when it is imported
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(count)


def each(
    code: Callable[[Item], Result], items: Iterable[Item], count: int, *, network: bool = True
) -> Iterator[Result]:
    """What `code` makes of each item, in order; items are coded beside each other, with one thread each.

    Items are taken in the caller's thread, and no more of them than are being coded, and one.

    Args:
        code: codes one chunk; called in other threads where there are several items.
        items: what it takes.
        count: how many items there are; with one, `code` has all threads.
        network: whether torch is at work.
    """
    workers = min(count, MOST_AT_ONCE, _threads(network))
    if workers < 2:
        yield from map(code, items)
        return
    with _one_thread_each(workers, network) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(code, item))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def alone() -> Iterator[None]:
    """While the block codes a chunk that has all threads: no more of them than there are idle cores.

    The codec is loaded: where nobody has imported torch by now, it does without.
    """
    with settling() if sys.modules.get("torch") else contextlib.nullcontext():
        yield


@contextmanager
def settling() -> Iterator[Callable[[], None]]:
    """Work that has all threads, for long: holds torch to the cores that are idle as the block begins.

    Yields:
        does so again, for the moment when it is called.
    """
    torch = _torch()

    most = torch.get_num_threads()
    is_free = most > 1 and _COUNT not in os.environ

    def settle() -> None:
        if is_free:
            torch.set_num_threads(_idle(most))

    settle()
    try:
        yield settle
    finally:
        if is_free:
            torch.set_num_threads(most)


class Desk:
    """Chunks that come one by one from many threads, as zarr and dask send them, and nobody says how many.

    Args:
        most: chunks coded at once.
    """

    def __init__(self, most: int) -> None:
        self._slots = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._here = 0
        self._is_crowd = False  # since there were several, until nobody is left
        self._total = 0  # most threads that any thread had before it was bounded

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Count a chunk as one that is there."""
        with self._lock:
            self._here += 1
            self._is_crowd |= self._here > 1
        try:
            yield
        finally:
            with self._lock:
                self._here -= 1
                self._is_crowd &= self._here > 0

    @contextmanager
    def turn(self, network: bool) -> Iterator[None]:
        """Wait for its turn and code in the block: with one thread if it came among others, else with all."""
        with self._slots:
            if not network:
                yield
                return
            torch = _torch()

            with self._lock:
                self._total = max(self._total, torch.get_num_threads())
                now = 1 if self._is_crowd else self._total
            torch.set_num_threads(now)
            try:
                yield
            finally:
                torch.set_num_threads(self._total)


def _threads(network: bool) -> int:
    if not network:
        return int(os.environ.get(_COUNT) or 0) or os.cpu_count() or 1
    torch = _torch()

    return torch.get_num_threads()


@contextmanager
def _one_thread_each(workers: int, network: bool) -> Iterator[ThreadPoolExecutor]:
    if not network:
        with ThreadPoolExecutor(workers) as pool:
            yield pool
        return
    torch = _torch()

    before = torch.get_num_threads()
    # of the threads that call it, and of those that have not used torch yet; hence put back in this one
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool
        finally:
            torch.set_num_threads(before)


def _idle(cores: int) -> int:
    """Cores that no other program uses at this moment, at least one; all where the system does not tell."""
    try:
        with open(_LOAD, encoding="ascii") as file:
            running = int(file.read().split()[3].partition("/")[0])
        others = running - _own_running()
    except (OSError, ValueError, IndexError):
        return cores
    return max(1, min(cores, (os.cpu_count() or cores) - others))


def _own_running() -> int:
    """Threads of this process that run or wait for a core, the caller among them."""
    count = 0
    for task in os.listdir("/proc/self/task"):
        with (
            contextlib.suppress(OSError),
            open(f"/proc/self/task/{task}/stat", encoding="utf-8", errors="replace") as file,
        ):
            count += file.read().rpartition(") ")[2].startswith("R")
    return max(1, count)


def _torch() -> Any:
    """torch, where a codec needs it: codecs that work with numpy alone run without."""
    import torch  # optional

    return torch


# --- arrays that threads share ---


@dataclass
class _Entry:
    """One array being made or made; `lock` is held by the thread that makes it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    array: np.ndarray | None = None


class ArrayCache:
    """Keeps the arrays used last; each is made once, however many threads want it at the same time.

    Args:
        most: bytes that are kept at most; an array larger than that is given and not kept.

    Attributes:
        bytes: of the arrays kept.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array of a key, made where it is not there; nobody may write to it.

        Args:
            key: says all that the array depends on.
            make: makes it; its error reaches every thread that asks until somebody succeeds.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if entry.array is None:
                self._fill(key, entry, make)
            if entry.array is None:
                raise RuntimeError(f"nothing was made of {key}")
            return entry.array

    def _fill(self, key: Hashable, entry: _Entry, make: Callable[[], np.ndarray]) -> None:
        array: np.ndarray | None = None
        try:
            array = make()
        finally:
            if array is None:  # the next one to ask tries again
                with self._lock:
                    self._entries.pop(key, None)
        array.setflags(write=False)
        entry.array = array
        with self._lock:
            self.bytes += array.nbytes
            self._entries[key] = entry
            self._trim()

    def hold(self, most: int) -> None:
        """Keep to another number of bytes from now on."""
        with self._lock:
            self.most = most
            self._trim()

    def _trim(self) -> None:
        """Lets the arrays go that were not used for longest."""
        for key in list(self._entries):
            if self.bytes <= self.most:
                return
            array = self._entries[key].array
            if array is not None:
                self.bytes -= array.nbytes
                del self._entries[key]

    def drop(self, chosen: Callable[[Hashable], bool]) -> None:
        """Let arrays go whose keys are chosen."""
        with self._lock:
            for key in [key for key in self._entries if chosen(key)]:
                array = self._entries.pop(key).array
                self.bytes -= 0 if array is None else array.nbytes
