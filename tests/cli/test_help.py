"""Help is quick, complete and fits a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import COMMAND, PLAIN, process, typed

COMMANDS = [
    "", "concepts", "concepts check", "concepts pack", "concepts download", "concepts make", "concepts make miniature",
    "layers", "dissect", "import", "import netdissect", "study", "plan", "report", "recipe", "recipe list",
    "recipe show", "recipe schema",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does_within_80_columns(command: str) -> None:
    result = typed(*command.split(), "--help")
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert len(result.stdout.split("\u256d")[0].split()) > 6
    for left_over in ("**", "`", "<list", "\\"):
        # An argument that takes several values has no other way to say so.
        assert left_over not in result.stdout.replace("<list[str]>", "")


def test_help_names_every_option_of_a_dissection() -> None:
    text = typed("dissect", "--help").stdout
    options = (
        "layer concepts out weights weights-key masks quantile iou presence batch-size device mean std activations "
        "classes"
    )
    assert [option for option in options.split() if f"--{option} " not in text] == []
    assert "[images, units, h, w]" in " ".join(text.replace("│", " ").split())


def test_a_group_alone_shows_its_help() -> None:
    assert "miniature" in typed("concepts", "make").output
    assert "Commands" in typed().output


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = "import sys, prunescope.cli; print({'torch', 'pandas', 'numpy', 'numba', 'matplotlib'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], env=PLAIN, capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_the_module_is_the_command() -> None:
    result = process("--help")
    assert result.returncode == 0
    assert "Usage: prunescope [OPTIONS] COMMAND" in result.stdout


def test_an_unknown_option_or_command_is_refused() -> None:
    for words, said in ((["studdy"], "studdy"), (["study", "demo"], "--out"), (["recipe", "list", "--x"], "--x")):
        result = typed(*words)
        assert result.exit_code == 2
        assert said in result.stderr


def test_output_that_nobody_reads_to_the_end_is_no_failure(drawn: Path) -> None:
    reading, writing = os.pipe()
    running = subprocess.Popen(
        [*COMMAND, "concepts", "check", str(drawn)], env=PLAIN, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    os.close(reading)
    said = running.communicate(timeout=60)[1]
    assert said == ""
