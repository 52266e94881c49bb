"""Shapes with soft edges, given by the fraction of each pixel that they cover.

The coverage is clip(d + 1/2, 0, 1), where d is the distance from the pixel's centre to the edge of the shape in pixels,
positive inside. For boxes with sharp corners, it is exact. Only + - * / and square roots are used, because these are
rounded in the same way on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

Point = tuple[float, float]


class Cover(NamedTuple):
    """The window of an image that contains a shape, and the coverage of its pixels."""

    rows: slice
    columns: slice
    share: np.ndarray  # float32 [rows, columns], the covered fraction of each pixel from 0 to 1


@cache
def _centres(size: int) -> np.ndarray:
    """Return the coordinates of the pixels' centres, float32 [size]."""
    return np.arange(size, dtype=np.float32) + np.float32(0.5)


def _window(low: float, high: float, size: int) -> tuple[slice, np.ndarray] | None:
    first = max(0, math.floor(low - 0.5))
    last = min(size, math.ceil(high + 0.5))
    if first >= last:
        return None
    window = slice(first, last)
    return window, _centres(size)[window]


def _covered(distance: np.ndarray) -> np.ndarray:
    distance += 0.5
    np.maximum(distance, 0, out=distance)
    np.minimum(distance, 1, out=distance)
    return distance


def _overlap(centres: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the exact fraction of each pixel between `low` and `high` along one axis."""
    overlap: np.ndarray = np.minimum(centres + 0.5, high) - np.maximum(centres - 0.5, low)
    np.maximum(overlap, 0, out=overlap)
    return overlap


def box(size: int, left: float, top: float, right: float, bottom: float, radius: float = 0.0) -> Cover | None:
    """Return the coverage of a box with rounded corners, or None if it lies outside the image of size x size pixels.

    All lengths are in pixels.
    """
    across, down = _window(left, right, size), _window(top, bottom, size)
    if across is None or down is None:
        return None
    if radius <= 0:
        share = _overlap(across[1], left, right) * _overlap(down[1], top, bottom)[:, None]
    else:
        x = np.abs(across[1] - (left + right) / 2) - ((right - left) / 2 - radius)
        y = np.abs(down[1] - (top + bottom) / 2) - ((bottom - top) / 2 - radius)
        corner_x, corner_y = np.maximum(x, 0), np.maximum(y, 0)[:, None]
        share = _covered(radius - np.sqrt(corner_x * corner_x + corner_y * corner_y))
    return Cover(down[0], across[0], share)


def ellipse(size: int, x: float, y: float, radius_x: float, radius_y: float) -> Cover | None:
    """Return the coverage of an ellipse with the centre (x, y), or None if it lies outside the image.

    All lengths are in pixels. The distance to the edge is approximate unless the ellipse is a circle.
    """
    across = _window(x - radius_x, x + radius_x, size)
    down = _window(y - radius_y, y + radius_y, size)
    if across is None or down is None:
        return None
    u = (across[1] - x) / radius_x
    v = ((down[1] - y) / radius_y)[:, None]
    share = _covered((1 - np.sqrt(u * u + v * v)) * min(radius_x, radius_y))
    return Cover(down[0], across[0], share)


def polygon(size: int, corners: Sequence[Point]) -> Cover | None:
    """Return the coverage of a convex polygon, or None if it lies outside the image.

    The corners are in pixels, in clockwise or counterclockwise order.
    """
    xs, ys = [corner[0] for corner in corners], [corner[1] for corner in corners]
    across, down = _window(min(xs), max(xs), size), _window(min(ys), max(ys), size)
    if across is None or down is None:
        return None
    edges = list(zip(corners, [*corners[1:], corners[0]], strict=True))
    turning = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges)
    sign = 1.0 if turning > 0 else -1.0
    distance: np.ndarray | None = None
    for (x0, y0), (x1, y1) in edges:
        run, rise = x1 - x0, y1 - y0
        length = math.sqrt(run * run + rise * rise)
        if length == 0:
            continue
        run, rise = sign * run / length, sign * rise / length
        beyond = ((down[1] - y0) * run)[:, None] - (across[1] - x0) * rise
        distance = beyond if distance is None else np.minimum(distance, beyond, out=distance)
    if distance is None:
        return None
    return Cover(down[0], across[0], _covered(distance))
