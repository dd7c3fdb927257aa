"""Evidence: metrics, rates, baselines and sweeps behind `benchmarks/` (docs/evaluation.md).

Names are imported when they are first used, so that commands that mention them start quickly.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Notices": "evaluation",
    "Plan": "evaluation",
    "REPORT": "evaluation",
    "Reading": "inputs",
    "Section": "html_report.page",
    "evaluate": "evaluation",
    "write_report": "html_report.page",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
