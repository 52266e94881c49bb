"""The decoding of image files, which is the same for training images and for images with labelled concepts.

Every image is converted to 8-bit RGB or refused. The conversion of each Pillow mode is documented in docs/images.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow refuses images with more pixels, because a small file could otherwise fill the memory when it is decoded.
MOST_PIXELS = 178_956_970

# Pillow converts these modes to RGB correctly. The alpha channel is dropped, and the stored colors are kept.
_CONVERTED = ("RGB", "L", "P", "1", "LA", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_GRAY_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_NO_RANGE = {"I": "32-bit integers", "F": "32-bit floats"}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # two TIFF tags, and a value of the second


class ImageError(ValueError):
    """The error that is raised when an image cannot be decoded or converted to 8-bit RGB.

    Attributes
    ----------
    advice : str or None
        What the user can do about it, or None if there is no better advice than to replace the image.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.advice = advice


@contextmanager
def open_image(encoded: bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Open an encoded image as a context manager.

    The pixels are decoded on first access, within the `with` block.

    Parameters
    ----------
    encoded
        The content of an image file. If the file contains several images (an animation or several pages), the first
        one is opened. The orientation stored by a camera (EXIF) is not applied.
    formats
        The allowed formats, by their Pillow names. By default, all formats that Pillow knows are allowed.

    Raises
    ------
    ImageError
        If the image is damaged, truncated, of another format or too large. This can happen when the image is opened
        or later within the block.
    """
    try:
        with Image.open(BytesIO(encoded), formats=formats) as image:
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # Pillow's own message shows the BytesIO object instead of a file name.
        raise ImageError("its format is not supported" if formats is None else "it is of another format") from error
    except Exception as error:  # Pillow's decoders raise errors of many types for damaged images.
        raise ImageError(str(error) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB.

    Parameters
    ----------
    image
        An image of any Pillow mode. Gray values of 16 bits are reduced to their high byte, as Pillow does with
        colors of 16 bits.

    Raises
    ------
    ImageError
        If the range of the values is not known, which is so for the modes "I" (32-bit integers) and "F" (32-bit
        floats), or if the mode is unknown.

    Examples
    --------
    >>> to_rgb(Image.new("I;16", (1, 1), 0x80FF)).getpixel((0, 0))
    (128, 128, 128)
    """
    mode = image.mode
    if mode == "RGB":
        return image
    if mode in _GRAY_OF_16_BITS:
        image = _gray_of_8_bits(image)
    elif mode == "La":  # Pillow can convert this mode to LA only.
        image = image.convert("LA")
    elif mode not in _CONVERTED:
        what = f", {_NO_RANGE[mode]} without a defined range" if mode in _NO_RANGE else ", which is not supported"
        raise ImageError(f"it has the mode {mode}{what}", "save it with 8 or 16 bits per channel")
    # Without this, Pillow warns that it drops the transparency of a palette, which is intended here.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def has_16_bits(image: Image.Image) -> bool:
    """Return whether an image is stored with 16 bits per channel. Pillow reduces such color images to 8 bits.

    This must be called after the image is opened and before it is decoded.
    """
    return "16" in image.mode or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _gray_of_8_bits(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]  # Pillow does not scale the 12-bit values of a TIFF file to 16 bits.
    grays = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(~grays if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grays)
