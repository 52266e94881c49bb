"""Exact thresholds from one pass: of every unit only the largest values are kept."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from prunescope.dissection.share import Share

Array = np.ndarray[Any, Any]


class QuantilePosition(NamedTuple):
    """Where a quantile lies among sorted values: between `lower` and the next, at `fraction` of the way."""

    lower: int
    fraction: float


def quantile_position(count: int, quantile: float) -> QuantilePosition:
    """Find where `numpy.quantile(values, 1 - quantile)` interpolates among `count` sorted values (linear method)."""
    virtual = (count - 1) * (1 - quantile)
    lower = min(math.floor(virtual), count - 1)
    return QuantilePosition(lower, virtual - lower)


class LargestValues:
    """The largest values of each unit in a stream, as many as its threshold needs.

    The number of positions is known beforehand, so the number of values at or above the threshold's rank is too. Values
    that cannot be among them are dropped as they come: `bounds` only rises, and never above the threshold.

    Parameters
    ----------
    units
        Number of units.
    positions
        Values each unit will have in all: images x h x w.
    quantile
        The fraction of positions above the threshold (Bau et al. 2017, section 2.2).
    """

    def __init__(self, units: int, positions: int, quantile: float) -> None:
        self._position = quantile_position(positions, quantile)
        self._keep = positions - self._position.lower
        self._positions = positions
        self._seen = 0
        capacity = min(positions, self._keep + max(self._keep // 2, 256))
        self._buffer = np.empty((units, capacity), np.float32)
        self._filled = np.zeros(units, np.int64)
        self.bounds = np.full(units, -np.inf, np.float32)
        self.lowest = np.full(units, np.inf, np.float32)
        self.highest = np.full(units, -np.inf, np.float32)

    def add(self, maps: Array) -> Array:
        """Take in the maps of a batch.

        Parameters
        ----------
        maps
            float32 [images, units, h * w], finite.

        Returns
        -------
        Array
            float32 [images, units]: the largest value of each map; NaN where a map holds a value that is not finite.
        """
        peaks = np.empty(maps.shape[:2], np.float32)
        _add(maps, self._buffer, self._filled, self._keep, self.bounds, self.lowest, self.highest, peaks)
        self._seen += maps.shape[0] * maps.shape[2]
        return peaks

    def reduce(self, share: Share) -> None:
        """Take in what other processes saw of the same units."""
        if share.processes == 1:
            return
        for unit, count in enumerate(self._filled):
            self._buffer[unit, count:] = -np.inf
        self._buffer = np.concatenate(share.gather(self._buffer), axis=1)
        self._filled = np.full_like(self._filled, self._buffer.shape[1])
        self.lowest = np.min(share.gather(self.lowest), axis=0)
        self.highest = np.max(share.gather(self.highest), axis=0)
        self._seen = int(np.sum(share.gather(np.array([self._seen]))))

    def thresholds(self) -> Array:
        """T_k of every unit, float64 [units]: equal to `numpy.quantile(values.astype(float64), 1 - quantile)`."""
        if self._seen != self._positions:
            raise ValueError(f"thresholds need all {self._positions} positions of a unit; {self._seen} were seen")
        result = np.empty(len(self._buffer), np.float64)
        fraction = self._position.fraction
        for unit, values in enumerate(self._buffer):
            count, keep = self._filled[unit], self._keep
            if keep == 1:
                result[unit] = values[:count].max()
                continue
            low, high = (
                float(value)
                for value in np.partition(values[:count], (count - keep, count - keep + 1))[
                    count - keep : count - keep + 2
                ]
            )
            step = high - low
            result[unit] = high - step * (1 - fraction) if fraction >= 0.5 else low + step * fraction
        return result


@numba.njit(parallel=True, cache=True)
def _add(
    maps: Array, buffer: Array, filled: Array, keep: int, bounds: Array, lowest: Array, highest: Array, peaks: Array
) -> None:
    images, units, positions = maps.shape
    capacity = buffer.shape[1]
    for unit in numba.prange(units):
        bound, count = bounds[unit], filled[unit]
        low, high = lowest[unit], highest[unit]
        for image in range(images):
            peak = maps[image, unit, 0]
            for position in range(positions):
                value = maps[image, unit, position]
                if value - value != 0:
                    peak = np.float32(np.nan)
                    break
                peak = max(peak, value)
                low = min(low, value)
                if value > bound:
                    if count == capacity:
                        _largest_first(buffer[unit], keep)
                        bound = np.min(buffer[unit, :keep])
                        count = keep
                        if value <= bound:
                            continue
                    buffer[unit, count] = value
                    count += 1
            high = max(high, peak)
            peaks[image, unit] = peak
        if count > keep and count > capacity - capacity // 8:
            _largest_first(buffer[unit, :count], keep)
            bound = np.min(buffer[unit, :keep])
            count = keep
        bounds[unit], filled[unit] = bound, count
        lowest[unit], highest[unit] = low, high


@numba.njit(cache=True)
def _largest_first(values: Array, keep: int) -> None:
    """Move the `keep` largest values to the front (quickselect with three-way partition, so that ties cost nothing)."""
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
