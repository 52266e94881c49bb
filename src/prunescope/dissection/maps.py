"""Activation maps as a layer puts them out: the extremes of each, and copies of those that matter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from prunescope.dissection.kernels import kernel
from prunescope.dissection.workers import Workers

Array = np.ndarray[Any, Any]

_MAGNITUDE = np.int32(0x7FFFFFFF)
_BLOCK = 16


class KeptMaps(NamedTuple):
    """Maps that may reach above their unit's threshold, of some images; arrays, or tensors of one device."""

    units: Any  # int64 [maps]
    images: Any  # int64 [maps], counted from the first of these images
    peaks: Any  # float32 [maps]: the largest value of each
    maps: Any  # float32 [maps, h, w]

    def above(self, bounds: Any) -> KeptMaps:
        """Leave out those that do not reach above their unit's bound, of [units] of the same kind."""
        stays = self.peaks > bounds[self.units]
        return KeptMaps(*(part[stays] for part in self))

    def split(self, most: int) -> Iterator[KeptMaps]:
        """Divide them into parts of at most `most` maps."""
        for first in range(0, len(self.maps), most):
            yield KeptMaps(*(part[first : first + most] for part in self))


class NotFiniteError(Exception):
    """A map holds a value that is not finite."""

    def __init__(self, image: int, unit: int, value: float) -> None:
        super().__init__(image, unit, value)
        self.image, self.unit, self.value = image, unit, value


def as_maps(output: Tensor) -> Tensor:
    """[n, units] or [n, units, h, w] of any type -> float32 [n, units, h, w], on its device, in its layout."""
    plain = output.dequantize() if output.is_quantized else output
    return (plain if plain.ndim == 4 else plain[:, :, None, None]).float()


def as_array(output: Tensor) -> Array:
    """[n, units] or [n, units, h, w] -> float32 [n, units, h * w]; units may come last in memory, nothing is copied."""
    maps = as_maps(output).cpu()
    n, units, h, w = maps.shape
    if maps.is_contiguous():
        return maps.numpy().reshape(n, units, h * w)
    last = maps.permute(0, 2, 3, 1).contiguous().numpy()
    return last.reshape(n, h * w, units).transpose(0, 2, 1)


def extremes(maps: Array, workers: Workers) -> tuple[Array, Array]:
    """Find the smallest and the largest value of each map.

    Parameters
    ----------
    maps
        float32 [n, units, positions].
    workers
        To run in.

    Returns
    -------
    tuple of Array
        float32 [n, units] each.

    Raises
    ------
    NotFiniteError
        A value is not finite.
    """
    n, units, positions = maps.shape
    lows = np.full((n, units), np.iinfo(np.int32).max, np.int32)
    peaks = np.full((n, units), np.iinfo(np.int32).min, np.int32)
    if maps.flags.c_contiguous:
        rows = maps.view(np.int32).reshape(n * units, positions)
        workers.spread(_extremes_of_rows, len(rows), rows, lows.reshape(-1), peaks.reshape(-1))
    else:
        workers.spread(_extremes_units_last, n, maps.transpose(0, 2, 1).view(np.int32), lows, peaks)
    lows, peaks = (_ordered(found).view(np.float32) for found in (lows, peaks))
    for found in (lows, peaks):
        if not np.isfinite(found).all():
            image, unit = np.argwhere(~np.isfinite(found))[0]
            values = maps[image, unit]
            raise NotFiniteError(int(image), int(unit), float(values[~np.isfinite(values)][0]))
    return lows, peaks


def gather(maps: Array, images: Array, units: Array, workers: Workers) -> Array:
    """Copy some maps of [n, units, positions], float32 [maps, positions]."""
    copies = np.empty((len(units), maps.shape[2]), np.float32)
    if len(units):
        workers.spread(_gather, len(units), maps, images, units, copies)
    return copies


def _ordered(bits: Array) -> Array:
    """Turn a float's bits into an integer that orders as the float does, NaN beyond infinity; and back."""
    result: Array = bits ^ ((bits >> 31) & _MAGNITUDE)
    return result


# Integers: their smallest and largest need no order of comparisons, so that the compiler takes many at a time, and what
# is not finite lies at their ends.


@kernel
def _extremes_of_rows(bits: Array, lows: Array, peaks: Array, start: int, stop: int) -> None:
    for row in range(start, stop):
        low, peak = lows[row], peaks[row]
        for position in range(bits.shape[1]):
            value = bits[row, position]
            key = np.int32(value ^ np.int32(np.int32(value >> 31) & _MAGNITUDE))
            low = min(low, key)
            peak = max(peak, key)
        lows[row], peaks[row] = low, peak


@kernel
def _extremes_units_last(bits: Array, lows: Array, peaks: Array, start: int, stop: int) -> None:
    for image in range(start, stop):
        low, peak = lows[image], peaks[image]
        for position in range(bits.shape[1]):
            values = bits[image, position]
            for unit in range(len(values)):
                key = np.int32(values[unit] ^ np.int32(np.int32(values[unit] >> 31) & _MAGNITUDE))
                low[unit] = min(low[unit], key)
                peak[unit] = max(peak[unit], key)


@kernel
def _gather(maps: Array, images: Array, units: Array, copies: Array, start: int, stop: int) -> None:
    # In blocks of positions, so that what lies side by side in memory is used while it is near, whichever axis is last.
    for first in range(0, maps.shape[2], _BLOCK):
        last = min(first + _BLOCK, maps.shape[2])
        for index in range(start, stop):
            image, unit = images[index], units[index]
            for position in range(first, last):
                copies[index, position] = maps[image, unit, position]
