"""Collect the units of a layer over all levels of a trial in arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from prunescope.dissection.scores import interpretable
from prunescope.evidence.baselines import SIGNIFICANT
from prunescope.evidence.fates import FATES
from prunescope.report.page.data import packed
from prunescope.report.page.vocabulary import NONE, Vocabulary

INTERPRETABLE, DEAD, PRESENT, ABOVE_CHANCE, LOCALISED = 1, 2, 4, 8, 16
UNKNOWN_FATE = 255
NEXT = 4  # the unit's own concept and three more
FEWEST_IOU = 0.005  # below this, the next best concept says nothing
NUMBERS = {"iou": "iou", "low": "iou_low", "high": "iou_high", "threshold": "threshold", "q": "q"}
NUMBERS |= {"mirrored": "iou_mirrored", "precision": "precision", "recall": "recall"}
KEPT = ("unit", "label", "category", "number", "dead", *NUMBERS.values())


def kept_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of a table of units that the page shows, with `dead` where an imported table lacks it."""
    known = table if "dead" in table else table.assign(dead=False)
    return known[[name for name in KEPT if name in known]].reset_index(drop=True)


def unit_numbers(tables: Mapping[int, pd.DataFrame]) -> NDArray[np.int64]:
    """Return the numbers of all units that occur at any level, ascending."""
    return np.unique(np.concatenate([table["unit"].to_numpy(np.int64) for table in tables.values()]))


def unit_arrays(
    tables: Mapping[int, pd.DataFrame],
    fates: Mapping[int, pd.DataFrame],
    pairs: Mapping[int, Path],
    words: Vocabulary,
    iou: float,
    into: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Return the units of one layer and trial as arrays [levels, units] for the page.

    Parameters
    ----------
    tables : mapping
        The table of units of each level.
    fates : mapping
        The fates of the dense network's units at each level, with the columns unit and fate, where they are known.
    pairs : mapping
        For each level, the file that lists every pair of a unit and a concept.
    words : Vocabulary
        The concepts of the page.
    iou : float
        The bound above which a unit is interpretable.
    into : float32 array [levels, units], optional
        The share of kept weights among those that lead into each unit.

    Returns
    -------
    dict
        `levels` and `units`, their numbers; `concept`, the row of the vocabulary (-1 for none); the numbers of
        `NUMBERS`; `into`, if it is given; `flags`; `fate`, an index of `FATES`; and `next_concept` and `next_iou`
        [levels, units, 4].
    """
    units, levels = unit_numbers(tables), sorted(tables)
    shape = (len(levels), len(units))
    concept = np.full(shape, NONE, np.int32)
    flags, fate = np.zeros(shape, np.uint8), np.full(shape, UNKNOWN_FATE, np.uint8)
    numbers = {name: np.full(shape, np.nan, np.float32) for name, column in NUMBERS.items()}
    next_concept, next_iou = np.full((*shape, NEXT), NONE, np.int32), np.zeros((*shape, NEXT), np.uint16)
    for row, level in enumerate(levels):
        table = tables[level]
        at = np.searchsorted(units, table["unit"].to_numpy(np.int64))
        concept[row, at] = words.places(table)
        flags[row, at] = _flags(table, iou)
        for name, column in NUMBERS.items():
            if column in table:
                numbers[name][row, at] = table[column].to_numpy(np.float32)
        if level in fates:
            of_units = np.searchsorted(units, fates[level]["unit"].to_numpy(np.int64))
            fate[row, of_units] = fates[level]["fate"].map({name: place for place, name in enumerate(FATES)})
        if level in pairs:
            next_concept[row], next_iou[row] = _next_best(pairs[level], units, words)
    small = np.int16 if len(words.table) < 2**15 else np.int32
    arrays: dict[str, NDArray[Any]] = {"concept": concept.astype(small), "flags": flags, "fate": fate, **numbers}
    arrays |= {} if into is None else {"into": into}
    arrays |= {"next_concept": next_concept.astype(small), "next_iou": next_iou}
    known = {name: array for name, array in arrays.items() if array.dtype != np.float32 or not np.isnan(array).all()}
    return {"levels": levels, "units": packed(units.astype(np.int32)), **{k: packed(v) for k, v in known.items()}}


def _flags(table: pd.DataFrame, iou: float) -> NDArray[np.uint8]:
    found = interpretable(table, iou).to_numpy(bool)
    flags = PRESENT + INTERPRETABLE * found + DEAD * table["dead"].to_numpy(bool)
    if "q" in table:
        flags = flags + ABOVE_CHANCE * (found & (table["q"].to_numpy(np.float64) < SIGNIFICANT))
    if "iou_mirrored" in table:
        flags = flags + LOCALISED * (found & ~(table["iou_mirrored"].to_numpy(np.float64) > iou))
    return np.asarray(flags, np.uint8)


def _next_best(path: Path, units: NDArray[np.int64], words: Vocabulary) -> tuple[NDArray[np.int32], NDArray[np.uint16]]:
    """Return the best concepts of every unit and their IoUs in steps of 1/65535; nothing if the file has no numbers."""
    places, ious = np.full((len(units), NEXT), NONE, np.int32), np.zeros((len(units), NEXT), np.uint16)
    try:
        read = pq.read_table(path, columns=["unit", "number", "iou"])
    except (OSError, pa.ArrowException):
        return places, ious
    if set(read.column_names) != {"unit", "number", "iou"}:
        return places, ious
    unit, number, iou = (read[name].to_numpy() for name in ("unit", "number", "iou"))
    enough = iou > FEWEST_IOU
    unit, number, iou = unit[enough], number[enough], iou[enough]
    order = np.lexsort((number, -iou, unit))
    unit, number, iou = unit[order], number[order], iou[order]
    starts = np.searchsorted(unit, unit)
    rank = np.arange(len(unit)) - starts
    best = (rank < NEXT) & np.isin(unit, units)
    at = np.searchsorted(units, unit[best])
    places[at, rank[best]] = words.of_numbers(number[best].astype(np.int64))
    ious[at, rank[best]] = np.clip(np.round(65535 * iou[best]), 0, 65535)
    return places, ious
