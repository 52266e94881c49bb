"""Compare units with chance: with the labels of other images, and with masks that are mirrored left to right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import false_discovery_control

from prunescope.arrays import Array
from prunescope.dissection.scores import PairCounts, Score
from prunescope.dissection.tally import Counts, Tally


@dataclass(frozen=True)
class Best:
    """The best concept of each unit."""

    score: Array  # float64 [units]: the highest score, 0 without a concept
    concept: Array  # int64 [units]: the index of the concept, -1 for a unit without one


@dataclass(frozen=True)
class Chance:
    """The best concepts of a layer's units that are due to chance.

    Attributes
    ----------
    mirrored
        With each mask mirrored left to right.
    permuted
        Under each permutation of the labels.
    left_out
        int64 [permutations]: the number of images without a donor, which are left out.
    """

    mirrored: Best
    permuted: tuple[Best, ...]
    left_out: Array


def best_concepts(counts: Counts, primary: Array, score: Score) -> Best:
    """Find the concept with the highest score of each unit; of equal ones, the first.

    Parameters
    ----------
    counts
        The pixel counts.
    primary
        int64 [concepts]: the index of each concept's primary category.
    score
        The score.
    """
    unit, concept = np.nonzero(counts.intersect)
    scores = np.full(counts.intersect.shape, -np.inf)
    scores[unit, concept] = score(
        PairCounts(
            counts.intersect[unit, concept].astype(np.int64),
            counts.activation[unit, primary[concept]],
            counts.truth[concept],
        )
    )
    best = scores.argmax(axis=1)
    highest = scores[np.arange(len(scores)), best]
    known = highest > -np.inf
    return Best(np.where(known, highest, 0.0), np.where(known, best, -1))


def best_numbers(permuted: Sequence[Best], numbers: Array) -> Array:
    """Return int32 [permutations, units]: the number of each unit's best concept; 0 for a unit without one.

    Parameters
    ----------
    permuted
        The best concepts under each permutation of the labels.
    numbers
        int64 [concepts]: the number of each concept, from 1.
    """
    return np.stack([np.where(one.concept < 0, 0, numbers[one.concept]) for one in permuted]).astype(np.int32)


def shrinkage(tally: Tally, primary: Array, score: Score) -> Array:
    """Estimate by how much the scores of units are too high because each is the best of many concepts.

    Each unit's concept is chosen on the even blocks of images, and its score on these blocks is compared with that on
    the odd ones; then the other way round.

    Parameters
    ----------
    tally
        The pixel counts by block.
    primary
        int64 [concepts]: the index of each concept's primary category.
    score
        The score.

    Returns
    -------
    Array
        float64 [units]: the mean of the two differences, each of which is 0 for a unit without a concept in the half;
        NaN if there is only one block.
    """
    units = tally.area.shape[1]
    if len(tally.area) < 2:
        return np.full(units, np.nan)
    even, odd = (
        Counts(*(part[first::2].sum(axis=0, dtype=np.int64) for part in vars(tally).values())) for first in (0, 1)
    )
    differences = np.zeros((2, units))
    for difference, here, there in zip(differences, (even, odd), (odd, even), strict=True):
        best = best_concepts(here, primary, score)
        unit = np.flatnonzero(best.concept >= 0)
        concept = best.concept[unit]
        common = there.intersect[unit, concept]
        met = common > 0  # a score is defined for pairs that have pixels in common
        unit, concept, common = unit[met], concept[met], common[met]
        other = np.zeros(units)
        other[unit] = score(PairCounts(common, there.activation[unit, primary[concept]], there.truth[concept]))
        difference[:] = best.score - other
    mean: Array = differences.mean(axis=0)
    return mean


def p_values(scores: Array, chance: Array) -> Array:
    """Return the p-value of each unit from its score and the scores of all units of the layer under permuted labels.

    The p-value is (1 + n) / (1 + U R), where n is the number of the U x R scores of U units under R permutations that
    reach the unit's own score. As all units are compared with the same scores, the p-values are valid for the layer as
    a whole and not for one unit alone.

    Parameters
    ----------
    scores
        float64 [units].
    chance
        float64 [permutations, units].

    Examples
    --------
    >>> p_values(np.array([0.3, 0.1]), np.array([[0.1, 0.0], [0.05, 0.2]])).tolist()
    [0.2, 0.6]
    """
    ordered = np.sort(chance, axis=None)
    reached = len(ordered) - np.searchsorted(ordered, scores, side="left")
    result: Array = (1 + reached) / (1 + len(ordered))
    return result


def unit_columns(scores: Array, chance: Chance) -> dict[str, Array]:
    """Return the columns of the table of units that compare it with chance.

    Returns
    -------
    dict
        `iou_mirrored` and, if there are permutations, `p` and `q` (Benjamini and Hochberg 1995), float64 [units] each.
    """
    columns = {"iou_mirrored": chance.mirrored.score}
    if chance.permuted:
        p = p_values(scores, np.stack([one.score for one in chance.permuted]))
        columns |= {"p": p, "q": false_discovery_control(p, method="bh")}
    return columns


def chance_counts(chance: Chance, iou: float) -> dict[str, Any]:
    """Count the units that are interpretable under permuted labels, and the distinct concepts that they detect.

    Returns
    -------
    dict
        `chance_interpretable` and `chance_concepts`, the means over the permutations, with their smallest and largest
        values `..._range`; the number of permutations, `chance_permutations`; and the mean number of images that are
        left out because they have no donor, `chance_left_out`. Empty if there are no permutations.
    """
    if not chance.permuted:
        return {}
    found = [(one.score > iou) & (one.concept >= 0) for one in chance.permuted]
    counts = {
        "chance_interpretable": [int(mask.sum()) for mask in found],
        "chance_concepts": [
            len(np.unique(one.concept[mask])) for one, mask in zip(chance.permuted, found, strict=True)
        ],
    }
    summary: dict[str, Any] = {"chance_permutations": len(found)}
    for name, values in counts.items():
        summary |= {name: float(np.mean(values)), f"{name}_range": [min(values), max(values)]}
    return summary | {"chance_left_out": float(chance.left_out.mean())}
