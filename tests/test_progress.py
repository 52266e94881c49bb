"""Long computations show a bar to somebody who is watching, and nothing to anybody else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import prunescope
from prunescope import InputError

SHORT = """
import sys, warnings
import numpy as np
import prunescope

warnings.simplefilter("ignore")
options = {} if sys.argv[1] == "auto" else {"progress": False}
data = prunescope.make_miniature("drawn", 64, seed=0, size=32, **options)
maps = np.random.default_rng(0).normal(size=(64, 4, 3, 3)).astype(np.float32)
prunescope.dissect_activations(maps, concepts=data, **options)
"""
LONG = f"""{SHORT}
prunescope.check_concepts(data, 1)
prunescope.pack_concepts(data, workers=1)
models = [prunescope.build_network("prunescope:resnet8x4", seed=seed) for seed in (0, 1)]
prunescope.match_units(*models, layers=["stage1"], concepts=data)
prunescope.sweep("prunescope:resnet8x4", concepts=data, out="sweep", remaining=[1], layers=["stage1"]).run()
"""
BARS = ("drawing", "checking", "packing", "dissecting", "matching", "trial 0, level 0 of 0")


def on_a_terminal(code: str, argument: str, folder: Path) -> str:
    """Run a script with a terminal for its standard error, and return what it showed there."""
    there, here = pty.openpty()
    shown: list[bytes] = []

    def read() -> None:
        while True:
            try:
                part = os.read(there, 1 << 16)
            except OSError:  # the other end was closed
                return
            if not part:
                return
            shown.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    script = [sys.executable, "-c", code, argument]
    try:
        done = subprocess.run(
            script, stdout=subprocess.PIPE, stderr=here, cwd=folder, env=environment, timeout=120, check=False
        )
    finally:
        os.close(here)
        reader.join()
        os.close(there)
    text = b"".join(shown).decode()
    assert (done.returncode, done.stdout) == (0, b""), text
    return text


def test_a_terminal_shows_a_bar_for_each_computation(tmp_path: Path) -> None:
    shown = on_a_terminal(LONG, "auto", tmp_path)
    for what in BARS:
        assert what in shown
    assert "64/64" in shown


def test_a_terminal_shows_nothing_if_progress_is_false(tmp_path: Path) -> None:
    assert on_a_terminal(SHORT, "off", tmp_path) == ""


def test_nothing_is_shown_where_standard_error_is_a_file(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHORT, "auto"], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_function_is_called_instead_of_showing_a_bar(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    data = prunescope.make_miniature(tmp_path, 8, seed=0, size=32, progress=lambda *call: calls.append(call))
    assert calls[-1] == (8, 8)
    maps = np.zeros((8, 1, 2, 2), np.float32)
    with pytest.raises(InputError, match=r"progress is True, expected 'auto', False or a function"):
        prunescope.dissect_activations(maps, concepts=data, progress=True)  # type: ignore[arg-type]
