"""Save images and label files of data sets in Broden's format."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prunescope.errors import InputError
from prunescope.images import ImageError, open_image, to_rgb

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png"}


def save_picture(folder: Path, name: str, image: NDArray[np.uint8] | bytes) -> tuple[str, tuple[int, int]]:
    """Save an image, and return its path below `folder` and its height and width.

    Parameters
    ----------
    folder
        The folder of the images.
    name
        The path of the image below the folder, without a suffix.
    image
        An array [ih, iw, 3] of uint8, which is saved as PNG, or the content of an image file. The content of a JPEG or
        PNG file is written unchanged after it has been decoded once, so that a damaged file is found. Images of other
        formats are saved as PNG.

    Raises
    ------
    InputError
        If the array has another shape or type, or if the content cannot be decoded.
    """
    suffix = ".png"
    if isinstance(image, bytes):
        try:
            with open_image(image) as opened:
                suffix = _SUFFIXES.get(opened.format or "", "")
                pixels = np.asarray(to_rgb(opened))
        except ImageError as error:
            advice = error.advice or "the file is damaged or not an image; replace it"
            raise InputError(f"the image {name!r} cannot be read: {error}; {advice}") from error
    else:
        pixels = image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise InputError(
                f"the image {name!r} is an array {list(pixels.shape)} of {pixels.dtype}; expected uint8 [ih, iw, 3]"
            )
    file = folder / f"{name}{suffix or '.png'}"
    file.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(image, bytes) and suffix:
        file.write_bytes(image)
    else:
        save_png(file, pixels)
    return file.relative_to(folder).as_posix(), (pixels.shape[0], pixels.shape[1])


def save_labels(file: Path, numbers: NDArray[Any]) -> None:
    """Save the number of the concept at each pixel, [sh, sw], as a label file: the number is red + 256 x green."""
    pixels = np.zeros((*numbers.shape, 3), np.uint8)
    pixels[..., 0] = numbers & 255
    pixels[..., 1] = numbers >> 8
    file.parent.mkdir(parents=True, exist_ok=True)
    save_png(file, pixels)


def save_png(file: Path, pixels: NDArray[np.uint8]) -> None:
    """Save an image as PNG, quickly rather than in the fewest bytes."""
    # Runs of equal pixels are frequent in labels, and finding only these is several times faster.
    Image.fromarray(pixels).save(file, compress_level=1, compress_type=zlib.Z_RLE)
