"""Count interpretable units and detected concepts at other bounds of the IoU than the study's own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.scores import concept_columns, score_column

BOUNDS = tuple(round(0.01 * step, 2) for step in range(1, 21))


def sensitivity(
    units: pd.DataFrame, chance_iou: Array | None = None, chance_concept: Array | None = None
) -> pd.DataFrame:
    """Return the counts of a layer at each bound of the IoU from 0.01 to 0.20.

    Parameters
    ----------
    units : DataFrame
        The table of units of the layer.
    chance_iou : float [permutations, units], optional
        The highest IoU of each unit with permuted labels, as a dissection stores it.
    chance_concept : int [permutations, units], optional
        The number of the concept that has it.

    Returns
    -------
    DataFrame
        A row per bound with the columns bound, interpretable and concepts; and the means over the permutations of the
        same two counts: chance_interpretable with `chance_iou`, and chance_concepts with both arrays.
    """
    alive = units["label"].notna() & ~units["dead"].astype(bool)
    score = units[score_column(units)].where(alive, 0.0).to_numpy(np.float64)
    codes = units.groupby(concept_columns(units), dropna=False).ngroup().to_numpy()
    rows: dict[str, list[float]] = {
        "bound": list(BOUNDS),
        "interpretable": [int((score > bound).sum()) for bound in BOUNDS],
        "concepts": [len(np.unique(codes[score > bound])) for bound in BOUNDS],
    }
    if chance_iou is not None:
        rows["chance_interpretable"] = [float((chance_iou > bound).sum(axis=1).mean()) for bound in BOUNDS]
        if chance_concept is not None:
            rows["chance_concepts"] = [_concepts_by_chance(chance_iou > bound, chance_concept) for bound in BOUNDS]
    return pd.DataFrame(rows)


def _concepts_by_chance(interpretable: Array, concept: Array) -> float:
    """Return the mean over permutations of the number of distinct concepts of the interpretable units."""
    return float(np.mean([len(np.unique(row[found])) for row, found in zip(concept, interpretable, strict=True)]))
