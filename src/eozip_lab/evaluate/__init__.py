"""Evidence: metrics, rates, baselines and sweeps behind `benchmarks/` (docs/evaluation.md).

Names are imported when they are first used, so that commands that mention them start quickly.
"""

from __future__ import annotations

from eozip.lazy import lazy

_HOMES = {
    "Notices": "evaluation",
    "Plan": "evaluation",
    "REPORT": "evaluation",
    "Reading": "inputs",
    "Section": "html_report.page",
    "evaluate": "evaluation",
    "page_section": "kinds.section",
    "write_report": "html_report.page",
}

__all__ = list(_HOMES)


__getattr__ = lazy(__name__, _HOMES)
