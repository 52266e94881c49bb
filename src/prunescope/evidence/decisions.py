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
    undecided_by
        What leaves an undecided hypothesis open: the `mean`, which could be zero or outside the margin, single `levels`
        that are shown to differ on a side that contradicts the mean, or the `accuracy`, because the levels at which it
        may or may not hold would change the answer. Empty if the hypothesis is decided.
    """

    hypothesis: Hypothesis
    difference: float
    low: float
    high: float
    p_inside: float
    p_zero: float
    contrary: Array
    undecided_by: Literal["", "mean", "levels", "accuracy"]


def decide_levels(differences: Differences, margin: float, alpha: float) -> Array:
    """Return the decision on each level: "unchanged", "more", "fewer" or "undecided".

    A level is unchanged if two one-sided tests show that it differs by less than the margin. Otherwise a two-sided test
    decides whether it differs at all, with Holm's correction for the number of levels.
    """
    differs = rejected(p_not_zero(differences), alpha)
    changed = np.where(differs, np.where(differences.mean > 0, "more", "fewer"), "undecided")
    return np.where(p_inside(differences, margin) <= alpha, "unchanged", changed)


def decide_mean(differences: Differences, holds: Array, falls: Array, margin: float, alpha: float) -> Decision:
    """Return the hypothesis that holds on average over the levels at which accuracy holds.

    The hypothesis is undecided if it would be another one with the levels at which accuracy may hold as well, or if a
    single level is shown to differ on a side that contradicts it.

    Parameters
    ----------
    differences
        The differences of all pruned levels from the dense network.
    holds, falls
        bool [levels]: the levels at which accuracy holds, at least one, and those at which it falls.
    margin
        The largest difference that counts as no effect, in the units of the differences.
    alpha
        The level of significance.
    """
    mean = differences.over(holds)
    low, high = (float(end[0]) for end in mean.interval(alpha))
    answer = _answer(mean, margin, alpha)
    above, below = np.zeros_like(holds), np.zeros_like(holds)
    above[holds] = rejected(differences.p_above(margin)[holds], alpha)
    below[holds] = rejected(differences.p_below(-margin)[holds], alpha)
    contrary = _contrary(answer, above, below)
    hypothesis: Hypothesis = "mixed" if contrary.any() else answer
    undecided_by: Literal["", "mean", "levels", "accuracy"] = "mean" if hypothesis == "undecided" else ""
    if hypothesis in ("A", "B", "C"):
        levels = np.where(holds, decide_levels(differences, margin, alpha), "")
        if _contrary(answer, levels == "more", levels == "fewer").any():
            hypothesis, undecided_by = "undecided", "levels"
        elif _answer(differences.over(~falls), margin, alpha) != answer:
            hypothesis, undecided_by = "undecided", "accuracy"
    inside, zero, difference = (float(part[0]) for part in (p_inside(mean, margin), p_not_zero(mean), mean.mean))
    return Decision(hypothesis, difference, low, high, inside, zero, contrary, undecided_by)


def _answer(mean: Differences, margin: float, alpha: float) -> Hypothesis:
    if p_inside(mean, margin)[0] <= alpha:
        return "A"
    if p_not_zero(mean)[0] <= alpha:
        return "B" if mean.mean[0] > 0 else "C"
    return "undecided"


def _contrary(answer: Hypothesis, above: Array, below: Array) -> Array:
    """Return which of the levels above and below contradict the answer."""
    if answer == "A":
        return above | below
    if answer == "undecided":
        return (above | below) & (above.any() and below.any())
    return below if answer == "B" else above
