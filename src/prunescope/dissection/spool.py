"""What has to wait until the thresholds are known: in memory, then on disk, within a budget."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunescope.bounds import MOST_GIGABYTES, check_number

Array = np.ndarray[Any, Any]
Record = tuple[Any, ...]  # arrays, or tensors on a device

_DEFAULT_MEMORY = 1 << 30


@dataclass(frozen=True)
class Budget:
    """How much may be held until the thresholds are known.

    Attributes
    ----------
    memory
        Bytes in memory, or in a GPU's memory for the maps of a network that runs there. Unless given: 1 GiB, or half of
        the GPU memory that is free when the dissection begins.
    disk
        Bytes on disk, for anything beyond `memory`; a layer that needs more than both gets a second forward pass.
        Maps on a GPU are not written to disk, since a second forward pass is faster.
    folder
        Where on disk; the system's temporary folder unless given. The file has no name there, so that nothing stays
        behind, however the process ends.
    """

    memory: int | None = None
    disk: int = 64 << 30
    folder: Path | None = None

    def __post_init__(self) -> None:
        """Refuse amounts that cannot be.

        Raises
        ------
        InputError
            An amount is no number of bytes.
        """
        for name, given in (("memory", 0 if self.memory is None else self.memory), ("disk", self.disk)):
            check_number(f"Budget: {name}", given, 0, MOST_GIGABYTES * 1e9, "in bytes")

    def on(self, device: torch.device) -> Budget:
        """Return the budget of a network that runs on a device, with its bytes of memory."""
        if device.type != "cuda":
            return replace(self, memory=_DEFAULT_MEMORY if self.memory is None else self.memory)
        # What PyTorch holds in reserve is free too.
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free = torch.cuda.mem_get_info(device)[0] + reserve
        return replace(self, memory=free // 2 if self.memory is None else self.memory, disk=0)


class Stored(NamedTuple):
    """A record on disk."""

    offset: int
    layout: tuple[tuple[np.dtype[Any], tuple[int, ...]], ...]


class Spill(AbstractContextManager["Spill"]):
    """Owns the records that wait, and the file of those that memory has no room for."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._memory = _DEFAULT_MEMORY if budget.memory is None else budget.memory
        self._file: IO[bytes] | None = None
        self._end = 0
        self._spools: list[Spool] = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._spools.clear()

    def spool(self, shrink: Callable[[Record], Record] | None = None) -> Spool:
        """Begin a sequence of records; one that can `shrink` may also overflow, and is then dropped."""
        spool = Spool(self, shrink)
        self._spools.append(spool)
        return spool

    def make_room(self) -> None:
        """Bring what is in memory under the budget."""
        if self._in_memory() <= self._memory:
            return
        for spool in self._spools:
            spool.shrink()
        # Down to half, so that room is not made for every record.
        for spool in sorted(self._spools, key=lambda spool: -spool.in_memory):
            if self._in_memory() > self._memory // 2:
                spool.leave_memory(self.budget.disk - self._end)

    def write(self, record: Record) -> Stored:
        """Append a record to the file.

        Raises
        ------
        OSError
            The disk is full, say; the folder is named.
        """
        folder = self.budget.folder or Path(tempfile.gettempdir())
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed with the spill
            arrays = [array.cpu().numpy() if isinstance(array, Tensor) else array for array in record]
            stored = Stored(self._end, tuple((array.dtype, array.shape) for array in arrays))
            for array in arrays:
                self._file.write(np.ascontiguousarray(array).view(np.uint8).data if array.size else b"")
                self._end += array.nbytes
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(folder)) from error
        return stored

    def read(self, stored: Stored) -> Record:
        """Read a record back, as arrays."""
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
        return sum(spool.in_memory for spool in self._spools)


class Spool:
    """A sequence of records in the order in which they came."""

    def __init__(self, spill: Spill, shrink: Callable[[Record], Record] | None) -> None:
        self._spill, self._shrink = spill, shrink
        self._records: list[Record | Stored] = []
        self.in_memory = 0
        self.overflowed = False

    def append(self, record: Record) -> None:
        """Add a record; the spill may move earlier ones to disk."""
        if self.overflowed:
            return
        self._records.append(record)
        self.in_memory += _size(record)
        self._spill.make_room()

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            yield self._spill.read(record) if isinstance(record, Stored) else record

    def shrink(self) -> None:
        """Drop what turned out not to matter from the records in memory."""
        if self._shrink is None:
            return
        # One after the other, so that there is never a second copy of all.
        for place, record in enumerate(self._records):
            if not isinstance(record, Stored):
                self._records[place] = self._shrink(record)
        self.in_memory = sum(_size(one) for one in self._records if not isinstance(one, Stored))

    def leave_memory(self, room: int) -> None:
        """Move the records in memory to disk; without room there, overflow."""
        if self.in_memory > room:
            if self._shrink is not None:
                self._records, self.in_memory, self.overflowed = [], 0, True
            return
        self._records = [one if isinstance(one, Stored) else self._spill.write(one) for one in self._records]
        self.in_memory = 0


def _size(record: Record) -> int:
    return sum(array.nbytes for array in record)
