"""Bring images and their labels to one size, which dissection requires."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageOps

from prunescope.bounds import MOST_SIZE, check_count
from prunescope.errors import InputError
from prunescope.images import to_rgb

ORIENTATION = 0x0112  # the EXIF tag; 1 means that the pixels are stored as they are to be seen


@dataclass(frozen=True)
class Fit:
    """How images, and their labels with them, are brought to one size.

    Attributes
    ----------
    resize
        The height and width of the resulting images in pixels, or None to leave their size as it is. Images are
        resized with bilinear interpolation (antialiased), and labels by nearest neighbour.
    crop
        "center" to cut out the central square of each image before it is resized. By default, the whole image is
        resized, which changes its aspect ratio.
    pad
        Whether to keep the whole image and its aspect ratio, and to fill the rest with black pixels without labels.
    orient
        Whether to turn and mirror each image as its EXIF orientation demands. The labels are not turned with it: they
        have to fit the image as it is seen. None means that such an image is refused.
    """

    resize: int | None = None
    crop: Literal["center"] | None = None
    pad: bool = False
    orient: bool | None = None

    def __post_init__(self) -> None:
        if self.resize is not None:
            check_count("resize", self.resize, 1, MOST_SIZE, "the height and width of the images in pixels")
        if self.crop not in (None, "center"):
            raise InputError(f"crop is {self.crop!r}, expected 'center' or nothing")
        if self.crop and self.pad:
            raise InputError("crop and pad are both given; an image is either cut to a square or padded to one")
        if (self.crop or self.pad) and self.resize is None:
            raise InputError(f"{'crop' if self.crop else 'pad'} is given without resize; give the size too, like 224")


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image, which is 1 if none is stored."""
    found = image.getexif().get(ORIENTATION, 1)
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def oriented(image: Image.Image) -> Image.Image:
    """Return the image in RGB as it is to be seen according to its EXIF orientation."""
    turned = ImageOps.exif_transpose(image) if orientation(image) != 1 else image
    return to_rgb(turned)


def fit_image(image: Image.Image, fit: Fit) -> Image.Image:
    """Return an RGB image in the size that `fit` demands; the orientation has been applied before."""
    if fit.resize is None:
        return image
    size = (fit.resize, fit.resize)
    if not fit.pad:
        top, left, height, width = _taken((image.height, image.width), fit)
        box = (left, top, left + width, top + height)
        return image.resize(size, Image.Resampling.BILINEAR, box=box)
    top, left, height, width = _filled((image.height, image.width), fit.resize)
    whole = Image.new("RGB", size)
    whole.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return whole


def fit_labels(numbers: np.ndarray, fit: Fit) -> np.ndarray:
    """Return labels [h, w] in the size that `fit` demands, by nearest neighbour; padding has the number 0."""
    if fit.resize is None:
        return numbers
    if not fit.pad:
        top, left, height, width = _taken(numbers.shape, fit)
        taken: np.ndarray = numbers[np.ix_(_nearest(top, height, fit.resize), _nearest(left, width, fit.resize))]
        return taken
    top, left, height, width = _filled(numbers.shape, fit.resize)
    whole = np.zeros((fit.resize, fit.resize), numbers.dtype)
    inner = np.ix_(_nearest(0, numbers.shape[0], height), _nearest(0, numbers.shape[1], width))
    whole[top : top + height, left : left + width] = numbers[inner]
    return whole


def _taken(size: tuple[int, ...], fit: Fit) -> tuple[float, float, int, int]:
    """Return the part of an image that is resized: top, left, height and width."""
    height, width = size
    if fit.crop is None:
        return 0, 0, height, width
    side = min(height, width)
    return (height - side) / 2, (width - side) / 2, side, side


def _filled(size: tuple[int, ...], side: int) -> tuple[int, int, int, int]:
    """Return the part of the result that is not padding: top, left, height and width."""
    longest = max(size)
    height, width = (max(1, round(length * side / longest)) for length in size)
    return (side - height) // 2, (side - width) // 2, height, width


def _nearest(start: float, length: int, count: int) -> np.ndarray:
    """Return the indices of the `count` pixels nearest to the centres of equal parts of `length` pixels."""
    return np.floor(start + (np.arange(count) + 0.5) * length / count).astype(np.int64)
