"""The backgrounds of the scenes: sky and ground, or wall and floor."""

from __future__ import annotations

import numpy as np

from prunescope.miniature import shapes
from prunescope.miniature.canvas import Canvas, Paint
from prunescope.miniature.chance import Chance
from prunescope.miniature.paints import CHALK, LIT, mix, tone

SKIES: dict[str, tuple[Paint, Paint]] = {
    "day": ((0.42, 0.62, 0.84), (0.78, 0.87, 0.92)),
    "haze": ((0.66, 0.72, 0.78), (0.86, 0.86, 0.84)),
    "dusk": ((0.46, 0.40, 0.60), (0.95, 0.68, 0.50)),
    "night": ((0.08, 0.10, 0.22), (0.24, 0.26, 0.42)),
}
GROUNDS: dict[str, Paint] = {
    "grass": (0.46, 0.60, 0.30),
    "meadow": (0.60, 0.64, 0.34),
    "sand": (0.86, 0.76, 0.56),
    "desert": (0.84, 0.62, 0.42),
    "earth": (0.56, 0.46, 0.36),
    "snow": (0.88, 0.91, 0.95),
    "asphalt": (0.42, 0.42, 0.45),
    "paving": (0.66, 0.63, 0.60),
    "water": (0.28, 0.50, 0.64),
}
FLOORS: dict[str, Paint] = {
    "oak": (0.66, 0.50, 0.34),
    "walnut": (0.48, 0.36, 0.28),
    "tiles": (0.80, 0.78, 0.74),
    "lino": (0.56, 0.60, 0.60),
    "carpet": (0.58, 0.46, 0.46),
}
WALLPAPERS: tuple[Paint, ...] = (
    (0.88, 0.83, 0.74),
    (0.74, 0.80, 0.80),
    (0.84, 0.76, 0.70),
    (0.80, 0.82, 0.70),
    (0.72, 0.70, 0.76),
)


def _fill(canvas: Canvas, first: int, last: int, upper: Paint, lower: Paint) -> None:
    if last <= first:
        return
    steps = (np.arange(last - first, dtype=np.float32) / max(last - first - 1, 1))[:, None]
    one, other = np.array(upper, np.float32)[:, None, None], np.array(lower, np.float32)[:, None, None]
    canvas.pixels[:, first:last] = one + steps * (other - one)


def outdoors(canvas: Canvas, chance: Chance, ground: str, sky: str, horizon: float) -> None:
    """Draw the sky, at random with sun or moon, clouds and hills, and the ground.

    If the ground is water, it is labelled with the material "water".
    """
    size = canvas.size
    line = int(horizon * size + 0.5)
    upper, lower = SKIES[sky]
    _fill(canvas, 0, line, upper, lower)
    canvas.begin(None)
    if chance.coin(0.35):
        x, y = chance.uniform(0.1, 0.9) * size, chance.uniform(0.08, 0.3) * size
        canvas.lay(shapes.ellipse(size, x, y, 0.05 * size, 0.05 * size), CHALK if sky == "night" else LIT, relief=0.0)
    for _ in range(int(chance.uniform(0, 3.5))):
        x, y = chance.uniform(0, 1) * size, chance.uniform(0.05, 0.7 * horizon) * size
        wide = chance.uniform(0.06, 0.13) * size
        paint = mix(lower, CHALK, 0.55 if sky != "night" else 0.12)
        canvas.lay(shapes.ellipse(size, x, y, wide, 0.36 * wide), paint, relief=0.05)
        canvas.lay(shapes.ellipse(size, x + 0.5 * wide, y - 0.2 * wide, 0.6 * wide, 0.35 * wide), paint, relief=0.05)
    if chance.coin(0.5):
        far = mix(GROUNDS[ground], lower, 0.55)
        for _ in range(2):
            x, wide = chance.uniform(0, 1) * size, chance.uniform(0.25, 0.5) * size
            canvas.lay(shapes.ellipse(size, x, line, wide, chance.uniform(0.05, 0.12) * size), far, relief=0.05)
    paint = GROUNDS[ground]
    if sky == "night":
        paint = mix(tone(paint, 0.5), (0.14, 0.16, 0.30), 0.35)
    elif sky == "dusk":
        paint = mix(tone(paint, 0.85), (0.70, 0.45, 0.45), 0.2)
    _fill(canvas, line, size, mix(paint, lower, 0.25), tone(paint, 0.92))
    if ground == "water":
        canvas.begin(None)
        canvas.lay(shapes.box(size, -2, line, size + 2, size + 2), tone(paint, 1.05), material="water", relief=0.12)
    else:
        canvas.pixels[:, line:] *= 1 + 0.05 * canvas.grain[line:]


def sea(canvas: Canvas, chance: Chance, horizon: float) -> None:
    """Draw a band of water below the horizon, labelled with the material "water"."""
    size = canvas.size
    canvas.begin(None)
    line, shore = int(horizon * size + 0.5), (horizon + chance.uniform(0.07, 0.14)) * size
    canvas.lay(shapes.box(size, -2, shore, size + 2, shore + 0.02 * size), CHALK, relief=0.0)
    canvas.lay(shapes.box(size, -2, line, size + 2, shore), GROUNDS["water"], material="water", relief=0.1)


def indoors(canvas: Canvas, chance: Chance, floor: str, horizon: float) -> None:
    """Draw a wall with a skirting board, at random with a picture on it, and the floor."""
    size = canvas.size
    line = int(horizon * size + 0.5)
    wall = chance.pick(WALLPAPERS)
    _fill(canvas, 0, line, tone(wall, 1.02), tone(wall, 0.92))
    canvas.begin(None)
    if chance.coin(0.4):
        x, y = chance.uniform(0.1, 0.75) * size, chance.uniform(0.06, 0.2) * size
        wide, tall = chance.uniform(0.12, 0.2) * size, chance.uniform(0.1, 0.18) * size
        canvas.lay(shapes.box(size, x, y, x + wide, y + tall), tone(wall, 0.6))
        inner = chance.pick(list(SKIES.values()))[1]
        canvas.lay(shapes.box(size, x + 1, y + 1, x + wide - 1, y + tall - 1), inner, relief=0.3)
    canvas.lay(shapes.box(size, -2, line - 0.025 * size, size + 2, line + 0.5), tone(wall, 0.72), relief=0.0)
    paint = FLOORS[floor]
    _fill(canvas, line, size, tone(paint, 0.9), tone(paint, 1.06))
    canvas.pixels[:, line:] *= 1 + 0.04 * canvas.grain[line:]
