"""Open the images and masks that are imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from prunescope.errors import InputError
from prunescope.files import read_file
from prunescope.images import ImageError, open_image


def read_encoded(given: Path | bytes, where: str, what: str, missing: str = "") -> bytes:
    """Return the content of a file that holds an image or a mask.

    Parameters
    ----------
    given
        The path of the file, or its content.
    where, what
        How messages call the file, and what it is, such as "image" or "mask".
    missing
        What to do if the file does not exist.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        return given if isinstance(given, bytes) else read_file(given)
    except FileNotFoundError as error:
        raise InputError(f"{where}: there is no such {what}" + (f"; {missing}" if missing else "")) from error
    except OSError as error:
        raise _unreadable(where, what, error) from error


@contextmanager
def opened(encoded: bytes, where: str, what: str) -> Iterator[Image.Image]:
    """Open an image or a mask as a context manager, in which its pixels are decoded.

    Raises
    ------
    InputError
        If it cannot be decoded, which may also be found within the block.
    """
    try:
        with open_image(encoded) as image:
            yield image
    except ImageError as error:
        raise _unreadable(where, what, error) from error


def _unreadable(where: str, what: str, error: ImageError | OSError) -> InputError:
    advice = getattr(error, "advice", None) or "the file is damaged or not an image: replace it"
    article = "an" if what == "image" else "a"
    return InputError(f"{where}: cannot be read as {article} {what}: {error}; {advice}")
