"""Find the extremes of a layer's activation maps, and copy the maps that may exceed their threshold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np
from torch import Tensor

from prunescope.arrays import Array, Values
from prunescope.dissection.kernels import kernel
from prunescope.dissection.workers import Workers

_MAGNITUDE = np.int32(0x7FFFFFFF)
_BLOCK = 16


@dataclass(frozen=True)
class KeptMaps(Generic[Values]):
    """Activation maps that may exceed their unit's threshold, as NumPy arrays or as tensors on one device."""

    units: Values  # int64 [maps]: the unit of each map
    images: Values  # int64 [maps]: the image of each map, as an index in its batch
    peaks: Values  # float32 [maps]: the largest value of each map
    maps: Values  # float32 [maps, h, w]

    @property
    def record(self) -> tuple[Values, ...]:
        """The four parts, in the order in which they are stored."""
        return self.units, self.images, self.peaks, self.maps

    def at(self, which: Values) -> KeptMaps[Values]:
        """Return only some of the maps, selected by a mask [maps] or by indices."""
        return KeptMaps(self.units[which], self.images[which], self.peaks[which], self.maps[which])

    def above(self, bounds: Values) -> KeptMaps[Values]:
        """Return only the maps that exceed their unit's bound.

        `bounds` [units] is an array or a tensor, as the maps are.
        """
        return self.at(self.peaks > bounds[self.units])

    def of_images(self, images: slice | None) -> KeptMaps[Values]:
        """Return only the maps of consecutive images of the batch, or all maps if `images` is None."""
        if images is None:
            return self
        return self.at((self.images >= images.start) & (self.images < images.stop))

    def split(self, most: int) -> Iterator[KeptMaps[Values]]:
        """Yield the maps in parts of at most `most` maps."""
        for first in range(0, len(self.maps), most):
            last = first + most
            yield KeptMaps(
                self.units[first:last], self.images[first:last], self.peaks[first:last], self.maps[first:last]
            )


class MapBatch(NamedTuple, Generic[Values]):
    """The activation maps of a layer for a batch of images, and the extremes of each map."""

    first_image: int  # index of the batch's first image in the data set
    shape: tuple[int, int, int]  # (units, h, w) of one image's maps
    maps: Values  # float32, as an array [n, units, h * w] or a tensor [n, units, h, w]
    lows: Values  # float32 [n, units]
    peaks: Values  # float32 [n, units]


class NotFiniteError(Exception):
    """Raised if an activation map contains a value that is not finite."""

    def __init__(self, image: int, unit: int, value: float) -> None:
        super().__init__(image, unit, value)
        self.image, self.unit, self.value = image, unit, value


def shape_of(output: Tensor) -> tuple[int, int, int]:
    """Return the shape (units, h, w) of a layer's output for one image.

    The output is [n, units, h, w] or [n, units]; in the latter case h = w = 1.
    """
    units, h, w = (*output.shape[1:], 1, 1)[:3]
    return units, h, w


def float_maps(output: Tensor) -> Tensor:
    """Convert an output [n, units] or [n, units, h, w] of any type to float32 maps [n, units, h, w].

    The maps stay on the output's device and keep its memory layout.
    """
    plain = output.dequantize() if output.is_quantized else output
    return (plain if plain.ndim == 4 else plain[:, :, None, None]).float()


def float_array(output: Tensor) -> Array:
    """Convert an output [n, units] or [n, units, h, w] to a float32 array [n, units, h * w] on the CPU.

    A float32 output on the CPU is not copied if it is contiguous, either as it is or with the units last in memory
    (`torch.channels_last`).
    """
    maps = float_maps(output).cpu()
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
        The smallest and the largest values, float32 [n, units] each. If a map has values that are not finite, at least
        one of its two values is not finite.
    """
    n, units, positions = maps.shape
    lows = np.full((n, units), np.iinfo(np.int32).max, np.int32)
    peaks = np.full((n, units), np.iinfo(np.int32).min, np.int32)
    if maps.flags.c_contiguous:
        rows = maps.view(np.int32).reshape(n * units, positions)
        workers.run(_extremes_of_rows, len(rows), rows, lows.reshape(-1), peaks.reshape(-1))
    else:
        workers.run(_extremes_units_last, n, maps.transpose(0, 2, 1).view(np.int32), lows, peaks)
    return _ordered(lows).view(np.float32), _ordered(peaks).view(np.float32)


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
        workers.run(_gather, len(units), maps, images, units, copies)
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
