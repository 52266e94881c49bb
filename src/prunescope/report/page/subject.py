"""Describe what a page is about, so that one page serves studies, series and single dissections."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

Key = tuple[int, int, str]  # trial, level, layer


@dataclass(frozen=True)
class Subject:
    """Dissections that a page shows together.

    Attributes
    ----------
    root : Path
        The folder that the page is written to, as ``report/index.html``.
    title, kind : str
        The name of the study, and what it is: "study", "series", "dissection", "table" or
        "comparison".
    layers : tuple of str
        The layers.
    keys : tuple of (trial, level)
        What is finished.
    iou : float
        The bound above which a unit is interpretable.
    axis : str or None
        The name of the horizontal axis, where that is not the weights remaining.
    dissected : function
        Returns the table of units and the summary of a trial, level and layer.
    folder : function
        Returns the folder of the dissection of a trial, level and layer.
    curves : DataFrame
        A row per trial, level and layer, as `prunescope.curves` returns it.
    facts : tuple of (term, text)
        What was studied, as short terms and sentences.
    notes : tuple of str
        What is missing or left out, in sentences.
    tables : mapping
        Further results by name: tables, texts or None where there are none.
    classes : DataFrame or None
        The accuracy of every class at every level.
    exemplars : DataFrame or None
        The images whose modal prediction over the trials differs from that of the dense networks, at every level.
    fates : DataFrame or None
        The fate of every unit at every level.
    mask : function or None
        Returns the file with the mask of a trial and level, which need not exist.
    """

    root: Path
    title: str
    kind: str
    layers: tuple[str, ...]
    keys: tuple[tuple[int, int], ...]
    iou: float
    axis: str | None
    dissected: Callable[[int, int, str], tuple[pd.DataFrame, dict[str, Any]]]
    folder: Callable[[int, int, str], Path]
    curves: pd.DataFrame
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    tables: dict[str, Any]
    classes: pd.DataFrame | None = None
    exemplars: pd.DataFrame | None = None
    fates: pd.DataFrame | None = None
    mask: Callable[[int, int], Path] | None = None

    @property
    def with_units(self) -> list[Key]:
        """The trial, level and layer of every table of units; a comparison of studies has none."""
        if self.kind == "comparison":
            return []
        return [(trial, level, layer) for trial, level in self.keys for layer in self.layers]
