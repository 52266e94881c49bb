"""Outline the masks of units on images."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import interpolate

LINE = (255, 214, 10)
EDGE = (20, 20, 20)
DIMMED = 0.62

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def outlined(tiles: Bytes, masks: Mask) -> Bytes:
    """Outline the mask of a unit on each image and darken the image outside of the mask.

    A bright line follows the inner edge of the mask, with a dark line around it.

    Parameters
    ----------
    tiles : uint8 array [n, height, width, 3]
        The images at the size at which they are shown, so that the lines, which are one pixel wide, stay crisp.
    masks : bool array [n, ih, iw]
        The unit's mask for each image, at the original size of the images. It is resized to the tiles by area.

    Returns
    -------
    uint8 array [n, height, width, 3]
        The outlined images. An image with an empty mask is unchanged.
    """
    area = interpolate(torch.from_numpy(masks[:, None].astype(np.float32)), size=tiles.shape[1:3], mode="area")
    inside = area[:, 0].numpy() >= 0.5
    lit = inside | ~masks.any(axis=(1, 2), keepdims=True)
    drawn = np.where(lit[..., None], tiles, (tiles * np.float32(DIMMED)).astype(np.uint8))
    drawn[inside & _widened(~inside)] = LINE
    drawn[~inside & _widened(inside)] = EDGE
    return drawn


def _widened(mask: Mask) -> Mask:
    """Return a mask [..., h, w] extended by the eight neighbours of every position in it."""
    rows = mask.copy()
    rows[..., 1:, :] |= mask[..., :-1, :]
    rows[..., :-1, :] |= mask[..., 1:, :]
    wide = rows.copy()
    wide[..., 1:] |= rows[..., :-1]
    wide[..., :-1] |= rows[..., 1:]
    return wide
