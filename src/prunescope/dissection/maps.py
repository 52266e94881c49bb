"""Find the extremes of a layer's activation maps, and copy the maps that may exceed their threshold."""

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
    """Activation maps that may exceed their unit's threshold, as NumPy arrays or as tensors on one device."""

    units: Any  # int64 [maps]: the unit of each map
    images: Any  # int64 [maps]: the image of each map, as an index in its batch
    peaks: Any  # float32 [maps]: the largest value of each map
    maps: Any  # float32 [maps, h, w]

    def above(self, bounds: Any) -> KeptMaps:
        """Return only the maps that exceed their unit's bound.

        `bounds` [units] is an array or a tensor, as the maps are.
        """
        stays = self.peaks > bounds[self.units]
        return KeptMaps(*(part[stays] for part in self))

    def split(self, most: int) -> Iterator[KeptMaps]:
        """Yield the maps in parts of at most `most` maps."""
        for first in range(0, len(self.maps), most):
            yield KeptMaps(*(part[first : first + most] for part in self))


class NotFiniteError(Exception):
    """Raised if an activation map contains a value that is not finite."""

    def __init__(self, image: int, unit: int, value: float) -> None:
        super().__init__(image, unit, value)
        self.image, self.unit, self.value = image, unit, value


def as_maps(output: Tensor) -> Tensor:
    """Convert an output [n, units] or [n, units, h, w] of any type to float32 maps [n, units, h, w].

    The maps stay on the output's device and keep its memory layout.
    """
    plain = output.dequantize() if output.is_quantized else output
    return (plain if plain.ndim == 4 else plain[:, :, None, None]).float()


def as_array(output: Tensor) -> Array:
    """Convert an output [n, units] or [n, units, h, w] to a float32 array [n, units, h * w] on the CPU.

    A float32 output on the CPU is not copied if it is contiguous, either as it is or with the units last in memory
    (`torch.channels_last`).
    """
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
        float32 [n, units, positions]: the activation maps.
    workers
        The threads to run in.

    Returns
    -------
    tuple of Array
        The smallest and the largest values, float32 [n, units] each.

    Raises
    ------
    NotFiniteError
        If a value is not finite.
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
    """Copy the maps of the given images and units.

    Parameters
    ----------
    maps
        float32 [n, units, positions]: the activation maps.
    images, units
        int64 [maps]: the image (as an index in the batch) and the unit of each map to copy.
    workers
        The threads to run in.

    Returns
    -------
    Array
        The copies, float32 [maps, positions].
    """
    copies = np.empty((len(units), maps.shape[2]), np.float32)
    if len(units):
        workers.spread(_gather, len(units), maps, images, units, copies)
    return copies


def _ordered(bits: Array) -> Array:
    """Map the bits of floats to integers in the order of the floats, or such integers back to bits.

    The integers of NaNs lie beyond those of the infinities.
    """
    result: Array = bits ^ ((bits >> 31) & _MAGNITUDE)
    return result


# The kernels compare integers instead of floats. The minimum and maximum of integers do not depend on the order of the
# comparisons, so the compiler can vectorise them, and values that are not finite become the extremes.


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
    # Positions are copied in blocks, so that memory is read with good locality whichever axis is last in memory.
    for first in range(0, maps.shape[2], _BLOCK):
        last = min(first + _BLOCK, maps.shape[2])
        for index in range(start, stop):
            image, unit = images[index], units[index]
            for position in range(first, last):
                copies[index, position] = maps[image, unit, position]
