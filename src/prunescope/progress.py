"""The type of the callbacks by which long computations report their progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""A progress callback. Its arguments are the number of items done and the total number of items."""


def silent(done: int, total: int) -> None:
    """Ignore the progress: the callback to use when nothing shall be reported."""
