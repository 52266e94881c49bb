"""Draw what the units of layers detect, and the images that excite one unit most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from prunescope.arrays import Array
from prunescope.dissection.scores import interpretable, score_column
from prunescope.dissection.settings import DEFAULTS
from prunescope.drawing import COLORS, INK, PAGE, StyledFigure
from prunescope.plurals import counted

SHOWN_SIDE = 256


def draw_layers(tables: Mapping[str, tuple[pd.DataFrame, Mapping[str, Any]]]) -> Figure:
    """Draw a row for each layer: its interpretable units by category, and the distribution of the units' IoUs.

    Parameters
    ----------
    tables
        For each layer, its table of units and its summary.

    Returns
    -------
    Figure
        The figure.
    """
    with mpl.rc_context(PAGE.settings):
        figure = StyledFigure(figsize=(6.6, 2.6 * max(1, len(tables))), layout="constrained")
        axes = figure.subplots(max(1, len(tables)), 2, squeeze=False)
        for (left, right), (layer, (units, summary)) in zip(axes, tables.items(), strict=True):
            bound = float(summary["settings"].get("iou", DEFAULTS.iou))
            _draw_categories(left, units[interpretable(units, bound)], list(summary["by_category"]))
            _draw_scores(right, units, bound)
            left.set_title(f"{layer or 'units'}: {summary['interpretable']:,} of {summary['units']:,} interpretable")
            right.set_title(f"{counted(summary['concepts'], 'concept')} detected")
    return figure


def _draw_categories(axis: Axes, detectors: pd.DataFrame, categories: Sequence[str]) -> None:
    counts = [int((detectors["category"] == category).sum()) for category in categories]
    bars = axis.barh(range(len(categories)), counts, color=COLORS[0], height=0.7)
    axis.bar_label(bars, padding=3, fontsize=8)
    axis.set_yticks(range(len(categories)), categories)
    axis.invert_yaxis()
    axis.set_xlim(0, max([1, *counts]) * 1.15)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_xlabel("Interpretable units")


def _draw_scores(axis: Axes, units: pd.DataFrame, bound: float) -> None:
    column = score_column(units)
    values = units[column].to_numpy(np.float64)
    edges = np.linspace(values.min(initial=0), max(2 * bound, values.max(initial=0), 0.01), 31)
    axis.hist(values, bins=edges.tolist(), color=COLORS[5])
    axis.axvline(bound, color=INK, linewidth=1, linestyle="--", label=f"bound {bound:g}")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axis.set_xlabel("IoU of the unit's concept" if column == "iou" else "Score of the unit's concept")
    axis.set_ylabel("Units")
    axis.legend(loc="upper right")


def draw_images(images: Array, captions: Sequence[str], title: str) -> Figure:
    """Draw images side by side.

    Parameters
    ----------
    images
        uint8 [n, ih, iw, 3].
    captions
        The text below each image.
    title
        The text above them.

    Returns
    -------
    Figure
        The figure.
    """
    count = max(1, len(images))
    with mpl.rc_context(PAGE.settings):
        figure = StyledFigure(figsize=(1.65 * count + 0.2, 2.3), layout="constrained")
        figure.suptitle(title, fontsize=9)
        axes = figure.subplots(1, count, squeeze=False).ravel()
        for axis in axes:
            axis.set_axis_off()
        for axis, image, caption in zip(axes, images, captions, strict=False):
            axis.imshow(image, interpolation="nearest")
            axis.set_title(caption, fontsize=7.5, y=-0.16)
    return figure


def enlarged(images: Array) -> Array:
    """Enlarge small images [n, ih, iw, 3] by a whole factor, so that outlines of one pixel are thin on them."""
    height, width = images.shape[1:3]
    factor = max(1, SHOWN_SIDE // max(height, width))
    size = (width * factor, height * factor)
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) for image in images])
