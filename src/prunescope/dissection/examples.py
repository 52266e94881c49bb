"""Keep the images on which each unit is most active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.dissection.kernels import kernel
from prunescope.dissection.workers import Workers
from prunescope.processes import Processes

Array = np.ndarray[Any, Any]

EXAMPLES = 4


@dataclass(frozen=True)
class Examples:
    """The images with the highest activations of each unit, in descending order.

    A map's peak is its largest value. Of images with equal peaks, the earlier one comes first.
    """

    images: Array  # int64 [units, EXAMPLES]: indices in the data set; -1 if there are fewer images
    peaks: Array  # float32 [units, EXAMPLES]
    maps: Array  # float32 [units, EXAMPLES, h, w]

    @classmethod
    def empty(cls, units: int, h: int, w: int) -> Examples:
        """Return the examples before any image has been added."""
        return cls(
            np.full((units, EXAMPLES), -1, np.int64),
            np.full((units, EXAMPLES), -np.inf, np.float32),
            np.zeros((units, EXAMPLES, h, w), np.float32),
        )

    def reduce(self, processes: Processes) -> None:
        """Merge the examples that all processes found for the same units, in place.

        The images must be divided among the processes in order: a process of higher rank has later images.
        """
        images, peaks, maps = (np.concatenate(processes.all_gather(part), axis=1) for part in vars(self).values())
        best = np.argsort(-peaks, axis=1, kind="stable")[:, :EXAMPLES]
        self.images[:] = np.take_along_axis(images, best, axis=1)
        self.peaks[:] = np.take_along_axis(peaks, best, axis=1)
        self.maps[:] = np.take_along_axis(maps, best[:, :, None, None], axis=1)

    def add(self, first_image: int, peaks: Array, maps: Array, workers: Workers) -> None:
        """Add a batch of images, all of which must come after the images added before.

        Parameters
        ----------
        first_image
            The index of the batch's first image in the data set.
        peaks
            float32 [images, units]: the largest value of each map.
        maps
            float32 [images, units, h * w]: the activation maps.
        workers
            The threads to run in.
        """
        own_maps = self.maps.reshape(*self.images.shape, -1)
        workers.spread(_insert, len(self.images), first_image, peaks, maps, self.images, self.peaks, own_maps)


@kernel
def _insert(
    first_image: int,
    peaks: Array,
    maps: Array,
    best: Array,
    best_peaks: Array,
    best_maps: Array,
    first_unit: int,
    last_unit: int,
) -> None:
    for unit in range(first_unit, last_unit):
        for image in range(len(peaks)):
            peak, place = peaks[image, unit], EXAMPLES
            while place > 0 and peak > best_peaks[unit, place - 1]:
                place -= 1
            if place == EXAMPLES:
                continue
            for later in range(EXAMPLES - 1, place, -1):
                best[unit, later] = best[unit, later - 1]
                best_peaks[unit, later] = best_peaks[unit, later - 1]
                best_maps[unit, later] = best_maps[unit, later - 1]
            best[unit, place], best_peaks[unit, place] = first_image + image, peak
            for position in range(maps.shape[2]):
                best_maps[unit, place, position] = maps[image, unit, position]
