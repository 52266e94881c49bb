"""A picture under way: its light, and for every pixel what is there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from prunescope.concepts.miniature import shapes
from prunescope.concepts.miniature.chance import Chance
from prunescope.concepts.miniature.patterns import TEXTURE_PATTERNS, material_pattern
from prunescope.concepts.miniature.shapes import Cover, Point
from prunescope.concepts.miniature.vocabulary import MATERIALS, OBJECTS, PARTS, TEXTURES

Paint = tuple[float, float, float]

TEXTURE_CONTRAST = 0.26
TEXTURE_PERIOD = 6.0
MATERIAL_CONTRAST = 0.1


@cache
def _ramp(length: int) -> np.ndarray:
    """Steps from -1 to 1, float32 [length]."""
    return np.arange(length, dtype=np.float32) * (2 / max(length - 1, 1)) - 1


def _place(names: tuple[str, ...], name: str | None) -> int:
    """Place of a name in the vocabulary from 1, 0 for none."""
    return names.index(name) + 1 if name else 0


class Surface(TypedDict, total=False):
    """What a painted surface is like: see `Canvas.lay`."""

    material: str | None
    texture: str | None
    inset: bool
    relief: float


class Spot(NamedTuple):
    """Where an object stands, and how it looks.

    Its foot is at (x, y); these and its height are shares of the picture's side. The texture is what its cloth has, if
    it has cloth.
    """

    x: float
    y: float
    height: float
    mirrored: bool = False
    texture: str | None = None


class Canvas:
    """What is drawn last lies in front; a pixel belongs to what covers more than half of it.

    Layers hold places in the vocabulary, counted from 1, and 0 for nothing. A base part (a facade) is in `part`; what
    is set into it (a window) is in `inset`, above the facade that stays in `part`.

    Parameters
    ----------
    size
        Side of the picture in pixels.
    chance
        For the grain of materials and where patterns begin.
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
        # Patterns are as large as on a picture of 64 pixels, whatever the size.
        self._across = (np.arange(size, dtype=np.float32) + 0.5) * (64 / size)
        self._down = self._across[:, None]

    def begin(self, name: str | None) -> None:
        """Begin another thing: an object of the vocabulary, or None for what has no name in it."""
        self._kinds.append(OBJECTS.index(name) + 1 if name else 0)

    def objects(self) -> np.ndarray:
        """Which object is seen at every pixel: place in the vocabulary from 1, or 0; uint8 [size, size]."""
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
            The shape, or None when it lies outside the picture.
        paint
            Its color, red, green and blue from 0 to 1.
        part, material, texture
            What it is, made of, and patterned with.
        inset
            Whether it is set into the part that is there already, which then stays labelled beneath it.
        relief
            How much lighter its top is than its bottom, each way.
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
        """How much lighter or darker a surface is at each pixel of a window; a texture hides the material's relief."""
        x, y = self._across[window[1]], self._down[window[0]]
        if texture:
            shift_x, shift_y = self.chance.uniform(), self.chance.uniform()
            pattern = TEXTURE_PATTERNS[texture](x / TEXTURE_PERIOD + shift_x, y / TEXTURE_PERIOD + shift_y)
            return TEXTURE_CONTRAST * pattern
        relief = material_pattern(material, x, y, self.grain[window]) if material else None
        return 0.0 if relief is None else MATERIAL_CONTRAST * relief

    def shadow(self, x: float, y: float, radius_x: float, radius_y: float, depth: float = 0.3) -> None:
        """Darken the ground softly around (x, y); lengths as shares of the picture's side, labels stay."""
        size = self.size
        cover = shapes.ellipse(size, x * size, y * size, radius_x * size, radius_y * size)
        if cover is not None:
            self.pixels[:, cover.rows, cover.columns] *= 1 - depth * cover.share


class Pen:
    """Draws one object in its own coordinates: its foot at (0, 0), y upwards, 1 its height.

    Parameters
    ----------
    canvas
        Where it is drawn.
    name
        The object, or None for what has no name in the vocabulary.
    spot
        Where it stands.
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
        """Paint a box with rounded corners: left, bottom, right, top."""
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
        """Paint an ellipse, `tall` times as high as wide."""
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
