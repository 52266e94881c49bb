"""Draw the numbers of a study on given axes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from prunescope.drawing import COLORS, FATE_COLORS, HEAT, INK, MARKERS
from prunescope.evidence import over_trials
from prunescope.evidence.fates import fate_columns

GREY, BAND = "#6e7781", "#c9d1d9"
FEWEST_TRIALS = 3  # with two, a t interval is six times as wide as the trials are apart, and hides the curves


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
    references : tuple of (str, str)
        Further columns that are drawn as grey lines if `curves` has them, as means over trials, each with its name.
    """

    column: str
    label: str
    title: str = ""
    percent: bool = False
    top: float | None = None
    from_zero: bool = True
    references: tuple[tuple[str, str], ...] = ()


def draw_panel(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """Draw one column of the curves of a layer on given axes: a line per trial, the interval and the references.

    Parameters
    ----------
    axis : Axes
        The axes to draw on. `set_positions` sets up their horizontal axis.
    rows : DataFrame
        The rows of one layer of `curves` or evidence.csv.
    panel : Panel
        What to draw.
    """
    scale = 100 if panel.percent else 1
    at = "at" if "at" in rows else "weights_remaining"
    _draw_band(axis, rows, panel.column, at, scale)
    for place, (trial, line) in enumerate(rows.groupby("trial", sort=True)):
        axis.plot(
            line[at],
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
    for (column, name), style in zip(panel.references, (":", "--", "-."), strict=False):
        if column in rows.columns and rows[column].notna().any():
            means = rows.groupby("level").agg({at: "mean", column: "mean"})
            axis.plot(means[at], means[column] * scale, color=GREY, linestyle=style, linewidth=1.1, label=name)
    axis.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.margins(y=0.08)
    if panel.from_zero:
        shown = [panel.column, *(column for column, _ in panel.references if column in rows.columns)]
        highest = float(rows[shown].to_numpy(np.float64).max() * scale)
        natural = max(highest, 1.0) * 1.08 if math.isfinite(highest) else 1.0
        axis.set_ylim(0, panel.top if panel.top is not None else natural)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=not panel.percent, steps=[1, 2, 2.5, 5, 10]))


def _draw_band(axis: Axes, rows: pd.DataFrame, column: str, at: str, scale: float) -> None:
    """Draw the interval over images of a single trial, or over the trials if there are enough of them."""
    trials = rows["trial"].nunique()
    if trials == 1 and f"{column}_low" in rows.columns:
        band = rows[[at, f"{column}_low", f"{column}_high"]].sort_values(at)
        label = "95 % interval over images"
    elif trials >= FEWEST_TRIALS:
        means = over_trials(rows)
        band = means.assign(**{at: rows.groupby("level", sort=True)[at].mean().to_numpy()})
        band = band[[at, f"{column}_low", f"{column}_high"]].sort_values(at)
        label = "95 % interval over trials"
    else:
        return
    if band.iloc[:, 1].notna().any():
        low, high = (band.iloc[:, place] * scale for place in (1, 2))
        axis.fill_between(band[at], low, high, color=BAND, lw=0, label=label)


def draw_fates(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw the fates of the dense network's units as stacked areas on given axes, as means over trials.

    Parameters
    ----------
    axis : Axes
        The axes to draw on. `set_positions` sets up their horizontal axis.
    rows : DataFrame
        The rows of one layer of evidence.csv, with at least two levels.
    """
    columns = fate_columns(rows)
    at = "at" if "at" in rows else "weights_remaining"
    means = rows.groupby("level")[[at, *columns.values()]].mean().dropna().sort_values(at)
    shown = {fate: columns[fate] for fate in FATE_COLORS if fate in columns and means[columns[fate]].any()}
    axis.stackplot(
        means[at],
        [means[column] for column in shown.values()],
        labels=list(shown),
        colors=[FATE_COLORS[fate] for fate in shown],
        edgecolor="white",
        linewidth=0.6,
    )
    axis.set_ylim(0, float(means[list(shown.values())].sum(axis=1).max()) if shown else 1.0)
    axis.set_ylabel("Units")
    axis.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 2.5, 5, 10]))


def draw_sensitivity(axis: Axes, sensitivity: pd.DataFrame, column: str = "interpretable") -> Any:
    """Draw a count at every level and bound of the IoU as a heat map on given axes, as means over trials.

    Parameters
    ----------
    axis : Axes
        The axes to draw on.
    sensitivity : DataFrame
        The rows of one layer of sensitivity.csv.
    column : str
        The column to draw.

    Returns
    -------
    QuadMesh
        The heat map, for a colour bar.
    """
    table = sensitivity.pivot_table(index="bound", columns="level", values=column, aggfunc="mean")
    step = float(table.index[1] - table.index[0])
    edges = [*(table.index - step / 2), table.index[-1] + step / 2]
    mesh = axis.pcolormesh(
        range(len(table.columns) + 1), edges, table, cmap=mpl.colormaps[HEAT].resampled(16), vmin=0, edgecolors="face",
        linewidth=0.2,
    )  # fmt: skip
    axis.set_ylabel("Bound of the IoU")
    return mesh


def set_positions(axis: Axes, rows: pd.DataFrame, *, most_ticks: int = 8, margin: bool = True) -> None:
    """Set up the horizontal axis of a figure: the weights remaining, or the positions of a series.

    Parameters
    ----------
    axis : Axes
        The axes.
    rows : DataFrame
        The rows of `curves` that they show.
    most_ticks : int
        The greatest number of ticks.
    margin : bool
        Whether to leave space beside the first and the last level.
    """
    if "at" in rows:
        _own_axis(axis, rows, most_ticks)
    else:
        _weights_axis(axis, rows, most_ticks)
    if not margin:
        ends = rows["at" if "at" in rows else "weights_remaining"]
        left, right = axis.get_xlim()
        axis.set_xlim(*((ends.max(), ends.min()) if left > right else (ends.min(), ends.max())))


def _weights_axis(axis: Axes, rows: pd.DataFrame, most_ticks: int) -> None:
    """Set up the horizontal axis: weights remaining, decreasing from 100 % on the left, with ticks at the levels."""
    levels = sorted(rows.groupby("level")["weights_remaining"].mean(), reverse=True)
    axis.set_xscale("log")
    axis.set_xlim(1.12 * max(levels), min(levels) / 1.12)
    ticks = [levels[place] for place in spaced(len(levels), most_ticks)]
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
    ticks = [positions[place] for place in spaced(len(positions), most_ticks)]
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticks(ticks, [str(named[tick]) for tick in ticks])


def spaced(count: int, most: int) -> list[int]:
    """Return at most `most` evenly spaced indices below `count`, including 0 and, if possible, ``count - 1``.

    >>> spaced(21, 7), spaced(6, 5), spaced(1, 7)
    ([0, 4, 8, 12, 16, 20], [0, 2, 4], [0])
    """
    last = count - 1
    least = max(1, math.ceil(last / (most - 1)))
    to_the_end = [step for step in range(least, 2 * least) if last % step == 0]
    return list(range(0, count, to_the_end[0] if to_the_end else least))


def percent(fraction: float) -> str:
    """Format a fraction, such as the weights remaining, as a percentage without the percent sign.

    >>> [percent(0.8**level) for level in (0, 3, 20)], percent(0.0001)
    (['100', '51.2', '1.2'], '0.01')
    """
    value = 100 * fraction
    return f"{value:.1f}".removesuffix(".0") if value >= 1 else f"{value:.2g}"
