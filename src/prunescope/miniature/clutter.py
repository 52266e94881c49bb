"""Things that have no object label. Most of them are labelled only with the material that they are made of."""

from __future__ import annotations

from prunescope.miniature.backdrops import GROUNDS
from prunescope.miniature.canvas import Canvas, Pen, Spot
from prunescope.miniature.chance import Chance
from prunescope.miniature.paints import BRICKS, METALS, SNOW, STONES, WOODS, tone


def rock(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a boulder."""
    canvas.shadow(spot.x, spot.y, 0.8 * spot.height, 0.14 * spot.height)
    pen = Pen(canvas, None, spot)
    paint = chance.pick((*STONES, (0.62, 0.48, 0.38)))
    outline = [(-0.75, 0.0), (-0.62, 0.52), (-0.15, 0.95), (0.36, 0.82), (0.7, 0.3), (0.72, 0.0)]
    pen.shape(outline, paint, material="stone", relief=0.22)


def mountain(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a mountain with snow on its peak."""
    pen = Pen(canvas, None, spot)
    paint = chance.pick(STONES)
    lean = chance.uniform(-0.12, 0.12)
    wide = chance.uniform(0.75, 1.0)
    pen.shape([(-wide, 0.0), (lean, 1.0), (wide, 0.0)], paint, material="stone", relief=0.05)
    dark = [(lean, 1.0), (lean + 0.1 * wide, 0.0), (wide, 0.0)]
    pen.shape(dark, tone(paint, 0.8), material="stone", relief=0.05)
    side = 0.34 * wide
    snow = [(lean - side - 0.34 * lean, 0.66), (lean, 1.0), (lean + side - 0.34 * lean, 0.66), (lean * 0.7, 0.58)]
    pen.shape(snow, SNOW, relief=0.05)


def wall(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a low wall of bricks."""
    pen = Pen(canvas, None, spot)
    paint = chance.pick(BRICKS)
    reach = chance.uniform(1.4, 2.2)
    pen.box((-reach, 0.0, reach, 0.94), paint, material="brick", relief=0.06)
    pen.box((-reach - 0.05, 0.9, reach + 0.05, 1.02), tone(paint, 0.8), material="brick", relief=0.0)


def logs(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a pile of five logs, seen from their ends."""
    canvas.shadow(spot.x, spot.y, 1.1 * spot.height, 0.12 * spot.height)
    pen = Pen(canvas, None, spot)
    paint = chance.pick(WOODS)
    for x, y in ((-0.53, 0.26), (0.0, 0.26), (0.53, 0.26), (-0.26, 0.7), (0.27, 0.7)):
        pen.disc(x, y, 0.28, tone(paint, 0.7), material="wood")
        pen.disc(x, y, 0.2, tone(paint, 1.3), material="wood")


def pond(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a pond."""
    pen = Pen(canvas, None, spot)
    wide = chance.uniform(1.5, 2.0)
    pen.disc(0.0, 0.5, wide, GROUNDS["water"], tall=0.5 / wide, material="water", relief=0.05)


def post(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a bar from the bottom to the top of the picture, which hides a part of the scene behind it."""
    pen = Pen(canvas, None, spot)
    pen.box((-0.05, 0.0, 0.05, 3.0), chance.pick((*WOODS, *METALS)))
