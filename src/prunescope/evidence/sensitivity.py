"""Count interpretable units and detected concepts at other bounds of the IoU than the study's own."""

from __future__ import annotations

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.scores import concept_columns, score_column

BOUNDS = tuple(round(0.01 * step, 2) for step in range(1, 21))


def sensitivity(units: pd.DataFrame, chance_iou: Array | None = None) -> pd.DataFrame:
    """Return the counts of a layer at each bound of the IoU from 0.01 to 0.20.

    Parameters
    ----------
    units : DataFrame
        The table of units of the layer.
    chance_iou : float [permutations, units], optional
        The highest IoU of each unit with permuted labels, as a dissection stores it.

    Returns
    -------
    DataFrame
        A row per bound with the columns bound, interpretable and concepts; and, with `chance_iou`,
        chance_interpretable, the mean number of interpretable units over the permutations.
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
    return pd.DataFrame(rows)
