"""Decoding, cropping and augmenting one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import numpy as np
import simplejpeg
import torch
from torch import Tensor

from prunescope.errors import InputError
from prunescope.images import ImageError, open_image, to_rgb

SHIFT = 4  # pixels, He et al. 2016, section 4.2
CROP_DRAWS = 22  # uniform numbers that `random_crop` takes
LARGEST = 2**26  # pixels of an image that is not left to Pillow, which refuses those that would fill the memory


class Images(Protocol):
    """Encoded images (JPEG, PNG, ...) by their places, 0 and up."""

    def read(self, place: int) -> bytes:
        """Return the encoded image; an `OSError` or `ValueError` says why it cannot be read."""

    def name(self, place: int) -> str:
        """Say where the image is, for messages."""


class Cut(NamedTuple):
    """What is taken of an image: a part, resized, and a square window of that.

    Attributes
    ----------
    left, upper, right, lower
        The part, in pixels of the image.
    width, height
        To which the part is resized.
    x, y
        Where the window begins in it.
    """

    left: int
    upper: int
    right: int
    lower: int
    width: int
    height: int
    x: int = 0
    y: int = 0

    @property
    def reduction(self) -> int:
        """By how much (8, 4, 2, 1) the image can be made smaller while its part keeps the pixels it is resized to."""
        room = min((self.right - self.left) / self.width, (self.lower - self.upper) / self.height)
        return next((by for by in (8, 4, 2) if room >= by), 1)

    def reduced(self, by: int) -> Cut:
        """Return the same cut of an image `by` times smaller; its edges move outwards to whole pixels of that."""
        left, upper, right, lower = self.left // by, self.upper // by, -(-self.right // by), -(-self.lower // by)
        return self._replace(left=left, upper=upper, right=right, lower=lower)


def decode(images: Images, place: int) -> Tensor:
    """Read a whole image as uint8 [3, h, w] in RGB, channels last.

    Raises
    ------
    InputError
        It is missing or damaged, or has a mode without a known range.
    """
    with _readable(images, place) as encoded, open_image(encoded) as image:
        return _tensor(np.array(to_rgb(image)))


def decode_cut(images: Images, place: int, cut: Callable[[int, int], Cut], size: int) -> Tensor:
    """Read a part of an image, resized, as uint8 [3, size, size] in RGB, channels last.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the part then still has the pixels it is resized to (its
    edges move outwards to whole pixels of that). Resizing is bilinear, antialiased.

    Parameters
    ----------
    images, place
        Where the image is.
    cut
        Given the image's width and height, says what to take.
    size
        Side of the window.

    Raises
    ------
    InputError
        The image is missing or damaged, or has a mode without a known range.
    """
    with _readable(images, place) as encoded:
        part, taken = _cut_of_jpeg(encoded, cut) or _cut_of_any(encoded, cut)
    _, _, _, _, width, height, x, y = taken
    if part.shape[1:] != (height, width):
        part = torch.nn.functional.interpolate(part[None], (height, width), mode="bilinear", antialias=True)[0]
    return part[:, y : y + size, x : x + size]


def central(width: int, height: int, size: int) -> Cut:
    """Cut the central `size` x `size` pixels out of the image resized to size x 256/224 on its shorter side.

    An image that is `size` x `size` already is taken whole.
    """
    shorter, resized = min(width, height), size * 256 // 224
    if width == height == size:
        resized = size
    to_width, to_height = (resized if side == shorter else int(resized * side / shorter) for side in (width, height))
    return Cut(0, 0, width, height, to_width, to_height, round((to_width - size) / 2), round((to_height - size) / 2))


def random_crop(width: int, height: int, size: int, draws: Sequence[float]) -> Cut:
    """Draw a part of 8 to 100 % of an image, 3:4 to 4:3 (Szegedy et al. 2015, section 6), as torchvision does.

    Parameters
    ----------
    width, height
        Of the image, in pixels.
    size
        To which the part is resized.
    draws
        `CROP_DRAWS` uniform numbers in [0, 1): two for each of ten tries, two for the place.
    """
    for area, shape in zip(draws[:20:2], draws[1:20:2], strict=True):
        pixels, ratio = width * height * (0.08 + 0.92 * area), (3 / 4) ** (1 - 2 * shape)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(draws[20] * (width - w + 1)), int(draws[21] * (height - h + 1))
            return Cut(left, upper, left + w, upper + h, size, size)
    # An image so long that no try fits: the largest part of an allowed shape, at the centre.
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, upper = (width - w) // 2, (height - h) // 2
    return Cut(left, upper, left + w, upper + h, size, size)


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Cut [n, 3, size, size] out of the images padded by SHIFT zeros, at offsets [n, 2] from 0 to 2 x SHIFT."""
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (SHIFT,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows[torch.arange(len(images)), :, offsets[:, 0], offsets[:, 1]]


def _tensor(pixels: np.ndarray) -> Tensor:
    # A batch of one, so that torch sees the layout, which decides how fast it resizes.
    return torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)[0]


def _cut_of_jpeg(encoded: bytes, cut: Callable[[int, int], Cut]) -> tuple[Tensor, Cut] | None:
    """Decode by simplejpeg, which takes two thirds of Pillow's time, what it knows and finds nothing wrong with."""
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(encoded)
        if colors not in ("YCbCr", "Gray", "RGB") or width * height > LARGEST:
            return None
        taken = cut(width, height)
        by = taken.reduction
        shape = (-(-height // by), -(-width // by))
        pixels = simplejpeg.decode_jpeg(encoded, "RGB", min_height=shape[0], min_width=shape[1])
    except ValueError:
        return None
    if pixels.shape[:2] != shape:
        return None
    taken = taken.reduced(by)
    return _tensor(pixels)[:, taken.upper : taken.lower, taken.left : taken.right], taken


def _cut_of_any(encoded: bytes, cut: Callable[[int, int], Cut]) -> tuple[Tensor, Cut]:
    with open_image(encoded) as image:
        width, height = image.size
        taken = cut(width, height)
        by = taken.reduction
        if by > 1 and image.draft(None, (width // by, height // by)) is not None:
            taken = taken.reduced(by)
        return _tensor(np.array(to_rgb(image).crop(taken[:4]))), taken


@contextmanager
def _readable(images: Images, place: int) -> Iterator[bytes]:
    try:
        yield images.read(place)
    except ImageError as error:
        advice = error.advice or "replace or remove it"
        raise InputError(f"{images.name(place)}: no readable image ({error}); {advice}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{images.name(place)}: no readable image ({error}); replace or remove it") from error
