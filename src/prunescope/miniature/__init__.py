"""The miniature: a synthetic data set of small drawn scenes with exact concept labels for every pixel."""

from prunescope.miniature.colors import color_places
from prunescope.miniature.scenes import Picture, draw
from prunescope.miniature.vocabulary import CATEGORIES, COLORS, NAMES, PARTS_OF, SCENES, vocabulary
from prunescope.miniature.write import make_miniature

__all__ = [
    "CATEGORIES",
    "COLORS",
    "NAMES",
    "PARTS_OF",
    "SCENES",
    "Picture",
    "color_places",
    "draw",
    "make_miniature",
    "vocabulary",
]
