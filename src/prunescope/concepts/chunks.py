"""Work on many images, shared among processes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# Enough work for a process to be worth a message, little enough for progress to move.
_CHUNK = 64


def by_chunks(
    work: Callable[[Sequence[Item]], Result],
    items: Sequence[Item],
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> Generator[Result, None, None]:
    """Do `work` on the items, chunk by chunk, and yield what it returns in their order.

    Parameters
    ----------
    work : callable
        Can be pickled; is given some of the items.
    items : sequence
        All there is to work on.
    workers : int or None
        Processes; as many as there are processors if None.
    progress : callable or None
        Called with the number of items done and of all items.
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
    with ProcessPoolExecutor(workers, initializer=_end_with_parent) as processes:
        try:
            yield from processes.map(work, chunks)
        except BaseException:
            # An interrupt should not wait for thousands of images still queued.
            processes.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """End this process when its parent was killed: it would wait for work, and hold what it inherited, for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
