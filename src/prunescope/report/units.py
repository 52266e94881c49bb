"""A level's units as the page lists them: best first, with a place on a sheet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from prunescope.evidence import interpretable
from prunescope.evidence.stored import StoredStudy
from prunescope.files import inside
from prunescope.report.sheets import UNITS_PER_SHEET, Bytes, draw_sheet, read_examples

MOST_UNITS = 256


@dataclass(frozen=True)
class Entry:
    """One unit of one level.

    Attributes
    ----------
    unit : int
    label, category : str
        The concept it detects best; empty where it meets none.
    iou : float
    interpretable, dead, removed : bool
        A removed unit went with its filter: the dense network had it, this level has not.
    dense : str
        The concept it detected in the dense network, where it was interpretable there and is not the same now.
    sheet : int or None
        Which of the level's sheets shows it; None when no image excites it.
    place : float
        How far down that sheet, in percent, as ``background-position`` counts.
    """

    unit: int
    label: str
    category: str
    iou: float
    interpretable: bool
    dead: bool
    removed: bool
    dense: str
    sheet: int | None
    place: float


@dataclass(frozen=True)
class LevelUnits:
    """The units of one trial, level and layer.

    Attributes
    ----------
    entries : tuple of Entry
        Best first, removed units last.
    units : int
        How many units the layer has; more than `entries` when it is large.
    removed : int
        How many more it had in the trial's dense network.
    sheets : tuple of str
        Addresses relative to the page.
    has_examples : bool
        The level's example images are stored.
    """

    entries: tuple[Entry, ...]
    units: int
    removed: int
    sheets: tuple[str, ...]
    has_examples: bool

    @property
    def only_interpretable(self) -> bool:
        """Only interpretable units are listed, since there are many."""
        return self.units + self.removed > MOST_UNITS


def listed(units: pd.DataFrame, iou: float, removed: int = 0) -> pd.DataFrame:
    """Choose and order the units to list: best first, dead ones last.

    Of a layer with more than 256 units, `removed` ones among them, only the interpretable ones are listed, and at most
    256 of them.
    """
    table = units.assign(interpretable=interpretable(units, iou))
    if len(table) + removed > MOST_UNITS:
        table = table[table["interpretable"]]
    order = ["interpretable", "dead", "iou", "unit"]
    return table.sort_values(order, ascending=[False, True, False, True]).head(MOST_UNITS)


def level_units(
    study: StoredStudy,
    key: tuple[int, int, str],
    dense: pd.DataFrame | None,
    folder: Path,
    image_size: tuple[int, int],
    images: int,
    show: Callable[[int], Bytes],
) -> LevelUnits:
    """List the units of one level, and draw the sheets that show them.

    Parameters
    ----------
    study : StoredStudy
    key : (trial, level, layer)
    dense : DataFrame or None
        The units of the same layer in the trial's dense network; None where that is not finished, or is this level.
    folder : Path
        Where the page is; sheets are written into its ``sheets`` folder.
    image_size : (int, int)
        Height and width of the concepts' images.
    images : int
        How many there are.
    show : function
        Gives image i at a tile's size, as `prunescope.report.sheets.scaled` makes it.
    """
    trial, level, layer = key
    units = study.units(trial, level, layer).reset_index(drop=True)
    concepts = {} if dense is None else _concepts(dense, study.settings.iou)
    removed = [] if dense is None else sorted(set(dense["unit"].astype(int)) - set(units["unit"].astype(int)))
    table = listed(units, study.settings.iou, len(removed))
    path = study.dissection(trial, level, layer) / "examples.safetensors"
    examples = read_examples(path, units["unit"].to_numpy(dtype=np.int64), images)
    rows: list[int] = []
    if examples is not None:
        rows = [int(row) for row in table.index if (examples.images[row] >= 0).any()]
    groups = [rows[start : start + UNITS_PER_SHEET] for start in range(0, len(rows), UNITS_PER_SHEET)]
    inside(folder / "sheets", layer, "the layer")
    names = [f"trial-{trial}-level-{level:02d}-{layer}-{number}.jpg" for number in range(len(groups))]
    if examples is not None:
        thresholds = units["threshold"].to_numpy(dtype=np.float64)
        for name, group in zip(names, groups, strict=True):
            draw_sheet(folder / "sheets" / name, examples, thresholds, group, image_size, show)
    places = {
        row: (number, 100 * place / max(1, len(group) - 1))
        for number, group in enumerate(groups)
        for place, row in enumerate(group)
    }
    entries = [
        _entry(row, concepts.get(int(row["unit"]), ""), *places.get(index, (None, 0.0)))
        for index, row in zip(table.index, table.to_dict("records"), strict=True)
    ]
    addresses = tuple(f"sheets/{quote(name)}" for name in names)
    found = LevelUnits(tuple(entries), len(units), len(removed), addresses, examples is not None)
    if found.only_interpretable:
        return found
    return replace(found, entries=(*entries, *(_removed(unit, concepts.get(unit, "")) for unit in removed)))


def _concepts(units: pd.DataFrame, iou: float) -> dict[int, str]:
    """Name what each interpretable unit detects."""
    found = units[interpretable(units, iou)]
    return dict(zip(found["unit"].astype(int), found["label"].astype(str), strict=True))


def _removed(unit: int, dense: str) -> Entry:
    return Entry(unit, "", "", 0.0, interpretable=False, dead=False, removed=True, dense=dense, sheet=None, place=0.0)


def _entry(row: dict[Any, Any], dense: str, sheet: int | None, place: float) -> Entry:
    label = "" if pd.isna(row["label"]) else str(row["label"])
    detects = bool(row["interpretable"])
    return Entry(
        unit=int(row["unit"]),
        label=label,
        category="" if pd.isna(row["category"]) else str(row["category"]),
        iou=float(row["iou"]),
        interpretable=detects,
        dead=bool(row["dead"]),
        removed=False,
        dense="" if detects and dense == label else dense,
        sheet=sheet,
        place=place,
    )
