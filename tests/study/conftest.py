"""Data that the study's tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from prunescope.miniature import make_miniature
from tests.study.small import write_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study's recipe, its data drawn."""
    root = tmp_path_factory.mktemp("small")
    task = make_miniature(root / "task", 128, seed=1, size=32)
    concepts = make_miniature(root / "concepts", 64, seed=2, size=32)
    return write_recipe(root / "small.yaml", str(task / "classification"), str(concepts))
