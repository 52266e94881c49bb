"""Say in plain English what a verdict says and what it leaves open."""

from __future__ import annotations

from typing import Any

import pandas as pd

from prunescope.evidence.chains import Chains
from prunescope.evidence.power import MOST_TRIALS

NOUNS = {"interpretable": "interpretable units", "concepts": "detected concepts"}
NUMBERS = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six", 7: "Seven", 8: "Eight", 9: "Nine", 10: "Ten"}


def describe(
    chains: Chains,
    last: pd.DataFrame,
    levels: pd.DataFrame,
    breaks: pd.DataFrame,
    *,
    accuracy_margin: float,
    alpha: float,
) -> str:
    """Return the verdict on the last layer as a paragraph.

    Parameters
    ----------
    chains
        The curves.
    last
        The rows of `Verdict.hypotheses` of the last layer, indexed by quantity.
    levels, breaks
        The tables of the `Verdict`.
    accuracy_margin, alpha
        As in `prunescope.evidence.verdict`.
    """
    trials = len(chains.trials)
    sentences = [_about_accuracy(chains, levels, breaks, accuracy_margin)]
    for quantity in last.index:
        at = levels[(levels["layer"] == chains.last_layer) & (levels["quantity"] == quantity)]
        sentences.append(_about_quantity(chains, str(quantity), last.loc[quantity], alpha))
        if chains.values[chains.last_layer][str(quantity)].any():
            sentences.append(_about_levels(str(quantity), last.loc[quantity], at, trials))
    if trials == 1:
        sentences.append(
            "There is one trial, so intervals are over resampled images and speak of this initialisation alone. How "
            "many trials would settle the question for other initialisations cannot be computed from one; three are "
            "the least that give a usable estimate of how much they vary."
        )
    elif trials == 2:
        sentences.append("Two trials give a rough estimate of the variation between initialisations.")
    if chains.last_layer in chains.units and last["levels"].iloc[0]:
        sentences.append(
            "Filters were removed, so the numbers are shares of the remaining units; the share of detected concepts "
            "tends to rise when units are removed, since several units often detect the same concept."
        )
    return " ".join(part for part in (*sentences, chains.left_out) if part)


def _about_accuracy(chains: Chains, levels: pd.DataFrame, breaks: pd.DataFrame, margin: float) -> str:
    pruned = len(chains.levels) - 1
    if chains.accuracy is None:
        return f"Accuracy is not known, so {_all(pruned)} compared, whatever the accuracy is."
    at = levels[levels["quantity"] == "accuracy"]
    holds = at[at["decision"] == "holds"]
    within = f"within {_points(margin)} of the dense network's"
    if not len(holds):
        return f"Accuracy is not shown to be {within} at any of the pruned levels, so there is nothing to compare."
    if len(holds) == pruned:
        return (
            f"Accuracy stays {within} at {'every pruned level' if pruned > 1 else 'the pruned level'}, "
            f"down to {_percent(chains.weights.min())} of the weights."
        )
    broken = float(breaks.loc[breaks["quantity"] == "accuracy", "weights_remaining"].iloc[0])
    first = f", at every level down to {_percent(broken)} of the weights" if broken < chains.weights[0] else ""
    return f"Accuracy is {within} at {len(holds)} of {pruned} pruned levels{first}."


def _about_quantity(chains: Chains, quantity: str, row: Any, alpha: float) -> str:
    noun, layer = NOUNS[quantity], chains.last_layer
    if not row["levels"]:
        return f"The verdict on {noun} in layer {layer} is undecided."
    if not chains.values[layer][quantity].any():
        return f"There are no {noun} in layer {layer} at any level, so the verdict is undecided."
    share = layer in chains.units
    answer = {
        "A": "pruning has no effect (hypothesis A)",
        "B": "pruning helps (hypothesis B)",
        "C": "pruning hurts (hypothesis C)",
        "mixed": f"the answer is mixed, because {_levels(row['contrary_levels'])} beyond the margin",
        "undecided": "the verdict is undecided",
    }[row["hypothesis"]]
    over = "" if row["levels"] == 1 else "on average over these levels, "
    dense = f"the {_amount(row['dense'], share)} of the dense {'network' if len(chains.trials) == 1 else 'networks'}"
    more = "more" if row["difference"] >= 0 else "fewer" if not share else "less"
    scale, points = (100, " percentage points") if share else (1, "")
    return (
        f"For {noun} in layer {layer}, {answer}: {over}there are {scale * abs(row['difference']):.1f}{points} {more} "
        f"than {dense} ({100 * (1 - alpha):g} % interval {scale * row['low']:+.1f} to {scale * row['high']:+.1f}; "
        f"differences of less than {scale * row['margin']:.1f} count as no effect)."
    )


def _about_levels(quantity: str, row: Any, at: pd.DataFrame, trials: int) -> str:
    """Return what is undecided for one quantity, and how many trials would be needed."""
    noun, sentences = NOUNS[quantity], []
    if row["undecided_by"] == "levels":
        sentences.append(f"The mean over the levels is decided, but single levels of the {noun} contradict it.")
    if row["undecided_by"] == "accuracy" and row["levels"]:
        sentences.append("The answer would change with the levels at which it is undecided whether accuracy holds.")
    if row["undecided_by"] == "mean" and trials > 1:
        sentences.append(
            f"{NUMBERS.get(trials, str(trials))} trials cannot tell whether the mean number of {noun} changes; "
            f"{_needed(row['trials_needed'])} would, with a probability of 80 % if the true values are as observed."
        )
    undecided = int((at["decision"] == "undecided").sum())
    if undecided:
        of_all = f"{undecided} of {len(at)} single levels" if len(at) > 1 else "the level"
        sentences.append(f"The number of {noun} is undecided at {of_all}.")
        if trials > 1:
            sentences.append(
                f"{_needed(row['trials_needed_at_levels']).capitalize()} would show a level to be unchanged with a "
                "probability of 80 % if it is."
            )
    return " ".join(sentences)


def _needed(trials: Any) -> str:
    return f"more than {MOST_TRIALS} trials" if pd.isna(trials) else f"about {int(trials)} trials"


def _levels(numbers: tuple[int, ...]) -> str:
    if len(numbers) < 2:
        return "".join(f"level {number} lies" for number in numbers)
    return f"levels {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} lie"


def _all(levels: int) -> str:
    return "the pruned level is" if levels == 1 else f"all {levels} pruned levels are"


def _points(fraction: float) -> str:
    points = f"{100 * fraction:.3g}"
    return f"{'one percentage point' if points == '1' else f'{points} percentage points'}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _amount(value: float, share: bool) -> str:
    return f"{100 * value:.1f} %" if share else f"{value:.1f}"
