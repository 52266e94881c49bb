"""Outdoor objects, which are drawn part by part."""

from __future__ import annotations

from prunescope.miniature.canvas import Canvas, Pen, Spot
from prunescope.miniature.chance import Chance
from prunescope.miniature.paints import (
    BARK,
    BLOOMS,
    BRICKS,
    CHALK,
    CLOTH,
    DARK_GLASS,
    GLASS,
    LEAVES,
    LIT,
    LIVELY,
    METALS,
    NEEDLES,
    ROOFS,
    SNOW,
    STONES,
    TYRE,
    WALLS,
    WOODS,
    tone,
)


def car(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a car from the side."""
    paint = chance.pick(LIVELY)
    canvas.shadow(spot.x, spot.y, 1.25 * spot.height, 0.14 * spot.height)
    pen = Pen(canvas, "car", spot)
    pen.shape([(-0.78, 0.58), (-0.5, 1.0), (0.3, 1.0), (0.66, 0.58)], paint, "body", material="metal")
    pen.box((-1.15, 0.18, 1.15, 0.64), paint, "body", material="metal", radius=0.14)
    glass = chance.pick((GLASS, DARK_GLASS))
    pen.shape(
        [(-0.62, 0.62), (-0.44, 0.91), (-0.12, 0.91), (-0.12, 0.62)], glass, "window", material="glass", inset=True
    )
    pen.shape([(-0.02, 0.62), (-0.02, 0.91), (0.26, 0.91), (0.5, 0.62)], glass, "window", material="glass", inset=True)
    for x in (-0.64, 0.64):
        pen.disc(x, 0.21, 0.23, TYRE, "wheel")
        pen.disc(x, 0.21, 0.1, METALS[1], "wheel", material="metal")


def boat(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a sailing boat."""
    canvas.shadow(spot.x, spot.y, 0.6 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "boat", spot)
    pen.box((-0.06, 0.15, -0.01, 1.0), WOODS[2], "pole", material="wood")
    sail = CHALK if spot.texture is None else chance.pick(CLOTH)
    pen.shape([(0.02, 0.28), (0.02, 0.98), (0.5, 0.28)], sail, "sail", material="fabric", texture=spot.texture)
    pen.shape([(-0.09, 0.3), (-0.09, 0.9), (-0.42, 0.3)], CHALK, "sail", material="fabric")
    paint = chance.pick((*LIVELY[:3], *WOODS))
    hull = [(-0.58, 0.22), (-0.4, 0.0), (0.38, 0.0), (0.62, 0.22)]
    pen.shape(hull, paint, "hull", material="wood", relief=0.2)


def train(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a railway carriage."""
    paint = chance.pick(LIVELY)
    canvas.shadow(spot.x, spot.y, 1.6 * spot.height, 0.1 * spot.height)
    pen = Pen(canvas, "train", spot)
    pen.box((-1.6, 0.16, 1.6, 1.0), paint, "body", material="metal", radius=0.12)
    pen.box((-1.6, 0.34, 1.6, 0.42), CHALK, "body", material="metal")
    for x in (-1.12, -0.56, 0.56, 1.12):
        pen.box((x - 0.2, 0.52, x + 0.2, 0.84), DARK_GLASS, "window", material="glass", inset=True, radius=0.04)
    pen.box((-0.22, 0.18, 0.22, 0.88), tone(paint, 0.7), "door", material="metal", inset=True)
    for x in (-1.2, -0.8, 0.8, 1.2):
        pen.disc(x, 0.13, 0.14, TYRE, "wheel", material="metal")


def house(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a house with a gable roof."""
    canvas.shadow(spot.x, spot.y, 0.62 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "house", spot)
    brick = chance.coin(0.6)
    wall = chance.pick(BRICKS if brick else WALLS)
    pen.box((0.2, 0.7, 0.32, 1.0), BRICKS[1], None, material="brick")
    pen.box((-0.5, 0.0, 0.5, 0.6), wall, "facade", material="brick" if brick else None)
    roof = [(-0.62, 0.56), (-0.3, 0.94), (0.3, 0.94), (0.62, 0.56)]
    pen.shape(roof, chance.pick(ROOFS), "roof", relief=0.2)
    glass = chance.pick((GLASS, DARK_GLASS, LIT))
    for x in (-0.3, 0.31):
        pen.box((x - 0.12, 0.2, x + 0.12, 0.44), CHALK, "window", inset=True)
        pen.box((x - 0.09, 0.23, x + 0.09, 0.41), glass, "window", material="glass", inset=True)
    pen.box((-0.1, 0.0, 0.11, 0.36), chance.pick((*WOODS, LIVELY[1], LIVELY[3])), "door", material="wood", inset=True)


def tower(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a tall building with rows of windows, some of which are lit."""
    pen = Pen(canvas, "tower", spot)
    paint = chance.pick((*STONES, (0.36, 0.40, 0.50), (0.58, 0.46, 0.42)))
    wide = chance.uniform(0.15, 0.2)
    pen.box((-wide, 0.0, wide, 1.0), paint, "facade")
    pen.box((-0.5 * wide, 1.0, 0.5 * wide, 1.05), tone(paint, 0.7), "facade")
    for row in range(6):
        bottom = 0.1 + row * 0.145
        for column in (-0.62, 0.0, 0.62):
            lit = LIT if chance.coin(0.5) else DARK_GLASS
            x = column * wide
            pen.box(
                (x - 0.2 * wide, bottom, x + 0.2 * wide, bottom + 0.085), lit, "window", material="glass", inset=True
            )


def tree(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a broad-leaved tree."""
    canvas.shadow(spot.x, spot.y, 0.34 * spot.height, 0.05 * spot.height)
    pen = Pen(canvas, "tree", spot)
    paint = chance.pick(LEAVES)
    pen.shape([(-0.08, 0.0), (-0.05, 0.5), (0.05, 0.5), (0.08, 0.0)], BARK, "trunk", material="wood")
    for x, y, radius, factor in ((-0.17, 0.56, 0.2, 0.85), (0.18, 0.57, 0.2, 0.9), (0.0, 0.74, 0.25, 1.05)):
        pen.disc(x, y, radius, tone(paint, factor), "crown", material="foliage", relief=0.22)


def fir(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a fir, at random with snow on it."""
    canvas.shadow(spot.x, spot.y, 0.26 * spot.height, 0.04 * spot.height)
    pen = Pen(canvas, "fir", spot)
    paint = chance.pick(NEEDLES)
    snowy = chance.coin(0.3)
    pen.box((-0.05, 0.0, 0.05, 0.2), BARK, "trunk", material="wood")
    for bottom, wide, top in ((0.14, 0.3, 0.55), (0.36, 0.25, 0.78), (0.58, 0.19, 1.0)):
        pen.shape([(-wide, bottom), (0.0, top), (wide, bottom)], paint, "crown", material="foliage", relief=0.25)
        if snowy:
            tip = [(-0.35 * wide, top - 0.15), (0.0, top), (0.35 * wide, top - 0.15)]
            pen.shape(tip, SNOW, "crown")


def cactus(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a cactus with two arms."""
    canvas.shadow(spot.x, spot.y, 0.28 * spot.height, 0.05 * spot.height)
    pen = Pen(canvas, "cactus", spot)
    paint = chance.pick(((0.34, 0.54, 0.34), (0.40, 0.58, 0.30), (0.30, 0.50, 0.42)))
    left, right = chance.uniform(0.26, 0.42), chance.uniform(0.3, 0.5)
    pen.box((-0.34, left, -0.05, left + 0.13), paint, "arm", radius=0.06)
    pen.box((-0.34, left, -0.21, left + 0.36), paint, "arm", radius=0.06)
    pen.box((0.05, right, 0.34, right + 0.13), paint, "arm", radius=0.06)
    pen.box((0.21, right, 0.34, right + 0.34), paint, "arm", radius=0.06)
    pen.box((-0.11, 0.0, 0.11, 1.0), paint, "trunk", radius=0.1)
    if chance.coin(0.4):
        pen.disc(0.0, 1.0, 0.07, BLOOMS[0], None)


def flower(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a large flower with leaves."""
    pen = Pen(canvas, "flower", spot)
    leaf = LEAVES[1]
    pen.box((-0.04, 0.0, 0.04, 0.7), tone(leaf, 0.8), "stem", material="foliage")
    pen.disc(-0.14, 0.24, 0.13, leaf, "stem", tall=0.5, material="foliage")
    pen.disc(0.14, 0.34, 0.13, leaf, "stem", tall=0.5, material="foliage")
    paint = chance.pick(BLOOMS)
    for x, y in ((-0.16, 0.68), (0.16, 0.68), (-0.1, 0.87), (0.1, 0.87), (0.0, 0.6)):
        pen.disc(x, y, 0.14, paint, "bloom")
    pen.disc(0.0, 0.74, 0.1, BLOOMS[1] if paint != BLOOMS[1] else BARK, "bloom")


def parasol(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a parasol."""
    canvas.shadow(spot.x + 0.1 * spot.height, spot.y, 0.42 * spot.height, 0.07 * spot.height)
    pen = Pen(canvas, "parasol", spot)
    pen.box((-0.025, 0.0, 0.025, 0.7), CHALK, "pole", material="wood")
    paint = chance.pick(CLOTH)
    outline = [(-0.5, 0.62), (-0.4, 0.82), (-0.2, 0.95), (0.0, 1.0), (0.2, 0.95), (0.4, 0.82), (0.5, 0.62)]
    pen.shape(outline, paint, "canopy", material="fabric", texture=spot.texture)


def fence(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a wooden fence."""
    pen = Pen(canvas, "fence", spot)
    paint = chance.pick((*WOODS, CHALK))
    reach = chance.uniform(1.2, 2.2)
    for bottom in (0.3, 0.66):
        pen.box((-reach, bottom, reach, bottom + 0.14), tone(paint, 0.9), None, material="wood")
    x = -reach + 0.12
    while x < reach:
        pen.box((x - 0.1, 0.0, x + 0.1, 1.0), paint, "post", material="wood")
        x += 0.52


def slide(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a slide with a ladder."""
    canvas.shadow(spot.x, spot.y, 0.6 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "slide", spot)
    paint = chance.pick((LIVELY[0], LIVELY[2], LIVELY[6]))
    frame = chance.pick(METALS)
    for x in (-0.5, -0.24):
        pen.box((x - 0.035, 0.0, x + 0.035, 1.0), frame, "ladder", material="metal")
    for y in (0.2, 0.42, 0.64):
        pen.box((-0.5, y, -0.24, y + 0.06), frame, "ladder", material="metal")
    pen.shape([(-0.26, 0.88), (-0.26, 0.66), (0.5, 0.0), (0.76, 0.0), (0.76, 0.12)], paint, "chute", relief=0.2)
    pen.box((-0.54, 0.76, -0.2, 0.84), tone(paint, 0.8), "chute")
