"""One decoder for all images: those of a task, and those that are labelled with concepts.

Images come out as 8-bit RGB, whatever they are stored as, or are refused; docs/images.md lists the rule for every mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow refuses images with more pixels, since a small file could then fill the memory.
MOST_PIXELS = 178_956_970

# The modes that Pillow itself converts to RGB as they are meant. Transparency is dropped, and the color below it stays.
_CONVERTED = ("RGB", "L", "P", "1", "LA", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
_GRAY_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_NO_RANGE = {"I": "32-bit integers", "F": "32-bit floats"}

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0  # of TIFF


class ImageError(ValueError):
    """An image cannot be used.

    Attributes
    ----------
    advice : str or None
        What to do about it, where something better is known than replacing the image.
    """

    def __init__(self, reason: str, advice: str | None = None) -> None:
        super().__init__(reason)
        self.advice = advice


@contextmanager
def open_image(encoded: bytes, formats: tuple[str, ...] | None = None) -> Iterator[Image.Image]:
    """Open an encoded image; its pixels are decoded when they are first asked for, within the block.

    Parameters
    ----------
    encoded
        The content of an image file. Of a file with several images (an animation, pages), the first is opened. An
        orientation that a camera has noted is not applied.
    formats
        Pillow's names of the formats to expect. None expects all of them.

    Raises
    ------
    ImageError
        The image is damaged, cut off, of another format or too large, on opening or within the block.
    """
    try:
        with Image.open(BytesIO(encoded), formats=formats) as image:
            yield image
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # Pillow would name the object in memory
        raise ImageError("of no format that is known" if formats is None else "not of this format") from error
    except Exception as error:  # Pillow's decoders raise errors of many types for damaged images
        raise ImageError(str(error) or type(error).__name__) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to 8-bit RGB.

    Parameters
    ----------
    image
        Of any of Pillow's modes. Grays of 16 bits keep their high byte, as Pillow does with colors of 16 bits.

    Raises
    ------
    ImageError
        The mode has no known range: "I" (32-bit integers) and "F" (32-bit floats).

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
    elif mode == "La":  # Pillow converts this one to LA alone
        image = image.convert("LA")
    elif mode not in _CONVERTED:
        what = f", {_NO_RANGE[mode]} without a known range" if mode in _NO_RANGE else ", which is not known here"
        raise ImageError(f"it has the mode {mode}{what}", "save it with 8 or 16 bits a channel")
    # Pillow would warn of a palette's transparency, which it drops as asked.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def has_16_bits(image: Image.Image) -> bool:
    """Say whether a file that was just opened stores 16 bits a channel, of which Pillow keeps 8 where there are colors.

    Has to be asked before the image is decoded.
    """
    return "16" in image.mode or any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _gray_of_8_bits(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]  # a TIFF's values of 12 bits are not scaled by Pillow
    grays = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    return Image.fromarray(~grays if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grays)
