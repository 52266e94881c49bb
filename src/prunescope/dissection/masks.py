"""A unit's mask: its map stretched to the label resolution, where it lies above the threshold."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Stretch(NamedTuple):
    """Bilinear stretching along one axis with half-pixel centres, in exact rational positions.

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
    cell = numerator // (2 * pixels)
    starts = np.searchsorted(cell, np.arange(cells + 1))
    return Stretch(starts, (numerator % (2 * pixels)) / (2 * pixels))


def stretch(maps: Array, shape: tuple[int, int]) -> Array:
    """Stretch maps to `shape`, bilinearly with half-pixel centres (design: Mask).

    Parameters
    ----------
    maps
        [..., h, w], any real type.
    shape
        (sh, sw).

    Returns
    -------
    Array
        float64 [..., sh, sw].
    """
    result = np.asarray(maps, np.float64)
    for axis, pixels in ((-2, shape[0]), (-1, shape[1])):
        cells = result.shape[axis]
        rows = stretch_axis(cells, pixels)
        cell = np.repeat(np.arange(cells), np.diff(rows.starts))
        low = np.take(result, cell, axis)
        high = np.take(result, np.minimum(cell + 1, cells - 1), axis)
        weights = rows.weights[:, None] if axis == -2 else rows.weights
        result = low + (high - low) * weights
    return result
