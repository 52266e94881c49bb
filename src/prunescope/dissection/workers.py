"""Kernels run in threads: each on its piece of the work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

_PIECES = 4


class Workers(AbstractContextManager["Workers"]):
    """Threads that wait without spinning, so that a network's own threads have the cores in between.

    Parameters
    ----------
    threads
        How many.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def spread(self, kernel: Callable[..., None], count: int, *arguments: Any) -> None:
        """Call `kernel(*arguments, start, stop)` for pieces that make up `range(count)`.

        Parameters
        ----------
        kernel
            Compiled without the interpreter's lock; its pieces write to different places.
        count
            Of what is divided.
        arguments
            Before the piece's bounds.
        """
        if self._threads == 1 or count == 1:
            kernel(*arguments, 0, count)
            return
        size = max(1, -(-count // (_PIECES * self._threads)))
        pieces = [
            self._pool.submit(kernel, *arguments, start, min(start + size, count)) for start in range(0, count, size)
        ]
        for piece in pieces:
            piece.result()
