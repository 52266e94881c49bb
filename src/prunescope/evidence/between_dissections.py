"""Collect what dissections in memory detect at each level in one table."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.settings import DEFAULTS
from prunescope.errors import InputError
from prunescope.evidence.consistency import same_numbering
from prunescope.evidence.rows import as_table, layer_row, numbers_known
from prunescope.evidence.units import other_numbers, units_table


def gather_dissections(
    given: Sequence[Dissection | LayerDissection],
    weights_remaining: Sequence[float] | None,
    accuracy: Sequence[float] | None,
) -> pd.DataFrame:
    """Return the numbers of dissections in memory; see `curves`."""
    if isinstance(given, Dissection | LayerDissection):
        raise InputError("one dissection is given, expected a list of them, one for each level: [dense, pruned]")
    levels = [_layers_of(one, place) for place, one in enumerate(given)]
    if not levels:
        raise InputError("no dissections are given; expected those of a network at several levels, level 0 first")
    if weights_remaining is None:
        raise InputError(f"give weights_remaining, one fraction for each of the {len(levels)} dissections")
    remaining = _fractions("weights_remaining", weights_remaining, len(levels), above=0)
    top1 = [float("nan")] * len(levels) if accuracy is None else _fractions("accuracy", accuracy, len(levels))
    rows = []
    for level, layers in enumerate(levels):
        if set(layers) != set(levels[0]):
            raise InputError(
                f"dissection {level} has the layers {', '.join(layers)}, and dissection 0 {', '.join(levels[0])}; give "
                "dissections of the same layers"
            )
        for layer, dense in levels[0].items():
            found = layers[layer]
            where = f"dissection {level}, layer {layer!r}"
            before = units_table(dense, f"dissection 0, layer {layer!r}")
            units = units_table(found, where)
            _refuse_other_settings(dense.summary, found.summary, where)
            if problem := other_numbers(before, units):
                raise InputError(f"{where}: {problem}; dissect all networks with the same labelled images")
            named = {
                "trial": 0,
                "level": level,
                "layer": layer,
                "weights_remaining": remaining[level],
                "accuracy": top1[level],
                "top5": float("nan"),
                "loss": float("nan"),
            }
            iou = float(found.summary.get("settings", {}).get("iou", DEFAULTS.iou))
            known = numbers_known(found.summary) and same_numbering(before, units)
            rows.append(layer_row(named, found.units, dense.units, iou, units_correspond=known))
    return as_table(rows)


def _layers_of(given: Any, place: int) -> Mapping[str, LayerDissection]:
    if isinstance(given, LayerDissection):
        return {given.layer: given}
    if isinstance(given, Dissection):
        return given
    raise InputError(
        f"dissection {place} is a {type(given).__name__}, expected a Dissection or a LayerDissection; or give the "
        "directory of a study alone"
    )


def _fractions(name: str, given: Sequence[float], count: int, above: float = -1) -> list[float]:
    values = [given] if isinstance(given, int | float) else list(given)
    if len(values) != count:
        raise InputError(f"{name} has {len(values)} elements for {count} dissections; give one for each")
    for value in values:
        if not isinstance(value, numbers.Real) or isinstance(value, bool) or not max(0, above) <= value <= 1:
            raise InputError(f"{name} contains {value!r}, expected fractions from 0 to 1")
        if value <= above:
            raise InputError(f"{name} contains {value!r}, expected fractions above 0")
    return [float(value) for value in values]


def _refuse_other_settings(dense: Mapping[str, Any], found: Mapping[str, Any], where: str) -> None:
    """Raise if two dissections were made with different settings, as far as both state them."""
    before, after = dense.get("settings", {}), found.get("settings", {})
    for name in ("iou", "quantile", "presence", "align", "score"):
        if name in before and name in after and before[name] != after[name]:
            raise InputError(
                f"{where}: {name} is {after[name]!r}, and that of dissection 0 {before[name]!r}; dissect all networks "
                "with the same settings"
            )
