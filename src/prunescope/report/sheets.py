"""Draw sheets, which are image files that show for many units the images that excite them most.

On each image, the unit's mask is outlined.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunescope.dissection.examples import EXAMPLES, Examples
from prunescope.dissection.masks import stretch
from prunescope.dissection.outlines import Bytes, outlined
from prunescope.files import replacing

UNITS_PER_SHEET = 64
SHOWN = EXAMPLES
TILES_AT_ONCE = 64
LONGEST_SIDE = 128
GUTTER = 4
PAPER = 128


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
