"""An installation that cannot be written to, for a user without a home, as in a container, works without a cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import prunescope

CODE = """
import numpy as np
import prunescope, prunescope.dissection.kernels
assert prunescope.__file__.startswith({copy!r}), prunescope.__file__
import prunescope.api
from prunescope.dissection.kernels import kernel

@kernel
def double(number):
    return 2 * number

assert double(2.0) == 4.0
"""


def test_without_a_place_for_a_cache_nothing_is_cached_and_all_works(tmp_path: Path) -> None:
    package = tmp_path / "prunescope"
    shutil.copytree(Path(prunescope.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    # Permissions do not bind every user; that there can be no folder of this name does.
    (package / "dissection" / "__pycache__").write_text("")
    dropped = ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR")
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env |= {"HOME": "/proc/nohome", "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.run(
        [sys.executable, "-c", CODE.format(copy=str(tmp_path))],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
