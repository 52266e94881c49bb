"""The images that excite each unit most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.dissection.share import Share

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

    def add(self, first_image: int, peaks: Array, maps: Array) -> None:
        """Take in a batch of images that come after all earlier ones.

        Parameters
        ----------
        first_image
            Place of the batch's first image in the data set.
        peaks
            float32 [images, units]: the largest value of each map.
        maps
            float32 [images, units, h, w].
        """
        units = np.flatnonzero((peaks > self.peaks[:, -1]).any(axis=0))
        candidates = np.concatenate([self.peaks[units], peaks[:, units].T], axis=1)
        places = np.broadcast_to(first_image + np.arange(len(peaks)), (len(units), len(peaks)))
        images = np.concatenate([self.images[units], places], axis=1)
        best = np.argsort(-candidates, axis=1, kind="stable")[:, :EXAMPLES]
        kept = np.take_along_axis(self.maps[units], np.minimum(best, EXAMPLES - 1)[:, :, None, None], axis=1)
        rows, columns = np.nonzero(best >= EXAMPLES)
        kept[rows, columns] = maps[best[rows, columns] - EXAMPLES, units[rows]]
        self.maps[units] = kept
        self.peaks[units] = np.take_along_axis(candidates, best, axis=1)
        self.images[units] = np.take_along_axis(images, best, axis=1)
