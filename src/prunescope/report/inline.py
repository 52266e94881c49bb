"""A figure as SVG that stands inside a page."""

from __future__ import annotations

import io
import re

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from prunescope.report.figures import INK, STYLE


def inline_svg(figure: Figure, prefix: str) -> Markup:
    """Turn a figure into an ``<svg>`` element: transparent, and with the page's text colour as its ink.

    Parameters
    ----------
    figure : Figure
        As `prunescope.report.figures.figures` makes them.
    prefix : str
        Put before every id, since one page holds several figures that use the same ones.

    Returns
    -------
    Markup
        The element, hidden from assistive technology: the page says in words what it shows.
    """
    stream = io.StringIO()
    with mpl.rc_context(STYLE):
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
