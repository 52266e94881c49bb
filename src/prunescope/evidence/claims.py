"""Compare a study with what Frankle and Bau 2019 found on ResNet-18 and ImageNet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from prunescope.errors import InputError, nearest
from prunescope.evidence.chains import read_chains
from prunescope.evidence.over_trials import t_interval

Array = np.ndarray[Any, Any]
Answer = Literal["holds", "does not", "undecided"]

DOWN_TO = 0.168
FIRST_TO_VANISH = ("object", "scene")
BEYOND = 1.1  # a level this near to the requested share of weights stands for it if the study ends there
MARGIN = 0.1
ACCURACY_MARGIN = 0.01
STEP = 1.25  # one level of the paper's: 1 / 0.8


def claims(curves: pd.DataFrame, *, layer: str | None = None, alpha: float = 0.05) -> pd.DataFrame:
    """Say for each claim of the paper whether it holds in a study.

    Every claim is a number that has to lie in a range. It holds if two one-sided tests put it inside the range, that
    is, if its interval of probability 1 - 2 `alpha` lies inside; it does not if its interval of probability 1 - `alpha`
    lies outside; otherwise it is undecided. A claim about all levels down to some share of the weights holds if it
    holds at every level, and does not if it does not at one of them, with `alpha` divided by their number. Between
    levels, numbers are interpolated on the logarithmic axis of the weights remaining. Intervals are t intervals over
    trials; with a single trial every claim is undecided.

    Parameters
    ----------
    curves : DataFrame
        A table as `prunescope.curves` returns it or evidence.csv holds it. Claims whose columns are missing are
        undecided.
    layer : str, optional
        The layer; by default the last one.
    alpha : float
        The level of significance.

    Returns
    -------
    DataFrame
        A row for each claim with the columns claim, paper (the paper's value), least and most (the range), value (the
        mean over trials; NaN if the study does not reach that level), low, high and answer ("holds", "does not" or
        "undecided"). Changes of counts are relative to the dense network of the same trial.

    Raises
    ------
    InputError
        If the table cannot be used (see `prunescope.evidence.verdict`), or if it does not have the layer.
    """
    chains = read_chains(curves)
    name = chains.last_layer if layer is None else layer
    if name not in chains.values:
        raise InputError(f"curves: there is no layer {name!r}; {nearest(name, chains.values)}")
    rows = curves[curves["layer"] == name]
    rows = rows[rows["level"].isin(chains.levels) & rows["trial"].isin(chains.trials)]

    def column(of: str) -> Array:
        if of not in rows.columns:
            return np.full((len(chains.levels), len(chains.trials)), np.nan)
        return rows.pivot(index="level", columns="trial", values=of).to_numpy(np.float64)

    weights = column("weights_remaining")
    accuracy = column("accuracy") - column("accuracy")[0]
    units, concepts = (_relative(chains.values[name][of]) for of in ("interpretable", "concepts"))
    first, others = _categories(rows, column)
    decline = np.log(_crossing(weights, units, -MARGIN) / _crossing(weights, accuracy, -ACCURACY_MARGIN))
    vanish = _vanishing(weights, first, others)
    still, same = (_at(weights, column(of), 0.11) for of in ("still_interpretable", "same_concept"))
    inf = float("inf")
    table = [
        _down_to("accuracy matches down to 16.8 % of the weights", weights, accuracy, -ACCURACY_MARGIN, inf, alpha),
        _row("accuracy is a point lower at 10 %", -0.01, _at(weights, accuracy, 0.10), -0.015, -0.005, alpha),
        _down_to("interpretable units hold down to 16.8 %", weights, units, -MARGIN, MARGIN, alpha),
        _down_to("detected concepts hold down to 16.8 %", weights, concepts, -MARGIN, MARGIN, alpha),
        _exponential(
            _row("the decline begins where accuracy's does", 0.0, decline, -np.log(STEP), np.log(STEP), alpha)
        ),
        _exponential(_row("objects and scenes vanish first", np.nan, vanish, 0.0, inf, alpha)),
        _row("units still interpretable at 11 %", 0.8, still, 0.75, 0.85, alpha),
        _row("of these, with the same concept", 0.7, same, 0.65, 0.75, alpha),
    ]
    return pd.DataFrame(table)


def _relative(values: Array) -> Array:
    """Return the change relative to the dense network of the same trial; NaN where that has none."""
    dense = np.where(values[0] > 0, values[0], np.nan)
    return values / dense - 1


def _at(weights: Array, values: Array, target: float) -> Array:
    """Return float64 [trials]: the values where `target` of the weights remain; NaN if no level is as low."""
    found = []
    for of_trial, series in zip(weights.T, values.T, strict=True):
        known = ~np.isnan(series)
        if not known.any() or of_trial[known].min() > BEYOND * target:
            found.append(np.nan)
            continue
        order = np.argsort(of_trial[known])
        found.append(np.interp(np.log(target), np.log(of_trial[known][order]), series[known][order]))
    return np.array(found)


def _crossing(weights: Array, values: Array, bound: float) -> Array:
    """Return float64 [trials]: the weights remaining at which a curve first falls below a bound, else NaN."""
    found = np.full(values.shape[1], np.nan)
    for trial, series in enumerate(values.T):
        below = np.flatnonzero(series < bound)
        if not len(below) or below[0] == 0:
            continue
        high, low = series[below[0] - 1], series[below[0]]
        ends = np.log(weights[below[0] - 1 : below[0] + 1, trial])
        found[trial] = np.exp(ends[0] + (ends[1] - ends[0]) * (high - bound) / (high - low))
    return found


def _categories(rows: pd.DataFrame, column: Callable[[str], Array]) -> tuple[Array, Array]:
    """Return the detected concepts, [levels, trials], that are objects or scenes, and all others."""
    empty = np.full(column("weights_remaining").shape, np.nan)
    known = [name for name in FIRST_TO_VANISH if name in rows.columns]
    first = np.sum([column(name) for name in known], axis=0) if known else empty
    return first, column("concepts") - first


def _vanishing(weights: Array, first: Array, others: Array) -> Array:
    """Return float64 [trials]: the logarithm of how much earlier the first group has fallen to half its size.

    A group that never falls to half is taken to do so at the last level, which makes the difference smaller.
    """
    halves = [_crossing(weights, _relative(group), -0.5) for group in (first, others)]
    last = weights[-1]
    ratio = np.log(np.where(np.isnan(halves[0]), last, halves[0]) / np.where(np.isnan(halves[1]), last, halves[1]))
    unknown = np.isnan(halves[0]) & np.isnan(halves[1])
    return np.where(unknown | np.isnan(_relative(first)[0]) | np.isnan(_relative(others)[0]), np.nan, ratio)


def _row(claim: str, paper: float, values: Array, least: float, most: float, alpha: float) -> dict[str, Any]:
    low, high = t_interval(values, alpha)
    return {
        "claim": claim,
        "paper": paper,
        "least": least,
        "most": most,
        "value": float(values.mean()),
        "low": low,
        "high": high,
        "answer": _answer(values, least, most, alpha, alpha),
    }


def _down_to(claim: str, weights: Array, values: Array, least: float, most: float, alpha: float) -> dict[str, Any]:
    row = _row(claim, 0.0, _at(weights, values, DOWN_TO), least, most, alpha)
    levels = [level for level in range(1, len(values)) if weights[level].mean() > DOWN_TO]
    points = [*values[levels], _at(weights, values, DOWN_TO)]
    answers = [_answer(point, least, most, alpha, alpha / len(points)) for point in points]
    row["answer"] = "undecided"
    if all(answer == "holds" for answer in answers):
        row["answer"] = "holds"
    elif "does not" in answers:
        row["answer"] = "does not"
    return row


def _answer(values: Array, least: float, most: float, inside: float, outside: float) -> Answer:
    low, high = t_interval(values, 2 * inside)
    if least < low and high < most:
        return "holds"
    low, high = t_interval(values, outside)
    return "does not" if high < least or low > most else "undecided"


def _exponential(row: dict[str, Any]) -> dict[str, Any]:
    """Turn the logarithms of a row into ratios of weights remaining."""
    return row | {name: float(np.exp(row[name])) for name in ("paper", "least", "most", "value", "low", "high")}
