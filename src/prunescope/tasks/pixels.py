"""Decode, crop and augment images."""

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

SHIFT = 4  # maximum shift in pixels (He et al. 2016, section 4.2)
CROP_DRAWS = 22  # number of uniform random numbers that `random_crop` needs
LARGEST = 2**26  # maximum pixels for simplejpeg; larger images go to Pillow, which refuses any that would fill memory


class Images(Protocol):
    """A sequence of encoded images (JPEG, PNG, ...), indexed from 0."""

    def read(self, index: int) -> bytes:
        """Return the encoded image at this index; raise `OSError` or `ValueError` if it cannot be read."""

    def name(self, index: int) -> str:
        """Return the location of the image at this index, for messages."""


class Cut(NamedTuple):
    """A crop of an image: a rectangle of it is resized, and a square window is cut out of the result.

    Attributes
    ----------
    left, upper, right, lower
        The rectangle, in pixels of the image.
    width, height
        The size to which the rectangle is resized, in pixels.
    x, y
        The left and upper edge of the window within the resized rectangle, in pixels.
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
        """The largest factor (8, 4, 2 or 1) by which the image can be downscaled without upsampling the rectangle."""
        room = min((self.right - self.left) / self.width, (self.lower - self.upper) / self.height)
        return next((by for by in (8, 4, 2) if room >= by), 1)

    def reduced(self, by: int) -> Cut:
        """Return the same cut of an image that is `by` times smaller; its edges move outwards to whole pixels."""
        left, upper, right, lower = self.left // by, self.upper // by, -(-self.right // by), -(-self.lower // by)
        return self._replace(left=left, upper=upper, right=right, lower=lower)


def decode(images: Images, index: int) -> Tensor:
    """Decode the whole image at this index to uint8 [3, h, w] in RGB, channels last.

    Raises
    ------
    InputError
        If the image is missing or damaged, or has a mode without a known range of values.
    """
    with _readable(images, index) as encoded, open_image(encoded) as image:
        return _tensor(np.array(to_rgb(image)))


def decode_cut(images: Images, index: int, cut: Callable[[int, int], Cut], size: int) -> Tensor:
    """Decode, resize and crop an image to uint8 [3, size, size] in RGB, channels last.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the rectangle still need not be upsampled then. The edges of the
    rectangle move outwards to whole pixels of the smaller image. Resizing is bilinear and antialiased.

    Parameters
    ----------
    images
        The encoded images.
    index
        The index of the image.
    cut
        Called with the image's width and height in pixels; returns the crop to take.
    size
        The side of the window, in pixels.

    Raises
    ------
    InputError
        If the image is missing or damaged, or has a mode without a known range of values.
    """
    with _readable(images, index) as encoded:
        part, taken = _cut_of_jpeg(encoded, cut) or _cut_of_any(encoded, cut)
    _, _, _, _, width, height, x, y = taken
    if part.shape[1:] != (height, width):
        part = torch.nn.functional.interpolate(part[None], (height, width), mode="bilinear", antialias=True)[0]
    return part[:, y : y + size, x : x + size]


def central(width: int, height: int, size: int) -> Cut:
    """Return the crop of the central `size` x `size` pixels of an image resized to size x 256/224 on its shorter side.

    An image of `size` x `size` pixels is neither resized nor cropped.
    """
    shorter, resized = min(width, height), size * 256 // 224
    if width == height == size:
        resized = size
    to_width, to_height = (resized if side == shorter else int(resized * side / shorter) for side in (width, height))
    return Cut(0, 0, width, height, to_width, to_height, round((to_width - size) / 2), round((to_height - size) / 2))


def random_crop(width: int, height: int, size: int, draws: Sequence[float]) -> Cut:
    """Return a random crop of 8 to 100 % of an image's area, with an aspect ratio from 3:4 to 4:3, as in torchvision.

    The method is that of Szegedy et al. 2015, section 6.

    Parameters
    ----------
    width, height
        The size of the image, in pixels.
    size
        The side of the square to which the crop is resized, in pixels.
    draws
        `CROP_DRAWS` uniform random numbers in [0, 1): two for each of ten attempts, and two for the position.
    """
    for area, shape in zip(draws[:20:2], draws[1:20:2], strict=True):
        pixels, ratio = width * height * (0.08 + 0.92 * area), (3 / 4) ** (1 - 2 * shape)
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, upper = int(draws[20] * (width - w + 1)), int(draws[21] * (height - h + 1))
            return Cut(left, upper, left + w, upper + h, size, size)
    # If no attempt fits into the image, the crop is the largest central one with an allowed aspect ratio.
    w, h = min(width, max(1, round(height * 4 / 3))), min(height, max(1, round(width * 4 / 3)))
    left, upper = (width - w) // 2, (height - h) // 2
    return Cut(left, upper, left + w, upper + h, size, size)


def shifted(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift images by padding them with `SHIFT` zeros on each side and cropping them to their size.

    Parameters
    ----------
    images : [n, 3, size, size]
        The images.
    offsets : int64 tensor [n, 2]
        The upper and left edge of each crop in the padded image, from 0 to 2 x `SHIFT`.

    Returns
    -------
    Tensor
        The shifted images [n, 3, size, size].
    """
    size = images.shape[-1]
    padded = torch.nn.functional.pad(images, (SHIFT,) * 4)
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    return windows[torch.arange(len(images)), :, offsets[:, 0], offsets[:, 1]]


def _tensor(pixels: np.ndarray) -> Tensor:
    # PyTorch recognises the channels-last layout, which makes resizing fast, only with a batch dimension.
    return torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)[0]


def _cut_of_jpeg(encoded: bytes, cut: Callable[[int, int], Cut]) -> tuple[Tensor, Cut] | None:
    """Decode a JPEG with simplejpeg, which takes two thirds of Pillow's time; None if it does not support the image."""
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
def _readable(images: Images, index: int) -> Iterator[bytes]:
    try:
        yield images.read(index)
    except ImageError as error:
        advice = error.advice or "replace or remove it"
        raise InputError(f"{images.name(index)}: cannot be read as an image ({error}); {advice}") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{images.name(index)}: cannot be read as an image ({error}); replace or remove it") from error
