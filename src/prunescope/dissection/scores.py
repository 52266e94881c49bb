"""Which unit detects what: from pixel counts to IoU, pairs, units and a summary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.tally import Counts, Tally

Array = np.ndarray[Any, Any]


CONCEPT = ("number", "category", "label")  # what tells a concept from others, in tables of units


def concept_columns(*units: pd.DataFrame) -> list[str]:
    """Name the columns in which rows of units tables have to agree to detect the same concept.

    A concept is a number of label.csv: two of them may have the same name, such as a window that is an object and one
    that is a part. Imported tables have no numbers; a concept there is a name within a category.

    Parameters
    ----------
    units
        Tables to compare. Columns that one of them lacks are left out.
    """
    return [column for column in CONCEPT if all(column in table.columns for table in units)]


def pair_scores(tally: Counts, labels: pd.DataFrame, categories: tuple[str, ...]) -> pd.DataFrame:
    """Score every unit and concept that meet: IoU = I / (A + G - I) (Bau et al. 2017, section 2.3).

    Parameters
    ----------
    tally
        Pixel counts.
    labels
        The concepts, indexed by number in the tally's order, with `name` and (primary) `category`.
    categories
        In the tally's order.

    Returns
    -------
    pd.DataFrame
        unit, label, number, category, truth, activation, intersect, iou; by unit, then number.
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
    """Name the counts that are stored: those of the whole data set, and by block for the pairs that matter.

    These are the pairs that are the best of their unit within a category, or have an IoU above 0.01; all others would
    take a hundred times the room and can change no verdict.

    Parameters
    ----------
    tally
        Pixel counts by block.
    labels
        The concepts, indexed by number in the tally's order.
    pairs
        From `pair_scores`.

    Returns
    -------
    dict
        `numbers` int64 [concepts]; `truth`, `intersect`, `activation`, `area` as in `Counts`; `block_pairs` int64
        [pairs, 2], unit and number; `block_intersect` [blocks, pairs]; `block_truth` [blocks, concepts];
        `block_activation` [blocks, units, categories].
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
    """Give every unit its concept, the one of highest IoU over all categories, and the best of each category.

    Equal IoUs go to the lower concept number.

    Parameters
    ----------
    pairs
        From `pair_scores`.
    units
        A row per unit: `unit`, and what else is known of it (`threshold`, `dead`).
    categories
        Each adds the columns `CATEGORY-label` and `CATEGORY-iou`; a missing label means that the unit meets none.

    Returns
    -------
    pd.DataFrame
        unit, label, category, iou, the other columns of `units`, number, and the best of each category.
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
    """Count interpretable units and the distinct concepts they detect (Frankle and Bau 2019, section 3).

    Parameters
    ----------
    units
        A table of units with `label`, `category`, `iou` and, where known, `number` and `dead`.
    categories
        In the order to list them.
    iou
        A unit is interpretable when its IoU is above this.
    settings
        What the table was made with.
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
