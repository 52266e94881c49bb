"""The style of all figures."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

INK = "#24292f"
# Okabe and Ito's palette, ordered so that neighbouring colours can be told apart with every kind of colour vision.
# The markers distinguish the lines as well.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    # Names of layers and categories may contain dollar signs, which must not be read as mathematics.
    "text.parse_math": False,
    "svg.hashsalt": "prunescope",
    "pdf.fonttype": 42,
}


class StyledFigure(Figure):
    """A figure that a notebook shows by itself, whether or not `matplotlib.pyplot` has been imported."""

    def _repr_png_(self) -> bytes:
        from io import BytesIO

        content = BytesIO()
        with mpl.rc_context(STYLE):
            self.savefig(content, format="png", dpi=110)
        return content.getvalue()
