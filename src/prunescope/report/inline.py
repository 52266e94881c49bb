"""Convert a figure to SVG that can be embedded in an HTML page."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from prunescope.drawing import INK, PAGE


def svg_text(figure: Figure) -> str:
    """Return the text of the SVG file of a figure, as `draw_figures` writes it."""
    stream = io.StringIO()
    with mpl.rc_context(PAGE.settings):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def svg_width(text: str) -> float:
    """Return the width of an SVG file that `draw_figures` wrote, in inches."""
    found = re.search(r'<svg [^>]*?width="([\d.]+)pt"', text)
    return float(found[1]) / 72 if found else PAGE.width


def inline_svg(text: str, prefix: str) -> Markup:
    """Convert an SVG file to an ``<svg>`` element with a transparent background, drawn in the text colour of the page.

    Parameters
    ----------
    text : str
        The text of a file that `draw_figures` wrote.
    prefix : str
        A prefix for every id in the element. It must differ between the figures of a page, because matplotlib uses the
        same ids in all of them.

    Returns
    -------
    Markup
        The element. It is hidden from assistive technology, because the page describes the figure in words.
    """
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    text = text.replace(INK, "currentColor").replace("fill: #ffffff", "fill: none")
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    return Markup(re.sub(r">\s+<", "><", text).strip())
