"""Decoding and augmenting one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from prunescope.errors import InputError

SHIFT = 4  # pixels, He et al. 2016, section 4.2
CROP_DRAWS = 22  # uniform numbers that `random_crop` takes


class Images(Protocol):
    """Encoded images (JPEG, PNG, ...) by their places, 0 and up."""

    def read(self, place: int) -> bytes:
        """Return the encoded image; an `OSError` says why it cannot be read."""

    def name(self, place: int) -> str:
        """Say where the image is, for messages."""


class Box(NamedTuple):
    """A part of an image, in pixels from its upper left corner; edges may lie between pixels."""

    left: float
    upper: float
    right: float
    lower: float


def decode(images: Images, place: int) -> np.ndarray:
    """Read a whole image as uint8 [h, w, 3] in RGB.

    Raises
    ------
    InputError
        It is missing or damaged.
    """
    with _opened(images, place) as image:
        return np.asarray(image.convert("RGB"))


def decode_part(images: Images, place: int, part: Callable[[int, int], Box], size: int) -> np.ndarray:
    """Read a part of an image, resized to uint8 [size, size, 3] in RGB.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its scale where the part keeps at least `size` pixels on each side.

    Parameters
    ----------
    images, place
        Where the image is.
    part
        Given the image's width and height, says which part.
    size
        Of the result.

    Raises
    ------
    InputError
        The image is missing or damaged.
    """
    with _opened(images, place) as image:
        box = part(*image.size)
        width, height = image.size
        shorter = min(box.right - box.left, box.lower - box.upper)
        scale = next((scale for scale in (8, 4, 2) if shorter >= scale * size), 1)
        drafted = image.draft(None, (width // scale, height // scale)) if scale > 1 else None
        if drafted is not None:
            # What is decoded covers the image's size divided by the scale, which need not be whole.
            share = drafted[1][2] / width
            box = Box(*(edge * share for edge in box))
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        return np.asarray(rgb.resize((size, size), Image.Resampling.BILINEAR, box, reducing_gap=2.0))


def whole(width: int, height: int) -> Box:
    """Return an image's whole box."""
    return Box(0, 0, width, height)


def central(width: int, height: int, size: int) -> Box:
    """Return what is left of an image that is resized to size x 256/224 on its shorter side and cropped at the centre.

    An image that is `size` x `size` already is left whole.
    """
    if width == height == size:
        return whole(width, height)
    shorter, resized = min(width, height), size * 256 // 224
    to_width, to_height = (resized if side == shorter else int(resized * side / shorter) for side in (width, height))
    left, upper = round((to_width - size) / 2), round((to_height - size) / 2)
    x, y = width / to_width, height / to_height
    return Box(left * x, upper * y, min(width, (left + size) * x), min(height, (upper + size) * y))


def random_crop(width: int, height: int, draws: Sequence[float]) -> Box:
    """Draw a crop of 8 to 100 % of an image, 3:4 to 4:3 (Szegedy et al. 2015, section 6), as torchvision does.

    Parameters
    ----------
    width, height
        Of the image, in pixels.
    draws
        `CROP_DRAWS` uniform numbers in [0, 1): two for each of ten tries, two for the place.
    """
    for area, ratio in zip(draws[:20:2], draws[1:20:2], strict=True):
        pixels = width * height * (0.08 + 0.92 * area)
        aspect = math.exp(math.log(3 / 4) + (math.log(4 / 3) - math.log(3 / 4)) * ratio)
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(draws[20] * (width - w + 1)), int(draws[21] * (height - h + 1))
            return Box(left, upper, left + w, upper + h)
    # A long image of which no try fits: the largest part of an allowed shape, at the centre.
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, upper = (width - w) // 2, (height - h) // 2
    return Box(left, upper, left + w, upper + h)


def shifted(pixels: np.ndarray, down: int, right: int) -> np.ndarray:
    """Cut an image [size, size, 3] anew out of itself padded by SHIFT zeros, at an offset of 0 to 2 x SHIFT."""
    size = len(pixels)
    padded = np.pad(pixels, ((SHIFT, SHIFT), (SHIFT, SHIFT), (0, 0)))
    return padded[down : down + size, right : right + size]


@contextmanager
def _opened(images: Images, place: int) -> Iterator[Image.Image]:
    try:
        with Image.open(BytesIO(images.read(place))) as image:
            yield image
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{images.name(place)}: no readable image ({error}); replace or remove it") from error
