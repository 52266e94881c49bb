"""Test how far the levels of a study differ from its dense networks, over trials or over resampled images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = np.ndarray[Any, Any]


class Differences(Protocol):
    """Estimates of the mean difference between each level and the dense network, which can be tested.

    All arrays that the methods return have the shape [levels].
    """

    @property
    def mean(self) -> Array:
        """The estimated mean differences."""

    def p_above(self, bound: float) -> Array:
        """Return one-sided p-values; a small one shows that the difference is above `bound`."""

    def p_below(self, bound: float) -> Array:
        """Return one-sided p-values; a small one shows that the difference is below `bound`."""

    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return the two ends of an interval that covers the difference with probability 1 - `alpha`."""

    def over(self, levels: Array) -> Differences:
        """Return the mean of the differences over the levels that a mask, bool [levels], selects, as one level."""


@dataclass(frozen=True)
class TrialDifferences:
    """The differences of at least two trials, whose variance is pooled over the levels.

    The variance of a level's difference over a few trials is too uncertain for a test, so the mean of the variances
    over the levels is used for each level. Since all differences of a trial share its dense network, they are
    correlated, and the pooled variance has 4 L (T - 1) / (L + 3) degrees of freedom for L levels and T trials. This is
    Satterthwaite's approximation for independent errors of equal variance. For a single level the tests are those of
    Student.

    Attributes
    ----------
    values
        float64 [levels, trials]: the level's value minus that of the dense network of the same trial.
    """

    values: Array

    @property
    def mean(self) -> Array:
        """The means over the trials."""
        means: Array = self.values.mean(axis=1)
        return means

    @property
    def standard_error(self) -> float:
        """The standard error of each level's mean."""
        return float(np.sqrt(self.values.var(axis=1, ddof=1).mean() / self.values.shape[1]))

    @property
    def degrees_of_freedom(self) -> float:
        """The degrees of freedom of the pooled variance."""
        return pooled_degrees_of_freedom(*self.values.shape)

    def p_above(self, bound: float) -> Array:
        """Return one-sided p-values from a t-test; see `Differences.p_above`."""
        return self._upper_tail(self.mean - bound)

    def p_below(self, bound: float) -> Array:
        """Return one-sided p-values from a t-test; see `Differences.p_below`."""
        return self._upper_tail(bound - self.mean)

    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return a t interval; see `Differences.interval`."""
        from scipy.special import stdtrit

        reach = stdtrit(self.degrees_of_freedom, 1 - alpha / 2) * self.standard_error
        return self.mean - reach, self.mean + reach

    def over(self, levels: Array) -> TrialDifferences:
        """Return the mean over some levels, with one value for each trial; see `Differences.over`."""
        return TrialDifferences(self.values[levels].mean(axis=0, keepdims=True))

    def _upper_tail(self, excess: Array) -> Array:
        from scipy.special import stdtr

        # Counts can be equal in all trials. Without any variance, every excess is significant, and none is not.
        with np.errstate(divide="ignore", invalid="ignore"):
            t = np.where(excess == 0, 0.0, excess / self.standard_error)
        tail: Array = stdtr(self.degrees_of_freedom, -t)
        return tail


@dataclass(frozen=True)
class ResampledDifferences:
    """The differences of a single trial, and those of bootstrap resamples of its images.

    Attributes
    ----------
    values
        float64 [levels]: the level's value minus that of the dense network.
    resampled
        float64 [levels, resamples]: the same difference for each resample, which is the same for all levels.
    """

    values: Array
    resampled: Array

    @property
    def mean(self) -> Array:
        """The differences for the images as they are."""
        return self.values

    def p_above(self, bound: float) -> Array:
        """Return the share of resamples that are not above the bound; see `Differences.p_above`."""
        return _share(self.resampled <= bound)

    def p_below(self, bound: float) -> Array:
        """Return the share of resamples that are not below the bound; see `Differences.p_below`."""
        return _share(self.resampled >= bound)

    def interval(self, alpha: float) -> tuple[Array, Array]:
        """Return a percentile interval; see `Differences.interval`."""
        low, high = np.quantile(self.resampled, [alpha / 2, 1 - alpha / 2], axis=1)
        return low, high

    def over(self, levels: Array) -> ResampledDifferences:
        """Return the mean over some levels; see `Differences.over`."""
        return ResampledDifferences(
            self.values[levels].mean(keepdims=True), self.resampled[levels].mean(axis=0, keepdims=True)
        )


def _share(contrary: Array) -> Array:
    # One is added to both counts because the data as they are count as one more resample; no p-value is then zero.
    share: Array = (1 + contrary.sum(axis=1)) / (1 + contrary.shape[1])
    return share


def pooled_degrees_of_freedom(levels: int, trials: int) -> float:
    """Return the degrees of freedom of the variance that is pooled over the levels; see `TrialDifferences`.

    >>> pooled_degrees_of_freedom(1, 3)
    2.0
    >>> round(pooled_degrees_of_freedom(10, 3), 2)
    6.15
    """
    return 4 * levels * (trials - 1) / (levels + 3)


def p_inside(differences: Differences, margin: float) -> Array:
    """Return the p-values of two one-sided tests; a small one shows that |difference| < `margin` (Schuirmann 1987)."""
    return np.maximum(differences.p_above(-margin), differences.p_below(margin))


def p_not_zero(differences: Differences) -> Array:
    """Return the p-values of a two-sided test; a small one shows that the difference is not zero."""
    p: Array = np.minimum(1.0, 2 * np.minimum(differences.p_above(0.0), differences.p_below(0.0)))
    return p


def rejected(p: Array, alpha: float) -> Array:
    """Return which of several null hypotheses are rejected if all tests together have the level `alpha` (Holm 1979).

    >>> rejected(np.array([0.01, 0.04, 0.03]), 0.05).tolist()
    [True, False, False]
    """
    # Holm's method never rejects what a single test does not. Asking first saves most of the calls, which matters
    # because multipletests collects garbage in each of them.
    if not (p <= alpha).any():
        return np.zeros(len(p), np.bool_)
    from statsmodels.stats.multitest import multipletests

    reject: Array = multipletests(p, alpha, method="holm")[0]
    return reject
