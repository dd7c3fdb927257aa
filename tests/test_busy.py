"""benchmarks/busy.py: it says what it measured, and what took too long."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "busy.py"


@pytest.fixture(scope="module")
def busy() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_a_table_has_every_case_and_names_what_took_too_long(busy: dict[str, Any]) -> None:
    cases = [
        {"loops": 0, "threads": "default", "seconds": {"encode_chunk": (1.25, 1.0)}},
        {"loops": 2, "threads": "torch", "seconds": None},
    ]
    title, first, second = busy["lines"](cases)
    assert "encode_chunk" in title
    assert "1.25 s" in first
    assert "too long" in second
    assert len(busy["lines"]([{"loops": 2, "threads": "torch", "seconds": None}])) == 2


def test_loops_end_with_their_block(busy: dict[str, Any]) -> None:
    with busy["_busy"](1):
        pass  # `wait` in it would hang if the program lived on
