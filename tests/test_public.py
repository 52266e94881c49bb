"""Every command is one call of a public function, and docs/commands.md shows both."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import prunescope
from prunescope.cli import app
from tests.cli.commands import GOLDEN, typed

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
ROWS = [
    tuple(cell.strip(" `") for cell in line.strip("|").split("|"))
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def commands(group: Any, before: tuple[str, ...] = ()) -> Iterator[str]:
    """List the commands of the program, those of its groups too."""
    for name, command in group.commands.items():
        words = (*before, name)
        if hasattr(command, "commands"):
            yield from commands(command, words)
        else:
            yield " ".join(words)


def test_every_command_is_on_the_page() -> None:
    assert {re.sub(r" --\S+", "", row[0]) for row in ROWS} == set(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_command_and_its_function_are_shown_by_lines_that_fit_them(row: tuple[str, ...]) -> None:
    command, function, line, call = row
    assert function in prunescope.__all__
    program, *words = shlex.split(line)
    assert program == "prunescope"
    expected = command.split()
    assert [word for word in words if word in expected] == expected
    found: Any = typer.main.get_command(app)
    while hasattr(found, "commands"):
        found = found.commands[words.pop(0)]
    found.make_context(command, words)
    (called,) = [node for node in ast.walk(ast.parse(call)) if isinstance(node, ast.Call)]
    assert ast.unparse(called.func) == f"prunescope.{function}"
    values = [ast.literal_eval(value) for value in called.args]
    named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in called.keywords}
    inspect.signature(getattr(prunescope, function)).bind(*values, **named)


def test_the_version_is_printed() -> None:
    result = typed("--version")
    assert (result.exit_code, result.stdout) == (0, f"prunescope {prunescope.__version__}\n")


def test_one_of_a_thing_is_singular(tmp_path: Path) -> None:
    table = tmp_path / "one.csv"
    lines = (GOLDEN / "tables" / "alexnet_imagenet.csv").read_text(encoding="utf-8").splitlines()
    table.write_text("\n".join(lines[:2]) + "\n")
    result = typed("import", "netdissect", table, "--iou", "0", "--out", tmp_path / "out")
    assert result.stdout.startswith("1 unit, 1 interpretable, 1 concept: ")
