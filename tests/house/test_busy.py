"""benchmarks/busy.py: it says what it measured, and what took too long."""

from __future__ import annotations

import runpy
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "busy.py"


@pytest.fixture(scope="module")
def busy() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_a_table_has_every_case_and_names_what_took_too_long(busy: dict[str, Any]) -> None:
    cases = [
        {"loops": 0, "threads": "default", "limit": 60, "seconds": {"encode_chunk": (1.25, 1.0)}},
        {"loops": 2, "threads": "torch", "limit": 60, "seconds": {}},
    ]
    title, row = busy["lines"](cases)
    assert "default, 0 loops" in title
    assert "torch, 2 loops" in title
    assert row.startswith("encode_chunk")
    assert "1.25 s" in row
    assert "not in 60 s" in row


def test_threads_that_may_never_end_are_measured_last(busy: dict[str, Any]) -> None:
    order = busy["_ordered"](["torch", "default"], [0, 2])
    assert order == [("default", 0), ("default", 2), ("torch", 0), ("torch", 2)]


def test_a_case_that_is_cut_keeps_the_tasks_that_ended(busy: dict[str, Any], tmp_path: Path) -> None:
    child = "import time; print('{\"encode_date\": [1.0, 0.5]}', flush=True); time.sleep(60)"
    busy["_measured"].__globals__["_CHILD"] = child
    options = SimpleNamespace(repeats=1, tasks=["encode_date", "train"], seconds=5.0)
    case = busy["_measured"](tmp_path, "torch", 0, options, time.monotonic() + 1.0)
    assert case["seconds"] == {"encode_date": [1.0, 0.5]}


def test_loops_end_with_their_block(busy: dict[str, Any]) -> None:
    with busy["_busy"](1):
        pass  # `wait` in it would hang if the program lived on
