"""The notebook of the documentation runs from beginning to end, and holds what it printed."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "product-to-answer.ipynb"


def test_the_notebook_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat = pytest.importorskip("nbformat", reason="no nbformat found: pip install nbclient ipykernel")
    nbclient = pytest.importorskip("nbclient", reason="no nbclient found: pip install nbclient ipykernel")
    pytest.importorskip("ipykernel", reason="no ipykernel found: pip install nbclient ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    said = "".join(out.get("text", "") for cell in notebook.cells for out in cell.get("outputs", []))
    assert "greenest: 20" in said


def test_the_notebook_was_executed() -> None:
    import json

    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    assert any("image/png" in out.get("data", {}) for cell in cells for out in cell["outputs"])
    assert NOTEBOOK.stat().st_size < 1_000_000
