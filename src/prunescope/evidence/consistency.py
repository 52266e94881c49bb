"""Compare unit by unit what a layer detects in the dense network and in a pruned one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.unit_numbers import check_unit_numbers, read_unit_numbers
from prunescope.errors import InputError
from prunescope.evidence.agreement import detections, shares
from prunescope.evidence.units import Units, other_numbers, units_table

_AT_0, _AT_L = "the table of level 0", "the table of level l"
_OTHERWISE = (
    "Without unit numbers, `prunescope.concepts_still_detected` and `prunescope.matched_by_concept` compare the two"
)


def consistency(
    units_at_0: Units,
    units_at_l: Units,
    iou: float = 0.05,
    *,
    units: Sequence[int] | np.ndarray[Any, Any] | str | Path | None = None,
) -> tuple[float, float]:
    """Compare what the units of one layer detect at level l with what they detected in the dense network.

    Units are compared one by one, so that it has to be known which units correspond to each other. By default, they
    are those with the same number in the column unit. If level l has fewer units, which are counted from 0, this may be
    wrong, and `units` has to be given.

    Parameters
    ----------
    units_at_0, units_at_l : DataFrame, LayerDissection or Dissection
        The units of the same layer and trial: tables with a row per unit and the columns unit, label, iou and dead, and
        number and category if they are known, or dissections of one layer. Two concepts are the same if they agree in
        label, number and category, as far as both tables have these columns; the label alone may stand for several
        concepts. A unit without a row at level l was removed with its filter and counts as no longer interpretable.
    iou : float
        The bound above which a unit is interpretable.
    units : array of int [units at level l], or path, optional
        For each unit of level l, counted from 0, the corresponding unit of level 0; -1 if there is none. Units that
        have none are left out. A path is that of a file as `read_unit_numbers` reads it, such as `matching.parquet`.
        The two tables may then be of layers with different names.

    Returns
    -------
    still_interpretable : float
        The fraction of level 0's interpretable units that are also interpretable at level l; NaN if there are none at
        level 0.
    same_concept : float
        Among those units, the fraction that have the same concept at both levels; NaN if there are none. Both numbers
        are those of Frankle and Bau 2019, Figure 4.

    Raises
    ------
    InputError
        If a column is missing, a value is invalid, a unit occurs twice, the tables are of several layers, or it is
        unknown which units correspond: level l has units that level 0 does not have, or has fewer units and counts
        them from 0. If `units` is given: if it cannot be read, is not a list of units of level 0, each at most once, or
        does not fit the units of level l.

    Warns
    -----
    UserWarning
        If a concept number has different names in the two tables, which data sets that number their concepts
        differently lead to.

    See Also
    --------
    concepts_still_detected, matched_by_concept : measures that do not need unit numbers.
    match_units : find the corresponding units by their activations.

    Examples
    --------
    >>> dense = pd.DataFrame({"unit": [0, 1], "label": ["dog", "sky"], "iou": [0.2, 0.1], "dead": [False, False]})
    >>> consistency(dense, dense.assign(label=["dog", "sea"]))
    (1.0, 0.5)
    >>> pruned = pd.DataFrame({"unit": [0], "label": ["sky"], "iou": [0.2], "dead": [False]})
    >>> consistency(dense, pruned, units=[1])
    (0.5, 1.0)
    """
    before, after = units_table(units_at_0, _AT_0), units_table(units_at_l, _AT_L)
    if units is not None:
        after = _renumbered(before, after, units)
    else:
        _refuse_other_layers(before, after)
        _refuse_unknown_numbers(before, after)
    if problem := other_numbers(before, after):
        warnings.warn(f"{problem}; a concept is then only counted as the same if its number and name are", stacklevel=2)
    return compare_units(before, after, iou)


def compare_units(units_at_0: pd.DataFrame, units_at_l: pd.DataFrame, iou: float) -> tuple[float, float]:
    """Return the two measures of `consistency` for valid tables in which corresponding units have the same number."""
    before, after, _ = detections(units_at_0, units_at_l, iou)
    still, same = shares(before, after)
    return float(still[0]), float(same[0])


def same_numbering(before: pd.DataFrame, after: pd.DataFrame) -> bool:
    """Return whether it is known that units with the same number correspond to each other, as `consistency` assumes."""
    fewer_from_0 = 0 < len(after) < len(before) and _counts_from_0(after)
    return set(after["unit"]) <= set(before["unit"]) and not fewer_from_0


def _refuse_other_layers(before: pd.DataFrame, after: pd.DataFrame) -> None:
    if "layer" in before.columns and "layer" in after.columns:
        layers = {*before["layer"], *after["layer"]}
        if len(layers) > 1:
            raise InputError(f"the tables are of the layers {', '.join(sorted(map(str, layers)))}; give one of them")


def _refuse_unknown_numbers(before: pd.DataFrame, after: pd.DataFrame) -> None:
    counts = f"the table of level 0 has {len(before)} units and that of level l {len(after)}"
    others = sorted(set(after["unit"]) - set(before["unit"]))
    if others:
        raise InputError(
            f"{counts}, of which {len(others)} are not among those of level 0, such as unit {others[0]}; consistency "
            "is of one layer, whose units keep the numbers of the dense network. Give tables of the same layer; where "
            "filters were removed, `Dissection.numbered` gives the units their numbers, and `units` takes them here. "
            f"{_OTHERWISE}"
        )
    if 0 < len(after) < len(before) and _counts_from_0(after):
        raise InputError(
            f"{counts}, numbered from 0, so that it is unknown which units they were in the dense network. Give "
            "`units`, the dense network's unit for each of them (filter pruning stores it, and "
            "`prunescope.match_units` finds it by the activations), or units=range"
            f"({len(after)}) if they have the dense network's numbers already. {_OTHERWISE}"
        )


def _renumbered(
    before: pd.DataFrame, after: pd.DataFrame, units: Sequence[int] | np.ndarray[Any, Any] | str | Path
) -> pd.DataFrame:
    """Give the units of level l the numbers of the corresponding units of level 0; leave out those without one."""
    numbers = read_unit_numbers(units) if isinstance(units, str | Path) else check_unit_numbers(units, "units")
    if len(numbers) != len(after) or not _counts_from_0(after):
        numbered = "" if _counts_from_0(after) else ", which are not numbered from 0"
        raise InputError(
            f"units has {len(numbers)} elements, and the table of level l has {len(after)} units{numbered}; expected "
            "one element for each unit, counted from 0. Leave out units if the table has the numbers of the dense "
            "network already"
        )
    if unknown := sorted({*numbers[numbers >= 0]} - {*before["unit"]}):
        raise InputError(
            f"units contains {unknown[0]}, which is not among the {len(before)} units of level 0; expected units of "
            "level 0, or -1 for none"
        )
    new = after.assign(unit=numbers[after["unit"].to_numpy(np.int64)])
    return new[new["unit"] >= 0]


def _counts_from_0(table: pd.DataFrame) -> bool:
    return sorted(table["unit"]) == list(range(len(table)))
