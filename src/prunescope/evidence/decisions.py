"""Decide from tests whether levels differ from the dense network, one by one and on average."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from prunescope.evidence.differences import Differences, p_inside, p_not_zero, rejected

Array = np.ndarray[Any, Any]
Hypothesis = Literal["A", "B", "C", "mixed", "undecided"]


@dataclass(frozen=True)
class Decision:
    """The hypothesis that holds on average over some levels.

    Attributes
    ----------
    hypothesis
        As in `prunescope.evidence.Verdict`.
    difference, low, high
        The mean difference from the dense network over these levels and its interval.
    p_inside, p_zero
        The p-values of the equivalence test and of the two-sided test.
    contrary
        bool [levels]: the levels that contradict the mean, for which the hypothesis is mixed.
    """

    hypothesis: Hypothesis
    difference: float
    low: float
    high: float
    p_inside: float
    p_zero: float
    contrary: Array


def decide_levels(differences: Differences, margin: float, alpha: float) -> Array:
    """Return the decision on each level: "unchanged", "more", "fewer" or "undecided".

    A level is unchanged if two one-sided tests show that it differs by less than the margin. Otherwise a two-sided test
    decides whether it differs at all, with Holm's correction for the number of levels.
    """
    differs = rejected(p_not_zero(differences), alpha)
    changed = np.where(differs, np.where(differences.mean > 0, "more", "fewer"), "undecided")
    return np.where(p_inside(differences, margin) <= alpha, "unchanged", changed)


def decide_mean(differences: Differences, holds: Array, margin: float, alpha: float) -> Decision:
    """Return the hypothesis that holds on average over the levels at which accuracy holds.

    Parameters
    ----------
    differences
        The differences of all pruned levels from the dense network.
    holds
        bool [levels]: the levels at which accuracy holds; at least one.
    margin
        The largest difference that counts as no effect, in the units of the differences.
    alpha
        The level of significance.
    """
    mean = differences.over(holds)
    inside, zero, difference = (float(part[0]) for part in (p_inside(mean, margin), p_not_zero(mean), mean.mean))
    low, high = (float(end[0]) for end in mean.interval(alpha))
    answer: Hypothesis = "undecided"
    if inside <= alpha:
        answer = "A"
    elif zero <= alpha:
        answer = "B" if difference > 0 else "C"
    contrary = _contrary(answer, differences, holds, margin, alpha)
    return Decision("mixed" if contrary.any() else answer, difference, low, high, inside, zero, contrary)


def _contrary(answer: Hypothesis, differences: Differences, holds: Array, margin: float, alpha: float) -> Array:
    """Return at which levels the difference lies beyond the margin on a side that contradicts the answer."""
    above, below = np.zeros_like(holds), np.zeros_like(holds)
    above[holds] = rejected(differences.p_above(margin)[holds], alpha)
    below[holds] = rejected(differences.p_below(-margin)[holds], alpha)
    if answer == "A":
        return above | below
    if answer == "undecided":
        return (above | below) & (above.any() and below.any())
    return below if answer == "B" else above
