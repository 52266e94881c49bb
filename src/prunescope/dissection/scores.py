"""Compute IoUs from pixel counts, find the concept of each unit, and summarise the results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.tally import Counts, Tally

Array = np.ndarray[Any, Any]


CONCEPT = ("number", "category", "label")  # the columns that identify a concept in a table of units


def concept_columns(*units: pd.DataFrame) -> list[str]:
    """Return the names of the columns that identify a concept in all of the given tables of units.

    Two units detect the same concept if they agree in these columns. A concept is identified by its number in
    label.csv, since two concepts may have the same name, such as a window that is an object and one that is a part.
    Imported tables have no numbers; there, a concept is identified by its category and name.

    Parameters
    ----------
    units
        The tables to compare. Columns that one of them lacks are left out.
    """
    return [column for column in CONCEPT if all(column in table.columns for table in units)]


def pair_scores(tally: Counts, labels: pd.DataFrame, categories: tuple[str, ...]) -> pd.DataFrame:
    """Compute the IoU of each pair of unit and concept that have pixels in common.

    IoU = I / (A + G - I), where I is `intersect`, A is `activation` and G is `truth` (Bau et al. 2017, section 2.3).

    Parameters
    ----------
    tally
        The pixel counts.
    labels
        The concepts in the order of the tally, indexed by number, with the columns `name` and (primary) `category`.
    categories
        The categories in the order of the tally.

    Returns
    -------
    pd.DataFrame
        unit, label, number, category, truth, activation, intersect and iou, sorted by unit, then number.
    """
    unit, concept = np.nonzero(tally.intersect)
    primary = np.array([categories.index(name) for name in labels["category"]], np.int64)
    truth, intersect = tally.truth[concept], tally.intersect[unit, concept]
    activation = tally.activation[unit, primary[concept]]
    return pd.DataFrame(
        {
            "unit": unit,
            "label": labels["name"].to_numpy()[concept],
            "number": labels.index.to_numpy()[concept],
            "category": labels["category"].to_numpy()[concept],
            "truth": truth,
            "activation": activation,
            "intersect": intersect,
            "iou": intersect / (activation + truth - intersect),
        }
    )


def tally_arrays(tally: Tally, labels: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Array]:
    """Return the pixel counts to store, as named arrays.

    They are the counts of the whole data set and, for the relevant pairs of unit and concept, the counts of each block.
    A pair is relevant if its IoU is above 0.01, or if it is the best of its unit within a category. All other pairs
    would take a hundred times the space and cannot change a verdict.

    Parameters
    ----------
    tally
        The pixel counts by block.
    labels
        The concepts in the order of the tally, indexed by number.
    pairs
        The table returned by `pair_scores`.

    Returns
    -------
    dict
        `numbers` int64 [concepts], the concept numbers; `truth`, `intersect`, `activation` and `area` as in `Counts`;
        `block_pairs` int64 [pairs, 2], the unit and the concept number of each relevant pair; `block_intersect`
        [blocks, pairs]; `block_truth` [blocks, concepts]; `block_activation` [blocks, units, categories].
    """
    best = pairs.sort_values("iou", ascending=False, kind="stable").drop_duplicates(["unit", "category"]).index
    mattering = pairs[(pairs["iou"] > 0.01) | pairs.index.isin(best)]
    unit, number = mattering["unit"].to_numpy(), mattering["number"].to_numpy()
    numbers = labels.index.to_numpy()
    return {"numbers": numbers} | vars(tally.total()) | {
        "block_pairs": np.stack([unit, number], axis=1).astype(np.int64),
        "block_intersect": tally.intersect[:, unit, np.searchsorted(numbers, number)],
        "block_truth": tally.truth,
        "block_activation": tally.activation,
    }  # fmt: skip


def unit_scores(pairs: pd.DataFrame, units: pd.DataFrame, categories: tuple[str, ...]) -> pd.DataFrame:
    """Find the concept of each unit, which is the one with the highest IoU, and its best concept of each category.

    Of concepts with equal IoUs, the one with the lower number is chosen.

    Parameters
    ----------
    pairs
        The table returned by `pair_scores`.
    units
        A row per unit, with the column `unit` and others to copy to the result, such as `threshold` and `dead`.
    categories
        The categories. Each of them adds the columns `CATEGORY-label` and `CATEGORY-iou`; a missing label means that
        the unit's masks have no pixel in common with any concept of the category.

    Returns
    -------
    pd.DataFrame
        unit, label, category, iou, the other columns of `units`, number, and the best concept of each category.
    """
    ranked = pairs.sort_values(["iou", "number"], ascending=[False, True], kind="stable")
    best = ranked.drop_duplicates("unit").set_index("unit")
    at = units["unit"]
    columns: dict[str, Any] = {
        "unit": at.to_numpy(),
        "label": best["label"].reindex(at).to_numpy(),
        "category": best["category"].reindex(at).to_numpy(),
        "iou": best["iou"].reindex(at).fillna(0.0).to_numpy(),
    }
    columns |= {name: units[name].to_numpy() for name in units.columns if name != "unit"}
    columns["number"] = best["number"].reindex(at).astype("Int64").array
    for category in categories:
        within = ranked[ranked["category"] == category].drop_duplicates("unit").set_index("unit")
        columns[f"{category}-label"] = within["label"].reindex(at).to_numpy()
        columns[f"{category}-iou"] = within["iou"].reindex(at).fillna(0.0).to_numpy()
    return pd.DataFrame(columns)


def summarise(units: pd.DataFrame, categories: tuple[str, ...], iou: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Count the interpretable units and the distinct concepts that they detect (Frankle and Bau 2019, section 3).

    Parameters
    ----------
    units
        A table of units with the columns `label`, `category`, `iou` and, if known, `number` and `dead`.
    categories
        The categories, in the order in which the summary lists them.
    iou
        A unit is interpretable if its IoU is above this bound.
    settings
        The settings of the dissection, to be stored in the summary.

    Returns
    -------
    dict
        The numbers of `units`, `interpretable` units, detected `concepts` and, if known, `dead` units; the number of
        detected concepts (`by_category`) and of interpretable units (`units_by_category`) of each category; and the
        `settings`, including `iou`.
    """
    interpretable = units[units["iou"] > iou]
    concepts = interpretable.drop_duplicates(concept_columns(units))
    summary: dict[str, Any] = {
        "units": len(units),
        "interpretable": len(interpretable),
        "concepts": len(concepts),
        "by_category": {name: int((concepts["category"] == name).sum()) for name in categories},
        "units_by_category": {name: int((interpretable["category"] == name).sum()) for name in categories},
    }
    if "dead" in units:
        summary["dead"] = int(units["dead"].sum())
    return summary | {"settings": settings | {"iou": iou}}
