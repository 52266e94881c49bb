"""The first pass over the images, which determines the thresholds of a layer's units."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from prunescope.dissection.examples import Examples
from prunescope.dissection.maps import KeptMaps, as_array, extremes, gather
from prunescope.dissection.thresholds import LargestValues
from prunescope.dissection.workers import Workers
from prunescope.processes import Processes

Array = np.ndarray[Any, Any]


class Levels(NamedTuple):
    """The thresholds of a layer's units: a unit's mask is where its map exceeds its threshold."""

    thresholds: Array  # float64 [units]; for a dead unit, its constant value, so that its mask is empty
    dead: Array  # bool [units]: whether the unit is constant everywhere


class FirstPass(Protocol):
    """Collects from a layer's activation maps, batch by batch, the values that the thresholds need.

    Memory does not grow with the number of images, except for the stored largest values.
    """

    def add(self, first_image: int, output: Tensor) -> KeptMaps:
        """Add the layer's output for the next images.

        Parameters
        ----------
        first_image
            The index of the first of these images in the data set.
        output
            [n, units, h, w] or [n, units]. No reference to it is kept.

        Returns
        -------
        KeptMaps
            Copies of the maps that may exceed their unit's threshold, according to the images added so far.

        Raises
        ------
        NotFiniteError
            If a value is not finite.
        """

    def above(self, output: Tensor, thresholds: Array) -> KeptMaps:
        """Return copies of the maps that exceed their unit's threshold, given as float64 [units]."""

    def still_possible(self, kept: KeptMaps) -> KeptMaps:
        """Return only the maps that may still exceed their unit's threshold, after the images added so far."""

    def settle(self, processes: Processes) -> tuple[Levels, Examples]:
        """Return the thresholds and the images with the highest activations of each unit.

        It must be called once, after all processes have added all their images.
        """


class FirstPassOnCpu:
    """A first pass on the CPU, in compiled kernels.

    Parameters
    ----------
    shape
        The shape (units, h, w) of the layer's output for one image.
    images
        The total number of images over all processes.
    quantile
        The fraction of positions above a threshold.
    given
        Thresholds, float64 [units], to be used instead of the quantile; None to compute them.
    workers
        The threads to run in.
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
        """Add the layer's output for the next images; see `FirstPass.add`."""
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
        """Return copies of the maps that exceed their unit's threshold."""
        maps = as_array(output)
        return self._taken(maps, extremes(maps, self._workers)[1], thresholds)

    def still_possible(self, kept: KeptMaps) -> KeptMaps:
        """Return only the maps that may still exceed their unit's threshold."""
        return kept.above(self._bounds)

    def settle(self, processes: Processes) -> tuple[Levels, Examples]:
        """Return the thresholds and the images with the highest activations; see `FirstPass.settle`."""
        self._examples.reduce(processes)
        return settled(self._largest, self._given, self._lowest, self._highest, processes), self._examples

    def _taken(self, maps: Array, peaks: Array, bounds: Array) -> KeptMaps:
        images, units = np.nonzero(peaks > bounds)
        copies = gather(maps, images, units, self._workers)
        return KeptMaps(units, images, peaks[images, units], copies.reshape(-1, *self._shape[1:]))


def settled(
    largest: LargestValues | None, given: Array | None, lowest: Array, highest: Array, processes: Processes
) -> Levels:
    """Return the thresholds and the dead units, computed from the values of all processes.

    Parameters
    ----------
    largest
        The largest values that this process has found; None if thresholds are given.
    given
        Thresholds, float64 [units], to be used instead of the quantile; None to compute them.
    lowest, highest
        float32 [units]: the smallest and the largest value of each unit in this process.
    processes
        The processes that share the dissection.
    """
    lowest, highest = np.min(processes.all_gather(lowest), axis=0), np.max(processes.all_gather(highest), axis=0)
    if largest is not None:
        largest.reduce(processes)
        given = largest.thresholds()
    assert given is not None
    dead = lowest == highest
    return Levels(np.where(dead, highest, given), dead)
