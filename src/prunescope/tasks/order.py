"""The assignment of training images to steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from prunescope.randomness import ORDER, generator_for


class Plan(NamedTuple):
    """The assignment of training images to steps: one permutation per epoch, determined by the seed and the epoch.

    Attributes
    ----------
    images
        The number of training images.
    batch_size
        The number of images per step, over all processes together.
    seed
        The seed of the permutations.
    rank, processes
        The number of this process and the number of processes that share every batch. A process takes every
        `processes`-th image of a batch, starting at `rank`.
    """

    images: int
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """The number of whole batches in an epoch; 1 if there are fewer images than a batch holds."""
        return max(1, self.images // self.batch_size)

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the epoch and this process's image indices, int64 [n], for each of the steps `start` to `stop` - 1."""
        order, at = torch.empty(0, dtype=torch.int64), -1
        for step in range(start, stop):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != at:
                order = torch.randperm(self.images, generator=generator_for(self.seed, ORDER, epoch))
                at = epoch
            whole = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield epoch, whole[self.rank :: self.processes]
