"""Estimate how many trials a decision would take, from the power of its tests."""

from __future__ import annotations

from collections.abc import Callable

from prunescope.evidence.differences import TrialDifferences, pooled_degrees_of_freedom

POWER = 0.8
MOST_TRIALS = 100


def trials_to_decide(mean: TrialDifferences, margin: float, alpha: float) -> int | None:
    """Return about how many trials would decide between no effect and an effect.

    It is the smallest number of trials with which the equivalence test or the two-sided test has a power of 80 %, if
    the true difference and its standard deviation over trials are as observed. The power of the equivalence test is
    that of its two one-sided tests together, by Bonferroni's inequality; it is therefore a lower bound.

    Parameters
    ----------
    mean
        The mean difference over the levels at which accuracy holds, as a single level.
    margin, alpha
        As in `prunescope.evidence.verdict`, with the margin as a count.

    Returns
    -------
    int or None
        The number of trials, which is above the present one; None if 100 trials would not be enough.
    """
    from statsmodels.stats.power import TTestPower

    difference, trials = abs(float(mean.mean[0])), mean.values.shape[1]
    deviation = float(mean.values.std(ddof=1))
    if deviation == 0:
        return None
    test = TTestPower()

    def power(count: int) -> float:
        two_sided = float(test.power(difference / deviation, count, alpha, alternative="two-sided"))
        if difference >= margin:
            return two_sided
        near, far = (
            float(test.power(effect / deviation, count, alpha, alternative="larger"))
            for effect in (margin - difference, margin + difference)
        )
        return max(near + far - 1, two_sided)

    return _fewest(power, trials + 1)


def trials_to_decide_levels(differences: TrialDifferences, margin: float, alpha: float) -> int | None:
    """Return about how many trials would show that a level at which nothing changes is unchanged.

    It is the smallest number with which the equivalence test of a single level has a power of 80 % if the true
    difference is zero and the pooled variance is as observed; None if 100 trials would not be enough.
    """
    from statsmodels.stats.power import TTestPower

    levels, trials = differences.values.shape
    deviation = differences.standard_error * trials**0.5
    if deviation == 0:
        return None

    def power(count: int) -> float:
        freedom = pooled_degrees_of_freedom(levels, count)
        one_sided = TTestPower().power(margin / deviation, count, alpha, df=freedom, alternative="larger")
        return 2 * float(one_sided) - 1

    return _fewest(power, trials + 1)


def _fewest(power: Callable[[int], float], first: int) -> int | None:
    """Return the smallest number of trials, from `first`, that has enough power."""
    return next((count for count in range(first, MOST_TRIALS + 1) if power(count) >= POWER), None)
