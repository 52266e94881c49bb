"""Take tables of units as users give them, and check them."""

from __future__ import annotations

import pandas as pd

from prunescope.dissection import Dissection, LayerDissection
from prunescope.dissection.scores import concept_columns
from prunescope.errors import InputError
from prunescope.store.tables import check_rows

Units = pd.DataFrame | LayerDissection | Dissection  # the units of one layer


def units_table(given: Units, which: str) -> pd.DataFrame:
    """Return the table of units of one layer, after checking it.

    Parameters
    ----------
    given
        A table with a row per unit and the columns unit, label, iou and dead, or a dissection of one layer.
    which
        A description of the table, which begins error messages.

    Returns
    -------
    DataFrame
        The table, with a column `layer` if the name of the layer is known.

    Raises
    ------
    InputError
        If a column is missing, a value is invalid, a unit occurs twice, or there are several layers.
    """
    if isinstance(given, LayerDissection):
        table = given.units.assign(layer=given.layer)
    elif isinstance(given, Dissection):
        table = given.units
    elif isinstance(given, pd.DataFrame):
        table = given
    else:
        raise InputError(f"{which}: a {type(given).__name__} is given, expected a DataFrame or a dissection")
    absent = [column for column in ("unit", "label", "iou", "dead") if column not in table.columns]
    if absent:
        raise InputError(f"{which}: there is no column {', '.join(absent)}; expected unit, label, iou and dead")
    if "layer" in table.columns and table["layer"].nunique() > 1:
        several = ", ".join(map(str, table["layer"].unique()))
        raise InputError(f"{which}: contains the layers {several}; give the units of one layer")
    check_rows(table, which)
    return table


def other_numbers(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame) -> str | None:
    """Describe the first concept number that has several names or categories in two tables, if there is one."""
    columns = concept_columns(units_at_0, units_at_l)
    if "number" not in columns:
        return None
    concepts = pd.concat([units_at_0[columns], units_at_l[columns]]).dropna().drop_duplicates()
    several = concepts[concepts.duplicated("number", keep=False)].sort_values("number", kind="stable")
    if not len(several):
        return None
    number = several["number"].iloc[0]
    names = several.loc[several["number"] == number, "label"]
    return (
        f"concept number {number} has several names or categories in the tables of level 0 and level l "
        f"({', '.join(map(repr, names))}), which were not made with the same labels"
    )
