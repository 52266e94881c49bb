"""The rows of the table that `prunescope.curves` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from prunescope.dissection.scores import concept_columns, interpretable
from prunescope.evidence.by_concept import compare_concepts
from prunescope.evidence.consistency import compare_units

COUNTED = ("trial", "level", "layer", "weights_remaining", "accuracy", "top5", "loss", "units", "dead", "interpretable")
CONSISTENT = ("still_interpretable", "same_concept", "concepts_still_detected", "matched_by_concept")
POSITIONS = ("at", "at_label")  # of a series that has a horizontal axis of its own


@dataclass(frozen=True)
class LayerRow:
    """A row of `curves` before the columns of the categories are known."""

    values: dict[str, object]
    by_category: Mapping[str, int]


def layer_row(
    named: Mapping[str, object],
    units: pd.DataFrame,
    dense: pd.DataFrame | None,
    iou: float,
    *,
    units_correspond: bool,
) -> LayerRow:
    """Count what a layer detects, and compare it with the dense network.

    Parameters
    ----------
    named
        The values of the columns that are known already.
    units
        The units of the layer.
    dense
        Those of the same layer in the dense network; None if it is not dissected.
    iou
        The bound above which a unit is interpretable.
    units_correspond
        Whether units with the same number correspond to each other.
    """
    found = units[interpretable(units, iou)].drop_duplicates(concept_columns(units))
    still, same, still_detected, matched = (float("nan") for _ in CONSISTENT)
    if dense is not None:
        still_detected, matched = compare_concepts(dense, units, iou)
        if units_correspond:
            still, same = compare_units(dense, units, iou)
    values = {
        **named,
        "units": len(units),
        "dead": int(units["dead"].sum()),
        "interpretable": int(interpretable(units, iou).sum()),
        "concepts": len(found),
        "still_interpretable": still,
        "same_concept": same,
        "concepts_still_detected": still_detected,
        "matched_by_concept": matched,
    }
    return LayerRow(values, {category: int((found["category"] == category).sum()) for category in _categories(units)})


def as_table(rows: Sequence[LayerRow], positions: Sequence[str] = ()) -> pd.DataFrame:
    """Join rows to the table that `curves` returns, with `positions` as the last columns."""
    columns = [*COUNTED, "concepts", *CONSISTENT, *positions]
    categories = {category: _column(category, [*columns, *POSITIONS]) for row in rows for category in row.by_category}
    table = pd.DataFrame([row.values for row in rows], columns=columns)
    for index, (category, column) in enumerate(categories.items()):
        table.insert(len(COUNTED) + 1 + index, column, [row.by_category.get(category, 0) for row in rows])
    return table


def category_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns of `curves` that count the detected concepts of a category."""
    others = {*COUNTED, "concepts", *CONSISTENT, *POSITIONS}
    return [column for column in table.columns if column not in others]


def _categories(units: pd.DataFrame) -> list[str]:
    """Return the categories of a table of units, in the order of its columns."""
    named = [column.removesuffix("-label") for column in units.columns if column.endswith("-label")]
    return [*named, *(str(category) for category in units["category"].dropna().unique() if category not in named)]


def _column(category: str, taken: list[str]) -> str:
    return f"{category} (category)" if category in taken else category


def numbers_known(summary: Mapping[str, Any]) -> bool:
    """Return whether it is known which units of the trial's level 0 those of a dissection correspond to."""
    settings = summary.get("settings", {})
    return not (isinstance(settings, dict) and settings.get("unit_numbers") == "unknown")
