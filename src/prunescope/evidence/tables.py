"""Collect what the units of a study detect at each level in one table."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.dissection.scores import concept_columns
from prunescope.errors import InputError
from prunescope.store.measured import Measured
from prunescope.store.stored import StoredStudy, open_study
from prunescope.store.tables import check_rows

COUNTED = ("trial", "level", "layer", "weights_remaining", "accuracy", "top5", "loss", "units", "dead", "interpretable")
CONSISTENT = ("still_interpretable", "same_concept")


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


def consistency(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame, iou: float = 0.05) -> tuple[float, float]:
    """Compare what the units of one layer detect at level l with what they detected in the dense network.

    Parameters
    ----------
    units_at_0, units_at_l : DataFrame
        Tables of the same layer and trial with a row per unit and the columns unit, label, iou and dead, and number and
        category if they are known. Two concepts are the same if they agree in label, number and category, as far as
        both tables have these columns; the label alone may stand for several concepts. A unit without a row at level l
        was removed with its filter and counts as no longer interpretable.
    iou : float
        The bound above which a unit is interpretable.

    Returns
    -------
    still_interpretable : float
        The fraction of level 0's interpretable units that are also interpretable at level l; NaN if there are none at
        level 0.
    same_concept : float
        Among those units, the fraction that have the same concept at both levels; NaN if there are none. Both numbers
        are those of Frankle and Bau 2019, Figure 4.

    Raises
    ------
    InputError
        If a column is missing, a value is invalid, a unit occurs twice, the tables are of several layers, or the second
        table has units that the first does not have, because the tables are of different layers or number their units
        differently.

    Warns
    -----
    UserWarning
        If a concept number has different names in the two tables, which data sets that number their concepts
        differently lead to.

    Examples
    --------
    >>> dense = pd.DataFrame({"unit": [0, 1], "label": ["dog", "sky"], "iou": [0.2, 0.1], "dead": [False, False]})
    >>> consistency(dense, dense.assign(label=["dog", "sea"]))
    (1.0, 0.5)
    """
    _refuse_other_units(units_at_0, units_at_l)
    if problem := _other_numbers(units_at_0, units_at_l):
        warnings.warn(f"{problem}; a concept is then only counted as the same if its number and name are", stacklevel=2)
    columns = concept_columns(units_at_0, units_at_l)
    before = units_at_0[interpretable(units_at_0, iou)].set_index("unit")[columns]
    after = units_at_l[interpretable(units_at_l, iou)].set_index("unit")[columns]
    still = before.index.intersection(after.index)
    same = (before.loc[still].to_numpy(dtype=object) == after.loc[still].to_numpy(dtype=object)).all(axis=1)
    return (
        len(still) / len(before) if len(before) else float("nan"),
        float(np.mean(same)) if len(still) else float("nan"),
    )


def _refuse_other_units(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame) -> None:
    for table, which in ((units_at_0, "the table of level 0"), (units_at_l, "the table of level l")):
        absent = [column for column in ("unit", "label", "iou", "dead") if column not in table.columns]
        if absent:
            raise InputError(f"{which}: no column {', '.join(absent)}; expected unit, label, iou and dead")
        if "layer" in table.columns and table["layer"].nunique() > 1:
            several = ", ".join(map(str, table["layer"].unique()))
            raise InputError(f"{which}: holds the layers {several}; give the units of one layer")
        check_rows(table, which)
    if "layer" in units_at_0.columns and "layer" in units_at_l.columns:
        layers = {*units_at_0["layer"], *units_at_l["layer"]}
        if len(layers) > 1:
            raise InputError(f"the tables are of the layers {', '.join(sorted(map(str, layers)))}; give one of them")
    others = sorted(set(units_at_l["unit"]) - set(units_at_0["unit"]))
    if others:
        raise InputError(
            f"the table of level 0 has {len(units_at_0)} units and that of level l {len(units_at_l)}, of which "
            f"{len(others)} are not among those of level 0, such as unit {others[0]}; consistency is of one layer, "
            "whose units keep the numbers of the dense network. Give tables of the same layer; where filters were "
            "removed, `Dissection.numbered` gives the units their numbers"
        )


def _other_numbers(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame) -> str | None:
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


def curves(study_dir: str | Path) -> pd.DataFrame:
    """Return the numbers of a study in a table with a row for each finished trial, level and layer.

    Parameters
    ----------
    study_dir : path
        A study's directory, finished or not.

    Returns
    -------
    DataFrame
        The table, sorted by trial, level and layer (in the order of the recipe), with these columns:

        - trial, level, layer;
        - weights_remaining (a fraction), accuracy (top-1, a fraction), top5 (a fraction) and loss;
        - units (the number that the layer still has if filters were removed), dead and interpretable;
        - concepts (the number of distinct best concepts of the interpretable units, told apart by their numbers);
        - one column per category (the number of those concepts in the category);
        - still_interpretable and same_concept (see `consistency`; also NaN if the trial's level 0 is not finished).

    Raises
    ------
    InputError
        If the directory does not contain a study, if no level is finished, or if a file of a level is damaged.
    """
    return gather(open_study(study_dir))


def gather(study: StoredStudy) -> pd.DataFrame:
    """Return the numbers of a study that is already open; see `curves`."""
    rows: list[dict[str, object]] = []
    counts: list[Mapping[str, int]] = []
    dense: dict[tuple[int, str], pd.DataFrame] = {}
    _check_counts(study)
    for trial, level in study.finished:
        measured = study.measured(trial, level)
        for layer in study.settings.layers:
            units = study.units(trial, level, layer)
            if level == 0:
                dense[trial, layer] = units
            found = units[interpretable(units, study.settings.iou)].drop_duplicates(concept_columns(units))
            still, same = float("nan"), float("nan")
            if (trial, layer) in dense:
                if problem := _other_numbers(dense[trial, layer], units):
                    raise InputError(
                        f"{study.root}: trial {trial}, level {level}, layer {layer}: {problem}; remove the level's "
                        "dissection and run the study again"
                    )
                still, same = consistency(dense[trial, layer], units, study.settings.iou)
            rows.append(
                {
                    "trial": trial,
                    "level": level,
                    "layer": layer,
                    "weights_remaining": measured.weights_remaining,
                    "accuracy": measured.top1,
                    "top5": _or_nan(measured.top5),
                    "loss": _or_nan(measured.loss),
                    "units": len(units),
                    "dead": int(units["dead"].sum()),
                    "interpretable": int(interpretable(units, study.settings.iou).sum()),
                    "concepts": len(found),
                    "still_interpretable": still,
                    "same_concept": same,
                }
            )
            counts.append({category: int((found["category"] == category).sum()) for category in _categories(units)})
    columns = [*COUNTED, "concepts", *CONSISTENT]
    categories = {category: _column(category, columns) for row in counts for category in row}
    table = pd.DataFrame(rows, columns=columns)
    for place, (category, column) in enumerate(categories.items()):
        table.insert(len(COUNTED) + 1 + place, column, [row.get(category, 0) for row in counts])
    return table


def _check_counts(study: StoredStudy) -> None:
    """Raise if the counts of weights contradict each other: other prunable weights, or weights that come back."""
    earlier: dict[int, Measured] = {}
    for trial, level in study.finished:
        measured = study.measured(trial, level)
        before = earlier.setdefault(trial, measured)
        earlier[trial] = measured
        where = f"{study.root}: trial {trial}, level {level}"
        if None not in (measured.prunable, before.prunable) and measured.prunable != before.prunable:
            raise InputError(
                f"{where}: measured.json has {measured.prunable} prunable weights, the level before {before.prunable}; "
                "remove the file that is wrong and run the study again"
            )
        if study.settings.pruning.schedule == "iterative" and measured.weights_remaining > before.weights_remaining:
            raise InputError(
                f"{where}: measured.json says that {measured.weights_remaining:.4g} of the weights remain, more than "
                f"the {before.weights_remaining:.4g} of the level before; remove the file that is wrong and run the "
                "study again"
            )


def category_columns(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns of `curves` that count the detected concepts of a category."""
    return list(table.columns[len(COUNTED) + 1 : -len(CONSISTENT)])


def _categories(units: pd.DataFrame) -> list[str]:
    """Return the categories of a table of units, in the order of its columns."""
    named = [column.removesuffix("-label") for column in units.columns if column.endswith("-label")]
    return [*named, *(str(category) for category in units["category"].dropna().unique() if category not in named)]


def _column(category: str, taken: list[str]) -> str:
    return f"{category} (category)" if category in taken else category


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
