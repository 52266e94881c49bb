"""Distribute work on many images over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from prunescope.children import end_with_parent

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items per chunk: enough to make up for the communication between processes, and few enough for frequent progress.
_CHUNK = 64


def by_chunks(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Generator[Result, None, None]:
    """Apply `work` to consecutive chunks of the items, in several processes, and yield the results in order.

    Parameters
    ----------
    work : callable
        The function to apply to each chunk, a sequence of items. It must support pickling.
    items : sequence
        All items.
    workers : int or None
        The number of processes. If None, it is the number of processors.
    progress : callable or None
        Called with the number of items done and the total number of items.

    Yields
    ------
    Result
        The result of `work` for each chunk.
    """
    chunks = [items[at : at + _CHUNK] for at in range(0, len(items), _CHUNK)]
    done = 0
    for chunk, result in zip(chunks, _map(work, chunks, min(workers or os.cpu_count() or 1, len(chunks))), strict=True):
        yield result
        done += len(chunk)
        if progress:
            progress(done, len(items))


def _map(work: Callable[[Item], Result], chunks: Sequence[Item], workers: int) -> Iterator[Result]:
    if workers <= 1:
        yield from map(work, chunks)
        return
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as processes:
        try:
            yield from processes.map(work, chunks)
        except BaseException:
            # After an interrupt, the queued chunks are cancelled, because they could take a long time.
            processes.shutdown(wait=False, cancel_futures=True)
            raise
