"""The how-to pages run as they stand: their Python and their commands, in a folder of their own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HOWTO = Path(__file__).parents[2] / "docs" / "howto"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LONGEST = {"exported": 20}  # lines of a block, other than imports; 12 on the other pages
ABSENT = [name for name in ("onnxruntime", "onnxscript") if find_spec(name) is None]
MADE = {
    "exported": ["out/exported/activations/units.parquet"],
    "own-checkpoints": ["out/series/report/index.html", "out/series/figures/figure4-consistency.svg"],
    "own-labels": ["out/mine/index.csv", "out/sweep/report/index.html", "out/sweep/figures/figure2-units.svg"],
    "sweep": ["out/sweep/report/index.html", "out/sweep/trial-0/level-02/mask.safetensors"],
}


@pytest.mark.notebooks
@pytest.mark.parametrize("page", MADE)
def test_a_page_runs_from_its_first_line_to_its_last(page: str, tmp_path: Path) -> None:
    blocks = BLOCK.findall((HOWTO / f"{page}.md").read_text(encoding="utf-8"))
    python = [code for language, code in blocks if language == "python"]
    commands = [line for language, code in blocks if not language for line in code.splitlines()]
    assert python
    assert commands
    for code in python:
        if any(f"import {name}" in code for name in ABSENT):
            continue
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=300)
        assert len([line for line in code.splitlines() if line and not line.startswith("import")]) <= LONGEST.get(
            page, 12
        )
    for made in MADE[page]:
        assert (tmp_path / made).is_file()
    for command in commands:
        program, *words = shlex.split(command.replace("out/", "out/again-"))
        assert program == "prunescope"
        subprocess.run([sys.executable, "-m", "prunescope", *words], cwd=tmp_path, check=True, timeout=300)
    for made in MADE[page]:
        assert (tmp_path / made.replace("out/", "out/again-")).is_file()
