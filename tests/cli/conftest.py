"""Small data that the commands are typed for."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from prunescope.miniature import make_miniature
from tests.study.small import write_recipe


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 labelled images of 32 pixels; not to be changed."""
    return make_miniature(tmp_path_factory.mktemp("drawn") / "miniature", 64, seed=2, size=32)


@pytest.fixture
def miniature(drawn: Path, tmp_path: Path) -> Path:
    """A copy of 64 labelled images of 32 pixels, to be damaged."""
    return Path(shutil.copytree(drawn, tmp_path / "miniature"))


@pytest.fixture(scope="session")
def recipe(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study's recipe: two levels of one trial."""
    root = tmp_path_factory.mktemp("recipe")
    file = write_recipe(root / "small.yaml", str(drawn / "classification"), str(drawn))
    file.write_text(file.read_text().replace("trials: 2", "trials: 1").replace("levels: 2", "levels: 1"))
    return file
