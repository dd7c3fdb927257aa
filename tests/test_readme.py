"""README's figures are those of results/rd.json, recomputed here from its points."""

from __future__ import annotations

import json
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
import pytest

from eozip.errors import InputError

ROOT = Path(__file__).parents[1]
RESULTS = json.loads((ROOT / "results" / "rd.json").read_text())
README = (ROOT / "README.md").read_text()


def rows(text: str) -> dict[str, list[str]]:
    """Cells of the generated table by contender."""
    part = text.partition("<!-- results")[2].partition("<!-- end")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    return {cells[0].strip("*"): cells[1:] for cells in lines[2:]}


def mean_rate(contender: str, db: float) -> float:
    """Mean over places of the rate at a PSNR: log rate, linear in dB, by hand from the points."""
    points = [p for p in RESULTS["points"] if p["contender"] == contender]
    found = []
    for place in sorted({p["place"] for p in points}):
        here = sorted((p["quality"]["psnr"], np.log(p["bpppb"])) for p in points if p["place"] == place)
        found.append(np.exp(np.interp(db, *np.array(here).T)))
    return float(np.mean(found))


def run(folder: Path, *arguments: str) -> int:
    """benchmarks/readme.py on a folder; its exit code."""
    paths = ["--readme", str(folder / "README.md"), "--results", str(folder / "results" / "rd.json")]
    return runpy.run_path(str(ROOT / "benchmarks" / "readme.py"))["main"]([*paths, *arguments])


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    for name in ("README.md", "results/rd.json", "results/readme.png"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("contender", list(RESULTS["rates"]))
def test_the_table_says_what_the_points_say(contender: str) -> None:
    cells = rows(README)[contender]
    expected = [mean_rate(contender, db) for db in (36, 40, 44, 48)]
    assert [float(cell) for cell in cells[:4]] == pytest.approx(expected, abs=1e-4, rel=1e-3)
    multiple = float(cells[4].removesuffix(" x"))
    least = min(mean_rate(name, 40) for name, told in RESULTS["settings"].items() if "eozip.encode" in told)
    assert multiple == pytest.approx(mean_rate(contender, 40) / least, abs=0.01)


def test_the_table_leaves_no_contender_out() -> None:
    assert list(rows(README)) == list(RESULTS["rates"])
    assert RESULTS["provenance"]["commit"] in README


def test_readme_and_picture_agree_with_the_results() -> None:
    assert run(ROOT, "--check") == 0


def test_a_typed_number_or_other_results_are_found_and_mended(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (copy / "README.md").read_text()
    (copy / "README.md").write_text(text.replace("| 1.00 x |", "| 0.90 x |"))
    changed = {**RESULTS, "definition": "another"}
    (copy / "results" / "rd.json").write_text(json.dumps(changed))
    assert run(copy, "--check") == 1
    assert re.search(r"README\.md.*readme\.png", capsys.readouterr().err)
    assert run(copy) == 0
    assert (copy / "README.md").read_text() == text
    assert run(copy, "--check") == 0


def test_markers_must_be_there(copy: Path) -> None:
    (copy / "README.md").write_text("# eozip\n")
    with pytest.raises(InputError, match="put them into the README"):
        run(copy)
