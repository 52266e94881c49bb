"""People, animals and snowmen, which are drawn part by part."""

from __future__ import annotations

from prunescope.miniature.canvas import Canvas, Pen, Spot
from prunescope.miniature.chance import Chance
from prunescope.miniature.paints import BARK, CHALK, CLOTH, HAIRS, INK, LIVELY, SKINS, SNOW, tone


def person(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a person."""
    canvas.shadow(spot.x, spot.y, 0.22 * spot.height, 0.04 * spot.height)
    pen = Pen(canvas, "person", spot)
    skin, shirt, trousers = chance.pick(SKINS), chance.pick(CLOTH), tone(chance.pick(CLOTH), 0.55)
    stride = chance.uniform(0.02, 0.09)
    for side in (-1, 1):
        foot = side * (0.05 + stride)
        leg = [(side * 0.06 - 0.065, 0.42), (foot - 0.055, 0.0), (foot + 0.055, 0.0), (side * 0.06 + 0.065, 0.42)]
        pen.shape(leg, trousers, "leg", material="fabric")
    lift = chance.uniform(-0.12, 0.3)
    for side in (-1, 1):
        end = (side * 0.3, 0.44 + (lift if side > 0 else 0.0))
        pen.shape([(side * 0.1, 0.72), (side * 0.1, 0.62), (end[0], end[1]), (end[0], end[1] + 0.09)], skin, "arm")
    pen.box((-0.145, 0.38, 0.145, 0.76), shirt, "torso", material="fabric", texture=spot.texture, radius=0.06)
    pen.disc(0.0, 0.885, 0.115, chance.pick(HAIRS), "head")
    pen.disc(0.015, 0.86, 0.095, skin, "head")


def cow(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a cow."""
    canvas.shadow(spot.x, spot.y, 0.75 * spot.height, 0.08 * spot.height)
    pen = Pen(canvas, "cow", spot)
    coat = chance.pick((CHALK, (0.58, 0.38, 0.24), (0.78, 0.62, 0.44)))
    patch = INK if coat == CHALK else tone(coat, 0.7)
    for x in (-0.5, -0.32, 0.28, 0.46):
        pen.box((x - 0.07, 0.0, x + 0.07, 0.5), tone(coat, 0.85), "leg")
    pen.box((-0.66, 0.36, 0.58, 0.88), coat, "body", radius=0.2)
    pen.disc(-0.3, 0.68, 0.18, patch, "body", tall=0.8)
    pen.disc(0.2, 0.58, 0.15, patch, "body", tall=0.9)
    pen.box((0.5, 0.62, 0.88, 1.0), coat, "head", radius=0.12)
    pen.box((0.74, 0.62, 0.96, 0.8), (0.90, 0.68, 0.64), "head", radius=0.08)
    pen.disc(0.72, 0.88, 0.05, INK, "head")


def snowman(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a snowman."""
    canvas.shadow(spot.x, spot.y, 0.32 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "snowman", spot)
    snow, hat = tone(SNOW, 0.92), chance.pick((LIVELY[1], LIVELY[3], LIVELY[5], (0.34, 0.33, 0.36)))
    pen.disc(0.0, 0.24, 0.27, snow, "body", relief=0.15)
    pen.disc(0.0, 0.54, 0.2, snow, "body", relief=0.15)
    for y in (0.48, 0.58):
        pen.disc(0.0, y, 0.03, INK, "body")
    pen.box((-0.16, 0.62, 0.16, 0.68), chance.pick(LIVELY[:4]), "body", material="fabric")
    pen.disc(0.0, 0.76, 0.135, snow, "head", relief=0.15)
    for x in (-0.05, 0.06):
        pen.disc(x, 0.79, 0.02, INK, "head")
    pen.shape([(0.0, 0.72), (0.0, 0.77), (0.16, 0.73)], LIVELY[6], "head")
    for x in (-1, 1):
        pen.shape([(x * 0.16, 0.56), (x * 0.16, 0.52), (x * 0.42, 0.68), (x * 0.42, 0.71)], BARK, None, material="wood")
    pen.box((-0.2, 0.85, 0.2, 0.9), tone(hat, 0.85), "hat")
    pen.box((-0.12, 0.88, 0.12, 1.06), hat, "hat")
