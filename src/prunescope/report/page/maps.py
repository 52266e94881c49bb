"""Store each unit's activation map on its example images as bytes, from which the page draws the mask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunescope.dissection.examples import Examples
from prunescope.report.page.data import packed

STEPS = 255


def map_arrays(
    examples: Examples, units: NDArray[np.int64], tiles: NDArray[np.int32], thresholds: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the example images and maps of one level for the page.

    Parameters
    ----------
    examples : Examples
        The images and activation maps of the units.
    units : int64 array [units]
        The numbers of the units, in the order of `examples`.
    tiles : int32 array [images]
        The tile that shows each image of the data set.
    thresholds : float64 array [units]
        The threshold of every unit.

    Returns
    -------
    dict
        `units`; `tiles` [units, 4], -1 for none; `size`, the height and width of a map; `maps` [units, 4, h, w], bytes;
        `cut` and `top` [units, 4]. A map has the value T + (byte - cut) * step; its mask is where the upsampled bytes
        are above `cut`, so the threshold itself is not rounded.
    """
    images = examples.images
    shown = np.where(images >= 0, tiles[np.maximum(images, 0)], -1) if len(tiles) else np.full(images.shape, -1)
    bytes_, cut = quantised(examples.maps, thresholds)
    return {
        "units": packed(units.astype(np.int32)),
        "tiles": packed(shown.astype(np.int32)),
        "size": list(examples.maps.shape[2:]),
        "maps": packed(bytes_),
        "cut": packed(cut),
    }


def quantised(
    maps: NDArray[np.float32], thresholds: NDArray[np.float64]
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return maps in 256 steps from the lowest to the highest value of each, and the threshold on that scale.

    Parameters
    ----------
    maps : float32 array [units, n, h, w]
        The activation maps.
    thresholds : float64 array [units]
        The threshold of each unit.

    Returns
    -------
    bytes : uint8 array [units, n, h, w]
        The maps.
    cut : float32 array [units, n]
        The threshold in the same steps. Where it is not between the lowest and the highest value, the mask is empty or
        full, whatever the rounding.
    """
    low = maps.min(axis=(2, 3), initial=np.inf).astype(np.float64)
    high = maps.max(axis=(2, 3), initial=-np.inf).astype(np.float64)
    step = np.where(high > low, (high - low) / STEPS, 1.0)
    with np.errstate(invalid="ignore"):
        bytes_ = np.round((maps - low[..., None, None]) / step[..., None, None])
        cut = (np.asarray(thresholds)[:, None] - low) / step
    return np.nan_to_num(bytes_).astype(np.uint8), np.nan_to_num(cut, nan=STEPS + 1.0).astype(np.float32)
