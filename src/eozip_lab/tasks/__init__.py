"""What compression does to the work that follows: tasks done on originals and on decoded pixels, at equal bytes.

    table.TASKS > data.* (chips) > matching.code (bytes) > a judge (tallies) > scores (intervals) > report, gallery

`table.py` is the recipe: which task, on which data, with which methods. Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Plan": "run",
    "TASKS": "table",
    "TaskSkipped": "task",
    "run_tasks": "run",
    "page_section": "section",
    "update_readme": "report",
    "write": "report",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
