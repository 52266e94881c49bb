"""A picture under way: its light, and for every pixel what is there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypedDict, Unpack

import numpy as np

from prunescope.concepts.miniature import shapes
from prunescope.concepts.miniature.chance import Chance
from prunescope.concepts.miniature.patterns import TEXTURE_PATTERNS, material_pattern
from prunescope.concepts.miniature.shapes import Cover, Point
from prunescope.concepts.miniature.vocabulary import MATERIALS, OBJECTS, PARTS, TEXTURES

Paint = tuple[float, float, float]

TEXTURE_CONTRAST = 0.13
TEXTURE_PERIOD = 6.0
MATERIAL_CONTRAST = 0.05


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
        self.pixels = np.zeros((size, size, 3), np.float32)
        self.instance = np.zeros((size, size), np.uint8)
        self.part = np.zeros((size, size), np.uint8)
        self.inset = np.zeros((size, size), np.uint8)
        self.material = np.zeros((size, size), np.uint8)
        self.texture = np.zeros((size, size), np.uint8)
        self.grain = chance.noise(size, size)
        self.slope = chance.uniform(-0.12, 0.12)
        self._kinds = [0]

    def begin(self, name: str | None) -> None:
        """Begin another thing: an object of the vocabulary, or None for what has no name in it."""
        self._kinds.append(OBJECTS.index(name) + 1 if name else 0)

    def objects(self) -> np.ndarray:
        """Which object is seen at every pixel: place in the vocabulary from 1, or 0; uint8 [size, size]."""
        return np.array(self._kinds, np.uint8)[self.instance]

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
        down = np.arange(height, dtype=np.float32)[:, None] * (2 / max(height - 1, 1)) - 1
        across = np.arange(width, dtype=np.float32) * (2 / max(width - 1, 1)) - 1
        light = 1 - relief * down + self.slope * across
        if texture or material:
            unit = 64 / self.size
            x = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) * unit
            y = ((np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) * unit)[:, None]
            if texture:
                shift_x, shift_y = self.chance.uniform(), self.chance.uniform()
                pattern = TEXTURE_PATTERNS[texture](x / TEXTURE_PERIOD + shift_x, y / TEXTURE_PERIOD + shift_y)
                light += TEXTURE_CONTRAST / 0.5 * pattern
            elif material:
                relief_of = material_pattern(material, x, y, self.grain[window])
                if relief_of is not None:
                    light += MATERIAL_CONTRAST / 0.5 * relief_of
        target = self.pixels[window]
        target += share[:, :, None] * (light[:, :, None] * np.array(paint, np.float32) - target)
        inside = share > 0.5
        current = len(self._kinds) - 1
        if inset:
            self.part[window][inside & (self.instance[window] != current)] = 0
            self.inset[window][inside] = PARTS.index(part) + 1 if part else 0
        else:
            self.part[window][inside] = PARTS.index(part) + 1 if part else 0
            self.inset[window][inside] = 0
        self.instance[window][inside] = current
        self.material[window][inside] = MATERIALS.index(material) + 1 if material else 0
        self.texture[window][inside] = TEXTURES.index(texture) + 1 if texture else 0

    def shadow(self, x: float, y: float, radius_x: float, radius_y: float, depth: float = 0.3) -> None:
        """Darken the ground softly around (x, y); lengths as shares of the picture's side, labels stay."""
        size = self.size
        cover = shapes.ellipse(size, x * size, y * size, radius_x * size, radius_y * size)
        if cover is not None:
            self.pixels[cover.rows, cover.columns] *= 1 - depth * cover.share[:, :, None]


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
