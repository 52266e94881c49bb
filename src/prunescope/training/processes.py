"""The processes that train together: those that `accelerate launch` or `torchrun` started, or one alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed


@dataclass(frozen=True)
class Processes:
    """One process among those that share the work."""

    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes files and tells progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.count > 1:
            distributed.barrier()


@contextmanager
def join_processes(device: str | torch.device) -> Iterator[Processes]:
    """Join the processes that `accelerate launch` or `torchrun` started, for as long as the block lasts.

    A process that was started alone does nothing here, and one that has joined already goes on as it is.

    Parameters
    ----------
    device
        Where this process's network runs: gloo connects CPUs; on GPUs nccl does, and gloo what is on the CPU.

    Examples
    --------
    >>> with join_processes("cpu") as processes:
    ...     print(processes.rank, processes.count, processes.is_main)
    0 1 True
    """
    if distributed.is_available() and distributed.is_initialized():
        yield Processes(distributed.get_rank(), distributed.get_world_size())
        return
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes()
        return
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
