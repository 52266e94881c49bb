"""Progress of long computations: callbacks that receive it, and the bar that shows it to people."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from prunescope.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int], None]
"""A progress callback. Its arguments are the number of items done and the total number of items."""

Shown: TypeAlias = Progress | Literal["auto", False] | None
"""What public functions accept as `progress`: a callback, `auto` for a bar if somebody is watching, or False."""


def silent(done: int, total: int) -> None:
    """Ignore the progress: the callback to use when nothing shall be reported."""


@contextmanager
def shown_progress(progress: Shown, what: str) -> Iterator[Progress]:
    """Yield the callback for the progress of one task.

    Parameters
    ----------
    progress
        A callback, which is yielded unchanged; `auto` to show a bar if somebody is watching (see `is_watched`); or
        False or None to show nothing.
    what
        A description of the task in a word or two, which is shown in front of the bar.

    Raises
    ------
    InputError
        If `progress` is something else.
    """
    if not wants_bar(progress, "progress"):
        yield progress if callable(progress) else silent
        return
    with progress_bar(what, watching_console(), redirect_stdout=False) as show:
        yield show


def wants_bar(given: Any, name: str) -> bool:
    """Return whether a bar shall be shown, given an argument that may also be a callback, False or None.

    Raises
    ------
    InputError
        If the argument is something else.
    """
    if isinstance(given, str) and given == "auto":
        return is_watched()
    if callable(given) or given is None or given is False:
        return False
    raise InputError(f"{name} is {given!r}, expected 'auto', False or a function")


def is_watched() -> bool:
    """Return whether a person is likely to see what is written to standard error while the computation runs.

    This is the case if standard error is a terminal, or in a notebook. Of several processes, only the first shows
    anything.
    """
    if os.environ.get("RANK", "0") != "0":
        return False
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def in_notebook() -> bool:
    """Return whether the code runs in a notebook: in an IPython shell with a kernel, which one in a terminal lacks."""
    shell_of = getattr(sys.modules.get("IPython"), "get_ipython", None)
    return shell_of is not None and hasattr(shell_of(), "kernel")


def watching_console() -> Console:
    """Return the console on which bars are shown to somebody who is watching."""
    from rich.console import Console

    if in_notebook():
        # Plain text works in every front end; rich's own display needs the package ipywidgets there.
        return Console(stderr=True, force_terminal=True, force_jupyter=False, width=100, highlight=False, markup=False)
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


@contextmanager
def progress_bar(what: str, console: Console, **options: Any) -> Iterator[Progress]:
    """Show a bar for one task, with the number of finished items and the remaining time.

    Parameters
    ----------
    what
        A description of the task.
    console
        The console to show the bar on.
    options
        Further arguments of `rich.progress.Progress`.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn(what, markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    # Notebooks store all that is written, so that fewer updates keep their files small.
    rate = 2 if in_notebook() else 10
    with Bar(*columns, console=console, transient=True, refresh_per_second=rate, **options) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
