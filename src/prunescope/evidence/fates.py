"""Say what becomes of each unit of the dense network when the network is pruned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import NONE
from prunescope.evidence.agreement import agreeing, detections
from prunescope.evidence.tables import FATE

FATES = ("removed", "dead", "never", "lost", "gained", "kept", "unsure", "changed")
SETS = "concept_set"
OF_A_CONCEPT = ("label", "category", "number", "iou")


def fates(dense: pd.DataFrame, pruned: pd.DataFrame, iou: float = 0.05) -> pd.DataFrame:
    """Return the fate of each unit of a layer from the dense network to a pruned one.

    The fate is the first of these that applies:

    - removed: the unit was removed with its filter;
    - dead: its activation is the same everywhere in the pruned network;
    - never: it is interpretable in neither network;
    - lost: it is interpretable only in the dense network;
    - gained: it is interpretable only in the pruned network;
    - kept: it detects the same concept in both;
    - unsure: it detects another concept, but a concept is in its concept sets of both networks, so that the images do
      not show that the concept has changed;
    - changed: it detects another concept.

    Parameters
    ----------
    dense, pruned : DataFrame
        The tables of units of the layer in the two networks. Corresponding units have the same number. Without a column
        concept_set in both tables, no unit is unsure.
    iou : float
        The bound above which a unit is interpretable.

    Returns
    -------
    DataFrame
        A row per unit of the dense network with the columns unit and fate; dense_label, dense_category, dense_number
        and dense_iou; and label, category, number and iou, of the concept with the highest IoU in each network. They
        are missing for a unit that was removed. The numbers are left out if they are not known.
    """
    before, after = (table.set_index("unit") for table in (dense, pruned))
    removed = ~before.index.isin(after.index)
    after = after.reindex(before.index)
    dead = after["dead"].eq(True).fillna(False).to_numpy(dtype=bool)
    detected, later, _ = detections(dense, pruned, iou)
    at_0, at_l = detected[0] != NONE, later[0] != NONE
    _, same = agreeing(detected, later)
    fate = np.select(
        [removed, dead, ~at_0 & ~at_l, ~at_l, ~at_0, same[0], _overlap(before, after)], FATES[:-1], FATES[-1]
    )
    named = [name for name in OF_A_CONCEPT if name in dense.columns and name in pruned.columns]
    return pd.DataFrame(
        {
            "unit": before.index.to_numpy(),
            "fate": fate,
            **{f"dense_{name}": before[name].array for name in named},
            **{name: after[name].array for name in named},
        }
    )


def fate_counts(table: pd.DataFrame) -> dict[str, int]:
    """Return the number of units with each fate, by the name of its column in the evidence."""
    return {f"{FATE}{fate}": int((table["fate"] == fate).sum()) for fate in FATES}


def fate_columns(table: pd.DataFrame) -> Mapping[str, str]:
    """Return the fates that the evidence counts, each with its column; empty if fates are not known."""
    return {fate: f"{FATE}{fate}" for fate in FATES if f"{FATE}{fate}" in table.columns}


def _overlap(before: pd.DataFrame, after: pd.DataFrame) -> Array:
    """Return which units have a concept in the concept sets of both networks."""
    if SETS not in before.columns or SETS not in after.columns:
        return np.zeros(len(before), np.bool_)
    pairs = zip(before[SETS].fillna("").astype(str), after[SETS].fillna("").astype(str), strict=True)
    return np.array([not set(one.split()).isdisjoint(other.split()) for one, other in pairs], np.bool_)
