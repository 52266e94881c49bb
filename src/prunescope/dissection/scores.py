"""Compute scores from pixel counts, find the concept of each unit, and summarise the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.concepts.protocol import primary_categories
from prunescope.dissection.resampling import PairTally, Resampled
from prunescope.dissection.settings import DEFAULTS
from prunescope.dissection.tally import Counts, Tally
from prunescope.errors import InputError, nearest


class PairCounts(NamedTuple):
    """Pixel counts of pairs of a unit and a concept over the whole data set, int64 [pairs] each."""

    intersect: Array  # I: the pixels in both the unit's masks and the concept
    activation: Array  # A: the pixels of the unit's masks in images in which the concept's category is present
    truth: Array  # G: the pixels of the concept


# A function that computes the score of each pair, [pairs], from its counts. `intersect` is at least 1.
Score: TypeAlias = Callable[[PairCounts], Array]

CONCEPT = ("number", "category", "label")  # the columns that identify a concept in a table of units


def iou(counts: PairCounts) -> Array:
    """Return I / (A + G - I), the intersection over union of each pair (Bau et al. 2017, section 2.3)."""
    intersect, activation, truth = counts
    result: Array = intersect / (activation + truth - intersect)
    return result


_SCORES: dict[str, Score] = {"iou": iou}


def score_function(score: str | Score) -> Score:
    """Return the function that computes a score, given its name or the function itself.

    Raises
    ------
    InputError
        If there is no score of this name. The message lists the names.
    """
    if callable(score):
        return score
    if score not in _SCORES:
        raise InputError(f"score is {score!r}; {nearest(str(score), _SCORES)}, or give a function of PairCounts")
    return _SCORES[score]


def score_column(table: pd.DataFrame) -> str:
    """Return the column of a table of units or pairs by which concepts were chosen: `score` if it exists, or `iou`."""
    return "score" if "score" in table.columns else "iou"


def interpretable(units: pd.DataFrame, iou: float = DEFAULTS.iou) -> pd.Series[bool]:
    """Return which units are interpretable, that is, have a best concept with an IoU strictly above `iou`.

    Parameters
    ----------
    units : DataFrame
        A table with a row per unit and the columns label, iou and, if known, dead. If concepts were chosen by another
        score, in the column score, this score is compared with the bound.
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
    found = (units[score_column(units)] > iou) & units["label"].notna()
    return found & ~units["dead"].astype(bool) if "dead" in units else found


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


def pair_scores(tally: Counts, labels: pd.DataFrame, categories: tuple[str, ...], score: Score = iou) -> pd.DataFrame:
    """Compute the IoU of each pair of unit and concept that have pixels in common.

    Parameters
    ----------
    tally
        The pixel counts.
    labels
        The concepts in the order of the tally, indexed by number, with the columns `name` and (primary) `category`.
    categories
        The categories in the order of the tally.
    score
        The score by which the concepts of units are chosen. Unless it is the IoU, it adds the column `score`.

    Returns
    -------
    pd.DataFrame
        unit, label, number, category, truth, activation, intersect and iou, sorted by unit, then number.

    Raises
    ------
    InputError
        If `score` does not return a finite number for each pair.
    """
    unit, concept = np.nonzero(tally.intersect)
    primary = primary_categories(labels, categories)
    counts = PairCounts(
        intersect=tally.intersect[unit, concept],
        activation=tally.activation[unit, primary[concept]],
        truth=tally.truth[concept],
    )
    columns = {
        "unit": unit,
        "label": labels["name"].to_numpy()[concept],
        "number": labels.index.to_numpy()[concept],
        "category": labels["category"].to_numpy()[concept],
        "truth": counts.truth,
        "activation": counts.activation,
        "intersect": counts.intersect,
        "iou": iou(counts),
    }
    if score is not iou:
        values = np.asarray(score(counts))
        if values.shape != unit.shape or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
            raise InputError(
                f"the score function returned {values.dtype} {list(values.shape)} for {len(unit)} pairs of unit and "
                "concept; expected a finite number for each pair"
            )
        columns["score"] = values.astype(np.float64)
    return pd.DataFrame(columns)


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
    best = (
        pairs.sort_values(score_column(pairs), ascending=False, kind="stable")
        .drop_duplicates(["unit", "category"])
        .index
    )
    relevant = pairs[(pairs["iou"] > 0.01) | pairs.index.isin(best)]
    unit, number = relevant["unit"].to_numpy(), relevant["number"].to_numpy()
    numbers = labels.index.to_numpy()
    return {"numbers": numbers} | vars(tally.total()) | {
        "block_pairs": np.stack([unit, number], axis=1).astype(np.int64),
        "block_intersect": tally.intersect[:, unit, np.searchsorted(numbers, number)],
        "block_truth": tally.truth,
        "block_activation": tally.activation,
    }  # fmt: skip


def block_pairs(arrays: Mapping[str, Array], rows: Mapping[int, int], categories: Array) -> PairTally:
    """Return the counts by block of the relevant pairs, from the arrays that `tally_arrays` returns.

    Parameters
    ----------
    arrays
        The stored arrays.
    rows
        The row of each unit.
    categories
        int64 [concepts]: the column of each concept's primary category, in the order of `numbers`; only those of
        concepts that occur in pairs are used.
    """
    unit, number = arrays["block_pairs"].T
    column, row = np.searchsorted(arrays["numbers"], number), np.array([rows[one] for one in unit.tolist()], np.int64)
    union = arrays["block_activation"][:, row, categories[column]] + arrays["block_truth"][:, column]
    order = np.lexsort((column, row))
    intersect = arrays["block_intersect"][:, order]
    return PairTally(len(rows), row[order], column[order], intersect, union[:, order] - intersect)


def resampled_columns(found: Resampled, numbers: Array) -> dict[str, Any]:
    """Return the columns of a table of units that come from resampled images: `iou_low`, `iou_high`, `concept_set`.

    Parameters
    ----------
    found
        The units over resamples of the images.
    numbers
        int64 [concepts]: the numbers of the concepts in the order of the tally.
    """
    sets = [" ".join(str(numbers[column]) for column in columns) for columns in found.concept_sets()]
    return {"iou_low": found.iou_low, "iou_high": found.iou_high, "concept_set": pd.array(sets, dtype=object)}


def unit_scores(pairs: pd.DataFrame, units: pd.DataFrame, categories: tuple[str, ...]) -> pd.DataFrame:
    """Find the concept of each unit, which is the one with the highest score, and its best concept of each category.

    The score is the IoU unless `pairs` has a column `score`. Of concepts with equal scores, the one with
    the lower number is chosen.

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
        unit, label, category, iou, the other columns of `units`, number, precision (I / A), recall (I / G), and
        the best concept of each category.
    """
    ranked = pairs.sort_values([score_column(pairs), "number"], ascending=[False, True], kind="stable")
    best = ranked.drop_duplicates("unit").set_index("unit")
    at = units["unit"]
    columns: dict[str, Any] = {
        "unit": at.to_numpy(),
        "label": best["label"].reindex(at).to_numpy(),
        "category": best["category"].reindex(at).to_numpy(),
        "iou": best["iou"].reindex(at).fillna(0.0).to_numpy(),
    }
    if "score" in pairs:
        columns["score"] = best["score"].reindex(at).fillna(0.0).to_numpy()
    columns |= {name: units[name].to_numpy() for name in units.columns if name != "unit"}
    columns["number"] = best["number"].reindex(at).astype("Int64").array
    for name, whole in (("precision", "activation"), ("recall", "truth")):
        columns[name] = (best["intersect"] / best[whole]).reindex(at).fillna(0.0).to_numpy()
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
        A unit is interpretable if its score is above this bound; see `interpretable`.
    settings
        The settings of the dissection, to be stored in the summary.

    Returns
    -------
    dict
        The numbers of `units`, `interpretable` units, detected `concepts` and, if known, `dead` units and those that
        are interpretable with mirrored masks too (`mirrored_interpretable`); the number of
        detected concepts (`by_category`) and of interpretable units (`units_by_category`) of each category; and the
        `settings`, including `iou`.
    """
    detectors = units[interpretable(units, iou)]
    concepts = detectors.drop_duplicates(concept_columns(units))
    summary: dict[str, Any] = {
        "units": len(units),
        "interpretable": len(detectors),
        "concepts": len(concepts),
        "by_category": {name: int((concepts["category"] == name).sum()) for name in categories},
        "units_by_category": {name: int((detectors["category"] == name).sum()) for name in categories},
    }
    if "iou_mirrored" in units:
        summary["mirrored_interpretable"] = int((detectors["iou_mirrored"] > iou).sum())
    if "dead" in units:
        summary["dead"] = int(units["dead"].sum())
    return summary | {"settings": settings | {"iou": iou}}
