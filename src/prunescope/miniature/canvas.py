"""The canvas on which a picture is drawn: its pixels and the labels of every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from prunescope.miniature import shapes
from prunescope.miniature.chance import Chance
from prunescope.miniature.patterns import TEXTURE_PATTERNS, material_pattern
from prunescope.miniature.shapes import Cover, Point
from prunescope.miniature.vocabulary import MATERIALS, OBJECTS, PARTS, TEXTURES

Paint = tuple[float, float, float]

TEXTURE_CONTRAST = 0.26
TEXTURE_PERIOD = 6.0
MATERIAL_CONTRAST = 0.1


@cache
def _ramp(length: int) -> np.ndarray:
    """Return evenly spaced values from -1 to 1, float32 [length]."""
    return np.arange(length, dtype=np.float32) * (2 / max(length - 1, 1)) - 1


def _place(names: tuple[str, ...], name: str | None) -> int:
    """Return the index of a name in the vocabulary, counted from 1, or 0 for no name."""
    return names.index(name) + 1 if name else 0


class Surface(TypedDict, total=False):
    """The properties of a painted surface, which are keyword arguments of `Canvas.lay`."""

    material: str | None
    texture: str | None
    inset: bool
    relief: float


class Spot(NamedTuple):
    """The position and the appearance of an object.

    The object's foot is at (x, y). The position and the height are given as fractions of the picture's side. The
    texture is applied to the parts of the object that are made of fabric.
    """

    x: float
    y: float
    height: float
    mirrored: bool = False
    texture: str | None = None


class Canvas:
    """The pixels of a picture and the labels of every pixel.

    Shapes that are drawn later hide earlier ones. A pixel is labelled with a shape that covers more than half of it.

    The label layers contain indices in the vocabulary, counted from 1, and 0 where there is no label. The layer `part`
    contains the base parts (such as a facade). The layer `inset` contains the parts that are set into a base part (such
    as a window); the base part then remains in `part`.

    Parameters
    ----------
    size
        The side of the picture in pixels.
    chance
        The random numbers for the grain of materials, the light, and the offsets of patterns.
    """

    def __init__(self, size: int, chance: Chance) -> None:
        self.size = size
        self.chance = chance
        self.pixels = np.zeros((3, size, size), np.float32)
        self._labels = np.zeros((5, size, size), np.uint8)
        self.part, self._instance, self.inset, self.material, self.texture = self._labels
        self.grain = chance.noise(size, size)
        self.slope = chance.uniform(-0.12, 0.12)
        self._kinds = [0]
        # Patterns scale with the picture: coordinates are given in units of 1/64 of the picture's side.
        self._across = (np.arange(size, dtype=np.float32) + 0.5) * (64 / size)
        self._down = self._across[:, None]

    def begin(self, name: str | None) -> None:
        """Start a new object. `name` is its name in the vocabulary, or None if it has no label."""
        self._kinds.append(OBJECTS.index(name) + 1 if name else 0)

    def objects(self) -> np.ndarray:
        """Return the object label of every pixel, uint8 [size, size]: its index in the vocabulary from 1, or 0."""
        objects: np.ndarray = np.array(self._kinds, np.uint8)[self._instance]
        return objects

    def lay(
        self,
        cover: Cover | None,
        paint: Paint,
        part: str | None = None,
        *,
        material: str | None = None,
        texture: str | None = None,
        inset: bool = False,
        relief: float = 0.12,
    ) -> None:
        """Paint a shape and label the pixels that it covers by more than half.

        Parameters
        ----------
        cover
            The shape, or None if it lies outside the picture.
        paint
            The color of the shape: red, green and blue from 0 to 1.
        part, material, texture
            The labels of the shape, or None where it has no such label.
        inset
            Whether the shape is set into a part of the same object that is already drawn. That part then keeps its
            label.
        relief
            The strength of the shading: the light falls from 1 + relief at the top to 1 - relief at the bottom.
        """
        if cover is None:
            return
        rows, columns, share = cover
        window = (rows, columns)
        height, width = share.shape
        light = (1 - relief * _ramp(height))[:, None] + self.slope * _ramp(width)
        if texture or material:
            light += self._pattern(window, material, texture)
        target = self.pixels[:, rows, columns]
        target += share * (light * np.array(paint, np.float32)[:, None, None] - target)
        inside = share > 0.5
        current = len(self._kinds) - 1
        place = _place(PARTS, part)
        around = 0 if inset else place
        values = (around, current, place if inset else 0, _place(MATERIALS, material), _place(TEXTURES, texture))
        first = 0
        if inset:
            first = 1
            self.part[window][inside & (self._instance[window] != current)] = 0
        below = np.array(values[first:], np.uint8)[:, None, None]
        np.copyto(self._labels[first:, rows, columns], below, where=inside)

    def _pattern(self, window: tuple[slice, slice], material: str | None, texture: str | None) -> np.ndarray | float:
        """Return the change in brightness at each pixel of a window. A texture replaces the pattern of the material."""
        x, y = self._across[window[1]], self._down[window[0]]
        if texture:
            shift_x, shift_y = self.chance.uniform(), self.chance.uniform()
            pattern = TEXTURE_PATTERNS[texture](x / TEXTURE_PERIOD + shift_x, y / TEXTURE_PERIOD + shift_y)
            return TEXTURE_CONTRAST * pattern
        relief = material_pattern(material, x, y, self.grain[window]) if material else None
        return 0.0 if relief is None else MATERIAL_CONTRAST * relief

    def shadow(self, x: float, y: float, radius_x: float, radius_y: float, depth: float = 0.3) -> None:
        """Darken an ellipse around (x, y) without changing labels. Lengths are fractions of the picture's side."""
        size = self.size
        cover = shapes.ellipse(size, x * size, y * size, radius_x * size, radius_y * size)
        if cover is not None:
            self.pixels[:, cover.rows, cover.columns] *= 1 - depth * cover.share


class Pen:
    """Draws one object in the object's own coordinates.

    The foot of the object is at (0, 0), the y axis points upwards, and the object has the height 1.

    Parameters
    ----------
    canvas
        The canvas to draw on.
    name
        The object's name in the vocabulary, or None if it has no label.
    spot
        The position and the appearance of the object.
    """

    def __init__(self, canvas: Canvas, name: str | None, spot: Spot) -> None:
        self.canvas = canvas
        self._x, self._y = spot.x * canvas.size, spot.y * canvas.size
        self._scale = spot.height * canvas.size
        self._side = -self._scale if spot.mirrored else self._scale
        canvas.begin(name)

    def box(
        self,
        corners: tuple[float, float, float, float],
        paint: Paint,
        part: str | None = None,
        *,
        radius: float = 0.0,
        **surface: Unpack[Surface],
    ) -> None:
        """Paint a box with rounded corners. `corners` are the left, bottom, right and top coordinates."""
        left, bottom, right, top = corners
        ends = sorted((self._x + left * self._side, self._x + right * self._side))
        upper, lower = self._y - top * self._scale, self._y - bottom * self._scale
        cover = shapes.box(self.canvas.size, ends[0], upper, ends[1], lower, radius * self._scale)
        self.canvas.lay(cover, paint, part, **surface)

    def disc(
        self,
        x: float,
        y: float,
        radius: float,
        paint: Paint,
        part: str | None = None,
        *,
        tall: float = 1.0,
        **surface: Unpack[Surface],
    ) -> None:
        """Paint an ellipse with the centre (x, y). `radius` is horizontal, and `tall` the ratio of height to width."""
        centre_x, centre_y = self._x + x * self._side, self._y - y * self._scale
        wide = radius * self._scale
        cover = shapes.ellipse(self.canvas.size, centre_x, centre_y, wide, wide * tall)
        self.canvas.lay(cover, paint, part, **surface)

    def shape(
        self, corners: Sequence[Point], paint: Paint, part: str | None = None, **surface: Unpack[Surface]
    ) -> None:
        """Paint a convex polygon."""
        placed = [(self._x + x * self._side, self._y - y * self._scale) for x, y in corners]
        self.canvas.lay(shapes.polygon(self.canvas.size, placed), paint, part, **surface)
