"""A unit's mask: its map stretched to the label resolution, where it lies above the threshold."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Stretch(NamedTuple):
    """Bilinear stretching along one axis, in exact rational positions.

    Between map row i and the next lie the pixels `starts[i]` to `starts[i + 1]`; pixel p takes the next row with
    `weights[p]`, from 0 up to but never 1. Beyond the outer centres the outermost row holds.
    """

    starts: Array  # int64 [cells + 1]
    weights: Array  # float64 [pixels]


def stretch_axis(cells: int, pixels: int) -> Stretch:
    """Place `pixels` pixels over `cells` rows of a map (`align_corners=False`).

    >>> stretch_axis(2, 4)
    Stretch(starts=array([0, 3, 4]), weights=array([0.  , 0.25, 0.75, 0.25]))
    """
    numerator = np.maximum((2 * np.arange(pixels, dtype=np.int64) + 1) * cells - pixels, 0)
    return _placed(numerator, 2 * pixels, cells)


def anchored_axis(cells: int, pixels: int, image_pixels: int, stride: Fraction, offset: Fraction) -> Stretch:
    """Place `pixels` pixels over `cells` rows of a map whose row i is at `offset + stride * i` (Bau et al. 2017, 2.2).

    Parameters
    ----------
    cells
        Rows of the map.
    pixels
        Label pixels; they spread over the image evenly.
    image_pixels
        Of the image, in which stride and offset are told.
    stride, offset
        Of the receptive fields' centres, as `prunescope.networks.receptive_fields` measures them; the first pixel's
        centre is at 0.5.

    Examples
    --------
    Row i of a map of two, centred at 0.5 + 2 i: pixels at 0.5, 1.5, 2.5 and 3.5.

    >>> anchored_axis(2, 4, 4, Fraction(2), Fraction(1, 2))
    Stretch(starts=array([0, 2, 4]), weights=array([0. , 0.5, 0. , 0. ]))
    """
    # Pixel p is at (p + 1/2) image_pixels / pixels: its place on the map as a whole number of 1 / denominator.
    denominator = 2 * pixels * offset.denominator * stride.numerator
    centres = (2 * np.arange(pixels, dtype=np.int64) + 1) * (image_pixels * offset.denominator)
    numerator = (centres - 2 * pixels * offset.numerator) * stride.denominator
    return _placed(np.clip(numerator, 0, (cells - 1) * denominator), denominator, cells)


def _placed(numerator: Array, denominator: int, cells: int) -> Stretch:
    """Pixels at the places `numerator / denominator` on a map, ascending from 0 up to below `cells`."""
    starts = np.searchsorted(numerator // denominator, np.arange(cells + 1))
    return Stretch(starts, (numerator % denominator) / denominator)


def stretch(maps: Array, shape: tuple[int, int], axes: tuple[Stretch, Stretch] | None = None) -> Array:
    """Stretch maps to `shape`, bilinearly; with half-pixel centres unless told otherwise (design: Mask).

    Parameters
    ----------
    maps
        [..., h, w], any real type.
    shape
        (sh, sw).
    axes
        Where the pixels of each axis lie on the maps, instead of half-pixel centres.

    Returns
    -------
    Array
        float64 [..., sh, sw].
    """
    result = np.asarray(maps, np.float64)
    h, w = result.shape[-2:]
    for axis, cells, rows in zip((-2, -1), (h, w), axes or map(stretch_axis, (h, w), shape), strict=True):
        cell = np.repeat(np.arange(cells), np.diff(rows.starts))
        low = np.take(result, cell, axis)
        high = np.take(result, np.minimum(cell + 1, cells - 1), axis)
        weights = rows.weights[:, None] if axis == -2 else rows.weights
        result = low + (high - low) * weights
    return result
