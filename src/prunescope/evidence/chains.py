"""Read the curves of a study as arrays over levels and trials, and check that they can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prunescope.errors import InputError

Array = np.ndarray[Any, Any]

QUANTITIES = ("interpretable", "concepts")
NEEDED = ("trial", "level", "layer", "weights_remaining", *QUANTITIES)


@dataclass(frozen=True)
class Chains:
    """The curves of the trials of a study at the levels that all of them have.

    Attributes
    ----------
    levels
        The levels, in increasing order. The first is 0, the dense network.
    trials
        The trials.
    weights
        float64 [levels]: the share of the weights that remains, as the mean over the trials.
    accuracy
        float64 [levels, trials], or None if it was not measured.
    values
        For each layer, in the order of the table, and each quantity: float64 [levels, trials].
    units
        float64 [levels, trials]: the number of units that remain, for each layer from which filters were removed. The
        values of such a layer are divided by it.
    left_out
        Sentences about levels or trials that the table has and that are not used; empty if there are none.
    """

    levels: tuple[int, ...]
    trials: tuple[int, ...]
    weights: Array
    accuracy: Array | None
    values: Mapping[str, Mapping[str, Array]]
    units: Mapping[str, Array]
    left_out: str

    @property
    def last_layer(self) -> str:
        """The last layer of the table."""
        return list(self.values)[-1]


def read_chains(curves: pd.DataFrame) -> Chains:
    """Read curves as `prunescope.curves` returns them; see `prunescope.evidence.verdict` for columns and errors."""
    _check_columns(curves)
    table = curves.reset_index(drop=True)
    if "accuracy" not in table.columns:
        table = table.assign(accuracy=np.nan)
    _check_cells(table)
    layers = table.loc[table["level"] == 0].groupby("trial").size()
    dense = set(layers[layers == table["layer"].nunique()].index)
    if not dense:
        raise InputError(
            "curves: no trial has level 0 for every layer; expected the dense network, which levels are compared with"
        )
    no_dense = sorted(set(table["trial"]) - dense)
    table = table[table["trial"].isin(dense)]
    levels, partial = _common_levels(table)
    if len(levels) < 2:
        of_all = "" if len(dense) == 1 else f" for all of {len(dense)} trials"
        raise InputError(
            f"curves: only level 0 is there{of_all}; at least one pruned level is needed. Finish the study, or "
            "leave out the trials that are not finished"
        )
    table = table[table["level"].isin(levels)]
    pivoted = {layer: _pivot(rows) for layer, rows in table.groupby("layer", sort=False)}
    # A layer without units has no interpretable unit either, and the share of these is then zero.
    units = {
        str(layer): np.maximum(rows["units"].to_numpy(np.float64), 1)
        for layer, rows in pivoted.items()
        if _units_change(rows)
    }
    first = next(iter(pivoted.values()))
    accuracy = first["accuracy"].to_numpy(np.float64)
    return Chains(
        levels=tuple(levels),
        trials=tuple(int(trial) for trial in first["accuracy"].columns),
        weights=first["weights_remaining"].to_numpy(np.float64).mean(axis=1),
        accuracy=None if np.isnan(accuracy).all() else accuracy,
        values={
            str(layer): {name: rows[name].to_numpy(np.float64) / units.get(str(layer), 1.0) for name in QUANTITIES}
            for layer, rows in pivoted.items()
        },
        units=units,
        left_out=_left_out(partial, no_dense),
    )


def _check_columns(curves: pd.DataFrame) -> None:
    absent = [name for name in NEEDED if name not in curves.columns]
    if absent:
        raise InputError(
            f"curves: no column {', '.join(absent)}; expected the columns of evidence.csv, which prunescope.curves "
            f"returns: {', '.join(NEEDED)}, and accuracy if it is known"
        )
    if not len(curves):
        raise InputError("curves: the table has no rows; expected a row for each trial, level and layer")
    doubled = curves[curves.duplicated(["trial", "level", "layer"])]
    if len(doubled):
        raise InputError(f"curves: there are two rows of {_place(doubled.iloc[0])}; expected one")


def _check_cells(table: pd.DataFrame) -> None:
    numeric = ["weights_remaining", *QUANTITIES, "accuracy", *(["units"] if "units" in table.columns else [])]
    for name in ("trial", "level", *numeric):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise InputError(f"curves: the column {name} has values that are not numbers; expected numbers")
    for name in (name for name in numeric if name != "accuracy"):
        bad = table[~(np.isfinite(table[name].to_numpy(np.float64)) & (table[name] >= 0))]
        if len(bad):
            raise InputError(
                f"curves: {name} is {bad[name].iloc[0]} in {_place(bad.iloc[0])}; expected a finite number that is not "
                "negative. Leave the row out if it was not measured"
            )
    for name, most in (("weights_remaining", None), ("accuracy", 1.0)):
        bad = table[(table[name] <= 0) if most is None else ((table[name] < 0) | (table[name] > most))]
        if len(bad):
            raise InputError(
                f"curves: {name} is {bad[name].iloc[0]} in {_place(bad.iloc[0])}; expected a share, such as 0.168"
            )
    unknown = table["accuracy"].isna()
    if unknown.any() and not unknown.all():
        raise InputError(
            f"curves: accuracy is missing in {_place(table[unknown].iloc[0])}, but not everywhere; give it for all "
            "rows, leave these rows out, or leave the column out"
        )


def _common_levels(table: pd.DataFrame) -> tuple[list[int], list[int]]:
    """Return the levels at which every trial has every layer, and the other levels."""
    rows = table.groupby("level").size()
    complete = table["trial"].nunique() * table["layer"].nunique()
    return (
        [int(level) for level in sorted(rows.index) if rows[level] == complete],
        [int(level) for level in sorted(rows.index) if rows[level] != complete],
    )


def _pivot(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the table of a layer with a row for each level, and columns for each quantity and trial."""
    names = [name for name in ("weights_remaining", "accuracy", "units", *QUANTITIES) if name in rows.columns]
    return rows.pivot(index="level", columns="trial", values=names)


def _units_change(rows: pd.DataFrame) -> bool:
    return "units" in rows.columns and bool((rows["units"].to_numpy() != rows["units"].to_numpy()[0]).any())


def _left_out(levels: list[int], trials: list[int]) -> str:
    sentences = []
    if trials:
        sentences.append(f"{_listed('Trial', trials)} left out, because the dense network is missing.")
    if levels:
        sentences.append(f"{_listed('Level', levels)} left out, because not every trial has finished every layer.")
    return " ".join(sentences)


def _listed(word: str, numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"{word} {numbers[0]} is"
    return f"{word}s {', '.join(map(str, numbers[:-1]))} and {numbers[-1]} are"


def _place(row: Any) -> str:
    return f"trial {row['trial']}, level {row['level']}, layer {row['layer']}"
