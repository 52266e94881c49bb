"""Sheets: the images that excite units most, each with the unit's mask outlined, many units in one image file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load_file
from torch.nn.functional import interpolate

from prunescope.dissection.masks import stretch
from prunescope.errors import InputError
from prunescope.files import replacing

UNITS_PER_SHEET = 64
SHOWN = 4
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
class Examples:
    """Which images excite each unit most.

    Attributes
    ----------
    images : int64 array [units, 4]
        Indices into the concept data set, best first; -1 where there is none.
    maps : float32 array [units, 4, h, w]
        The unit's activation maps for these images.
    """

    images: NDArray[np.int64]
    maps: Maps


@dataclass(frozen=True)
class Tiles:
    """The geometry of a sheet: a row of four tiles per unit, gutters between them.

    Attributes
    ----------
    height, width : int
        One tile, in pixels.
    """

    height: int
    width: int

    @classmethod
    def fitting(cls, image_size: tuple[int, int]) -> Tiles:
        """Keep the images' proportions: large ones shrink to 128 pixels, small ones grow by a whole factor."""
        height, width = image_size
        longest = max(height, width)
        scale = LONGEST_SIDE // longest if longest <= LONGEST_SIDE else LONGEST_SIDE / longest
        return cls(max(1, round(height * scale)), max(1, round(width * scale)))

    def size(self, rows: int) -> tuple[int, int]:
        """Give a sheet's width and height for that many units."""
        return SHOWN * (self.width + GUTTER) - GUTTER, rows * (self.height + GUTTER) - GUTTER


def read_examples(path: Path, units: NDArray[np.int64], images: int) -> Examples | None:
    """Read a dissection's ``examples.safetensors``; None where it is absent.

    Parameters
    ----------
    path : Path
    units : int64 array [units]
        The units to read, in the order in which to give them; the file says which unit each of its rows is.
    images : int
        How many the concepts hold.

    Raises
    ------
    InputError
        The file is damaged, or does not fit the units or the images.
    """
    if not path.is_file():
        return None
    try:
        arrays = load_file(path)
        found = Examples(arrays["images"], arrays["maps"])
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(
            f"{path}: cannot be read as examples ({error}); remove its folder and run the study again"
        ) from error
    there = arrays.get("units", np.arange(len(found.images)))
    rows = len(units)
    if (
        found.images.shape != (rows, SHOWN)
        or found.maps.ndim != 4
        or found.maps.shape[:2] != (rows, SHOWN)
        or not np.array_equal(np.sort(there), np.sort(units))
    ):
        shapes = f"images {list(found.images.shape)} and maps {list(found.maps.shape)}"
        raise InputError(
            f"{path}: {shapes} do not fit {rows} units with {SHOWN} images each; remove its folder and run the study "
            "again"
        )
    if found.images.size and not -1 <= found.images.min() <= found.images.max() < images:
        wrong = int(found.images.max() if found.images.max() >= images else found.images.min())
        known = f"the concepts hold {images} images"
        raise InputError(f"{path}: names image {wrong}, but {known}; give the ones the study was dissected with")
    by_unit = np.argsort(there)
    order = by_unit[np.searchsorted(there, units, sorter=by_unit)]
    return Examples(found.images[order], found.maps[order])


def outlined(tiles: Bytes, masks: Mask) -> Bytes:
    """Dim images outside a unit's mask, and draw a bright line along its inner edge with a dark one around it.

    Parameters
    ----------
    tiles : uint8 array [n, height, width, 3]
        Images at the size they are shown in, so that the lines, a pixel each, stay crisp.
    masks : bool array [n, ih, iw]
        The unit's mask at the images' own size; brought to the tiles' size by area.

    Returns
    -------
    uint8 array [n, height, width, 3]
        An image without a mask stays as it is.
    """
    area = interpolate(torch.from_numpy(masks[:, None].astype(np.float32)), size=tiles.shape[1:3], mode="area")
    inside = area[:, 0].numpy() >= 0.5
    lit = inside | ~masks.any(axis=(1, 2), keepdims=True)
    drawn = np.where(lit[..., None], tiles, (tiles * np.float32(DIMMED)).astype(np.uint8))
    drawn[inside & _widened(~inside)] = LINE
    drawn[~inside & _widened(inside)] = EDGE
    return drawn


def _widened(mask: Mask) -> Mask:
    """Add to a mask [..., h, w] the eight neighbours of every position in it."""
    rows = mask.copy()
    rows[..., 1:, :] |= mask[..., :-1, :]
    rows[..., :-1, :] |= mask[..., 1:, :]
    wide = rows.copy()
    wide[..., 1:] |= rows[..., :-1]
    wide[..., :-1] |= rows[..., 1:]
    return wide


def scaled(image: Bytes, tile: Tiles) -> Bytes:
    """Bring an image [ih, iw, 3] to a tile's size."""
    return np.asarray(Image.fromarray(image).resize((tile.width, tile.height), Image.Resampling.LANCZOS))


def draw_sheet(
    path: Path,
    examples: Examples,
    thresholds: NDArray[np.float64],
    units: Sequence[int],
    image_size: tuple[int, int],
    show: Callable[[int], Bytes],
) -> None:
    """Write one sheet: a row per unit, in the order of `units`.

    Parameters
    ----------
    path : Path
        A ``.jpg`` file. Colour is not subsampled, so that the lines stay crisp.
    examples : Examples
    thresholds : float array [units]
        Every unit's threshold; a mask is where the stretched map is above it, strictly.
    units : sequence of int
        Which rows of `examples` to draw.
    image_size : (int, int)
        Height and width of the concepts' images.
    show : function
        Gives image i at a tile's size, as `scaled` makes it.
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
