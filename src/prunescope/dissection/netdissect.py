"""NetDissect-Lite's result tables: written in its columns, read into ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.dissection.scores import summarise, unit_scores
from prunescope.errors import InputError

FIELDS = ("label", "truth", "activation", "intersect", "iou")


def to_netdissect(units: pd.DataFrame, pairs: pd.DataFrame, categories: list[str]) -> pd.DataFrame:
    """Lay out results in NetDissect-Lite's columns: units from 1, best score first, a category's best pair each.

    Parameters
    ----------
    units, pairs
        Tables of `LayerDissection`.
    categories
        In the order of the columns.
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
    """Read a published table into units, pairs and summary; what it does not hold is absent.

    Parameters
    ----------
    path
        A CSV file in NetDissect-Lite's columns, units counted from 1.
    iou
        A unit is interpretable when its score is above this.

    Returns
    -------
    tuple
        units (unit from 0, label, category, iou, best by category), pairs (the best of each category that the table
        names), summary.

    Raises
    ------
    InputError
        No such file, columns missing, or a cell that is no number, with its line.
    """
    path = Path(path)
    table = _read_csv(path)
    categories = tuple(name.removesuffix("-label") for name in table.columns if name.endswith("-label"))
    wanted = ["unit", "category", "label", "score", *(f"{c}-{field}" for c in categories for field in FIELDS)]
    missing = [name for name in wanted if name not in table.columns]
    if missing or not categories:
        raise InputError(
            f"{path}: no table of NetDissect-Lite: it has no column {', '.join(missing) or 'CATEGORY-label'}; "
            f"expected unit, category, label, score, then for each category CATEGORY-label, -truth, -activation, "
            f"-intersect, -iou"
        )
    unit = _numbers(path, table, "unit").astype("int64") - 1
    if unit.duplicated().any():
        line = int(unit.duplicated().to_numpy().argmax()) + 2
        raise InputError(f"{path}, line {line}: unit {unit[line - 2] + 1} was there before; each unit has one row")
    pairs = _pairs(path, table, unit, categories)
    units = unit_scores(pairs, pd.DataFrame({"unit": sorted(unit)}), categories)
    given = table.set_index(unit).loc[units["unit"]]
    units["label"] = given["label"].mask(given["label"] == "").to_numpy()
    units["category"] = given["category"].mask(given["label"] == "").to_numpy()
    units["iou"] = _numbers(path, table, "score").set_axis(unit).loc[units["unit"]].to_numpy()
    settings = {"source": str(path.resolve()), "format": "netdissect"}
    return units, pairs.drop(columns="number"), summarise(units, categories, iou, settings)


def _pairs(path: Path, table: pd.DataFrame, unit: pd.Series[int], categories: tuple[str, ...]) -> pd.DataFrame:
    parts = []
    for order, category in enumerate(categories):
        named = table[f"{category}-label"] != ""
        numbers = {field: _numbers(path, table, f"{category}-{field}")[named] for field in FIELDS[1:]}
        counts = {field: numbers[field].astype("int64") for field in FIELDS[1:4]}
        part = {"unit": unit[named], "label": table[f"{category}-label"][named], "number": order, "category": category}
        parts.append(pd.DataFrame(part | counts | {"iou": numbers["iou"]}))
    return pd.concat(parts).sort_values(["unit", "number"], kind="stable", ignore_index=True)


def _read_csv(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a CSV table of NetDissect-Lite")
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split()).removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path}: no readable CSV table of NetDissect-Lite ({reason})") from error


def _numbers(path: Path, table: pd.DataFrame, column: str) -> pd.Series[float]:
    values = pd.to_numeric(table[column], errors="coerce")
    bad = values.isna()
    if bad.any():
        row = int(bad.to_numpy().argmax())
        raise InputError(f"{path}, line {row + 2}: {column} is {table[column].iloc[row]!r}, expected a number")
    return values
