from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.small import folder_task


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small task."""
    return folder_task(tmp_path_factory.mktemp("task"))
