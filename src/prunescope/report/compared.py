"""Draw studies side by side: their curves overlaid, and their differences."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prunescope.drawing import COLORS, INK, MARKERS, PAGE, Style
from prunescope.evidence.over_trials import t_interval
from prunescope.report.drawing import FEWEST_TRIALS, Panel, set_positions
from prunescope.report.figures import AT_WEIGHTS, add_legend, new_panels

OVERLAID = (
    Panel("accuracy", "Top-1 accuracy (%)", percent=True, from_zero=False),
    Panel("interpretable", "Interpretable units"),
    Panel("concepts", "Detected concepts"),
    Panel("still_interpretable", "Still interpretable (%)", percent=True),
    Panel("same_concept", "Of those, same concept (%)", percent=True),
)


def compared_figures(curves: pd.DataFrame, differences: pd.DataFrame, style: Style = PAGE) -> dict[str, Figure]:
    """Return figures by name: for each layer, the curves of all studies, and their differences from the first.

    Parameters
    ----------
    curves, differences : DataFrame
        The tables of a `Comparison`.
    style : Style
        The size of the figures.
    """
    drawn = {}
    layers = list(differences["layer"].unique())
    with mpl.rc_context(style.settings):
        for layer in layers:
            suffix = f"-{layer}" if len(layers) > 1 else ""
            rows = curves[curves["layer"] == layer]
            panels = [panel for panel in OVERLAID if rows[panel.column].notna().any()]
            figure, axes = new_panels(len(panels), 2, style)
            for axis, panel in zip(axes, panels, strict=True):
                draw_overlaid(axis, rows, panel)
            add_legend(figure, axes, style)
            drawn[f"compare-curves{suffix}"] = figure
            of_layer = differences[(differences["layer"] == layer) & (differences["at"] == "weights_remaining")]
            panels = [panel for panel in panels if panel.column in set(of_layer["quantity"])]
            figure, axes = new_panels(len(panels), 2, style)
            for axis, panel in zip(axes, panels, strict=True):
                draw_differences(axis, of_layer[of_layer["quantity"] == panel.column], panel)
            add_legend(figure, axes, style)
            drawn[f"compare-differences{suffix}"] = figure
    return drawn


def draw_overlaid(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """Draw one number of several studies on given axes: the mean over trials and, with three or more, its interval.

    Parameters
    ----------
    axis : Axes
        The axes to draw on.
    rows : DataFrame
        The rows of one layer of the curves of a `Comparison`.
    panel : Panel
        What to draw.
    """
    scale = 100 if panel.percent else 1
    for place, (name, of_study) in enumerate(rows.groupby("study", sort=False)):
        means = of_study.groupby("level")[["weights_remaining", panel.column]].mean().sort_values("weights_remaining")
        color = COLORS[place % len(COLORS)]
        axis.plot(
            means["weights_remaining"], means[panel.column] * scale, color=color, label=str(name),
            marker=MARKERS[place % len(MARKERS)], markeredgewidth=0,
        )  # fmt: skip
        spread = of_study.groupby("level")[panel.column]
        if of_study["trial"].nunique() >= FEWEST_TRIALS:
            ends = np.array([t_interval(values.dropna().to_numpy(np.float64)) for _, values in spread]).T
            x = of_study.groupby("level")["weights_remaining"].mean()
            axis.fill_between(x, ends[0] * scale, ends[1] * scale, color=color, alpha=0.15, lw=0)
    axis.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    set_positions(axis, rows.drop(columns=["at", "at_label"], errors="ignore"), most_ticks=5)
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set_xlabel(AT_WEIGHTS)
    axis.set_ylabel(panel.label)


def draw_differences(axis: Axes, rows: pd.DataFrame, panel: Panel) -> None:
    """Draw the differences of studies from the first one on given axes, with their intervals.

    Parameters
    ----------
    axis : Axes
        The axes to draw on.
    rows : DataFrame
        The rows of one layer and quantity of the differences of a `Comparison`, at equal weights remaining.
    panel : Panel
        The number that is compared.
    """
    scale = 100 if panel.percent else 1
    axis.axhline(0, color=INK, linewidth=0.8)
    for place, (name, of_study) in enumerate(rows.groupby("study", sort=False)):
        color = COLORS[(place + 1) % len(COLORS)]
        line = of_study.sort_values("position")
        axis.plot(
            line["position"], line["difference"] * scale, color=color, marker=MARKERS[(place + 1) % len(MARKERS)],
            markeredgewidth=0, label=f"{name} minus {line['reference'].iloc[0]}",
        )  # fmt: skip
        axis.fill_between(line["position"], line["low"] * scale, line["high"] * scale, color=color, alpha=0.15, lw=0)
    axis.grid(axis="y", color=INK, alpha=0.12, linewidth=0.6)
    levels = pd.DataFrame({"weights_remaining": rows["position"], "level": -rows["position"]})
    set_positions(axis, levels, most_ticks=5)
    axis.set_xlabel(AT_WEIGHTS)
    axis.set_ylabel(f"Difference: {panel.label[0].lower()}{panel.label[1:]}")
