"""Decide whether pruning changes the number of things that a network's units detect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prunescope.errors import InputError
from prunescope.evidence.chains import QUANTITIES, Chains, read_chains
from prunescope.evidence.decisions import Hypothesis, decide_levels, decide_mean
from prunescope.evidence.differences import Differences, ResampledDifferences, TrialDifferences
from prunescope.evidence.power import trials_to_decide, trials_to_decide_levels
from prunescope.evidence.wording import describe
from prunescope.notebook import as_html

Array = np.ndarray[Any, Any]

FEWEST_RESAMPLES = 100


@dataclass(frozen=True)
class Replicates:
    """Values for bootstrap resamples of the images, which the verdict on a single trial needs.

    The resamples must be the same for all levels, so that errors that the levels share cancel in their differences.

    Attributes
    ----------
    counts
        For each layer and quantity (`interpretable` and `concepts`): float64 [levels, resamples], the value at each
        level for each resample of the labelled images, in the order of the levels, beginning with the dense network.
        `prunescope.evidence.write_evidence` computes them. For layers whose filters were removed, they are counts too.
    accuracy
        float64 [levels, resamples]: the accuracy for each resample of the validation images, as a fraction; None if
        the curves have no accuracy.
    """

    counts: Mapping[str, Mapping[str, Array]]
    accuracy: Array | None = None


@dataclass(frozen=True)
class Verdict:
    """What a study says about the number of interpretable units and detected concepts.

    Attributes
    ----------
    hypothesis
        The hypothesis that holds for the interpretable units of the last layer: "A" (pruning has no effect), "B"
        (pruning helps) or "C" (pruning hurts), as long as accuracy holds; "mixed" if levels contradict each other or
        the mean; "undecided" if the trials cannot tell.
    hypotheses
        A row for each layer and quantity, with the columns layer, quantity and hypothesis; dense (the mean value of the
        dense networks) and margin; levels (the number of levels at which accuracy holds), difference, low and high (the
        mean difference from the dense network over these levels and its interval); p_inside and p_zero (p-values for
        the difference being inside the margin and not being zero); contrary_levels (the levels for which the verdict is
        mixed); undecided_by (what leaves the hypothesis open: the mean, single levels, or the accuracy, because the
        levels at which it may hold would change the answer); trials_needed and trials_needed_at_levels (about how many
        trials would decide the hypothesis and a single unchanged level with a probability of 80 %; missing if this is
        decided, unknown or above 100).
    levels
        A row for each layer, quantity and pruned level, with the columns layer, quantity, level, weights_remaining,
        difference, low, high and decision: "unchanged", "more", "fewer" or "undecided". The last rows are those of
        accuracy, which have an empty layer and the decisions "holds", "falls" and "undecided".
    breaks
        A row for each layer and quantity and one for accuracy, with the columns layer, quantity, weights_remaining (the
        fewest weights remaining down to which every level is unchanged or, for accuracy, down to which it holds; 1
        if this is so for no pruned level), next (the decision at the level after that; empty if there is none) and
        ratio (to the break of accuracy).
    text
        The verdict on the last layer in a paragraph of plain English that can be quoted.
    """

    hypothesis: Hypothesis
    hypotheses: pd.DataFrame
    levels: pd.DataFrame
    breaks: pd.DataFrame
    text: str

    def __repr__(self) -> str:
        return f"Verdict({self.hypothesis}: {self.text})"

    def _repr_html_(self) -> str:
        columns = ["layer", "quantity", "hypothesis", "difference", "low", "high"]
        return as_html(f"{self.hypothesis}: {self.text}", self.hypotheses[columns])


def verdict(
    curves: pd.DataFrame,
    *,
    margin: float = 0.1,
    accuracy_margin: float = 0.01,
    alpha: float = 0.05,
    replicates: Replicates | None = None,
) -> Verdict:
    """Decide between the three hypotheses of Frankle and Bau 2019: pruning has no effect, helps or hurts.

    The number of interpretable units, and separately that of detected concepts, is compared with that of the dense
    network over the levels at which accuracy holds. Equivalence tests show that nothing has changed, so that a lack of
    evidence is not taken for a lack of an effect. The procedure is described in docs/evidence.md.

    Parameters
    ----------
    curves : DataFrame
        A table as `prunescope.curves` returns it, or of the same form, with a row for each trial, level and layer and
        the columns trial, level, layer, weights_remaining (a fraction), interpretable and concepts; accuracy (a
        fraction) if it was measured; and units, from which it is seen whether filters were removed. If a layer's number
        of units changes, the shares of the remaining units are compared instead of the counts. Without accuracy, all
        levels are used. Levels that not every trial has finished are left out.
    margin : float
        The largest difference that counts as no effect, as a share of the dense networks' mean.
    accuracy_margin : float
        The largest loss of accuracy, as a fraction, with which accuracy still counts as holding.
    alpha : float
        The level of significance of all tests; intervals cover with probability 1 - `alpha`.
    replicates : Replicates, optional
        The values for resamples of the images, which are needed and used only if there is a single trial.

    Returns
    -------
    Verdict

    Raises
    ------
    InputError
        If a column is missing or has invalid values, if no trial has a dense network and a pruned level, if an argument
        is out of its range, or if there is one trial and replicates are missing or have another shape.

    Examples
    --------
    >>> rows = [
    ...     {"trial": trial, "level": level, "layer": "layer4", "weights_remaining": 0.8**level, "accuracy": 0.9,
    ...      "interpretable": 100 + trial + level % 2, "concepts": 40}
    ...     for trial in range(3) for level in range(5)
    ... ]
    >>> verdict(pd.DataFrame(rows)).hypothesis
    'A'
    """
    _check_arguments(margin, accuracy_margin, alpha)
    chains = read_chains(curves)
    if len(chains.trials) == 1:
        _check_replicates(replicates, chains)
    accuracy = _accuracy_differences(chains, replicates)
    holds = np.ones(len(chains.levels) - 1, np.bool_)
    falls = ~holds
    if accuracy is not None:
        holds = accuracy.p_above(-accuracy_margin) <= alpha
        falls = accuracy.p_below(-accuracy_margin) <= alpha
    hypotheses: list[dict[str, Any]] = []
    levels, breaks = [], []
    for layer, quantities in chains.values.items():
        for quantity, values in quantities.items():
            differences = _differences(chains, layer, quantity, replicates)
            bound = margin * float(values[0].mean())
            decisions = decide_levels(differences, bound, alpha)
            named = {"layer": layer, "quantity": quantity}
            hypotheses.append({**named, **_hypothesis_row(chains, values, differences, holds, falls, bound, alpha)})
            levels.append(_level_rows(named, chains, differences, decisions, alpha))
            breaks.append({**named, **_break(chains, decisions, "unchanged")})
    if accuracy is not None:
        decisions = np.where(holds, "holds", np.where(falls, "falls", "undecided"))
        named = {"layer": "", "quantity": "accuracy"}
        levels.append(_level_rows(named, chains, accuracy, decisions, alpha))
        breaks.append({**named, **_break(chains, decisions, "holds")})
    of_hypotheses = pd.DataFrame(hypotheses)
    of_levels = pd.concat(levels, ignore_index=True)
    of_breaks = pd.DataFrame(breaks)
    of_accuracy = float("nan") if accuracy is None else float(breaks[-1]["weights_remaining"])
    of_breaks["ratio"] = of_breaks["weights_remaining"] / of_accuracy
    for name in ("trials_needed", "trials_needed_at_levels"):
        of_hypotheses[name] = of_hypotheses[name].astype("Int64")
    last = of_hypotheses[(of_hypotheses["layer"] == chains.last_layer)].set_index("quantity")
    return Verdict(
        hypothesis=next(
            row["hypothesis"]
            for row in hypotheses
            if (row["layer"], row["quantity"]) == (chains.last_layer, "interpretable")
        ),
        hypotheses=of_hypotheses,
        levels=of_levels,
        breaks=of_breaks,
        text=describe(chains, last, of_levels, of_breaks, accuracy_margin=accuracy_margin, alpha=alpha),
    )


def _check_arguments(margin: float, accuracy_margin: float, alpha: float) -> None:
    for name, value, most in (
        ("margin", margin, 1.0),
        ("accuracy_margin", accuracy_margin, 1.0),
        ("alpha", alpha, 0.5),
    ):
        if not 0 < value < most:
            raise InputError(f"{name}={value!r}: expected a number above 0 and below {most:g}")


def _check_replicates(replicates: Replicates | None, chains: Chains) -> None:
    """Raise if the replicates of a single trial are missing or do not fit the curves."""
    levels = len(chains.levels)
    if replicates is None:
        raise InputError(
            "curves: there is one trial, which does not show how much results vary. Give replicates, the values for "
            f"bootstrap resamples of the images: arrays [{levels} levels, resamples] of interpretable and concepts for "
            "each layer, and of accuracy if the curves have it; or run at least two trials, better three or more"
        )
    arrays = {
        f"{quantity} of layer {layer}": replicates.counts.get(layer, {}).get(quantity)
        for layer in chains.values
        for quantity in QUANTITIES
    }
    if chains.accuracy is not None:
        arrays["accuracy"] = replicates.accuracy
    for name, array in arrays.items():
        if array is None:
            raise InputError(
                f"replicates: no values of {name}; expected an array [{levels} levels, resamples], which a verdict on "
                "one trial needs"
            )
        shape = np.shape(array)
        if len(shape) != 2 or shape[0] != levels or shape[1] < FEWEST_RESAMPLES:
            raise InputError(
                f"replicates: the values of {name} have the shape {list(shape)}; expected [levels, resamples] with "
                f"{levels} levels ({', '.join(map(str, chains.levels))}) and at least {FEWEST_RESAMPLES} resamples"
            )
        if not np.isfinite(array).all():
            raise InputError(f"replicates: the values of {name} are not all finite; expected counts or shares")


def _accuracy_differences(chains: Chains, replicates: Replicates | None) -> Differences | None:
    if chains.accuracy is None:
        return None
    if len(chains.trials) > 1:
        return TrialDifferences(chains.accuracy[1:] - chains.accuracy[0])
    assert replicates is not None
    return _resampled(chains.accuracy[:, 0], np.asarray(replicates.accuracy, np.float64))


def _differences(chains: Chains, layer: str, quantity: str, replicates: Replicates | None) -> Differences:
    values = chains.values[layer][quantity]
    if len(chains.trials) > 1:
        return TrialDifferences(values[1:] - values[0])
    assert replicates is not None
    resampled = np.asarray(replicates.counts[layer][quantity], np.float64)
    if layer in chains.units:
        resampled = resampled / chains.units[layer]
    return _resampled(values[:, 0], resampled)


def _resampled(values: Array, resampled: Array) -> ResampledDifferences:
    return ResampledDifferences(values[1:] - values[0], resampled[1:] - resampled[0])


def _hypothesis_row(
    chains: Chains, values: Array, differences: Differences, holds: Array, falls: Array, margin: float, alpha: float
) -> dict[str, Any]:
    """Return the row of `Verdict.hypotheses` of one layer and quantity, without these."""
    row: dict[str, Any] = {"hypothesis": "undecided", "dense": float(values[0].mean()), "margin": margin}
    row |= {"levels": int(holds.sum()), "difference": np.nan, "low": np.nan, "high": np.nan}
    row |= {"p_inside": np.nan, "p_zero": np.nan, "contrary_levels": (), "undecided_by": "accuracy"}
    row |= {"trials_needed": None, "trials_needed_at_levels": None}
    if not holds.any() or not values.any():
        return row
    decision = decide_mean(differences, holds, falls, margin, alpha)
    row |= {name: value for name, value in vars(decision).items() if name != "contrary"}
    row["contrary_levels"] = tuple(chains.levels[1 + place] for place in np.flatnonzero(decision.contrary))
    if isinstance(differences, TrialDifferences):
        if decision.undecided_by == "mean":
            row["trials_needed"] = trials_to_decide(differences.over(holds), margin, alpha)
        if (decide_levels(differences, margin, alpha) == "undecided").any():
            row["trials_needed_at_levels"] = trials_to_decide_levels(differences, margin, alpha)
    return row


def _level_rows(
    named: Mapping[str, str], chains: Chains, differences: Differences, decisions: Array, alpha: float
) -> pd.DataFrame:
    low, high = differences.interval(alpha)
    columns = {"level": chains.levels[1:], "weights_remaining": chains.weights[1:]}
    columns |= {"difference": differences.mean, "low": low, "high": high, "decision": decisions}
    return pd.DataFrame({**{name: [text] * len(decisions) for name, text in named.items()}, **columns})


def _break(chains: Chains, decisions: Array, good: str) -> dict[str, Any]:
    """Return the fewest weights remaining down to which every level has the good decision."""
    bad = np.flatnonzero(decisions != good)
    unbroken = int(bad[0]) if len(bad) else len(decisions)
    return {
        "weights_remaining": float(chains.weights[unbroken]),
        "next": str(decisions[unbroken]) if len(bad) else "",
    }
