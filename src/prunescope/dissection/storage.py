"""Store data until the thresholds are known: in memory first, then on disk, within a budget."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from prunescope.arrays import Array
from prunescope.bounds import MOST_GIGABYTES, check_number

Record: TypeAlias = tuple[Array | Tensor, ...]

_DEFAULT_MEMORY = 1 << 30


@dataclass(frozen=True)
class Budget:
    """The amounts of memory and disk space in which data may be stored until the thresholds are known.

    Attributes
    ----------
    memory
        The number of bytes in main memory or, for the activation maps of a network on a GPU, in the memory of the GPU.
        The default is 1 GiB or, on a GPU, half of the memory that is free when the dissection begins.
    disk
        The number of bytes on disk; anything beyond `memory` is written to disk. A layer that needs more than both gets
        a second forward pass. Activation maps on a GPU are not written to disk, since a second forward pass is faster.
    folder
        The folder for the file on disk; by default the system's temporary folder. The file has no name in this folder,
        so that nothing is left behind, however the process ends.
    """

    memory: int | None = None
    disk: int = 64 << 30
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Raise if an amount is not possible.

        Raises
        ------
        InputError
            If `memory` or `disk` is not a valid number of bytes.
        """
        for name, given in (("memory", 0 if self.memory is None else self.memory), ("disk", self.disk)):
            check_number(f"Budget: {name}", given, 0, MOST_GIGABYTES * 1e9, "in bytes")

    def on(self, device: torch.device) -> Budget:
        """Return this budget for a network on a device.

        The default of `memory` is replaced by a number of bytes; on a GPU, `disk` is 0.
        """
        if device.type != "cuda":
            return replace(self, memory=_DEFAULT_MEMORY if self.memory is None else self.memory)
        # Memory that PyTorch has reserved but not allocated is free too.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + reserve
        return replace(self, memory=free // 2 if self.memory is None else self.memory, disk=0)


class _OnDisk(NamedTuple):
    """A record on disk: its offset in the file, and the type and shape of each of its arrays."""

    offset: int
    layout: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]


class Storage(AbstractContextManager["Storage"]):
    """Stores the records of all buffers, in memory and, beyond the memory budget, in one temporary file.

    As a context manager, it closes and thereby deletes the file at the end of the ``with`` block.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._memory = _DEFAULT_MEMORY if budget.memory is None else budget.memory
        self._file: IO[bytes] | None = None
        self._end = 0
        self._buffers: list[RecordBuffer] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._buffers.clear()

    def buffer(self, shrink: Callable[[Record], Record] | None = None) -> RecordBuffer:
        """Create an empty sequence of records.

        Parameters
        ----------
        shrink
            A function that returns a record without the data that is no longer needed. A buffer with such a function
            may overflow, which means that all its records are dropped if memory and disk are full.
        """
        buffer = RecordBuffer(self, shrink)
        self._buffers.append(buffer)
        return buffer

    def make_room(self) -> None:
        """Reduce the records in memory to the memory budget."""
        if self._in_memory() <= self._memory:
            return
        for buffer in self._buffers:
            buffer.shrink()
        # Free half of the memory, so that this is not repeated for every record.
        for buffer in sorted(self._buffers, key=lambda buffer: -buffer.in_memory):
            if self._in_memory() > self._memory // 2:
                buffer.leave_memory(self.budget.disk - self._end)

    def write(self, record: Record) -> _OnDisk:
        """Append a record to the file.

        Raises
        ------
        OSError
            If the file cannot be written, for example because the disk is full. The error names the folder.
        """
        folder = self.budget.folder or Path(tempfile.gettempdir())
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the storage
            arrays = [array.cpu().numpy() if isinstance(array, Tensor) else array for array in record]
            stored = _OnDisk(self._end, tuple((array.dtype, array.shape) for array in arrays))
            for array in arrays:
                self._file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
                self._end += array.nbytes
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        return stored

    def read(self, stored: _OnDisk) -> Record:
        """Read a record from the file, as NumPy arrays."""
        assert self._file is not None
        arrays, offset = [], stored.offset
        for dtype, shape in stored.layout:
            size = dtype.itemsize * int(np.prod(shape))
            content = bytearray(size)
            os.preadv(self._file.fileno(), [content], offset)
            arrays.append(np.frombuffer(content, dtype).reshape(shape))
            offset += size
        return tuple(arrays)

    def _in_memory(self) -> int:
        return sum(buffer.in_memory for buffer in self._buffers)


class RecordBuffer:
    """A sequence of records in the order in which they were appended."""

    def __init__(self, storage: Storage, shrink: Callable[[Record], Record] | None) -> None:
        self._storage, self._shrink = storage, shrink
        self._records: list[Record | _OnDisk] = []
        self.in_memory = 0
        self.overflowed = False

    def add(self, record: Record) -> None:
        """Add a record. Records may be moved to disk to keep to the memory budget."""
        if self.overflowed:
            return
        self._records.append(record)
        self.in_memory += _size(record)
        self._storage.make_room()

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            yield self._storage.read(record) if isinstance(record, _OnDisk) else record

    def shrink(self) -> None:
        """Drop data that is no longer needed from the records in memory."""
        if self._shrink is None:
            return
        # Records are replaced one at a time, so that there is never a second copy of all of them.
        for index, record in enumerate(self._records):
            if not isinstance(record, _OnDisk):
                self._records[index] = self._shrink(record)
        self.in_memory = sum(_size(one) for one in self._records if not isinstance(one, _OnDisk))

    def leave_memory(self, room: int) -> None:
        """Move the records in memory to disk.

        If they take more than `room` bytes, a buffer that can shrink overflows: it drops all its records. Any other
        buffer then keeps its records in memory.
        """
        if self.in_memory > room:
            if self._shrink is not None:
                self._records, self.in_memory, self.overflowed = [], 0, True
            return
        self._records = [one if isinstance(one, _OnDisk) else self._storage.write(one) for one in self._records]
        self.in_memory = 0


def _size(record: Record) -> int:
    return sum(array.nbytes for array in record)
