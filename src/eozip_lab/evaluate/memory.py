"""Resident memory of this process while something runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to the current size


@dataclass
class _Memory:
    """Filled in by `watched_memory`.

    Attributes:
        before: bytes resident when it began; None where the system does not tell.
        peak: highest since; None likewise.
        is_of: "point", or "process" where the kernel could not reset the mark, which then holds since the
            process began.
    """

    before: int | None = None
    peak: int | None = None
    is_of: str = "process"


@contextmanager
def watched_memory() -> Iterator[_Memory]:
    """Resident memory before, and its peak while inside."""
    found = _Memory()
    found.before = _from_status("VmRSS")
    found.is_of = "point" if _reset() else "process"
    yield found
    found.peak = _from_status("VmHWM") if found.is_of == "point" else _process_peak()


def _reset() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return False  # another system, or a container that forbids it: the report says which peak it is
    return True


def _from_status(field: str) -> int | None:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    values = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return 1024 * int(values[0]) if values else None


def _process_peak() -> int | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None  # Windows
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
