"""Indoor objects, which are drawn part by part."""

from __future__ import annotations

from prunescope.miniature.canvas import Canvas, Pen, Spot
from prunescope.miniature.chance import Chance
from prunescope.miniature.paints import (
    CHALK,
    CLOTH,
    DARK_GLASS,
    INK,
    LIT,
    LIVELY,
    METALS,
    WOODS,
    tone,
)


def chair(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a chair from the side."""
    canvas.shadow(spot.x, spot.y, 0.34 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "chair", spot)
    wood = chance.pick(WOODS)
    for x in (-0.26, 0.22):
        pen.box((x - 0.045, 0.0, x + 0.045, 0.46), tone(wood, 0.85), "leg", material="wood")
    pen.shape([(-0.34, 0.42), (-0.42, 1.0), (-0.3, 1.0), (-0.2, 0.42)], wood, "back", material="wood")
    if spot.texture:
        pen.box((-0.34, 0.42, 0.32, 0.58), chance.pick(CLOTH), "seat", material="fabric", radius=0.05)
    else:
        pen.box((-0.34, 0.44, 0.32, 0.54), wood, "seat", material="wood")


def table(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a table, with a tablecloth if the spot has a texture."""
    canvas.shadow(spot.x, spot.y, 1.0 * spot.height, 0.1 * spot.height)
    pen = Pen(canvas, "table", spot)
    wood = chance.pick(WOODS)
    for x in (-0.86, 0.86):
        pen.box((x - 0.08, 0.0, x + 0.08, 0.86), tone(wood, 0.85), "leg", material="wood")
    if spot.texture:
        cloth = chance.pick(CLOTH)
        outline = [(-0.98, 1.0), (-1.04, 0.48), (1.04, 0.48), (0.98, 1.0)]
        pen.shape(outline, cloth, "top", material="fabric", texture=spot.texture, relief=0.05)
    else:
        pen.box((-1.08, 0.82, 1.08, 1.0), wood, "top", material="wood")


def desk(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a table with a computer on it."""
    plain = spot._replace(texture=None)
    table(canvas, chance, plain)
    height = spot.height * 1.1
    shift = chance.uniform(-0.35, 0.35) * spot.height
    computer(canvas, chance, plain._replace(x=spot.x + shift, y=spot.y - spot.height, height=height))


def computer(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a computer: a screen on a stand, and a keyboard."""
    pen = Pen(canvas, "computer", spot)
    case = chance.pick((INK, METALS[0], CHALK))
    pen.box((-0.07, 0.0, 0.07, 0.3), tone(case, 0.8), None, material="metal")
    pen.box((-0.58, 0.24, 0.58, 1.0), case, "screen", radius=0.05)
    glow = chance.pick(((0.36, 0.62, 0.86), (0.30, 0.70, 0.66), (0.80, 0.86, 0.92), (0.22, 0.30, 0.48)))
    pen.box((-0.5, 0.32, 0.5, 0.93), glow, "screen", material="glass")
    for place in range(3):
        pen.box(
            (-0.4, 0.74 - 0.15 * place, chance.uniform(-0.1, 0.4), 0.8 - 0.15 * place),
            CHALK,
            "screen",
            material="glass",
        )
    pen.box((-0.5, -0.04, 0.5, 0.1), tone(case, 1.25), None, radius=0.03)


def bed(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a bed from the side."""
    canvas.shadow(spot.x, spot.y, 1.3 * spot.height, 0.12 * spot.height)
    pen = Pen(canvas, "bed", spot)
    wood = chance.pick(WOODS)
    for x in (-1.16, 1.16):
        pen.box((x - 0.07, 0.0, x + 0.07, 0.4), tone(wood, 0.8), "leg", material="wood")
    pen.box((-1.3, 0.0, -1.14, 1.0), wood, "back", material="wood", radius=0.05)
    pen.box((-1.2, 0.2, 1.24, 0.4), wood, None, material="wood")
    pen.box((-1.14, 0.36, 1.22, 0.6), CHALK, None, material="fabric", radius=0.06)
    pen.box((-1.08, 0.54, -0.48, 0.82), CHALK, "pillow", material="fabric", radius=0.11)
    pen.box(
        (-0.46, 0.26, 1.26, 0.7), chance.pick(CLOTH), "blanket", material="fabric", texture=spot.texture, radius=0.06
    )


def bookcase(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a bookcase with books."""
    canvas.shadow(spot.x, spot.y, 0.42 * spot.height, 0.04 * spot.height)
    pen = Pen(canvas, "bookcase", spot)
    wood = chance.pick(WOODS)
    pen.box((-0.36, 0.0, 0.36, 1.0), tone(wood, 0.8), None, material="wood")
    for row in range(4):
        bottom = 0.05 + row * 0.24
        pen.box((-0.32, bottom, 0.32, bottom + 0.2), tone(wood, 0.45), None, material="wood")
        x = -0.31
        while x < 0.27:
            wide, tall = chance.uniform(0.07, 0.12), chance.uniform(0.13, 0.185)
            if chance.coin(0.88):
                paint = chance.pick(CLOTH)
                pen.box((x, bottom, min(x + wide, 0.31), bottom + tall), paint, "book", inset=True, relief=0.03)
            x += wide


def lamp(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a lamp on a pole."""
    canvas.shadow(spot.x, spot.y, 0.2 * spot.height, 0.03 * spot.height)
    pen = Pen(canvas, "lamp", spot)
    metal = chance.pick((INK, *METALS))
    pen.box((-0.11, 0.0, 0.11, 0.04), metal, "pole", material="metal")
    pen.box((-0.025, 0.0, 0.025, 0.76), metal, "pole", material="metal")
    paint = chance.pick((LIT, LIT, CHALK, LIVELY[6]))
    pen.shape([(-0.2, 0.7), (-0.12, 1.0), (0.12, 1.0), (0.2, 0.7)], paint, "shade", material="fabric", relief=-0.1)


def stove(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a stove with a pot on it."""
    canvas.shadow(spot.x, spot.y, 0.5 * spot.height, 0.06 * spot.height)
    pen = Pen(canvas, "stove", spot)
    case = chance.pick((METALS[0], METALS[1], METALS[2], (0.78, 0.72, 0.62)))
    pen.box((-0.44, 0.0, 0.44, 0.72), case, "body", material="metal", radius=0.03)
    pen.box((-0.32, 0.1, 0.32, 0.46), DARK_GLASS, "door", material="glass", inset=True, radius=0.04)
    for x in (-0.27, -0.09, 0.09, 0.27):
        pen.disc(x, 0.6, 0.045, INK, "body")
    pot = chance.pick((LIVELY[0], METALS[0], METALS[2], LIVELY[6]))
    x = chance.pick((-0.18, 0.18))
    pen.box((x - 0.26, 0.85, x + 0.26, 0.9), tone(pot, 0.8), "pot", material="metal")
    pen.box((x - 0.19, 0.72, x + 0.19, 0.96), pot, "pot", material="metal", radius=0.03)


def rug(canvas: Canvas, chance: Chance, spot: Spot) -> None:
    """Draw a rug on the ground."""
    pen = Pen(canvas, "rug", spot)
    paint = chance.pick(CLOTH)
    outline = [(-1.15, 0.0), (-0.85, 1.0), (0.85, 1.0), (1.15, 0.0)]
    pen.shape(outline, paint, None, material="fabric", texture=spot.texture, relief=0.0)
