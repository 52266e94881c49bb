"""Limits on numeric arguments, and functions that check arguments against limits.

The limits are far beyond practical values. They exclude values that would overflow or exhaust the memory before the
mistake is noticed.
"""

from __future__ import annotations

import math
import numbers

from prunescope.errors import InputError

MOST_SEED = 2**63 - 1
MOST_COUNT = 2**31 - 1  # images in a batch, or images in total
MOST_DRAWN = 10**8  # images of a miniature, which are drawn
MOST_SIZE = 2**14  # height or width of an image in pixels
MOST_WORKERS = 1024
MOST_STEPS = 10**9  # epochs or training steps
MOST_TRIALS = 1000
MOST_LEVELS = 1000
MOST_CLASSES = 10**7
MOST_GIGABYTES = 1e6
MOST_RATE = 1e30  # learning rate or weight decay; training reports by itself when it diverges
MOST_COLOR = 1e6
LEAST_QUANTILE = 1e-12  # as a fraction of all positions; for far smaller values, 1 - quantile rounds to 1
LEAST_STD = 1e-6


def is_whole(given: object) -> bool:
    """Return whether a value is an integer of Python or NumPy. Booleans do not count as integers."""
    return isinstance(given, numbers.Integral) and not isinstance(given, bool)


def check_count(name: str, given: int, least: int, most: int, meaning: str = "") -> None:
    """Raise if an argument is not an integer from `least` to `most`.

    Parameters
    ----------
    name
        The name of the argument, for the error message.
    given
        The value of the argument.
    least, most
        The smallest and the largest allowed value.
    meaning
        What the number stands for. It is added to the end of the error message.

    Raises
    ------
    InputError
        If the value is not an integer or is out of range.
    """
    if not is_whole(given) or not least <= given <= most:
        of = f", {meaning}" if meaning else ""
        raise InputError(f"{name} is {shown(given)}, expected a whole number from {least} to {most:,}{of}")


def check_number(name: str, given: float, least: float, most: float, meaning: str = "") -> None:
    """Raise if an argument is not a finite real number from `least` to `most`.

    The parameters are those of `check_count`.

    Raises
    ------
    InputError
        If the value is not a real number, is not finite or is out of range.
    """
    real = isinstance(given, numbers.Real) and not isinstance(given, bool)
    if not real or not math.isfinite(given) or not least <= given <= most:
        of = f", {meaning}" if meaning else ""
        raise InputError(f"{name} is {shown(given)}, expected a number from {least:g} to {most:g}{of}")


def shown(given: object) -> str:
    """Return the text that represents a value in an error message. Long values are shortened.

    >>> shown(0.5), shown("x" * 1000)[:4], shown(16**5000)
    ('0.5', "'xxx", 'a number of about 6021 digits')
    """
    if isinstance(given, int) and given.bit_length() > 256:
        return f"a number of about {round(given.bit_length() * math.log10(2))} digits"
    try:
        text = repr(given)
    except ValueError:  # The value contains an integer with too many digits for Python to convert to text.
        return f"a {type(given).__name__}"
    return text if len(text) <= 200 else f"{text[:100]}..."
