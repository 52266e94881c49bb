"""Compute exact thresholds in one pass over the images, storing only the largest values of each unit."""

from __future__ import annotations

import math
from typing import Generic, NamedTuple, Protocol

import numpy as np

from prunescope.arrays import Array, Values
from prunescope.dissection.accumulator import Accumulator
from prunescope.dissection.kernels import kernel
from prunescope.dissection.maps import KeptMaps, MapBatch, NotFiniteError
from prunescope.dissection.workers import Workers
from prunescope.processes import Processes


class QuantilePosition(NamedTuple):
    """The position of a quantile among sorted values: at `fraction` of the way from index `lower` to the next."""

    lower: int
    fraction: float


def quantile_position(count: int, quantile: float) -> QuantilePosition:
    """Return where `numpy.quantile(values, 1 - quantile)` interpolates among `count` sorted values (linear method)."""
    virtual = (count - 1) * (1 - quantile)
    lower = min(math.floor(virtual), count - 1)
    return QuantilePosition(lower, virtual - lower)


def capacity(positions: int, keep: int) -> int:
    """Return the number of values in a unit's buffer, of which `keep` are needed.

    The additional space makes it rarely necessary to compact the buffer.
    """
    return min(positions, keep + max(keep // 2, 256))


class Thresholds(NamedTuple):
    """The thresholds of a layer's units: a unit's mask is where its map exceeds its threshold."""

    values: Array  # float64 [units]; for a dead unit, its constant value, so that its mask is empty
    dead: Array  # bool [units]: whether the unit is constant everywhere


class Extremes(NamedTuple):
    """The smallest and the largest value of each unit over all images."""

    lowest: Array  # float32 [units]
    highest: Array  # float32 [units]


class ThresholdEstimate(Accumulator[KeptMaps[Values], Array], Protocol[Values]):
    """Accumulates the values from which each unit's threshold is computed; the result is float64 [units].

    Maps without a value above their unit's bound may be left out.
    """

    @property
    def bounds(self) -> Values:
        """A lower bound of each unit's threshold [units], which rises as maps are added."""


class GivenThresholds(Generic[Values]):
    """Thresholds that are given instead of being estimated.

    Parameters
    ----------
    thresholds
        float64 [units]: the thresholds.
    bounds
        The same thresholds, as an array or as a tensor.
    """

    def __init__(self, thresholds: Array, bounds: Values) -> None:
        self._thresholds = thresholds
        self.bounds: Values = bounds

    def add(self, batch: KeptMaps[Values], /) -> None:
        """Do nothing: the thresholds are known."""

    def reduce(self, processes: Processes) -> None:
        """Do nothing: the thresholds are known to all processes."""

    def result(self) -> Array:
        """Return the thresholds, float64 [units]."""
        return self._thresholds


def thresholds_of(estimate: Array, extremes: Extremes) -> Thresholds:
    """Return the thresholds and the dead units, given the thresholds [units] and extremes over all images."""
    dead = extremes.lowest == extremes.highest
    return Thresholds(np.where(dead, extremes.highest, estimate), dead)


class ExtremesOnCpu:
    """The smallest and the largest value of each unit in a stream of activation maps, which must be finite."""

    def __init__(self, units: int) -> None:
        self._lowest = np.full(units, np.inf, np.float32)
        self._highest = np.full(units, -np.inf, np.float32)

    def add(self, batch: MapBatch[Array], /) -> None:
        """Add the maps of some images.

        Raises
        ------
        NotFiniteError
            If a value is not finite.
        """
        for found in (batch.lows, batch.peaks):
            if not np.isfinite(found).all():
                image, unit = np.argwhere(~np.isfinite(found))[0]
                values = batch.maps[image, unit]
                raise NotFiniteError(int(image), int(unit), float(values[~np.isfinite(values)][0]))
        self._lowest = np.minimum(self._lowest, batch.lows.min(axis=0))
        self._highest = np.maximum(self._highest, batch.peaks.max(axis=0))

    def reduce(self, processes: Processes) -> None:
        """Include the extremes in other processes."""
        self._lowest = np.min(processes.all_gather(self._lowest), axis=0)
        self._highest = np.max(processes.all_gather(self._highest), axis=0)

    def result(self) -> Extremes:
        """Return the extremes of each unit."""
        return Extremes(self._lowest, self._highest)


class LargestValues:
    """The largest values of each unit in a stream of activation maps, as many as its threshold needs.

    The number of positions is known in advance, and therefore also the number of values at or above the rank of the
    threshold. Values that cannot be among them are dropped immediately: these are the values up to the unit's entry in
    `bounds`, which only increases and never exceeds the threshold.

    Parameters
    ----------
    units
        The number of units.
    positions
        The total number of values of each unit: images x h x w.
    quantile
        The fraction of positions above the threshold (Bau et al. 2017, section 2.2).
    """

    def __init__(self, units: int, positions: int, quantile: float) -> None:
        self._position = quantile_position(positions, quantile)
        self.keep = positions - self._position.lower
        self.buffer = np.empty((units, capacity(positions, self.keep)), np.float32)
        self.filled = np.zeros(units, np.int64)
        self.bounds = np.full(units, -np.inf, np.float32)

    def reduce(self, processes: Processes) -> None:
        """Add the values that other processes stored for the same units."""
        self._pad()
        if processes.count > 1:
            self.buffer = np.concatenate(processes.all_gather(self.buffer), axis=1)
            self.filled = np.full_like(self.filled, self.buffer.shape[1])

    def thresholds(self) -> Array:
        """Return the threshold T_k of each unit.

        Returns
        -------
        Array
            float64 [units]. The thresholds are equal to `numpy.quantile(values.astype(float64), 1 - quantile)`, where
            `values` are all values of a unit.

        Raises
        ------
        ValueError
            If fewer values have been added than the thresholds need.
        """
        self._pad()
        result = np.empty(len(self.buffer), np.float64)
        fraction = self._position.fraction
        for unit, values in enumerate(self.buffer):
            if self.keep == 1:
                result[unit] = values.max()
                continue
            at = len(values) - self.keep
            low, high = (float(value) for value in np.partition(values, (at, at + 1))[at : at + 2])
            step = high - low
            result[unit] = high - step * (1 - fraction) if fraction >= 0.5 else low + step * fraction
        if not np.isfinite(result).all():
            raise ValueError(f"thresholds need the {self.keep} largest of all values; fewer were seen")
        return result

    def _pad(self) -> None:
        for unit, count in enumerate(self.filled):
            self.buffer[unit, count:] = -np.inf


class LargestOnCpu:
    """Estimates thresholds on the CPU, in a compiled kernel.

    Parameters
    ----------
    largest
        The largest values, to which values are added.
    workers
        The threads to run in.
    """

    def __init__(self, largest: LargestValues, workers: Workers) -> None:
        self._largest, self._workers = largest, workers

    @property
    def bounds(self) -> Array:
        """A lower bound of each unit's threshold, float32 [units]."""
        return self._largest.bounds

    def add(self, batch: KeptMaps[Array], /) -> None:
        """Add the values of some maps. Maps without a value above their unit's bound may be left out."""
        units, maps = batch.units, batch.maps
        maps = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
        order = np.argsort(units, kind="stable")
        starts = np.searchsorted(units[order], np.arange(len(self._largest.buffer) + 1))
        own = self._largest
        self._workers.run(_add, len(own.buffer), maps, order, starts, own.buffer, own.filled, own.keep, own.bounds)

    def reduce(self, processes: Processes) -> None:
        """Add the values of other processes."""
        self._largest.reduce(processes)

    def result(self) -> Array:
        """Return the threshold of each unit, float64 [units]."""
        return self._largest.thresholds()


@kernel
def _add(
    maps: Array,
    order: Array,
    starts: Array,
    buffer: Array,
    filled: Array,
    keep: int,
    bounds: Array,
    first_unit: int,
    last_unit: int,
) -> None:
    room = buffer.shape[1]
    for unit in range(first_unit, last_unit):
        bound, count = bounds[unit], filled[unit]
        for index in range(starts[unit], starts[unit + 1]):
            values = maps[order[index]]
            for position in range(len(values)):
                value = values[position]
                if value > bound:
                    if count == room:
                        _largest_first(buffer[unit], keep)
                        bound = np.min(buffer[unit, :keep])
                        count = keep
                        if value <= bound:
                            continue
                    buffer[unit, count] = value
                    count += 1
        if count > keep and count > room - room // 8:
            _largest_first(buffer[unit, :count], keep)
            bound = np.min(buffer[unit, :keep])
            count = keep
        bounds[unit], filled[unit] = bound, count


@kernel
def _largest_first(values: Array, keep: int) -> None:
    """Move the `keep` largest values to the front, in place.

    The method is quickselect with a three-way partition, so that ties cost nothing.
    """
    start, stop = 0, len(values)
    while stop - start > 1:
        a, b, c = values[start], values[(start + stop) // 2], values[stop - 1]
        pivot = max(min(a, b), min(max(a, b), c))
        above, below, here = start, stop, start
        while here < below:
            value = values[here]
            if value > pivot:
                values[here], values[above] = values[above], value
                above += 1
                here += 1
            elif value < pivot:
                below -= 1
                values[here], values[below] = values[below], value
            else:
                here += 1
        if keep <= above:
            stop = above
        elif keep >= below:
            start = below
        else:
            return
