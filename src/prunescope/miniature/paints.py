"""The colors of the miniature: a common palette, which gives all pictures the same style."""

from __future__ import annotations

from prunescope.miniature.canvas import Paint

LIVELY: tuple[Paint, ...] = (
    (0.80, 0.22, 0.20),
    (0.20, 0.42, 0.74),
    (0.93, 0.75, 0.22),
    (0.22, 0.58, 0.56),
    (0.88, 0.88, 0.86),
    (0.48, 0.32, 0.62),
    (0.91, 0.50, 0.18),
)
CLOTH: tuple[Paint, ...] = (
    (0.74, 0.22, 0.22),
    (0.30, 0.46, 0.70),
    (0.80, 0.66, 0.34),
    (0.36, 0.60, 0.50),
    (0.80, 0.54, 0.62),
    (0.54, 0.42, 0.66),
    (0.66, 0.64, 0.60),
)
BLOOMS: tuple[Paint, ...] = (
    (0.90, 0.45, 0.62),
    (0.95, 0.80, 0.25),
    (0.85, 0.22, 0.26),
    (0.62, 0.40, 0.74),
    (0.96, 0.94, 0.92),
)
WALLS: tuple[Paint, ...] = ((0.86, 0.80, 0.68), (0.78, 0.72, 0.64), (0.90, 0.86, 0.80), (0.72, 0.76, 0.74))
BRICKS: tuple[Paint, ...] = ((0.70, 0.38, 0.30), (0.62, 0.33, 0.28), (0.74, 0.48, 0.36))
ROOFS: tuple[Paint, ...] = ((0.60, 0.26, 0.22), (0.36, 0.34, 0.38), (0.50, 0.34, 0.26), (0.30, 0.38, 0.44))
WOODS: tuple[Paint, ...] = ((0.60, 0.42, 0.26), (0.50, 0.34, 0.22), (0.70, 0.52, 0.34))
LEAVES: tuple[Paint, ...] = ((0.30, 0.52, 0.24), (0.38, 0.56, 0.22), (0.24, 0.46, 0.28), (0.62, 0.52, 0.18))
NEEDLES: tuple[Paint, ...] = ((0.16, 0.36, 0.28), (0.20, 0.40, 0.26), (0.14, 0.32, 0.32))
STONES: tuple[Paint, ...] = ((0.52, 0.52, 0.54), (0.58, 0.54, 0.50), (0.46, 0.47, 0.52))
METALS: tuple[Paint, ...] = ((0.62, 0.65, 0.68), (0.72, 0.74, 0.75), (0.50, 0.54, 0.58))
SKINS: tuple[Paint, ...] = ((0.92, 0.74, 0.60), (0.78, 0.56, 0.42), (0.52, 0.35, 0.26))
HAIRS: tuple[Paint, ...] = ((0.20, 0.14, 0.12), (0.44, 0.28, 0.16), (0.80, 0.64, 0.36))

BARK: Paint = (0.40, 0.28, 0.20)
TYRE: Paint = (0.13, 0.13, 0.15)
GLASS: Paint = (0.60, 0.76, 0.84)
DARK_GLASS: Paint = (0.28, 0.38, 0.48)
LIT: Paint = (0.98, 0.86, 0.46)
SNOW: Paint = (0.94, 0.95, 0.98)
CHALK: Paint = (0.92, 0.91, 0.88)
INK: Paint = (0.16, 0.17, 0.20)


def tone(paint: Paint, factor: float) -> Paint:
    """Make a paint lighter (`factor` above 1) or darker (`factor` below 1)."""
    return (min(1.0, paint[0] * factor), min(1.0, paint[1] * factor), min(1.0, paint[2] * factor))


def mix(one: Paint, other: Paint, share: float) -> Paint:
    """Mix two paints. `share` is the fraction of `other`, from 0 to 1."""
    return (
        one[0] + share * (other[0] - one[0]),
        one[1] + share * (other[1] - one[1]),
        one[2] + share * (other[2] - one[2]),
    )
