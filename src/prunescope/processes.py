"""The processes of distributed training, started by `accelerate launch` or `torchrun`; or a single process."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from prunescope.arrays import Array
from prunescope.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """The position of this process among the processes that share the work, and their communication.

    If there is a single process, `sum` and `broadcast_object` return their argument, and `wait` and
    `broadcast_tensors` do nothing.

    Attributes
    ----------
    rank
        The number of this process, from 0. Process 0 is the main process.
    count
        The number of processes.
    group
        The process group that exchanges NumPy arrays; None for the default group.
    """

    rank: int = 0
    count: int = 1
    group: distributed.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes files and reports progress."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process has made this call."""
        if self.count > 1:
            distributed.barrier()

    def on_main(self, do: Callable[[], T]) -> T | None:
        """Call `do` on the main process only, and return its result there and None on the others.

        Raises
        ------
        InputError
            If `do` raises an `InputError` or `OSError`, on every process. The main process raises the original error.
        """
        done, problem = None, None
        if self.is_main:
            try:
                done = do()
            except (InputError, OSError) as error:
                problem = error
        message = self.broadcast_object(problem and str(problem))
        if problem is not None:
            raise problem
        if message is not None:
            raise InputError(message)
        return done

    def share_of(self, count: int) -> range:
        """Return the indices of this process's share of `count` items; shares are consecutive, ordered by rank."""
        return range(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the tensors of all processes, which have to be on the CPU and of the same shape."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def all_gather(self, array: Array) -> list[Array]:
        """Return the arrays of all processes, in their order. The arrays must have the same shape and type."""
        if self.count == 1:
            return [array]
        mine = torch.from_numpy(np.ascontiguousarray(array))
        found = [torch.empty_like(mine) for _ in range(self.count)]
        distributed.all_gather(found, mine, group=self.group)
        return [one.numpy() for one in found]

    def all_reduce(self, array: Array) -> None:
        """Replace an array by the sum over all processes, in place; sums of floats depend on how they are shared."""
        if self.count > 1:
            total = torch.from_numpy(array)
            distributed.all_reduce(total, group=self.group)

    def broadcast_object(self, value: Any) -> Any:
        """Broadcast a JSON-serialisable value from the main process, and return it."""
        if self.count == 1:
            return value
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        distributed.broadcast(length, src=0)
        if not self.is_main:
            content = torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(content, src=0)
        return json.loads(content.numpy().tobytes())

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Broadcast the main process's values of the tensors, in place."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in tensors:
                values = tensor.contiguous()
                distributed.broadcast(values, src=0)
                tensor.copy_(values)


@contextmanager
def join_processes(device: str | torch.device) -> Iterator[Processes]:
    """Connect the processes that were started by `accelerate launch` or `torchrun` while the block runs.

    Nothing is done if the process was started alone, or if it is connected already.

    Parameters
    ----------
    device
        The device that this process's network runs on. CPU tensors are exchanged with gloo and GPU tensors with nccl.
        `cuda` without an index selects the GPU given by the process's local rank.

    Raises
    ------
    InputError
        If the environment announces several processes but does not say how to connect to them, or if one of the
        processes ends before the others.

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
        local = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
        torch.cuda.set_device(local if device.index is None else device.index)
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except ValueError as error:
        raise InputError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this process cannot join others ({error}); start all "
            "processes with `torchrun`, or unset WORLD_SIZE to run a single process"
        ) from error
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if "gloo/transport" not in str(error):
            raise
        raise InputError(
            "another process of this run has ended or cannot be reached; its error message gives the reason"
        ) from error
    finally:
        distributed.destroy_process_group()


@contextmanager
def connected_processes() -> Iterator[Processes]:
    """Share work among the processes of the current `torch.distributed` group, whoever initialised it.

    Without such a group, this process works alone. If the backend of the group only supports GPU tensors (NCCL), arrays
    are exchanged through a separate Gloo group, which exists for the duration of the ``with`` block.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        yield Processes()
        return
    rank, count = distributed.get_rank(), distributed.get_world_size()
    if count == 1 or "cpu:" in distributed.get_backend_config():
        yield Processes(rank, count)
        return
    group = distributed.new_group(backend="gloo")
    try:
        yield Processes(rank, count, group)
    finally:
        distributed.destroy_process_group(group)
