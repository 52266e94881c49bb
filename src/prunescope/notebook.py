"""Render results as HTML for notebooks, with all text escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 60


def as_html(title: str, table: pd.DataFrame | None = None) -> str:
    """Return a title, and optionally a table below it, as HTML.

    Names of concepts and layers come from data sets and files of others. They are escaped, and the notebook is told not
    to read dollar signs in them as mathematics.
    """
    parts = [f"<p>{escape(title)}</p>"]
    if table is not None:
        shown = table.head(MOST_ROWS)
        parts.append(shown.to_html(index=False, border=0, na_rep="", escape=True))
        if len(table) > len(shown):
            parts.append(f"<p>{len(table) - len(shown):,} more rows</p>")
    return f'<div class="tex2jax_ignore mathjax_ignore">{"".join(parts)}</div>'
