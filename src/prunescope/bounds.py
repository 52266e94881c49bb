"""The largest numbers that can be given, and checks of arguments against them.

They are far beyond what anybody computes, and below what overflows or fills the memory before it is noticed.
"""

from __future__ import annotations

import math
import numbers

from prunescope.errors import InputError

MOST_SEED = 2**63 - 1
MOST_COUNT = 2**31 - 1  # images at a time, or in all
MOST_DRAWN = 10**8  # images that are drawn
MOST_SIZE = 2**14  # an image's side in pixels
MOST_WORKERS = 1024
MOST_STEPS = 10**9  # epochs, or steps
MOST_TRIALS = 1000
MOST_LEVELS = 1000
MOST_CLASSES = 10**7
MOST_GIGABYTES = 1e6
MOST_RATE = 1e30  # learning rate and weight decay; training that diverges says so itself
MOST_COLOR = 1e6
LEAST_QUANTILE = 1e-12  # of all positions; below, 1 - quantile is 1 in floating point
LEAST_STD = 1e-6


def is_whole(given: object) -> bool:
    """Say whether a value is a whole number: Python's or NumPy's, and no truth value."""
    return isinstance(given, numbers.Integral) and not isinstance(given, bool)


def check_count(name: str, given: int, least: int, most: int, meaning: str = "") -> None:
    """Refuse an argument that is no whole number from `least` to `most`.

    Parameters
    ----------
    name
        The argument's, for the message.
    given
        Its value.
    least, most
        The bounds, both allowed.
    meaning
        What it is, for the message.

    Raises
    ------
    InputError
        Says what was given and what was expected.
    """
    if not is_whole(given) or not least <= given <= most:
        of = f", {meaning}" if meaning else ""
        raise InputError(f"{name} is {shown(given)}, expected a whole number from {least} to {most:,}{of}")


def check_number(name: str, given: float, least: float, most: float, meaning: str = "") -> None:
    """Refuse an argument that is no finite number from `least` to `most`; see `check_count`.

    Raises
    ------
    InputError
        Says what was given and what was expected.
    """
    real = isinstance(given, numbers.Real) and not isinstance(given, bool)
    if not real or not math.isfinite(given) or not least <= given <= most:
        of = f", {meaning}" if meaning else ""
        raise InputError(f"{name} is {shown(given)}, expected a number from {least:g} to {most:g}{of}")


def shown(given: object) -> str:
    """Write a value for a message, cut short where it is long.

    >>> shown(0.5), shown("x" * 1000)[:4], shown(16**5000)
    ('0.5', "'xxx", 'a number of about 6021 digits')
    """
    if isinstance(given, int) and given.bit_length() > 256:
        return f"a number of about {round(given.bit_length() * math.log10(2))} digits"
    try:
        text = repr(given)
    except ValueError:  # It holds a number that is too long to be written.
        return f"a {type(given).__name__}"
    return text if len(text) <= 200 else f"{text[:100]}..."
