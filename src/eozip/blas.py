"""Numpy's matrix products on one thread, for codecs that work with numpy alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

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
