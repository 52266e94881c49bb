from __future__ import annotations

from pathlib import Path

import pytest

from prunescope.miniature import make_miniature

IMAGES, SEED = 320, 77


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_miniature(tmp_path_factory.mktemp("miniature") / "world", IMAGES, seed=SEED, workers=2)
