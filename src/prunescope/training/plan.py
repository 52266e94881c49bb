"""Which training images come in which step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from prunescope.training.randomness import ORDER, generator_for


class Plan(NamedTuple):
    """Which training images come in which step: a permutation per epoch, a function of the seed and the epoch.

    Attributes
    ----------
    images
        Of the training set.
    batch_size
        Images a step, over all processes together.
    seed
        Of the order.
    rank, processes
        Which of the processes that share every batch this is: it has every `processes`-th image from `rank` on.
    """

    images: int
    batch_size: int
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches of an epoch; one, where the images are fewer than a batch."""
        return max(1, self.images // self.batch_size)

    def batches(self, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
        """Yield the epoch and the images' places, int64 [n], of this process in the steps `start` up to `stop`."""
        order, at = torch.empty(0, dtype=torch.int64), -1
        for step in range(start, stop):
            epoch, position = divmod(step, self.steps_per_epoch)
            if epoch != at:
                order = torch.randperm(self.images, generator=generator_for(self.seed, ORDER, epoch))
                at = epoch
            whole = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield epoch, whole[self.rank :: self.processes]
