"""Check that the table of pairs of a saved dissection is valid, and that the table of units follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.dissection.scores import unit_scores
from prunescope.errors import InputError
from prunescope.store.tables import LATER_COLUMNS, check_fractions, refuse_rows

PAIR_COLUMNS = ("unit", "label", "number", "category", "truth", "activation", "intersect", "iou")
_COUNTS = ("truth", "activation", "intersect")


def check_pairs(pairs: pd.DataFrame, units: pd.DataFrame, where: str) -> None:
    """Raise if a table of pairs contains an impossible value, or if the table of units does not follow from it.

    Parameters
    ----------
    pairs
        A row for each pair of a unit and a concept that have pixels in common, as `pair_scores` returns them.
    units
        The table of units, which `prunescope.store.tables.check_units` has accepted.
    where
        The file of the pairs, for error messages.

    Raises
    ------
    InputError
        If a column is missing, a value is impossible, or a unit has another best concept than in the table of units.
        The message names the row and the column.
    """
    _check_columns(pairs, PAIR_COLUMNS, ("unit", "number", *_COUNTS), where)
    refuse_rows(pairs, ~pairs["unit"].isin(units["unit"]), "unit", "a unit of units.parquet", where)
    refuse_rows(pairs, pairs.duplicated(["unit", "number"]), "number", "each concept once for a unit", where)
    refuse_rows(pairs, pairs["intersect"] < 1, "intersect", "at least 1", where)
    for limit in ("truth", "activation"):
        refuse_rows(pairs, pairs["intersect"] > pairs[limit], "intersect", f"at most {limit}", where)
    union = pairs["truth"] + pairs["activation"] - pairs["intersect"]
    own = pairs["iou"].to_numpy() == pairs["intersect"].to_numpy() / union.to_numpy()
    refuse_rows(pairs, pd.Series(~own, index=pairs.index), "iou", "intersect / (truth + activation - intersect)", where)
    if "score" in pairs.columns:
        finite = pd.api.types.is_float_dtype(pairs["score"]) and np.isfinite(pairs["score"]).all()
        if not finite or "score" not in units.columns:
            raise InputError(f"{where}: score is not a finite number for each pair, and one for each unit")
    refuse_rows(pairs, ~pairs["category"].isin(category_names(units)), "category", "one of units.parquet", where)
    best = unit_scores(pairs, units[["unit"]], category_names(units))
    _check_units(units, best, where)


def check_imported(units: pd.DataFrame, pairs: pd.DataFrame, folder: Path) -> None:
    """Raise if the tables of an imported dissection contain an impossible value or contradict each other.

    Published tables are imported as they are, so that a unit's label need not be the best concept of its category.

    Parameters
    ----------
    units, pairs
        The tables, as `import_netdissect` saves them.
    folder
        The folder that they were read from, for error messages.

    Raises
    ------
    InputError
        If a column is missing, a value is impossible, or the best concept of a category differs between the tables.
    """
    where = str(folder / "units.parquet")
    _check_columns(units, ("unit", "label", "category", "iou"), ("unit",), where)
    refuse_rows(units, units["unit"] < 0, "unit", "a number from 0", where)
    refuse_rows(units, units["unit"].duplicated(), "unit", "each unit once", where)
    where = str(folder / "pairs.parquet")
    _check_columns(pairs, [name for name in PAIR_COLUMNS if name != "number"], ("unit", *_COUNTS), where)
    refuse_rows(pairs, ~pairs["unit"].isin(units["unit"]), "unit", "a unit of units.parquet", where)
    refuse_rows(pairs, pairs.duplicated(["unit", "category"]), "category", "each category once for a unit", where)
    best = unit_scores(pairs.assign(number=0), units[["unit"]], category_names(units))
    _check_units(units, best.drop(columns=["label", "category", "iou", "number"]), where)


def _check_columns(
    table: pd.DataFrame, columns: tuple[str, ...] | list[str], whole: tuple[str, ...], where: str
) -> None:
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise InputError(f"{where}: there is no column {', '.join(absent)}")
    for column in whole:
        if not pd.api.types.is_integer_dtype(table[column]) or table[column].isna().any():
            raise InputError(f"{where}: {column} is {table[column].dtype}, expected whole numbers")
    check_fractions(table, "iou", where)


def category_names(units: pd.DataFrame) -> tuple[str, ...]:
    """Return the categories of a table of units, in the order of its columns."""
    return tuple(str(name).removesuffix("-label") for name in units.columns if str(name).endswith("-label"))


def _check_units(units: pd.DataFrame, best: pd.DataFrame, where: str) -> None:
    """Raise if the table of units differs from the best concepts, which were computed from the pairs."""
    for column in best.columns:
        if column not in units.columns and column in LATER_COLUMNS:
            continue  # the table was written by an earlier version
        if column not in units.columns:
            raise InputError(f"{where}: units.parquet in the same folder has no column {column}")
        given, computed = units[column].to_numpy(object), best[column].to_numpy(object)
        missing = pd.isna(given), pd.isna(computed)
        same = np.array([a or bool(x == y) for a, x, y in zip(missing[0], given, computed, strict=True)], bool)
        wrong = np.flatnonzero(~same | (missing[0] != missing[1]))
        if len(wrong):
            row = int(wrong[0])
            raise InputError(
                f"{where}: gives {column} {computed[row]!r} for unit {units['unit'].iloc[row]}, but units.parquet in "
                f"the same folder states {given[row]!r}"
            )
