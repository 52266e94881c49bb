"""The processes that train together: those that `accelerate launch` or `torchrun` started, or one alone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from prunescope.errors import InputError

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """One process among those that share the work; alone, every operation gives back what it was given."""

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

    def on_main(self, do: Callable[[], T]) -> T | None:
        """Let the main process do something with files; every process fails if that fails."""
        done, problem = None, None
        if self.is_main:
            try:
                done = do()
            except (InputError, OSError) as error:
                problem = error
        told = self.agree(problem and str(problem))
        if problem is not None:
            raise problem
        if told is not None:
            raise InputError(told)
        return done

    def share_of(self, count: int) -> range:
        """Return the places of this process's part of `count` things: consecutive ones, in the order of the ranks."""
        return range(self.rank * count // self.count, (self.rank + 1) * count // self.count)

    def sum(self, values: Tensor) -> Tensor:
        """Add up every process's tensor, of one shape and on the CPU."""
        if self.count > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def agree(self, value: Any) -> Any:
        """Return the main process's value, of what JSON can hold."""
        if self.count == 1:
            return value
        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        distributed.broadcast(length, src=0)
        if not self.is_main:
            content = torch.empty(int(length), dtype=torch.uint8)
        distributed.broadcast(content, src=0)
        return json.loads(content.numpy().tobytes())

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Give every process the main process's values of the tensors, in place."""
        if self.count == 1:
            return
        with torch.no_grad():
            for tensor in tensors:
                values = tensor.contiguous()
                distributed.broadcast(values, src=0)
                tensor.copy_(values)


@contextmanager
def join_processes(device: str | torch.device) -> Iterator[Processes]:
    """Join the processes that `accelerate launch` or `torchrun` started, for as long as the block lasts.

    A process that was started alone does nothing here, and one that has joined already goes on as it is.

    Parameters
    ----------
    device
        Where this process's network runs: gloo connects CPUs; on GPUs nccl does, and gloo what is on the CPU. `cuda`
        without a number is the GPU of the process's number on its machine.

    Raises
    ------
    InputError
        The environment speaks of several processes, but not of how to find them; or one of them ends before the others.

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
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but this process cannot join others ({error}); start them by "
            "`torchrun`, or unset WORLD_SIZE to run it alone"
        ) from error
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size())
    except RuntimeError as error:
        if "gloo/transport" not in str(error):
            raise
        raise InputError("another process of this run has ended or cannot be reached; what it says is why") from error
    finally:
        distributed.destroy_process_group()
