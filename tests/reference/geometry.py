"""Receptive fields of a chain of sliding windows, by the recurrence over its kernels, strides and paddings."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple


class Window(NamedTuple):
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


def fields(windows: Sequence[Window]) -> tuple[Fraction, Fraction]:
    """(stride, offset): position i looks around pixel `offset + stride * i`, the first pixel's centre being at 0.5."""
    stride, offset = Fraction(1), Fraction(1, 2)
    for window in windows:
        middle = Fraction((window.kernel - 1) * window.dilation, 2)
        offset += stride * (middle - window.padding)
        stride *= window.stride
    return stride, offset


def place(pixel: int, pixels: int, image_pixels: int, cells: int, stride: Fraction, offset: Fraction) -> Fraction:
    """Where the centre of a label pixel lies on a map of so many cells; beyond the outer centres, on the outer cell."""
    centre = (pixel + Fraction(1, 2)) * Fraction(image_pixels, pixels)
    return min(max((centre - offset) / stride, Fraction(0)), Fraction(cells - 1))
