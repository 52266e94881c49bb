"""Problems of a data set.

Functions that read a part of a data set are generators that yield its problems. When a data set is opened, the first
problem raises an error; when it is checked, all problems are collected.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from prunescope.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A problem of a data set: the file, the line (None if the whole file is concerned) and a message."""

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


# The return type of functions that read something. They yield each problem and return the part that could be read.
Reading: TypeAlias = Generator[Problem, None, T]


def collect(reading: Reading[T]) -> tuple[T, list[Problem]]:
    """Run a reading to its end; return what could be read and all problems."""
    problems = []
    while True:
        try:
            problems.append(next(reading))
        except StopIteration as stop:
            return stop.value, problems


def clean(reading: Reading[T | None]) -> T:
    """Run a reading to its end and return the result. A reading without problems never returns None.

    Raises
    ------
    InputError
        If there are problems. The message describes the first one and states how many more there are.
    """
    value, problems = collect(reading)
    if problems:
        more = len(problems) - 1
        tail = f" (and {more} more: `prunescope concepts check` lists them all)" if more else ""
        raise InputError(f"{problems[0]}{tail}")
    assert value is not None
    return value
