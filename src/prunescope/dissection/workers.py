"""Run compiled kernels in several threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

_PIECES = 4


class Workers(AbstractContextManager["Workers"]):
    """A pool of threads that run compiled kernels.

    Idle threads wait without spinning, so that the network's own threads can use the cores between kernels.

    Parameters
    ----------
    threads
        The number of threads.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._pool = ThreadPoolExecutor(threads)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, kernel: Callable[..., None], count: int, *arguments: Any) -> None:
        """Split `range(count)` into pieces and call `kernel(*arguments, start, stop)` for each piece, in parallel.

        Parameters
        ----------
        kernel
            A compiled function that releases the global interpreter lock. Calls for different pieces must write to
            different memory locations.
        count
            The number of items to split.
        arguments
            The arguments of the kernel before the bounds `start` and `stop` of the piece.
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
