"""benchmarks/series.py: shares of bits, rates at a PSNR, and what other anchors take, of a small made series."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyramidscenes import season

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "series.py"


@pytest.fixture(scope="module")
def bench() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_a_series_is_compared_in_every_way(bench: dict[str, Any]) -> None:
    dn = season((5, 2, 24, 20), {}, 3)
    clear = np.array([True, False, True, True, False])
    series = bench["Series"]("made", {0: dn}, (5,), (40.0, 90.0), clear)
    ours, image = (bench["Curve"](codec, series, 5) for codec in bench["CODECS"])
    row = bench["compared"](ours, image, 2)
    assert sum(row["shares"].values()) == pytest.approx(1)
    assert row["shares"]["details"] > 0.3
    assert 0.3 < row["all"]["40"]["ratio"] < 1.5
    assert row["all"]["90"] == {"bytes": None, "ratio": None}  # beyond what the codecs reach
    assert row["clear"]["40"]["bytes"] < row["all"]["40"]["bytes"]
    assert row["anchors"]["best"] <= row["anchors"]["median"]
    made = {"command": "c", "commit": "d", "when": "e"}
    text = bench["page"]({"provenance": made, "weights": {"tec-tt-small": "f"}, "series": [row]})
    assert "| made | 5 | 90 | - | - |" in text


def test_the_nearest_quality_has_both_its_neighbours(bench: dict[str, Any]) -> None:
    series = bench["Series"]("made", {0: season((3, 2, 16, 16), {}, 4)}, (3,), (40.0,))
    curve = bench["Curve"](bench["CODECS"][0], series, 3)
    near = curve.nearest(41.0)
    others = [point.at(None)[1] for point in curve._held.values()]
    assert min(others) < 41 < max(others)
    assert abs(near.at(None)[1] - 41) == min(abs(db - 41) for db in others)


def test_native_grids_count_all_samples(bench: dict[str, Any]) -> None:
    grids = {10: season((2, 2, 16, 16), {}, 5), 20: season((2, 1, 8, 8), {}, 6)}
    point = bench["measured"](bench["CODECS"][0], bench["Series"]("made", grids, (2,), (40.0,)), 2, 70.0)
    assert point.errors.shape == point.bits.shape == (2,)
    assert point.bits.sum() == pytest.approx(8 * point.size)
