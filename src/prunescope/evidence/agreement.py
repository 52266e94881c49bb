"""Measure how far two networks' units detect the same concepts, for one or many sets of images at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import NONE
from prunescope.dissection.scores import concept_columns, interpretable


@dataclass(frozen=True)
class Agreement:
    """How far the units of a pruned network agree with those of its dense network, unit by unit.

    All fields are float64 [sets], with one value for each set of images; they are NaN where they are not defined.

    Attributes
    ----------
    still_interpretable
        The share of the dense network's interpretable units that are interpretable in the pruned network.
    same_concept
        The share of those that have the same concept.
    concepts_still_detected
        The share of the dense network's detected concepts that the pruned network detects.
    matched_by_concept
        The largest share of the dense network's interpretable units that can be paired by concept.
    still_interpretable_floor
        The expected value of `still_interpretable` if the pruned network's units were renumbered at random: the share
        of units that are interpretable.
    same_concept_floor
        The expected value of `same_concept` in that case: the sum over concepts of p_0 p_l, where p_0 and p_l are the
        concept's shares of the interpretable units of each network.
    same_concept_kappa
        Cohen's kappa of the concepts of the units that are interpretable in both networks: 0 if they agree as often as
        independent draws with the same frequencies of concepts, 1 if all agree.
    """

    still_interpretable: Array
    same_concept: Array
    concepts_still_detected: Array
    matched_by_concept: Array
    still_interpretable_floor: Array
    same_concept_floor: Array
    same_concept_kappa: Array


def agreement(before: Array, after: Array, concepts: int) -> Agreement:
    """Compare what the units of a dense and of a pruned network detect.

    Parameters
    ----------
    before, after
        int [sets, units]: the concept that each unit of the dense and of the pruned network detects, from 0 to
        `concepts` - 1; -1 if it is not interpretable, or was removed. Corresponding units have the same column.
    concepts
        The number of concepts.
    """
    both, same = agreeing(before, after)
    counts = [_counts(units, concepts) for units in (before, after)]
    dense, pruned = (count.sum(axis=1) for count in counts)
    marginals = [_counts(np.where(both, units, NONE), concepts) for units in (before, after)]
    still = both.sum(axis=1)
    shared = _ratio(same.sum(axis=1), still)
    expected = _ratio((marginals[0] * marginals[1]).sum(axis=1), still**2)
    return Agreement(
        still_interpretable=_ratio(still, dense),
        same_concept=shared,
        concepts_still_detected=_ratio(((counts[0] > 0) & (counts[1] > 0)).sum(axis=1), (counts[0] > 0).sum(axis=1)),
        matched_by_concept=_ratio(np.minimum(*counts).sum(axis=1), dense),
        still_interpretable_floor=_ratio(pruned, np.full(len(pruned), before.shape[1])),
        same_concept_floor=_ratio((counts[0] * counts[1]).sum(axis=1), dense * pruned),
        same_concept_kappa=_ratio(shared - expected, 1 - expected),
    )


def agreeing(before: Array, after: Array) -> tuple[Array, Array]:
    """Return which units are interpretable in both networks, and which of these have the same concept.

    Both are bool [sets, units]; the arguments are those of `agreement`.
    """
    both = (before != NONE) & (after != NONE)
    return both, both & (before == after)


def shares(before: Array, after: Array) -> tuple[Array, Array]:
    """Return `still_interpretable` and `same_concept` of an `Agreement` alone."""
    both, same = agreeing(before, after)
    still = both.sum(axis=1)
    return _ratio(still, (before != NONE).sum(axis=1)), _ratio(same.sum(axis=1), still)


def detections(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame, iou: float) -> tuple[Array, Array, int]:
    """Return what the units of two tables detect, as `agreement` takes it, for one set of images.

    Corresponding units have the same number. Units of level 0 that have no row at level l detect nothing there; units
    of level l that level 0 does not have are left out.
    """
    columns = concept_columns(units_at_0, units_at_l)
    joined = pd.concat([table[columns] for table in (units_at_0, units_at_l)], ignore_index=True)
    codes = joined.groupby(columns, dropna=False, sort=False).ngroup().to_numpy(np.int64)
    found = [
        pd.Series(np.where(interpretable(table, iou), part, NONE), index=table["unit"])
        for table, part in zip((units_at_0, units_at_l), np.split(codes, [len(units_at_0)]), strict=True)
    ]
    after = found[1].reindex(found[0].index, fill_value=NONE)
    concepts = int(codes.max(initial=-1)) + 1
    return found[0].to_numpy(np.int64)[None], after.to_numpy(np.int64)[None], concepts


def detected_concepts(detected: Array, concepts: int) -> Array:
    """Return bool [sets, concepts]: which concepts are detected by any unit of each set."""
    return _counts(detected, concepts) > 0


def _counts(detected: Array, concepts: int) -> Array:
    """Return int64 [sets, concepts]: the number of units that detect each concept."""
    sets, units = np.nonzero(detected != NONE)
    cells = sets * concepts + detected[sets, units]
    return np.bincount(cells, minlength=len(detected) * concepts).reshape(len(detected), concepts)


def _ratio(part: Array, whole: Array) -> Array:
    """Return the ratio of two arrays, which is NaN where the second is zero or NaN."""
    part, whole = part.astype(np.float64), whole.astype(np.float64)
    known = (whole != 0) & ~np.isnan(whole)
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=known)
