"""The notebooks run from their first cell to their last, and are stored without results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
SHOWN = {
    "dissect": ["drawing", "dissecting", "image/png"],
    "study": ["training", "dissecting", "matching", "image/png", "image/svg+xml"],
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_is_stored_without_results(name: str) -> None:
    content = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(content) < 10_000
    for cell in json.loads(content)["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SHOWN)


@pytest.mark.notebooks
@pytest.mark.parametrize("name", SHOWN)
def test_a_notebook_runs_and_shows_bars_and_figures(name: str, tmp_path: Path) -> None:
    nbformat: Any = pytest.importorskip("nbformat")
    nbclient: Any = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = json.dumps([cell["outputs"] for cell in notebook.cells if cell["cell_type"] == "code"])
    for part in SHOWN[name]:
        assert part in shown
