"""What the first pass over the images takes from a layer's maps."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from prunescope.dissection.examples import Examples
from prunescope.dissection.maps import KeptMaps, as_array, extremes, gather
from prunescope.dissection.share import Share
from prunescope.dissection.thresholds import LargestValues
from prunescope.dissection.workers import Workers

Array = np.ndarray[Any, Any]


class Levels(NamedTuple):
    """What a unit's mask has to be above."""

    thresholds: Array  # float64 [units]; of a dead unit its one value, so that its mask is empty
    dead: Array  # bool [units]: constant everywhere


class FirstPass(Protocol):
    """Takes in a layer's maps as they come; what it keeps does not grow with the images, but for the largest values."""

    def add(self, first_image: int, output: Tensor) -> KeptMaps:
        """Take in the next images.

        Parameters
        ----------
        first_image
            The first one's place in the data set.
        output
            [n, units, h, w] or [n, units]; nothing of it is held on to.

        Returns
        -------
        KeptMaps
            Copies of those that may reach above their unit's threshold, as far as is known by now.

        Raises
        ------
        NotFiniteError
            A value is not finite.
        """

    def above(self, output: Tensor, thresholds: Array) -> KeptMaps:
        """Copy the maps that reach above their unit's threshold."""

    def still_possible(self, kept: KeptMaps) -> KeptMaps:
        """Leave out the maps that, by now, cannot reach above their unit's threshold."""

    def settle(self, share: Share) -> tuple[Levels, Examples]:
        """Say the thresholds and the most exciting images, once all images of all processes were taken in."""


class FirstPassOnCpu:
    """A first pass in compiled kernels.

    Parameters
    ----------
    shape
        (units, h, w) of the layer's output for one image.
    images
        How many there will be, of all processes.
    quantile
        The fraction of positions above a threshold.
    given
        Thresholds float64 [units], instead of the quantile's.
    workers
        To run in.
    """

    def __init__(
        self, shape: tuple[int, int, int], images: int, quantile: float, given: Array | None, workers: Workers
    ) -> None:
        units, h, w = shape
        self._shape, self._given, self._workers = shape, given, workers
        self._largest = LargestValues(units, images * h * w, quantile) if given is None else None
        self._examples = Examples.empty(units, h, w)
        self._lowest = np.full(units, np.inf, np.float32)
        self._highest = np.full(units, -np.inf, np.float32)

    @property
    def _bounds(self) -> Array:
        bounds = self._given if self._largest is None else self._largest.bounds
        assert bounds is not None
        return bounds

    def add(self, first_image: int, output: Tensor) -> KeptMaps:
        """Take in the next images: see `FirstPass`."""
        maps = as_array(output)
        lows, peaks = extremes(maps, self._workers)
        self._lowest = np.minimum(self._lowest, lows.min(axis=0))
        self._highest = np.maximum(self._highest, peaks.max(axis=0))
        self._examples.add(first_image, peaks, maps, self._workers)
        kept = self._taken(maps, peaks, self._bounds)
        if self._largest is not None:
            self._largest.add(kept.units, kept.maps, self._workers)
        return kept

    def above(self, output: Tensor, thresholds: Array) -> KeptMaps:
        """Copy the maps that reach above their unit's threshold."""
        maps = as_array(output)
        return self._taken(maps, extremes(maps, self._workers)[1], thresholds)

    def still_possible(self, kept: KeptMaps) -> KeptMaps:
        """Leave out the maps that, by now, cannot reach above their unit's threshold."""
        return kept.above(self._bounds)

    def settle(self, share: Share) -> tuple[Levels, Examples]:
        """Say the thresholds and the most exciting images."""
        self._examples.reduce(share)
        return settled(self._largest, self._given, self._lowest, self._highest, share), self._examples

    def _taken(self, maps: Array, peaks: Array, bounds: Array) -> KeptMaps:
        images, units = np.nonzero(peaks > bounds)
        copies = gather(maps, images, units, self._workers)
        return KeptMaps(units, images, peaks[images, units], copies.reshape(-1, *self._shape[1:]))


def settled(largest: LargestValues | None, given: Array | None, lowest: Array, highest: Array, share: Share) -> Levels:
    """Fix the thresholds from what all processes saw.

    Parameters
    ----------
    largest
        This process's largest values, unless thresholds are given.
    given
        Thresholds float64 [units], or None.
    lowest, highest
        float32 [units]: of all values this process saw.
    share
        The processes.
    """
    lowest, highest = np.min(share.gather(lowest), axis=0), np.max(share.gather(highest), axis=0)
    if largest is not None:
        largest.reduce(share)
        given = largest.thresholds()
    assert given is not None
    dead = lowest == highest
    return Levels(np.where(dead, highest, given), dead)
