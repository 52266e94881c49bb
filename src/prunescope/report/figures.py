"""Draw the figures of a study, which plot what a network detects against its weights remaining."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from prunescope.drawing import PAGE, Style, style_named
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.evidence import category_columns
from prunescope.evidence.fates import fate_columns
from prunescope.files import inside, replacing
from prunescope.report.drawing import Panel, draw_fates, draw_panel, draw_sensitivity, percent, set_positions, spaced

AT_WEIGHTS = "Weights remaining (%)"
NO_DATES: Mapping[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
FORMATS = tuple(NO_DATES)
AGREEMENT: Mapping[str, str] = {
    "same_concept_kappa": "Cohen's kappa",
    "reliability": "Reliability",
    "concepts_still_detected": "Still detected",
    "matched_by_concept": "Matched by concept",
}


def draw_figures(
    curves: pd.DataFrame,
    directory: str | Path,
    formats: Sequence[str] = FORMATS,
    *,
    axis: str | None = None,
    sensitivity: pd.DataFrame | None = None,
    style: str = "page",
) -> list[Path]:
    """Draw the figures of a study and save them to files.

    Each trial is one line. The horizontal axis shows the weights remaining, on a logarithmic scale that decreases from
    100 %, or the positions of a series that has an axis of its own. Bands are 95 % intervals: over resampled images if
    there is one trial, and over the trials if there are three or more. Grey lines are what is expected by chance or
    without pruning. Figures whose numbers are not known are left out.

    Parameters
    ----------
    curves : DataFrame
        The table that `prunescope.evidence.curves` returns, or evidence.csv, which has more columns.
    directory : path
        The folder to write ``figure1-accuracy``, ``figure2-units``, ``figure3-categories``, ``figure4-consistency``,
        ``figure5-agreement``, ``figure6-fates`` and ``figure7-sensitivity`` to. If the study has several layers, all
        but the first are drawn once per layer, and their file names end in the layer's name.
    formats : sequence of str
        The file formats to write: any of svg, pdf and png (300 dots per inch).
    axis : str or None
        The label of the horizontal axis for curves that have a column ``at``.
    sensitivity : DataFrame, optional
        The content of sensitivity.csv, which figure 7 shows.
    style : str
        The size of figures and text: ``page``, ``paper`` (for one column of a page) or ``slides``.

    Returns
    -------
    list of Path
        The files that were written. The same curves always give files with the same bytes.

    Raises
    ------
    InputError
        If a format or the style is not one of these.

    Notes
    -----
    Figures 1 to 4 are those of Frankle and Bau 2019, "Dissecting Pruned Neural Networks".
    """
    check_formats(formats)
    for layer in curves["layer"].unique():
        inside(directory, layer, "the layer")
    chosen = style_named(style)
    drawn = figures(curves, chosen, axis=axis, sensitivity=sensitivity)
    return save_figures(drawn, directory, formats, chosen)


def check_formats(formats: Sequence[str]) -> None:
    """Raise if one of the formats of figures is unknown.

    Raises
    ------
    InputError
        If a format is not svg, pdf or png.
    """
    refuse_text(formats, "formats")
    for ending in formats:
        if ending not in FORMATS:
            raise InputError(f"formats has {ending!r}; {nearest(ending, FORMATS)}")


def save_figures(
    drawn: Mapping[str, Figure], directory: str | Path, formats: Sequence[str], style: Style
) -> list[Path]:
    """Save figures by name in each of the formats, and return the files."""
    files = []
    with mpl.rc_context(style.settings):
        for name, figure in drawn.items():
            for ending in formats:
                path = Path(directory) / f"{name}.{ending}"
                with replacing(path) as beside:
                    figure.savefig(beside, dpi=300, metadata=NO_DATES[ending])
                files.append(path)
    return files


def figures(
    curves: pd.DataFrame,
    style: Style = PAGE,
    *,
    axis: str | None = None,
    sensitivity: pd.DataFrame | None = None,
) -> dict[str, Figure]:
    """Return the figures of a study by name; see `draw_figures`."""
    drawn = {}
    with mpl.rc_context(style.settings):
        for name, (rows, panels) in panels_by_figure(curves).items():
            drawn[name] = _draw(rows, panels, style, axis)
        layers = list(curves["layer"].unique())
        for layer in layers:
            suffix = f"-{layer}" if len(layers) > 1 else ""
            rows = curves[curves["layer"] == layer]
            if fate_columns(curves) and rows["level"].nunique() > 1:
                drawn[f"figure6-fates{suffix}"] = _draw_fates(rows, style, axis)
            if sensitivity is not None and len(sensitivity):
                of_layer = sensitivity[sensitivity["layer"] == layer]
                drawn[f"figure7-sensitivity{suffix}"] = _draw_sensitivity(rows, of_layer, style, axis)
    return drawn


def panels_by_figure(curves: pd.DataFrame) -> dict[str, tuple[pd.DataFrame, list[Panel]]]:
    """Return, for each figure that consists of curves, the rows of `curves` that it shows and its panels."""
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
                Panel(name, label, references=((f"chance_{name}", "chance"), (f"untrained_{name}", "untrained")))
                for name, label in (
                    ("interpretable", f"Interpretable units (of {units})"),
                    ("concepts", "Detected concepts"),
                )
            ],
        )
        if categories:
            panels = [Panel(category, "Concepts", title=category, top=most * 1.08) for category in categories]
            made[f"figure3-categories{suffix}"] = (rows, panels)
        made[f"figure4-consistency{suffix}"] = (
            rows,
            [
                Panel(
                    name,
                    label,
                    percent=True,
                    top=104,
                    references=(
                        (f"{name}_floor", "units renumbered"),
                        (f"{name}_across", "other trials"),
                        (f"retrained_{name}", "retrained"),
                    ),
                )
                for name, label in (
                    ("still_interpretable", "Still interpretable (%)"),
                    ("same_concept", "Of those, same concept (%)"),
                )
            ],
        )
        agreement = [
            Panel(name, "Share (%)", title=title, percent=True, top=104)
            for name, title in AGREEMENT.items()
            if name in rows.columns and rows[name].notna().any()
        ]
        if agreement:
            made[f"figure5-agreement{suffix}"] = (rows, agreement)
    return made


def _draw(rows: pd.DataFrame, panels: Sequence[Panel], style: Style, name: str | None) -> Figure:
    columns = min(len(panels), style.columns if len(panels) not in (1, 2, 4) else style.columns - 1)
    columns = max(columns, 2) if len(panels) > 2 else columns
    figure, axes = new_panels(len(panels), columns, style)
    for place, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        draw_panel(axis, rows, panel)
        set_positions(axis, rows, most_ticks=8 if style.width / style.scale / columns > 3 else 5)
        weights = AT_WEIGHTS if style.width / style.scale / columns > 2 else "Weights (%)"
        label = (name or "") if "at" in rows else weights
        axis.set_xlabel(label if place + columns >= len(panels) else "")
        several = len({each.label for each in panels}) > 1
        axis.set_ylabel(panel.label if several or place % columns == 0 else "")
        axis.set_title(panel.title)
    add_legend(figure, axes, style)
    return figure


def new_panels(count: int, columns: int, style: Style) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` pairs of axes, `columns` of them side by side."""
    lines = math.ceil(count / columns)
    height = (2.1 if count > 2 else 2.75) * lines + 0.35
    width = min(style.width, 4.4 * style.scale) if count == 1 else style.width
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06, wspace=0.03)
    figure = Figure(figsize=(width, height * style.scale), layout=layout)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


def add_legend(figure: Figure, axes: Sequence[Axes], style: Style) -> None:
    """Add one legend for all axes, unless there is a single line that needs none."""
    named: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            named.setdefault(label, handle)
    if len(named) > 1:
        longest = (0.55 * max(map(len, named)) + 4) * style.font / 72  # inches, with the handle and the space between
        columns = max(1, min(len(named), int(figure.get_figwidth() / longest)))
        figure.legend(list(named.values()), list(named), loc="outside upper center", ncols=columns)


def _draw_fates(rows: pd.DataFrame, style: Style, name: str | None) -> Figure:
    figure, (axis,) = new_panels(1, 1, style)
    draw_fates(axis, rows)
    set_positions(axis, rows, most_ticks=8 if style.width / style.scale > 4 else 5, margin=False)
    axis.set_xlabel((name or "") if "at" in rows else AT_WEIGHTS)
    add_legend(figure, [axis], style)
    return figure


def _draw_sensitivity(rows: pd.DataFrame, sensitivity: pd.DataFrame, style: Style, name: str | None) -> Figure:
    titles = {
        "interpretable": "Interpretable units",
        "concepts": "Detected concepts",
        "chance_interpretable": "Interpretable, chance",
    }
    shown = [column for column in titles if column in sensitivity and sensitivity[column].notna().any()]
    columns = min(len(shown), max(1, style.columns - 1))
    figure, axes = new_panels(len(shown), columns, style)
    levels = sorted(sensitivity["level"].unique())
    at = rows.groupby("level")["weights_remaining"].mean()
    named = rows.drop_duplicates("level").set_index("level")["at_label"] if "at" in rows else at.map(percent)
    ticks = spaced(len(levels), 5)
    for place, (axis, column) in enumerate(zip(axes, shown, strict=True)):
        mesh = draw_sensitivity(axis, sensitivity, column)
        figure.colorbar(mesh, ax=axis, pad=0.02)
        axis.set_title(titles[column])
        axis.set_ylabel(axis.get_ylabel() if place % columns == 0 else "")
        axis.set_xlabel(((name or "") if "at" in rows else AT_WEIGHTS) if place + columns >= len(shown) else "")
        axis.set_xticks([tick + 0.5 for tick in ticks], [str(named[levels[tick]]) for tick in ticks])
    return figure
