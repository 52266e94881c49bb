"""Print the output of commands: results to standard output; progress, notes and errors to standard error."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from prunescope.errors import InputError
from prunescope.files import text_problem
from prunescope.progress import Progress, progress_bar

if TYPE_CHECKING:
    import pandas as pd

out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


_WIDEST = 10_000  # columns of a table that is not printed to a terminal


class Commands(TyperGroup):
    """A group of commands that reports errors the user can fix as one message with exit code 2."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, after refusing those that could not be stored with the results or printed."""
        for stream in (sys.stdout, sys.stderr):
            # Names may contain characters that the terminal's encoding lacks. They are escaped, because an error while
            # printing the results would hide them.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        for argument in args:
            if problem := text_problem(argument):
                err.print(f"error: {argument!a}: {problem}; rename the file or folder, or give another")
                raise typer.Exit(2)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn expected errors and interruptions into messages and exit codes."""
        warnings.showwarning = _show_warning
        interrupts: list[int] = []
        try:
            with _noting_interrupts(interrupts):
                return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            # C libraries may turn Ctrl-C into errors of their own.
            if interrupts or isinstance(error, KeyboardInterrupt):
                err.print("interrupted; no incomplete files are left. To continue, run the same command again")
                raise typer.Exit(130) from error
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(1) from error
            if isinstance(error, InputError | OSError):
                err.print(f"error: {_described(error) if isinstance(error, OSError) else error}")
                raise typer.Exit(2) from error
            raise


def print_table(table: pd.DataFrame) -> None:
    """Print a table with its numbers aligned to the right."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for column in table.columns:
        shown.add_column(str(column), justify="right" if table[column].dtype.kind in "iuf" else "left", overflow="fold")
    for row in table.itertuples(index=False):
        shown.add_row(*(_cell(cell) for cell in row))
    # A pipe or a file has no width; folding a name there would hide it from a search.
    console = out if out.is_terminal else Console(file=out.file, highlight=False, markup=False, width=_WIDEST)
    console.print(shown)


def _cell(value: object) -> str:
    if isinstance(value, Integral):
        return f"{int(value):,}"
    # Printed tables contain no missing value other than pandas.NA; comparing text avoids importing pandas.
    return "?" if str(value) == "<NA>" else str(value)


@contextmanager
def progress_of(what: str, shown: bool = True) -> Iterator[Progress]:
    """Show a progress bar for one task, with the number of finished items and the remaining time."""
    with progress_bar(what, err, disable=not (shown and err.is_terminal)) as show:
        yield show


def in_hours(value: float) -> str:
    """Format a number of hours so that small values are not rounded to zero."""
    return f"{value:,.2f}" if value >= 1 or value == 0 else f"{value:.2g}"


@contextmanager
def _noting_interrupts(interrupts: list[int]) -> Iterator[None]:
    """Record each Ctrl-C in `interrupts` and raise KeyboardInterrupt as usual."""

    def interrupt(number: int, _frame: Any) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if issubclass(category, UserWarning):
        err.print(f"note: {message}")


def _described(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the device; no incomplete files are left. Free some space and try again"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return f"{where}a file exists where a folder is needed; give another path"
    if isinstance(error, IsADirectoryError):
        return f"{where}is a folder, but a file is needed; give the path of a file"
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        why = (error.strerror or "permission denied").lower()
        return f"{where}{why}; give a path that you can read and write, or change its permissions"
    return f"{where}{error.strerror or error}"
