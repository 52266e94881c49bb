"""Several processes share one dissection: each has its images; thresholds and counts are reduced."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import distributed

Array = np.ndarray[Any, Any]


class Share:
    """One process among those that `torchrun` started; alone, every operation gives back what it was given."""

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if together else 0
        self.processes = distributed.get_world_size() if together else 1

    def images(self, count: int) -> range:
        """Return the places of this process's images: consecutive ones, in the order of the processes."""
        return range(self.rank * count // self.processes, (self.rank + 1) * count // self.processes)

    def gather(self, array: Array) -> list[Array]:
        """Return every process's array, of one shape and type, in the order of the processes."""
        if self.processes == 1:
            return [array]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        found = [torch.empty_like(mine) for _ in range(self.processes)]
        distributed.all_gather(found, mine)
        return [one.numpy() for one in found]

    def add(self, array: Array) -> None:
        """Add up every process's array of integers, in place."""
        if self.processes > 1:
            total = torch.from_numpy(array)
            distributed.all_reduce(total)

    def any(self, flag: bool) -> bool:
        """Say whether any process says so."""
        return bool(np.concatenate(self.gather(np.array([flag]))).any())


@contextmanager
def processes() -> Iterator[Share]:
    """Join the processes that `torchrun` started, if it did, for as long as the block lasts."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Share()
        return
    distributed.init_process_group("gloo")
    try:
        yield Share()
    finally:
        distributed.destroy_process_group()
