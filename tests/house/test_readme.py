"""README's figures are those of results/report and results/kinds, recomputed here from their points."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eozip.errors import InputError

ROOT = Path(__file__).parents[2]
REPORT, KINDS = "results/report/report.json", "results/kinds/kinds.json"
RESULTS = json.loads((ROOT / REPORT).read_text())
BY_KIND = json.loads((ROOT / KINDS).read_text())
CODECS = [m["id"] for m in RESULTS["methods"] if m["kind"] == "codec"]
README = (ROOT / "README.md").read_text()


def generated(text: str) -> str:
    return text.partition("<!-- results")[2].partition("<!-- end")[0]


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the generated table by method."""
    lines = [line.strip("| ").split(" | ") for line in generated(text).splitlines() if line.startswith("| ")]
    return {cells[0].strip("*"): cells[1:] for cells in lines[2:]}


def rate(method: str, place: str, db: float) -> float:
    """Rate at a PSNR: log rate, linear in dB, by hand from the points; infinite where the curve does not reach it."""
    here = [
        p for p in RESULTS["points"] if (p["method"], p["place"]) == (method, place) and p["psnr"] is not None
    ]
    if len(here) < 2 or not min(p["psnr"] for p in here) <= db <= max(p["psnr"] for p in here):
        return np.inf
    curve = np.array(sorted((p["psnr"], np.log(p["bpppb"])) for p in here))
    return float(np.exp(np.interp(db, *curve.T)))


def mean_rate(method: str, db: float) -> float:
    return float(np.mean([rate(method, place["name"], db) for place in RESULTS["places"]]))


def run(folder: Path, *arguments: str) -> int:
    """benchmarks/readme.py on a folder; its exit code."""
    paths = [
        "--readme",
        str(folder / "README.md"),
        "--results",
        str(folder / REPORT),
        "--kinds",
        str(folder / KINDS),
    ]
    return runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))["main"]([*paths, *arguments])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in ("README.md", REPORT, KINDS, "results/readme.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("method", list(rows(README)))
def test_the_table_says_what_the_points_say(method: str) -> None:
    cells = rows(README)[method]
    for cell, db in zip(cells, (36, 40, 44, 48)):
        expected = mean_rate(method, db)
        assert (cell == "-") == np.isinf(expected), db
        if cell != "-":
            assert float(cell) == pytest.approx(expected, abs=1e-4, rel=1e-3)
    multiple = float(cells[4].removesuffix(" x"))
    assert multiple == pytest.approx(mean_rate(method, 40) / min(mean_rate(c, 40) for c in CODECS), abs=0.01)


def test_no_codec_and_no_winning_baseline_is_left_out() -> None:
    others = [m["id"] for m in RESULTS["methods"] if m["kind"] == "baseline" and m["available"]]
    reaching = [name for name in CODECS if np.isfinite(mean_rate(name, 40))]
    winners = {min(others, key=lambda name: mean_rate(name, db)) for db in (36, 40, 44, 48, 52)}
    assert {*reaching, *winners} <= set(rows(README))
    assert RESULTS["provenance"]["commit"] in README


@pytest.mark.parametrize("db", [36, 40, 44, 48, 52, 56])
@pytest.mark.parametrize("place", [place["name"] for place in RESULTS["places"]])
def test_a_place_where_a_baseline_wins_is_named(place: str, db: int) -> None:
    every: dict[str, Any] = {m["id"]: rate(m["id"], place, db) for m in RESULTS["methods"] if m["available"]}
    first = min(every, key=every.__getitem__)
    is_lost = np.isfinite(every[first]) and first not in CODECS
    assert (f"{place}, {db} dB: the baseline {first} (" in README) == is_lost


def test_readme_and_picture_agree_with_the_results() -> None:
    assert run(ROOT, "--check") == 0


def test_a_typed_number_or_other_results_are_found_and_mended(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (copy / "README.md").read_text()
    (copy / "README.md").write_text(text.replace("| 1.00 x |", "| 0.90 x |"))
    changed = {**RESULTS, "definitions": {}}
    (copy / REPORT).write_text(json.dumps(changed))
    assert run(copy, "--check") == 1
    assert re.search(r"README\.md.*readme\.png", capsys.readouterr().err)
    assert run(copy) == 0
    assert (copy / "README.md").read_text() == text
    assert run(copy, "--check") == 0


def kind_rows() -> list[list[str]]:
    """Cells of the table at equal PSNR by kind."""
    part = README.partition("<!-- by kind")[2].partition("Geometric means")[0]
    return [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")][2:]


def kind_bits(one: dict[str, Any], name: str, db: float) -> float:
    """Bits per sample at a PSNR from the points, by hand; the monotone cubic is near the straight line between them."""
    total = sum(one["samples"].values())
    rows = [
        (10 * np.log10(1e8 * total / sum(p[2].values())), np.log(8 * p[1] / total))
        for p in one["points"][name]
        if sum(p[2].values()) > 0
    ]
    if len(rows) < 2:
        return np.inf
    psnrs, bits = np.array(sorted(rows)).T
    return float(np.exp(np.interp(db, psnrs, bits))) if psnrs[0] <= db <= psnrs[-1] else np.inf


@pytest.mark.parametrize("row", kind_rows(), ids=lambda row: row[0])
def test_the_table_by_kind_says_what_the_points_say(row: list[str]) -> None:
    one = next(one for one in BY_KIND["sets"] if one["set"]["name"] == row[0])
    others = [name for name in one["points"] if not name.startswith("tec-")]
    for cell, db in zip(row[4:8], (36, 40, 44, 48)):
        expected = kind_bits(one, row[2], db) / min(kind_bits(one, name, db) for name in others)
        assert cell == "-" or float(cell) == pytest.approx(expected, rel=0.09), db


def test_the_worst_kind_comes_first() -> None:
    shares = [float(row[5]) for row in kind_rows() if row[5] != "-"]
    assert shares == sorted(shares, reverse=True)


def test_every_set_that_others_code_is_in_the_table() -> None:
    both = [
        one["set"]["name"] for one in BY_KIND["sets"] if not all(n.startswith("tec-") for n in one["points"])
    ]
    assert sorted(row[0] for row in kind_rows()) == sorted(both)


def test_markers_must_be_there(copy: Path) -> None:
    (copy / "README.md").write_text("# eozip\n")
    with pytest.raises(InputError, match="put them into the README"):
        run(copy)


def test_what_it_costs_is_what_was_measured() -> None:
    part = README.partition("<!-- costs")[2].partition("<!-- end of costs")[0]
    (turn, *_) = json.loads((ROOT / "results" / "speed.json").read_text())["turns"]
    for name, one in turn["ours"].items():
        over = one["total"] / turn["others"]["OpenJPEG"]["total"]
        assert f"| **{name}** | {one['bytes']:,} | {one['encode']:.2f} s |" in part
        assert f"| {over:.2f} |" in part
