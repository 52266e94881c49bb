"""What can be wrong with a data set, said once: opening stops at the first problem, checking collects them all."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, TypeVar

from prunescope.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set: in which file, on which line (None: the file as a whole), and what."""

    file: Path
    line: int | None
    message: str

    def __str__(self) -> str:
        place = f"{self.file}" if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


# A function that reads something: it yields the problems it meets and returns what could be read all the same.
Reading: TypeAlias = Generator[Problem, None, T]


def collect(reading: Reading[T]) -> tuple[T, list[Problem]]:
    """Read to the end; return what could be read, and every problem."""
    problems = []
    while True:
        try:
            problems.append(next(reading))
        except StopIteration as stop:
            return stop.value, problems


def clean(reading: Reading[T | None]) -> T:
    """Read to the end; return what was read, which a reading without problems always has.

    Raises
    ------
    InputError
        Naming the first problem, and how many more there are.
    """
    value, problems = collect(reading)
    if problems:
        more = len(problems) - 1
        tail = f" (and {more} more: `prunescope concepts check` lists them all)" if more else ""
        raise InputError(f"{problems[0]}{tail}")
    assert value is not None
    return value
