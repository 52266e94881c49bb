"""Share a dissection among several processes.

Each process handles a part of the images; thresholds and pixel counts are reduced over all processes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import distributed

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Share:
    """A process among those that share a dissection.

    A single process has all images, and the operations on arrays leave them unchanged.
    """

    rank: int = 0
    processes: int = 1
    group: distributed.ProcessGroup | None = None  # the group that exchanges arrays; None for the default group

    def images(self, count: int) -> range:
        """Return the indices of this process's images, which are consecutive and ordered by process."""
        return range(self.rank * count // self.processes, (self.rank + 1) * count // self.processes)

    def gather(self, array: Array) -> list[Array]:
        """Return the arrays of all processes, in their order. The arrays must have the same shape and type."""
        if self.processes == 1:
            return [array]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        found = [torch.empty_like(mine) for _ in range(self.processes)]
        distributed.all_gather(found, mine, group=self.group)
        return [one.numpy() for one in found]

    def add(self, array: Array) -> None:
        """Replace an array of integers by the sum over all processes, in place."""
        if self.processes > 1:
            total = torch.from_numpy(array)
            distributed.all_reduce(total, group=self.group)


@contextmanager
def sharing() -> Iterator[Share]:
    """Share a dissection among the processes of the current `torch.distributed` group, whoever initialised it.

    Without such a group, this process handles all images. If the backend of the group only supports GPU tensors (NCCL),
    arrays are exchanged through a separate Gloo group, which exists for the duration of the ``with`` block.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield Share()
        return
    rank, count = distributed.get_rank(), distributed.get_world_size()
    if count == 1 or "cpu:" in distributed.get_backend_config():
        yield Share(rank, count)
        return
    group = distributed.new_group(backend="gloo")
    try:
        yield Share(rank, count, group)
    finally:
        distributed.destroy_process_group(group)


@contextmanager
def processes() -> Iterator[Share]:
    """Connect the processes that `torchrun` started, if any, for the duration of the ``with`` block.

    Processes that are connected already stay connected after the block.
    """
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if not alone and not distributed.is_initialized():
        distributed.init_process_group("gloo")
        try:
            yield Share(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()
        return
    with sharing() as share:
        yield share
