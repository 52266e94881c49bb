"""Convert a figure to SVG that can be embedded in an HTML page."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from prunescope.drawing import INK, PAGE


def inline_svg(figure: Figure, prefix: str) -> Markup:
    """Convert a figure to an ``<svg>`` element with a transparent background, drawn in the text colour of the page.

    Parameters
    ----------
    figure : Figure
        A figure that `prunescope.report.figures.figures` returned.
    prefix : str
        A prefix for every id in the element. It must differ between the figures of a page, because matplotlib uses the
        same ids in all of them.

    Returns
    -------
    Markup
        The element. It is hidden from assistive technology, because the page describes the figure in words.
    """
    stream = io.StringIO()
    with mpl.rc_context(PAGE.settings):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = text.replace('href="#', f'href="#{prefix}').replace("url(#", f"url(#{prefix}")
    text = text.replace(INK, "currentColor")
    text = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1)
    return Markup(re.sub(r">\s+<", "><", text).strip())
