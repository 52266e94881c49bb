"""Write results in the columns of NetDissect-Lite's tables, and read such tables."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.dissection.cells import Sheet
from prunescope.dissection.scores import summarise, unit_scores
from prunescope.errors import InputError

FIELDS = ("label", "truth", "activation", "intersect", "iou")
_WHAT = "CSV table of NetDissect-Lite"
_PRINTED = 1e-3  # Published IoUs have at least three decimal places.


def to_netdissect(units: pd.DataFrame, pairs: pd.DataFrame, categories: list[str]) -> pd.DataFrame:
    """Convert results to a table in NetDissect-Lite's columns.

    Units are counted from 1 and sorted by descending score. For each category, the table shows the unit's best concept.

    Parameters
    ----------
    units, pairs
        The tables of a `LayerDissection`.
    categories
        The categories, in the order of their columns.

    Returns
    -------
    pd.DataFrame
        unit, category, label, score, then for each category CATEGORY-label, -truth, -activation, -intersect and -iou.
    """
    columns: dict[str, Any] = {
        "unit": units["unit"].to_numpy() + 1,
        "category": units["category"].to_numpy(),
        "label": units["label"].to_numpy(),
        "score": units["iou"].to_numpy(),
    }
    ranked = pairs.sort_values(["iou"], ascending=False, kind="stable")
    for category in categories:
        best = ranked[ranked["category"] == category].drop_duplicates("unit").set_index("unit").reindex(units["unit"])
        columns[f"{category}-label"] = best["label"].to_numpy()
        for field in FIELDS[1:]:
            values = best[field].fillna(0)
            columns[f"{category}-{field}"] = (values if field == "iou" else values.astype("int64")).to_numpy()
    return pd.DataFrame(columns).sort_values("score", ascending=False, kind="stable", ignore_index=True)


def read_netdissect(path: str | Path, iou: float = 0.05) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Any]]:
    """Read a published table in NetDissect-Lite's columns.

    Columns of a dissection that such a table does not provide, such as thresholds and concept numbers, are absent from
    the result.

    Parameters
    ----------
    path
        A CSV file in NetDissect-Lite's columns, with units counted from 1. It may be compressed (.gz, .bz2, .xz, .zip).
    iou
        A unit is interpretable if its score is above this bound.

    Returns
    -------
    units : pd.DataFrame
        A row per unit: unit (counted from 0), label, category, iou, and the best concept of each category.
    pairs : pd.DataFrame
        The pairs of unit and concept in the table: each unit's best concept of each category.
    summary : dict
        Counts of units, interpretable units and detected concepts, and the settings.

    Raises
    ------
    InputError
        If the file does not exist or cannot be read, if columns are missing, or if the value of a cell is impossible;
        the message then names its line, column and value.

    Warns
    -----
    UserWarning
        If an IoU differs from the one computed from the counts beside it, or if a unit's label or score differs from
        the best concept of its category.
    """
    path = Path(path)
    sheet = Sheet.read(path, _WHAT)
    categories = tuple(name.removesuffix("-label") for name in sheet.columns if name.endswith("-label"))
    wanted = ["unit", "category", "label", "score", *(f"{c}-{field}" for c in categories for field in FIELDS)]
    missing = [name for name in wanted if name not in sheet.columns]
    if missing or not all(categories) or not categories:
        raise InputError(
            f"{path}: is not a table of NetDissect-Lite: it has no column {', '.join(missing) or 'CATEGORY-label'}; "
            f"expected unit, category, label, score, then for each category CATEGORY-label, -truth, -activation, "
            f"-intersect, -iou"
        )
    unit = sheet.counts("unit", least=1) - 1
    if unit.duplicated().any():
        row = int(unit.duplicated().to_numpy().argmax())
        sheet.refuse(row, "unit", "a unit that no earlier row has, since each unit has one row")
    score = sheet.fractions("score")
    _check_labels(sheet, score, categories)
    _note_other_concepts(sheet, score, categories)
    pairs = _pairs(sheet, unit, categories)
    units = unit_scores(pairs, pd.DataFrame({"unit": sorted(unit)}), categories).drop(
        columns=["number", "precision", "recall"]
    )
    given = sheet.table.set_index(unit).loc[units["unit"]]
    units["label"] = given["label"].mask(given["label"] == "").to_numpy()
    units["category"] = given["category"].mask(given["label"] == "").to_numpy()
    units["iou"] = score.set_axis(unit).loc[units["unit"]].to_numpy()
    settings = {"source": str(path.resolve()), "format": "netdissect"}
    return units, pairs.drop(columns="number"), summarise(units, categories, iou, settings)


def _check_labels(sheet: Sheet, score: pd.Series[float], categories: tuple[str, ...]) -> None:
    """Raise unless each unit has a label and one of the table's categories, or neither of them and a score of 0."""
    table = sheet.table
    for row, (label, category, number) in enumerate(zip(table["label"], table["category"], score, strict=True)):
        if not label.strip() and (category or number > 0):
            sheet.refuse(row, "label", "a label; it is empty only for a unit without a category and with score 0")
        if label and category not in categories:
            sheet.refuse(row, "category", f"one of the table's categories: {', '.join(categories)}")


def _note_other_concepts(sheet: Sheet, score: pd.Series[float], categories: tuple[str, ...]) -> None:
    """Warn if the label or the score of a unit is not that of the best concept of its category."""
    found = []
    for category in categories:
        own = (sheet.table["category"] == category) & (sheet.table["label"] != "")
        other = own & (sheet.table[f"{category}-label"] != sheet.table["label"])
        found += [(int(row), "label", f"{category}-label") for row in other.to_numpy().nonzero()[0]]
        other = own & ((sheet.fractions(f"{category}-iou") - score).abs() > _PRINTED)
        found += [(int(row), "score", f"{category}-iou") for row in other.to_numpy().nonzero()[0]]
    if found:
        row, column, beside = min(found)
        warnings.warn(
            f"{sheet.where(row, column)}, unlike {beside} on the same line; {len(found):,} labels or "
            "scores of the table differ like this. They are used as they are",
            stacklevel=4,
        )


def _pairs(sheet: Sheet, unit: pd.Series[int], categories: tuple[str, ...]) -> pd.DataFrame:
    parts, doubts = [], []
    for order, category in enumerate(categories):
        labels = sheet.table[f"{category}-label"]
        named = labels != ""
        counts = {field: sheet.counts(f"{category}-{field}") for field in FIELDS[1:4]}
        ious = sheet.fractions(f"{category}-iou")
        for limit in ("truth", "activation"):
            above = (counts["intersect"] > counts[limit]) & named
            if above.any():
                row = int(above.to_numpy().argmax())
                most = counts[limit].iloc[row]
                sheet.refuse(row, f"{category}-intersect", f"at most {category}-{limit}, {most}, which it is part of")
        union = counts["truth"] + counts["activation"] - counts["intersect"]
        other = ((ious - counts["intersect"] / union.where(union > 0, 1)).abs() > _PRINTED) & named
        doubts += [(int(row), f"{category}-iou") for row in other.to_numpy().nonzero()[0]]
        part = {"unit": unit[named], "label": labels[named], "number": order, "category": category}
        parts.append(pd.DataFrame(part | {name: values[named] for name, values in (counts | {"iou": ious}).items()}))
    if doubts:
        warnings.warn(
            f"{sheet.where(*min(doubts))} is not intersect / (truth + activation - intersect) of the counts beside it, "
            f"and neither are others, {len(doubts):,} IoUs of the table in all; they are used as they are",
            stacklevel=4,
        )
    return pd.concat(parts).sort_values(["unit", "number"], kind="stable", ignore_index=True)
