"""Upsample activation maps to the label resolution; a unit's mask is where its upsampled map exceeds its threshold."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np

from prunescope.arrays import Array


class UpsampleAxis(NamedTuple):
    """Bilinear interpolation along one axis of a map, with pixel positions computed in exact rational arithmetic.

    The pixels `starts[i]` to `starts[i + 1] - 1` lie between row i of the map and the next. The value at pixel p is
    that of row i times `1 - weights[p]` plus that of the next row times `weights[p]`, with 0 <= weights[p] < 1. Pixels
    beyond the centres of the outermost rows have the value of the outermost row.
    """

    starts: Array  # int64 [cells + 1]
    weights: Array  # float64 [pixels]


def half_pixel_axis(cells: int, pixels: int) -> UpsampleAxis:
    """Interpolate from `cells` map rows to `pixels` pixels, with half-pixel centres (`align_corners=False`).

    >>> half_pixel_axis(2, 4)
    UpsampleAxis(starts=array([0, 3, 4]), weights=array([0.  , 0.25, 0.75, 0.25]))
    """
    numerator = np.maximum((2 * np.arange(pixels, dtype=np.int64) + 1) * cells - pixels, 0)
    return _placed(numerator, 2 * pixels, cells)


def anchored_axis(cells: int, pixels: int, image_pixels: int, stride: Fraction, offset: Fraction) -> UpsampleAxis:
    """Interpolate from `cells` map rows to `pixels` pixels, with rows at the centres of their receptive fields.

    Row i of the map is centred at `offset + stride * i` in the image (Bau et al. 2017, section 2.2).

    Parameters
    ----------
    cells
        The number of rows of the map.
    pixels
        The number of label pixels, which are spread evenly over the image.
    image_pixels
        The size of the image along this axis, in image pixels.
    stride, offset
        The stride and offset of the receptive fields' centres in image pixels, as
        `prunescope.networks.receptive_fields` measures them. The centre of the first image pixel is at 0.5.

    Examples
    --------
    Row i of a map of two rows is centred at 0.5 + 2 i; the four pixels are at 0.5, 1.5, 2.5 and 3.5.

    >>> anchored_axis(2, 4, 4, Fraction(2), Fraction(1, 2))
    UpsampleAxis(starts=array([0, 2, 4]), weights=array([0. , 0.5, 0. , 0. ]))
    """
    # Pixel p is centred at (p + 1/2) image_pixels / pixels in the image. Its position on the map is
    # numerator / denominator, with whole numbers so that it is exact.
    denominator = 2 * pixels * offset.denominator * stride.numerator
    centres = (2 * np.arange(pixels, dtype=np.int64) + 1) * (image_pixels * offset.denominator)
    numerator = (centres - 2 * pixels * offset.numerator) * stride.denominator
    return _placed(np.clip(numerator, 0, (cells - 1) * denominator), denominator, cells)


def _placed(numerator: Array, denominator: int, cells: int) -> UpsampleAxis:
    """Interpolate to pixels at the positions `numerator / denominator`, which ascend from 0 up to below `cells`."""
    starts = np.searchsorted(numerator // denominator, np.arange(cells + 1))
    return UpsampleAxis(starts, (numerator % denominator) / denominator)


def stretch(maps: Array, shape: tuple[int, int], axes: tuple[UpsampleAxis, UpsampleAxis] | None = None) -> Array:
    """Upsample maps by bilinear interpolation, by default with half-pixel centres (`align_corners=False`).

    Parameters
    ----------
    maps
        [..., h, w]: the maps, of any real type.
    shape
        The shape (sh, sw) of the result.
    axes
        The interpolation along the vertical and the horizontal axis, to be used instead of half-pixel centres.

    Returns
    -------
    Array
        The upsampled maps, float64 [..., sh, sw].
    """
    result = np.asarray(maps, np.float64)
    h, w = result.shape[-2:]
    for axis, cells, rows in zip((-2, -1), (h, w), axes or map(half_pixel_axis, (h, w), shape), strict=True):
        cell = np.repeat(np.arange(cells), np.diff(rows.starts))
        low = np.take(result, cell, axis)
        high = np.take(result, np.minimum(cell + 1, cells - 1), axis)
        weights = rows.weights[:, None] if axis == -2 else rows.weights
        result = low + (high - low) * weights
    return result
