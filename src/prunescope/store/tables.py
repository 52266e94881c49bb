"""Check that the table of units of a stored dissection is valid, and that its summary agrees with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.scores import score_column, summarise
from prunescope.errors import InputError
from prunescope.store.locations import network_apart

UNIT_COLUMNS = ("unit", "label", "category", "iou", "dead")
# Tables of earlier versions do not have these columns. The last ones need permuted labels, which can be turned off.
LATER_COLUMNS = ("precision", "recall", "shrinkage", "iou_mirrored")
CHANCE_COLUMNS = ("p", "q")


def check_units(table: pd.DataFrame, where: str) -> None:
    """Raise if a table of units lacks a column, repeats a unit, contains an invalid value or contradicts itself.

    Parameters
    ----------
    table
        A row per unit, with the columns unit, label, category, iou and dead, and number where the numbers of the
        concepts are known. Columns ``CATEGORY-label`` and ``CATEGORY-iou``, the best concept of each category, are
        compared with the concept of the unit.
    where
        The file of the table, for error messages.

    Raises
    ------
    InputError
        If a column is missing or a value is invalid. The message names the row and the column.
    """
    absent = [column for column in UNIT_COLUMNS if column not in table.columns]
    if absent:
        raise InputError(f"{where}: there is no column {', '.join(absent)}")
    check_rows(table, where)
    unnamed = table["label"].isna()
    for column in ("label", "category"):
        values = table[column][~table[column].isna()]
        refuse_rows(
            table, ~values.map(lambda text: isinstance(text, str) and text != ""), column, "a name or none", where
        )
    refuse_rows(
        table,
        table["category"].isna() != unnamed,
        "category",
        "a value where there is a label, and none elsewhere",
        where,
    )
    refuse_rows(table, unnamed & (table["iou"] != 0), "iou", "0, since the unit has no label", where)
    refuse_rows(table, table["dead"].astype(bool) & ~unnamed, "dead", "false, since the unit has a label", where)
    if "threshold" in table.columns and not pd.api.types.is_numeric_dtype(table["threshold"]):
        raise InputError(f"{where}: threshold is {table['threshold'].dtype}, expected numbers")
    if "number" in table.columns:
        _check_numbers(table, where)
    # Tables of earlier versions do not have these columns.
    for column in ("iou_low", "iou_high"):
        if column in table.columns:
            check_fractions(table, column, where)
    for column in (name for name in table.columns if str(name).endswith("-iou")):
        check_fractions(table, str(column), where)
        _check_category(table, str(column).removesuffix("-iou"), where)
    for column in (*LATER_COLUMNS, *CHANCE_COLUMNS):
        if column in table.columns and column != "shrinkage":
            check_fractions(table, column, where)
    if "shrinkage" in table.columns:
        _check_shrinkage(table, where)


def missing_columns(table: pd.DataFrame, summary: Mapping[str, Any]) -> list[str]:
    """Return the columns that a table of units lacks because an earlier version made it.

    Parameters
    ----------
    table
        A row per unit.
    summary
        The summary beside the table. Its settings contain `chance` if the dissection could have permuted labels.
    """
    expected = LATER_COLUMNS if "chance" in summary.get("settings", {}) else LATER_COLUMNS + CHANCE_COLUMNS
    return [column for column in expected if column not in table.columns]


def check_rows(table: pd.DataFrame, where: str) -> None:
    """Raise unless units are distinct whole numbers from 0, IoUs are from 0 to 1, and `dead` is boolean.

    Raises
    ------
    InputError
        If a value is invalid. The message names the column and, where one value is wrong, the row.
    """
    if not pd.api.types.is_integer_dtype(table["unit"]) or table["unit"].isna().any():
        raise InputError(f"{where}: unit is {table['unit'].dtype}, expected whole numbers")
    refuse_rows(table, table["unit"] < 0, "unit", "a number from 0", where)
    refuse_rows(table, table["unit"].duplicated(), "unit", "each unit once", where)
    if not pd.api.types.is_bool_dtype(table["dead"]) or table["dead"].isna().any():
        raise InputError(f"{where}: dead is {table['dead'].dtype}, expected true or false")
    check_fractions(table, "iou", where)


def _same_setting(name: str, noted: object, expected: object) -> bool:
    """Return whether a summary notes the expected setting. A network's own file may have been moved since."""
    if name == "network" and isinstance(noted, str) and isinstance(expected, str):
        return network_apart(noted, known=True) == network_apart(expected, known=True)
    return noted == expected


def check_summary(summary: Mapping[str, Any], units: pd.DataFrame, expected: Mapping[str, Any], where: str) -> None:
    """Raise if a summary contradicts the table of units beside it or the study that it was found in.

    Parameters
    ----------
    summary
        The content of ``summary.json``. Fields that it does not have are not compared.
    units
        The table of units, which `check_units` has accepted. An imported table has no column dead.
    expected
        Settings that are known from the folder and the recipe: the layer, the trial, the level and the recipe's
        settings.
    where
        The file of the summary, for error messages.

    Raises
    ------
    InputError
        If the summary contradicts the table or the expected settings.
    """
    settings = summary.get("settings", {})
    if not isinstance(settings, dict):
        raise InputError(f"{where}: settings is {settings!r}, expected fields, each with its value")
    for name, value in expected.items():
        if name in settings and (not _same_setting(name, settings[name], value) or isinstance(settings[name], bool)):
            raise InputError(
                f"{where}: {name} is {settings[name]!r}, but the study expects {name} {value!r} in this folder"
            )
    counts: dict[str, Any] = {"units": len(units)}
    if "dead" in units.columns:
        counts["dead"] = int(units["dead"].sum())
    bound = settings.get("iou")
    if isinstance(bound, int | float):
        categories = tuple({**_fields(summary, "by_category", where), **_fields(summary, "units_by_category", where)})
        counts = summarise(units, categories, bound, {})
        del counts["settings"]
    for name, count in counts.items():
        if name in summary and (summary[name] != count or isinstance(summary[name], bool)):
            raise InputError(
                f"{where}: {name} is {summary[name]!r}, but units.parquet in the same folder gives {count!r}"
            )


def _fields(summary: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    found = summary.get(name, {})
    if not isinstance(found, dict):
        raise InputError(f"{where}: {name} is {found!r}, expected a number for each category")
    return found


def _check_numbers(table: pd.DataFrame, where: str) -> None:
    numbers = table["number"]
    if not pd.api.types.is_integer_dtype(numbers):
        raise InputError(f"{where}: number is {numbers.dtype}, expected whole numbers")
    unnamed = table["label"].isna()
    refuse_rows(table, numbers.isna() != unnamed, "number", "a value where there is a label, and none elsewhere", where)
    refuse_rows(table, (numbers < 1).fillna(False), "number", "a number from 1", where)


def _check_category(table: pd.DataFrame, category: str, where: str) -> None:
    """Raise if the best concept of a category contradicts the concept of a unit, which is the best of all."""
    label, iou = f"{category}-label", f"{category}-iou"
    if label not in table.columns:
        raise InputError(f"{where}: there is no column {label}")
    own = table["category"].eq(category).fillna(False).astype(bool)
    refuse_rows(
        table, own & (table[iou] != table["iou"]), "iou", f"that of {iou}, since it is the unit's category", where
    )
    refuse_rows(table, own & (table[label] != table["label"]), "label", f"that of {label}, as for its iou", where)
    if score_column(table) == "iou":
        refuse_rows(table, table[iou] > table["iou"], iou, "at most iou, that of the unit's best concept", where)


def check_fractions(table: pd.DataFrame, column: str, where: str) -> None:
    """Raise if a column contains anything but numbers from 0 to 1.

    Raises
    ------
    InputError
        If it does. The message names the first such row.
    """
    if not pd.api.types.is_float_dtype(table[column]):
        raise InputError(f"{where}: {column} is {table[column].dtype}, expected numbers from 0 to 1")
    refuse_rows(table, ~table[column].between(0, 1), column, "a number from 0 to 1", where)


def _check_shrinkage(table: pd.DataFrame, where: str) -> None:
    values, expected = table["shrinkage"], "a number from -1 to 1"
    if not pd.api.types.is_float_dtype(values):
        raise InputError(f"{where}: shrinkage is {values.dtype}, expected numbers from -1 to 1")
    refuse_rows(table, ~values.between(-1, 1) & values.notna(), "shrinkage", expected, where)


def refuse_rows(table: pd.DataFrame, bad: pd.Series[bool], column: str, expected: str, where: str) -> None:
    """Raise if a table has bad rows; the message names the first one, the value of `column` there and `expected`.

    Raises
    ------
    InputError
        If any element of `bad` is true.
    """
    rows = np.flatnonzero(bad.reindex(table.index, fill_value=False).to_numpy(dtype=bool))
    if len(rows):
        value = table[column].iloc[int(rows[0])]
        raise InputError(f"{where}: in row {rows[0]} {column} is {value!r}, expected {expected}")
