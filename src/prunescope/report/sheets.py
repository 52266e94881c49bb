"""Draw sheets, which are image files that show for many units the images that excite them most.

On each image, the unit's mask is outlined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import interpolate

from prunescope.dissection.examples import EXAMPLES, Examples
from prunescope.dissection.masks import stretch
from prunescope.files import replacing

UNITS_PER_SHEET = 64
SHOWN = EXAMPLES
TILES_AT_ONCE = 64
LONGEST_SIDE = 128
GUTTER = 4
LINE = (255, 214, 10)
EDGE = (20, 20, 20)
PAPER = 128
DIMMED = 0.62

Bytes = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Maps = NDArray[np.float32]


@dataclass(frozen=True)
class Tiles:
    """The geometry of a sheet, which has a row of four tiles per unit with gutters between the tiles.

    Attributes
    ----------
    height, width : int
        The size of one tile, in pixels.
    """

    height: int
    width: int

    @classmethod
    def fitting(cls, image_size: tuple[int, int]) -> Tiles:
        """Return tiles with the proportions of the images.

        Images with a side longer than 128 pixels are shrunk to 128 pixels; smaller ones are enlarged by a whole factor.
        """
        height, width = image_size
        longest = max(height, width)
        scale = LONGEST_SIDE // longest if longest <= LONGEST_SIDE else LONGEST_SIDE / longest
        return cls(max(1, round(height * scale)), max(1, round(width * scale)))

    def size(self, rows: int) -> tuple[int, int]:
        """Return the width and height in pixels of a sheet with `rows` units."""
        return SHOWN * (self.width + GUTTER) - GUTTER, rows * (self.height + GUTTER) - GUTTER


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


def scaled(image: Bytes, tile: Tiles) -> Bytes:
    """Resize an image [ih, iw, 3] to the size of a tile."""
    return np.asarray(Image.fromarray(image).resize((tile.width, tile.height), Image.Resampling.LANCZOS))


def draw_sheet(
    path: Path,
    examples: Examples,
    thresholds: NDArray[np.float64],
    units: Sequence[int],
    image_size: tuple[int, int],
    show: Callable[[int], Bytes],
) -> None:
    """Write one sheet, with a row per unit in the order of `units`.

    Parameters
    ----------
    path : Path
        The ``.jpg`` file to write. Colour is not subsampled, so that the lines stay crisp.
    examples : Examples
        The images and activation maps of the units.
    thresholds : float array [units]
        The threshold of every unit. The mask is where the upsampled map is strictly above it.
    units : sequence of int
        The rows of `examples` to draw.
    image_size : (int, int)
        Height and width of the images in the concept data set.
    show : function
        Returns image i at the size of a tile, as `scaled` does.
    """
    tile = Tiles.fitting(image_size)
    width, height = tile.size(len(units))
    sheet = np.full((height, width, 3), PAPER, dtype=np.uint8)
    order = np.asarray(units)
    shown = np.argwhere(examples.images[order] >= 0)
    for part in np.array_split(shown, max(1, len(shown) // TILES_AT_ONCE)):
        rows, columns = part.T
        maps = stretch(examples.maps[order[rows], columns], image_size)
        masks = maps > thresholds[order[rows], None, None]
        tiles = np.stack([show(int(image)) for image in examples.images[order[rows], columns]])
        for row, column, drawn in zip(rows, columns, outlined(tiles, masks), strict=True):
            y, x = row * (tile.height + GUTTER), column * (tile.width + GUTTER)
            sheet[y : y + tile.height, x : x + tile.width] = drawn
    with replacing(path) as beside:
        Image.fromarray(sheet).save(beside, quality=80, subsampling=0)
