"""Compare what the units of a layer detect in two networks without knowing which units correspond to each other."""

from __future__ import annotations

import warnings

import pandas as pd

from prunescope.dissection.scores import concept_columns, interpretable
from prunescope.evidence.units import Units, other_numbers, units_table


def concepts_still_detected(dense: Units, pruned: Units, iou: float = 0.05) -> float:
    """Return the share of the dense network's detected concepts that the pruned network still detects.

    Unlike `consistency`, this does not need to know which units correspond to each other. It applies to any two
    networks that were dissected with the same labels.

    Parameters
    ----------
    dense, pruned : DataFrame, LayerDissection or Dissection
        The units of one layer of each network, as in `consistency`. Their numbers do not matter.
    iou : float
        The bound above which a unit is interpretable. A concept is detected if it is the best concept of an
        interpretable unit.

    Returns
    -------
    float
        The share, from 0 to 1; NaN if the dense network detects no concept.

    Raises
    ------
    InputError
        If a table is not valid, or is of several layers.

    Warns
    -----
    UserWarning
        If a concept number has different names in the two tables.

    Examples
    --------
    >>> dense = pd.DataFrame(
    ...     {"unit": [0, 1, 2], "label": ["dog", "dog", "sky"], "iou": [0.2, 0.1, 0.3], "dead": [False] * 3}
    ... )
    >>> concepts_still_detected(dense, dense.assign(label=["sky", "sky", "sea"]))
    0.5
    """
    return compare_concepts(*_tables(dense, pruned), iou)[0]


def matched_by_concept(dense: Units, pruned: Units, iou: float = 0.05) -> float:
    """Return the largest share of the dense network's interpretable units that can be paired by concept.

    Each pair consists of an interpretable unit of each network with the same concept, and each unit belongs to at most
    one pair. The largest number of pairs is the sum over concepts of min(n_0, n_l), where n_0 and n_l are the numbers
    of interpretable units with this concept in the dense and in the pruned network. Unlike `consistency`, this does not
    need to know which units correspond to each other. It is an upper bound of the share of units that keep their
    concept, whichever units correspond.

    Parameters
    ----------
    dense, pruned, iou
        As in `concepts_still_detected`.

    Returns
    -------
    float
        The number of pairs divided by the number of the dense network's interpretable units, from 0 to 1; NaN if it has
        none.

    Raises
    ------
    InputError
        If a table is not valid, or is of several layers.

    Warns
    -----
    UserWarning
        If a concept number has different names in the two tables.

    Examples
    --------
    >>> dense = pd.DataFrame(
    ...     {"unit": [0, 1, 2, 3], "label": ["dog", "dog", "sky", "sea"], "iou": [0.2] * 4, "dead": [False] * 4}
    ... )
    >>> matched_by_concept(dense, dense.assign(label=["sky", "sky", "dog", "cat"]))
    0.5
    """
    return compare_concepts(*_tables(dense, pruned), iou)[1]


def compare_concepts(dense: pd.DataFrame, pruned: pd.DataFrame, iou: float) -> tuple[float, float]:
    """Return `concepts_still_detected` and `matched_by_concept` of two valid tables of one layer."""
    columns = concept_columns(dense, pruned)
    before, after = (
        table[interpretable(table, iou)].groupby(columns, dropna=False).size() for table in (dense, pruned)
    )
    if not len(before):
        return float("nan"), float("nan")
    pairs = before.to_frame("before").join(after.rename("after"), how="inner").min(axis=1).sum()
    return int(before.index.isin(after.index).sum()) / len(before), int(pairs) / int(before.sum())


def _tables(dense: Units, pruned: Units) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the checked tables of two networks, and warn if they number their concepts differently."""
    tables = (
        units_table(dense, "the table of the dense network"),
        units_table(pruned, "the table of the pruned network"),
    )
    if problem := other_numbers(*tables):
        warnings.warn(f"{problem}; a concept is then only counted as the same if its number and name are", stacklevel=3)
    return tables
