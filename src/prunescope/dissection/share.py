"""Several processes share one dissection: each has its images; thresholds and counts are reduced."""

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
    """One process among those that share a dissection; alone, every operation gives back what it was given."""

    rank: int = 0
    processes: int = 1
    group: distributed.ProcessGroup | None = None  # through which arrays go; None: the default group

    def images(self, count: int) -> range:
        """Return the places of this process's images: consecutive ones, in the order of the processes."""
        return range(self.rank * count // self.processes, (self.rank + 1) * count // self.processes)

    def gather(self, array: Array) -> list[Array]:
        """Return every process's array, of one shape and type, in the order of the processes."""
        if self.processes == 1:
            return [array]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        found = [torch.empty_like(mine) for _ in range(self.processes)]
        distributed.all_gather(found, mine, group=self.group)
        return [one.numpy() for one in found]

    def add(self, array: Array) -> None:
        """Add up every process's array of integers, in place."""
        if self.processes > 1:
            total = torch.from_numpy(array)
            distributed.all_reduce(total, group=self.group)


@contextmanager
def sharing() -> Iterator[Share]:
    """Share work among the processes that are connected by now, whoever connected them; alone, do it all.

    Where they are connected by what carries a GPU's tensors only (nccl), arrays go through a group of their own.
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
    """Join the processes that `torchrun` started, if it did, for as long as the block lasts."""
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
