"""List the units of a level for the report page, best first, and locate each on a sheet of example images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd

from prunescope.concepts.protocol import Concepts
from prunescope.dissection.examples import EXAMPLES_FILE, read_examples
from prunescope.dissection.outlines import Bytes
from prunescope.dissection.scores import concept_columns
from prunescope.errors import InputError
from prunescope.evidence import interpretable
from prunescope.files import inside
from prunescope.report.sheets import UNITS_PER_SHEET, draw_sheet
from prunescope.store.stored import StoredStudy

MOST_UNITS = 256


@dataclass(frozen=True)
class Entry:
    """One unit of one level, as the page lists it.

    Attributes
    ----------
    unit : int
        The number of the unit.
    label, category : str
        The name and category of the unit's best concept. The name is unique among all concepts. Both are empty if the
        unit's mask overlaps no concept.
    iou : float
        The IoU with that concept.
    interpretable, dead : bool
        Whether the unit is interpretable, and whether it is dead.
    removed : bool
        Whether the unit exists in the dense network but was removed with its filter before or at this level.
    dense : str
        The concept that the unit detected in the dense network. It is empty if the unit was not interpretable there,
        or if it is still interpretable with the same concept.
    sheet : int or None
        The index of the level's sheet that shows the unit; None if no image excites it.
    place : float
        The vertical position of the unit on that sheet in percent, as in CSS's ``background-position``.
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
        The listed units, best first and removed units last.
    units : int
        The number of units that the layer has. In a large layer, there are fewer `entries`.
    removed : int
        The number of further units that the layer has in the trial's dense network.
    sheets : tuple of str
        The addresses of the sheets, relative to the page.
    has_examples : bool
        Whether the example images of the level are stored.
    """

    entries: tuple[Entry, ...]
    units: int
    removed: int
    sheets: tuple[str, ...]
    has_examples: bool

    @property
    def only_interpretable(self) -> bool:
        """Whether only interpretable units are listed, because the layer has more than 256 units."""
        return self.units + self.removed > MOST_UNITS


def listed(units: pd.DataFrame, iou: float, removed: int = 0) -> pd.DataFrame:
    """Return the rows of the units to list, best first and dead units last.

    If the layer has more than 256 units, counting the `removed` ones, only interpretable units are listed, and at most
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
    concepts: Concepts,
    show: Callable[[int], Bytes],
) -> LevelUnits:
    """List the units of one layer at one level, and draw the sheets that show them.

    Parameters
    ----------
    study : StoredStudy
        The study to read from.
    key : (trial, level, layer)
        The trial, level and layer to list.
    dense : DataFrame or None
        The units of the same layer in the trial's dense network; None if the dense network is not finished or is itself
        the level to list.
    folder : Path
        The folder of the page. The sheets are written to ``sheets`` inside it.
    concepts : Concepts
        The data set that the study was dissected with.
    show : function
        Returns image i at the size of a tile, as `prunescope.report.sheets.scaled` does.

    Returns
    -------
    LevelUnits
        The listed units and the addresses of their sheets.
    """
    trial, level, layer = key
    units = study.units(trial, level, layer).reset_index(drop=True)
    columns = concept_columns(units if dense is None else dense, units)
    units = units.assign(shown=display_names(units, concepts.labels))
    before = {} if dense is None else _detected(dense, study.settings.iou, concepts.labels, columns)
    removed = [] if dense is None else sorted(set(dense["unit"].astype(int)) - set(units["unit"].astype(int)))
    table = listed(units, study.settings.iou, len(removed))
    examples = read_examples(
        study.dissection(trial, level, layer) / EXAMPLES_FILE, units["unit"].to_numpy(dtype=np.int64), len(concepts)
    )
    rows: list[int] = []
    if examples is not None:
        rows = [int(row) for row in table.index if (examples.images[row] >= 0).any()]
    groups = [rows[start : start + UNITS_PER_SHEET] for start in range(0, len(rows), UNITS_PER_SHEET)]
    inside(folder / "sheets", layer, "the layer")
    names = [f"trial-{trial}-level-{level:02d}-{layer}-{number}.jpg" for number in range(len(groups))]
    if examples is not None and "threshold" not in units.columns:
        raise InputError(
            f"{study.dissection(trial, level, layer) / 'units.parquet'}: there is no column threshold, which drawing "
            "the examples needs; remove its folder and run the study again"
        )
    if examples is not None:
        thresholds = units["threshold"].to_numpy(dtype=np.float64)
        for name, group in zip(names, groups, strict=True):
            draw_sheet(folder / "sheets" / name, examples, thresholds, group, concepts.image_size, show)
    places = {
        row: (number, 100 * place / max(1, len(group) - 1))
        for number, group in enumerate(groups)
        for place, row in enumerate(group)
    }
    entries = [
        _entry(row, _if_other(before.get(int(row["unit"])), row, columns), *places.get(index, (None, 0.0)))
        for index, row in zip(table.index, table.to_dict("records"), strict=True)
    ]
    addresses = tuple(f"sheets/{quote(name)}" for name in names)
    found = LevelUnits(tuple(entries), len(units), len(removed), addresses, examples is not None)
    if found.only_interpretable:
        return found
    return replace(
        found, entries=(*entries, *(_removed(unit, before[unit][0] if unit in before else "") for unit in removed))
    )


def display_names(units: pd.DataFrame, labels: pd.DataFrame) -> pd.Series[Any]:
    """Return for each unit a name of its concept that no other concept has.

    The name is the label. If other concepts have the same label, the category is added, as in ``window (part)``. If the
    category is the same too, the number is added as well.

    Parameters
    ----------
    units : DataFrame
        The units, with the columns label and category, and number if it is known.
    labels : DataFrame
        All concepts, indexed by number, with the columns name and category.

    Returns
    -------
    Series of str
        The names, with the index of `units`. The value is missing where a unit has no concept.
    """
    by_name = labels["name"].value_counts()
    by_both = labels.value_counts(["name", "category"])

    def name(label: Any, category: Any, number: Any) -> Any:
        if pd.isna(label) or by_name.get(label, 0) < 2:
            return label
        alone = by_both.get((label, category), 0) < 2 or pd.isna(number)
        return f"{label} ({category})" if alone else f"{label} ({category}, {number})"

    numbers = units["number"] if "number" in units else [None] * len(units)
    shown = [name(*row) for row in zip(units["label"], units["category"], numbers, strict=True)]
    return pd.Series(shown, index=units.index, dtype=object)


def _detected(
    units: pd.DataFrame, iou: float, labels: pd.DataFrame, columns: list[str]
) -> dict[int, tuple[str, tuple[object, ...]]]:
    """Return, by unit, the displayed name and the identifying columns of each interpretable unit's concept."""
    found = units[interpretable(units, iou)]
    concepts = found[columns].itertuples(index=False, name=None)
    shown = zip(display_names(found, labels), concepts, strict=True)
    return dict(zip(found["unit"].astype(int), shown, strict=True))


def _if_other(before: tuple[str, tuple[object, ...]] | None, row: dict[Any, Any], columns: list[str]) -> str:
    """Return what a unit detected in the dense network if it now detects something else or nothing, otherwise ''."""
    if before is None or (row["interpretable"] and before[1] == tuple(row[column] for column in columns)):
        return ""
    return before[0]


def _removed(unit: int, dense: str) -> Entry:
    return Entry(unit, "", "", 0.0, interpretable=False, dead=False, removed=True, dense=dense, sheet=None, place=0.0)


def _entry(row: dict[Any, Any], dense: str, sheet: int | None, place: float) -> Entry:
    return Entry(
        unit=int(row["unit"]),
        label="" if pd.isna(row["shown"]) else str(row["shown"]),
        category="" if pd.isna(row["category"]) else str(row["category"]),
        iou=float(row["iou"]),
        interpretable=bool(row["interpretable"]),
        dead=bool(row["dead"]),
        removed=False,
        dense=dense,
        sheet=sheet,
        place=place,
    )
