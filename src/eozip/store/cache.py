"""Arrays that were decoded once and may be wanted again, up to a number of bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import numpy as np


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
        """Keeps to another number of bytes from now on."""
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
        """Lets arrays go whose keys are chosen."""
        with self._lock:
            for key in [key for key in self._entries if chosen(key)]:
                array = self._entries.pop(key).array
                self.bytes -= 0 if array is None else array.nbytes
