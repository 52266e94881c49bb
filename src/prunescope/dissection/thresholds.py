"""Compute exact thresholds in one pass, storing only the largest values of each unit."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from prunescope.dissection.kernels import kernel
from prunescope.dissection.workers import Workers
from prunescope.processes import Processes

Array = np.ndarray[Any, Any]


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

    def add(self, units: Array, maps: Array, workers: Workers) -> None:
        """Add the values of some maps. Maps without a value above their unit's bound may be left out.

        Parameters
        ----------
        units
            int64 [maps]: the unit of each map.
        maps
            float32 [maps, h, w]: the maps, with finite values.
        workers
            The threads to run in.
        """
        maps = maps.reshape(len(maps), maps.shape[1] * maps.shape[2])
        order = np.argsort(units, kind="stable")
        starts = np.searchsorted(units[order], np.arange(len(self.buffer) + 1))
        workers.spread(
            _add, len(self.buffer), maps, order, starts, self.buffer, self.filled, self.keep, self.bounds
        )  # fmt: skip

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
        for place in range(starts[unit], starts[unit + 1]):
            values = maps[order[place]]
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
