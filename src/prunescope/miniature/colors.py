"""The color names of pixels: the eleven basic color terms of Berlin and Kay (1969)."""

from __future__ import annotations

from functools import cache

import numpy as np

from prunescope.miniature.vocabulary import COLORS

_BITS = 5


@cache
def _table() -> np.ndarray:
    """Return the index in COLORS of every color with 5 bits per channel, uint8 [32768]."""
    steps = np.arange(1 << _BITS, dtype=np.int64) * 255 // ((1 << _BITS) - 1)
    red, green, blue = (axis.ravel() for axis in np.meshgrid(steps, steps, steps, indexing="ij"))
    top = np.maximum(np.maximum(red, green), blue)
    chroma = top - np.minimum(np.minimum(red, green), blue)
    some = np.maximum(chroma, 1)
    sector = np.where(top == red, 60 * (green - blue), np.where(top == green, 60 * (blue - red), 60 * (red - green)))
    hue = (sector // some + np.where(top == red, 0, np.where(top == green, 120, 240))) % 360
    vivid = 100 * chroma // np.maximum(top, 1)
    warm = (hue < 48) | (hue >= 330)
    rules: list[tuple[str, np.ndarray]] = [
        ("black-c", top < 52),
        ("white-c", (vivid < 12) & (top > 205)),
        ("grey-c", (vivid < 17) | (chroma < 20)),
        ("pink-c", ((hue >= 290) | (hue < 12)) & (top > 165) & (vivid < 62)),
        ("red-c", ((hue >= 335) | (hue < 14)) & (vivid >= 50) & (top > 95)),
        ("brown-c", warm & ((top < 165) | (vivid < 45))),
        ("orange-c", (hue < 40)),
        ("yellow-c", (hue < 68)),
        ("green-c", (hue < 168)),
        ("blue-c", (hue < 252)),
        ("purple-c", (hue < 335)),
    ]
    chosen = np.select([rule for _, rule in rules], [COLORS.index(name) for name, _ in rules], COLORS.index("red-c"))
    return chosen.astype(np.uint8)


def color_places(image: np.ndarray) -> np.ndarray:
    """Return the color name of every pixel.

    Parameters
    ----------
    image
        The pixels in RGB, uint8 [h, w, 3].

    Returns
    -------
    numpy.ndarray
        The indices of the names in `COLORS`, uint8 [h, w].

    Examples
    --------
    >>> COLORS[color_places(np.array([[[200, 30, 20]]], np.uint8))[0, 0]]
    'red-c'
    """
    high = (image >> (8 - _BITS)).astype(np.int32)
    places: np.ndarray = _table()[(high[..., 0] << (2 * _BITS)) | (high[..., 1] << _BITS) | high[..., 2]]
    return places
