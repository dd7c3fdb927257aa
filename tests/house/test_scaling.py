"""benchmarks/scaling.py: exponents and flatness against costs made by a law, and one real scene."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "scaling.py"


@pytest.fixture(scope="module")
def scaling() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def case(scaling: dict[str, Any], size: int, dates: int, seconds: float, gib: float) -> Any:
    run = scaling["Run"](seconds, seconds / 2, gib)
    return scaling["Case"](size, dates, 10 * size * dates, 0.1, run, run)


def test_exponents_are_those_of_the_law(scaling: dict[str, Any]) -> None:
    cases = [case(scaling, size, 1, 3e-6 * (size**2) ** 1.25, 0.5) for size in (512, 1024, 4096)]
    found = scaling["exponents"](cases, lambda c: c.pixels)
    assert found["encode, s"] == {"fitted": pytest.approx(1.25), "last": pytest.approx(1.25)}
    assert found["decode, peak GiB"] == {
        "fitted": pytest.approx(0, abs=1e-9),
        "last": pytest.approx(0, abs=1e-9),
    }
    assert found["bytes"]["fitted"] == pytest.approx(0.5)
    assert scaling["exponents"](cases[:1], lambda c: c.pixels)["bytes"] is None


def test_growth_of_memory_is_noticed(scaling: dict[str, Any]) -> None:
    cases = [case(scaling, 512, dates, 1.0, gib) for dates, gib in ((4, 0.5), (8, 0.9), (24, 0.6))]
    assert scaling["memory_growth"](cases) == pytest.approx(1.8)
    assert scaling["memory_growth"]([]) is None


def test_scenes_below_the_cache_are_not_judged(scaling: dict[str, Any]) -> None:
    assert case(scaling, 10980, 1, 1.0, 1.0).raw_bytes == 10980**2 * 24
    judged = scaling["beyond_cache"]([case(scaling, size, 1, 1, 1) for size in (512, 2048, 4096)])
    assert [one.size for one in judged] == [4096]


@pytest.mark.slow
def test_it_measures(scaling: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["--sizes", "64", "--dates", "6", "7", "--date-size", "64", "--flat", "0.1"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments, "--out", str(tmp_path)])
    assert scaling["main"]() == 1, "no memory is below a tenth of itself"
    found = json.loads((tmp_path / "scaling.json").read_text())
    assert [c["size"] for c in found["by_size"]] == [64]
    assert [c["dates"] for c in found["by_dates"]] == [6, 7]
    assert all(c["encode"]["peak_gib"] > 0.05 and c["bytes"] > 100 for c in found["by_size"])
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
