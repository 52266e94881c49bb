"""The interface of everything that is accumulated over the images of a data set."""

from __future__ import annotations

from typing import Protocol, TypeVar

from prunescope.processes import Processes

Given = TypeVar("Given", contravariant=True)
Result = TypeVar("Result", covariant=True)


class Accumulator(Protocol[Given, Result]):
    """Accumulates something over batches of images, which several processes may share.

    Every batch is passed to `add`. When there are no more batches, `reduce` is called once in every process, and then
    `result` returns the same result in all of them.
    """

    def add(self, batch: Given, /) -> None:
        """Add a batch of images."""

    def reduce(self, processes: Processes) -> None:
        """Combine what has been added with what the other processes have added."""

    def result(self) -> Result:
        """Return the result for the images of all processes."""
