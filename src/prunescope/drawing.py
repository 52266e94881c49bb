"""The looks of figures: colours, fonts and sizes for the page, for a paper and for slides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from prunescope.errors import InputError, nearest

INK = "#24292f"
# Okabe and Ito's palette, ordered so that neighbouring colours can be told apart with every kind of colour vision.
# The markers distinguish the lines as well.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
FATE_COLORS: Mapping[str, str] = {
    "kept": "#0072b2",
    "unsure": "#56b4e9",
    "changed": "#e69f00",
    "gained": "#009e73",
    "lost": "#d55e00",
    "never": "#d9d9d9",
    "dead": "#8c8c8c",
    "removed": "#4d4d4d",
}
HEAT = "cividis"  # its lightness increases steadily, and it looks nearly the same with every kind of colour vision


@dataclass(frozen=True)
class Style:
    """The size of figures and of what is in them.

    Attributes
    ----------
    width
        The width of a figure with several panels, in inches.
    columns
        The greatest number of panels side by side.
    font
        The size of the text in points. Other sizes follow from it.
    line
        The width of lines in points.
    """

    width: float
    columns: int
    font: float = 9
    line: float = 1.4

    @property
    def scale(self) -> float:
        """The size of the text relative to that of the page."""
        return self.font / 9

    @property
    def settings(self) -> Any:
        """The settings of matplotlib."""
        return {
            "font.family": "DejaVu Sans",
            "font.size": self.font,
            "axes.edgecolor": INK,
            "axes.labelcolor": INK,
            "axes.labelsize": self.font,
            "axes.titlesize": self.font,
            "axes.titlecolor": INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8 * self.scale,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": self.font - self.scale,
            "ytick.labelsize": self.font - self.scale,
            "xtick.major.pad": 3.5 * self.scale,
            "ytick.major.pad": 3.5 * self.scale,
            "text.color": INK,
            "legend.frameon": False,
            "legend.fontsize": self.font - self.scale / 2,
            "lines.linewidth": self.line,
            "lines.markersize": 4 * self.scale,
            # Names of layers and categories may contain dollar signs, which must not be read as mathematics.
            "text.parse_math": False,
            "svg.hashsalt": "prunescope",
            # Fonts are embedded: as TrueType in PDF, which journals ask for, and as outlines in SVG.
            "pdf.fonttype": 42,
            "svg.fonttype": "path",
        }


PAGE = Style(width=6.6, columns=3)
STYLES: Mapping[str, Style] = {
    "page": PAGE,
    "paper": Style(width=3.4, columns=2, font=8, line=1.2),
    "slides": Style(width=12.0, columns=3, font=18, line=2.6),
}


def style_named(name: str) -> Style:
    """Return a style by its name.

    Raises
    ------
    InputError
        If there is no such style.
    """
    if name not in STYLES:
        raise InputError(f"style is {name!r}; {nearest(name, STYLES)}")
    return STYLES[name]


class StyledFigure(Figure):
    """A figure that a notebook shows by itself, whether or not `matplotlib.pyplot` has been imported."""

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        content = BytesIO()
        with mpl.rc_context(PAGE.settings):
            self.savefig(content, format="png", dpi=110)
        return content.getvalue()
