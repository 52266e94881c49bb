"""The bootstrap over images written out from its definition, slowly and obviously."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]


class Units(NamedTuple):
    interpretable: list[int]
    concepts: list[int]
    label: list[int]
    ious: list[list[Fraction]]  # by unit and resample, of the unit's concept
    kept: list[float]
    sets: list[tuple[int, ...]]


def scores(tally: Any, primary: Array, weights: Array, unit: int) -> list[Fraction]:
    """The exact IoU of one unit with every concept, with each block counted as often as its weight says."""
    found = []
    for concept, category in enumerate(primary):
        intersect = sum(int(w) * int(i) for w, i in zip(weights, tally.intersect[:, unit, concept], strict=True))
        activation = sum(int(w) * int(a) for w, a in zip(weights, tally.activation[:, unit, category], strict=True))
        truth = sum(int(w) * int(g) for w, g in zip(weights, tally.truth[:, concept], strict=True))
        union = activation + truth - intersect
        found.append(Fraction(intersect, union) if union else Fraction(0))
    return found


def best(values: list[Fraction]) -> int:
    """The first concept with the highest IoU; -1 if none has any."""
    return values.index(max(values)) if max(values, default=Fraction(0)) > 0 else -1


def resampled(tally: Any, primary: Array, weights: Array, iou: float, share: float = 0.05) -> Units:
    units = tally.intersect.shape[1]
    whole = np.ones(weights.shape[1], np.int64)
    label = [best(scores(tally, primary, whole, unit)) for unit in range(units)]
    table = [[scores(tally, primary, row, unit) for unit in range(units)] for row in weights]
    interpretable, concepts = [], []
    for row in table:
        found = [best(values) for values in row if float(max(values)) > iou]
        interpretable.append(len(found))
        concepts.append(len(set(found)))
    sets, kept = [], []
    for unit in range(units):
        winners = [best(row[unit]) for row in table]
        kept.append(winners.count(label[unit]) / len(winners) if label[unit] >= 0 else 0.0)
        frequent = [c for c in sorted(set(winners) - {-1}) if winners.count(c) >= share * len(winners)]
        sets.append(tuple(sorted(frequent, key=lambda c: (-winners.count(c), c))))
    ious = [[row[unit][label[unit]] if label[unit] >= 0 else Fraction(0) for row in table] for unit in range(units)]
    return Units(interpretable, concepts, label, ious, kept, sets)
