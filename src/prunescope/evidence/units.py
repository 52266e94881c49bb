"""Take tables of units as users give them, check them, and tell which units are interpretable."""

from __future__ import annotations

import pandas as pd

from prunescope.dissection import Dissection, LayerDissection
from prunescope.dissection.scores import concept_columns
from prunescope.errors import InputError
from prunescope.store.tables import check_rows

Units = pd.DataFrame | LayerDissection | Dissection  # the units of one layer


def interpretable(units: pd.DataFrame, iou: float = 0.05) -> pd.Series[bool]:
    """Return which units are interpretable, that is, have a best concept with an IoU strictly above `iou`.

    Parameters
    ----------
    units : DataFrame
        A table with a row per unit and the columns label, iou and dead.
    iou : float
        The bound. Frankle and Bau 2019, section 2, use 0.05.

    Returns
    -------
    Series of bool
        The result for each unit, with the index of `units`. Dead units and units without a concept are not
        interpretable.

    Examples
    --------
    >>> table = pd.DataFrame({"label": ["dog", "sky", None], "iou": [0.2, 0.05, 0.0], "dead": [False, False, True]})
    >>> interpretable(table).tolist()
    [True, False, False]
    """
    return (units["iou"] > iou) & units["label"].notna() & ~units["dead"].astype(bool)


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
