"""Draw the four figures of Frankle and Bau 2019, which plot what a network detects against its weights remaining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from prunescope.drawing import COLORS, INK, MARKERS, STYLE
from prunescope.evidence import category_columns
from prunescope.files import inside, replacing

WEIGHTS = "Weights remaining (%)"
PAGE_WIDE, PAGE_NARROW = 6.6, 3.6
NO_DATES: Mapping[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


@dataclass(frozen=True)
class Panel:
    """Description of one pair of axes: which column of `curves` it shows, and how.

    Attributes
    ----------
    column : str
        The column of `curves` to plot against the weights remaining.
    label : str
        The label of the vertical axis, including the unit.
    title : str
        The title above the axes. It may be empty.
    percent : bool
        Whether the column holds fractions that are shown as percentages.
    top : float or None
        The upper end of the vertical axis. If None, it is chosen from the data.
    from_zero : bool
        Whether the vertical axis begins at zero.
    """

    column: str
    label: str
    title: str = ""
    percent: bool = False
    top: float | None = None
    from_zero: bool = True


def draw_figures(
    curves: pd.DataFrame,
    directory: str | Path,
    formats: Sequence[str] = ("svg", "pdf", "png"),
    *,
    axis: str | None = None,
) -> list[Path]:
    """Draw figures 1 to 4 and save them to files.

    Each trial is one line. The horizontal axis shows the weights remaining, on a logarithmic scale that decreases from
    100 %, or the positions of a series that has an axis of its own. Figure 1 is left out if no accuracy was measured.

    Parameters
    ----------
    curves : DataFrame
        The table that `prunescope.evidence.curves` returns.
    directory : path
        The folder to write ``figure1-accuracy``, ``figure2-units``, ``figure3-categories`` and ``figure4-consistency``
        to. If the study has several layers, figures 2 to 4 are drawn once per layer and their file names end in the
        layer's name.
    formats : sequence of str
        The file formats to write: any of svg, pdf and png (300 dots per inch).
    axis : str or None
        The label of the horizontal axis for curves that have a column ``at``.

    Returns
    -------
    list of Path
        The files that were written. The same curves always give files with the same bytes.

    Notes
    -----
    These are figures 1 to 4 of Frankle and Bau 2019, "Dissecting Pruned Neural Networks".
    """
    files = []
    for layer in curves["layer"].unique():
        inside(directory, layer, "the layer")
    with mpl.rc_context(STYLE):
        for name, figure in figures(curves, axis=axis).items():
            for ending in formats:
                path = Path(directory) / f"{name}.{ending}"
                with replacing(path) as beside:
                    figure.savefig(beside, dpi=300, metadata=NO_DATES[ending])
                files.append(path)
    return files


def figures(curves: pd.DataFrame, width: float = PAGE_WIDE, *, axis: str | None = None) -> dict[str, Figure]:
    """Return the figures by name, at most `width` inches wide; narrow figures have fewer panels side by side."""
    narrow = width < (PAGE_WIDE + PAGE_NARROW) / 2
    drawn = {}
    for name, (rows, panels) in panels_by_figure(curves).items():
        most = 3 if len(panels) > 2 else 2
        columns = min(len(panels), most - 1 if narrow else most)
        single = min(width, 4.4) if len(panels) == 1 else width
        with mpl.rc_context(STYLE):
            drawn[name] = _draw(rows, panels, columns, single, axis)
    return drawn


def panels_by_figure(curves: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, list[Panel]]]:
    """Return, for each figure by name, the rows of `curves` that it shows and its panels."""
    layers = list(curves["layer"].unique())
    first = curves[curves["layer"] == layers[0]]
    made = {}
    if first["accuracy"].notna().any():
        accuracy = Panel("accuracy", "Top-1 accuracy (%)", percent=True, from_zero=False)
        made["figure1-accuracy"] = (first, [accuracy])
    for layer in layers:
        rows = curves[curves["layer"] == layer]
        suffix = f"-{layer}" if len(layers) > 1 else ""
        units = int(rows["units"].max())
        categories = category_columns(rows)
        most = max([1, *(int(rows[category].max()) for category in categories)])
        made[f"figure2-units{suffix}"] = (
            rows,
            [
                Panel("interpretable", f"Interpretable units (of {units})"),
                Panel("concepts", "Detected concepts"),
            ],
        )
        if categories:
            panels = [Panel(category, "Concepts", title=category, top=most * 1.08) for category in categories]
            made[f"figure3-categories{suffix}"] = (rows, panels)
        made[f"figure4-consistency{suffix}"] = (
            rows,
            [
                Panel("still_interpretable", "Still interpretable (%)", percent=True, top=104),
                Panel("same_concept", "Of those, same concept (%)", percent=True, top=104),
            ],
        )
    return made


def percent(fraction: float) -> str:
    """Format a fraction, such as the weights remaining, as a percentage without the percent sign.

    >>> [percent(0.8**level) for level in (0, 3, 20)], percent(0.0001)
    (['100', '51.2', '1.2'], '0.01')
    """
    value = 100 * fraction
    return f"{value:.1f}".removesuffix(".0") if value >= 1 else f"{value:.2g}"


def _draw(rows: pd.DataFrame, panels: Sequence[Panel], columns: int, width: float, name: str | None) -> Figure:
    lines = math.ceil(len(panels) / columns)
    height = (2.1 if len(panels) > 2 else 2.75) * lines + 0.35
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03))
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=False)):
        _draw_panel(axis, rows, panel)
        most_ticks = 8 if width / columns > 3 else 5
        if "at" in rows:
            _own_axis(axis, rows, most_ticks)
        else:
            _weights_axis(axis, rows, most_ticks)
        label = (name or "") if "at" in rows else WEIGHTS
        axis.set_xlabel(label if place + columns >= len(panels) else "")
        axis.set_ylabel(panel.label if len(panels) <= 2 or place % columns == 0 else "")
        axis.set_title(panel.title)
    for axis in axes[len(panels) :]:
        axis.remove()
    handles, labels = axes[0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside upper center", ncols=min(len(handles), int(width * 1.1)))
    return figure


def _draw_panel(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    scale = 100 if panel.percent else 1
    for place, (trial, line) in enumerate(rows.groupby("trial", sort=True)):
        axis.plot(
            line["at" if "at" in line else "weights_remaining"],
            line[panel.column] * scale,
            color=COLORS[place % len(COLORS)],
            marker=MARKERS[place % len(MARKERS)],
            linestyle=("-", "--", ":")[place // len(COLORS) % 3],
            markeredgewidth=0,
            alpha=0.9,
            clip_on=False,
            zorder=3,
            label=f"Trial {trial}",
        )
    axis.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(y=0.08)
    if panel.from_zero:
        highest = float((rows[panel.column] * scale).max())
        natural = max(highest, 1.0) * 1.08 if math.isfinite(highest) else 1.0
        axis.set_ylim(0, panel.top if panel.top is not None else natural)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=not panel.percent, steps=[1, 2, 2.5, 5, 10]))


def _weights_axis(axis: Axes, rows: pd.DataFrame, most_ticks: int) -> None:
    """Set up the horizontal axis: weights remaining, decreasing from 100 % on the left, with ticks at the levels."""
    levels = sorted(rows.groupby("level")["weights_remaining"].mean(), reverse=True)
    axis.set_xscale("log")
    axis.set_xlim(1.12 * max(levels), min(levels) / 1.12)
    ticks = [levels[place] for place in _spaced(len(levels), most_ticks)]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, [percent(tick) for tick in ticks])


def _own_axis(axis: Axes, rows: pd.DataFrame, most_ticks: int) -> None:
    """Set up the horizontal axis of a series that has its own: its positions, in the direction of the levels."""
    named = rows.sort_values("level", kind="stable").drop_duplicates("at").set_index("at")["at_label"]
    positions = sorted(named.index, reverse=bool(named.index[0] > named.index[-1]))
    low, high = min(positions), max(positions)
    if low > 0 and high / low > 20:
        axis.set_xscale("log")
    margin = (high / low) ** 0.03 if axis.get_xscale() == "log" else 0.04 * (high - low) or 0.5
    ends = (low / margin, high * margin) if axis.get_xscale() == "log" else (low - margin, high + margin)
    axis.set_xlim(*(ends if positions[0] == low else reversed(ends)))
    ticks = [positions[place] for place in _spaced(len(positions), most_ticks)]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, [str(named[tick]) for tick in ticks])


def _spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced indices below `count`, including 0 and, if possible, ``count - 1``.

    >>> _spaced(21, 7), _spaced(6, 5), _spaced(1, 7)
    ([0, 4, 8, 12, 16, 20], [0, 2, 4], [0])
    """
    last = count - 1
    least = max(1, math.ceil(last / (most - 1)))
    to_the_end = [step for step in range(least, 2 * least) if last % step == 0]
    return list(range(0, count, to_the_end[0] if to_the_end else least))
