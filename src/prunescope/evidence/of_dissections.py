"""Collect what dissections in memory detect at each level in one table."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.settings import DEFAULTS
from prunescope.errors import InputError
from prunescope.evidence.consistency import same_numbering
from prunescope.evidence.units import other_numbers, units_table
from prunescope.store.measured import Measured
from prunescope.store.stored import Settings, StoredStudy


@dataclass(frozen=True)
class _InMemory(StoredStudy):
    """Dissections in memory, in the place of those in a study's directory.

    Attributes
    ----------
    levels : sequence of mapping
        For each level of the only trial, its layers by name.
    measurements : sequence of Measured
        For each level, its weights remaining and its accuracy, if that is known.
    """

    levels: Sequence[Mapping[str, LayerDissection]] = ()
    measurements: Sequence[Measured] = ()

    def measured(self, trial: int, level: int) -> Measured:
        """Return the measurements of a level."""
        del trial  # There is one.
        return self.measurements[level]

    def dissected(self, trial: int, level: int, layer: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the table of units of a layer, and its summary, which states whether the units correspond."""
        del trial
        dense, found = self.levels[0][layer].units, self.levels[level][layer]
        if same_numbering(dense, found.units):
            return found.units, found.summary
        return found.units, found.summary | {"settings": found.summary["settings"] | {"unit_numbers": "unknown"}}


def study_of_dissections(
    given: Sequence[Dissection | LayerDissection],
    weights_remaining: Sequence[float] | None,
    accuracy: Sequence[float] | None,
) -> StoredStudy:
    """Return a study whose tables are those of dissections in memory, after checking them; see `prunescope.curves`.

    Raises
    ------
    InputError
        As in `prunescope.curves`.
    """
    if isinstance(given, Dissection | LayerDissection):
        raise InputError("one dissection is given, expected a list of them, one for each level: [dense, pruned]")
    levels = [_layers_of(one, place) for place, one in enumerate(given)]
    if not levels:
        raise InputError("no dissections are given; expected those of a network at several levels, level 0 first")
    if weights_remaining is None:
        raise InputError(f"give weights_remaining, one fraction for each of the {len(levels)} dissections")
    remaining = _fractions("weights_remaining", weights_remaining, len(levels), above=0)
    top1: list[float | None] = [None] * len(levels)
    if accuracy is not None:
        top1 = [*_fractions("accuracy", accuracy, len(levels))]
    for level, layers in enumerate(levels):
        if set(layers) != set(levels[0]):
            raise InputError(
                f"dissection {level} has the layers {', '.join(layers)}, and dissection 0 {', '.join(levels[0])}; give "
                "dissections of the same layers"
            )
        for layer, dense in levels[0].items():
            where = f"dissection {level}, layer {layer!r}"
            before = units_table(dense, f"dissection 0, layer {layer!r}")
            _refuse_other_settings(levels[0], layers, where)
            if problem := other_numbers(before, units_table(layers[layer], where)):
                raise InputError(f"{where}: {problem}; dissect all networks with the same labelled images")
    bound = next(iter(levels[0].values())).summary["settings"].get("iou", DEFAULTS.iou)
    settings = Settings.model_construct(trials=1, checkpoints=(len(levels),), layers=tuple(levels[0]), iou=bound)
    measured = [Measured(weights_remaining=share, top1=top) for share, top in zip(remaining, top1, strict=True)]
    return _InMemory(Path("dissections in memory"), settings, tuple(settings.keys), (), levels, measured)


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


def _refuse_other_settings(
    dense: Mapping[str, LayerDissection], found: Mapping[str, LayerDissection], where: str
) -> None:
    """Raise if dissections were made with different settings, as far as they state them."""
    before = next(iter(dense.values())).summary["settings"]
    for layer in found.values():
        after = layer.summary["settings"]
        for name in ("iou", "quantile", "presence", "align", "score"):
            if name in before and name in after and before[name] != after[name]:
                raise InputError(
                    f"{where}: {name} is {after[name]!r}, and that of dissection 0 {before[name]!r}; dissect all "
                    "networks with the same settings"
                )
