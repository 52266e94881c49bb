"""The images that excite each unit most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.dissection.kernels import kernel
from prunescope.dissection.share import Share
from prunescope.dissection.workers import Workers

Array = np.ndarray[Any, Any]

EXAMPLES = 4


@dataclass(frozen=True)
class Examples:
    """Of each unit the images with the highest peaks, highest first; equal peaks go to the earlier image."""

    images: Array  # int64 [units, EXAMPLES], -1 where there are fewer images
    peaks: Array  # float32 [units, EXAMPLES]
    maps: Array  # float32 [units, EXAMPLES, h, w]

    @classmethod
    def empty(cls, units: int, h: int, w: int) -> Examples:
        """Return the examples of a unit that has seen no image."""
        return cls(
            np.full((units, EXAMPLES), -1, np.int64),
            np.full((units, EXAMPLES), -np.inf, np.float32),
            np.zeros((units, EXAMPLES, h, w), np.float32),
        )

    def reduce(self, share: Share) -> None:
        """Take in what other processes saw of the same units, their images after this one's in order of processes."""
        images, peaks, maps = (np.concatenate(share.gather(part), axis=1) for part in vars(self).values())
        best = np.argsort(-peaks, axis=1, kind="stable")[:, :EXAMPLES]
        self.images[:] = np.take_along_axis(images, best, axis=1)
        self.peaks[:] = np.take_along_axis(peaks, best, axis=1)
        self.maps[:] = np.take_along_axis(maps, best[:, :, None, None], axis=1)

    def add(self, first_image: int, peaks: Array, maps: Array, workers: Workers) -> None:
        """Take in a batch of images that come after all earlier ones.

        Parameters
        ----------
        first_image
            Place of the batch's first image in the data set.
        peaks
            float32 [images, units]: the largest value of each map.
        maps
            float32 [images, units, h * w].
        workers
            To run in.
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
