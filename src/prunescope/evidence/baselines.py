"""Count what a level detects beyond permuted labels, mirrored masks, and an untrained and a retrained network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.dissection.basis import BASES
from prunescope.dissection.layer_files import is_complete, layer_folder
from prunescope.dissection.scores import concept_columns, interpretable
from prunescope.errors import InputError
from prunescope.evidence.consistency import compare_units
from prunescope.evidence.units import other_numbers
from prunescope.reading import read_parquet
from prunescope.store.dissections import UNITS
from prunescope.store.layout import StudyDirectory
from prunescope.store.stored import StoredStudy
from prunescope.store.tables import check_units

SIGNIFICANT = 0.05
BASELINES = (
    "above_chance",
    "chance_interpretable",
    "chance_concepts",
    "localised",
    "untrained_interpretable",
    "untrained_concepts",
    "retrained_still_interpretable",
    "retrained_same_concept",
)
BASIS = "basis_"  # begins the names of the columns that compare other bases with that of the units


def baselines(units: pd.DataFrame, summary: Mapping[str, Any], iou: float) -> dict[str, float]:
    """Return the columns that follow from a dissection alone, as far as it has what they need.

    Parameters
    ----------
    units
        The table of units of one layer.
    summary
        The summary beside it.
    iou
        The bound above which a unit is interpretable.

    Returns
    -------
    dict
        above_chance, the number of interpretable units with q < 0.05; chance_interpretable and chance_concepts, the
        mean numbers of interpretable units and of detected concepts with permuted labels; localised, the number of
        units that are interpretable, but not with mirrored masks. Columns that cannot be computed are left out.
    """
    found = interpretable(units, iou)
    columns: dict[str, float] = {}
    if "q" in units.columns:
        columns["above_chance"] = int((found & (units["q"] < SIGNIFICANT)).sum())
    for name in ("chance_interpretable", "chance_concepts"):
        value = summary.get(name)
        value = value.get("mean") if isinstance(value, dict) else value
        if isinstance(value, int | float) and not isinstance(value, bool):
            columns[name] = float(value)
    if "iou_mirrored" in units.columns:
        columns["localised"] = int((found & ~(units["iou_mirrored"] > iou)).sum())
    return columns


def tables_beside(study: StoredStudy) -> dict[tuple[str, int, str], pd.DataFrame]:
    """Return the units of the untrained and the retrained network of each trial, as far as they are dissected.

    The keys are "untrained" or "retrained", the trial and the layer.

    Raises
    ------
    InputError
        If a table cannot be read or is not valid.
    """
    found = {}
    directory = StudyDirectory(study.root)
    for kind in ("untrained", "retrained"):
        for trial in sorted({trial for trial, _ in study.finished}):
            folder = directory.reference_dissection(trial, kind)
            for layer in study.settings.layers:
                if is_complete(folder, layer):
                    found[kind, trial, layer] = _read(layer_folder(folder, layer) / UNITS)
    return found


def compared_with_beside(
    untrained: pd.DataFrame | None, retrained: pd.DataFrame | None, dense: pd.DataFrame | None, iou: float
) -> dict[str, float]:
    """Return the columns that follow from the untrained and the retrained network of a trial, as far as these exist.

    Parameters
    ----------
    untrained, retrained, dense
        The tables of units of one layer of these networks and of the trial's dense network.
    iou
        The bound above which a unit is interpretable.

    Returns
    -------
    dict
        untrained_interpretable and untrained_concepts, the counts of the untrained network; and
        retrained_still_interpretable and retrained_same_concept, the `consistency` of the retrained network.
    """
    columns: dict[str, float] = {}
    if untrained is not None:
        found = untrained[interpretable(untrained, iou)]
        columns["untrained_interpretable"] = len(found)
        columns["untrained_concepts"] = len(found.drop_duplicates(concept_columns(found)))
    if retrained is not None and dense is not None and not other_numbers(dense, retrained):
        names = ("retrained_still_interpretable", "retrained_same_concept")
        columns |= dict(zip(names, compare_units(dense, retrained, iou), strict=True))
    return columns


def in_bases(study: StoredStudy, trial: int, level: int, layer: str, concepts: int) -> dict[str, float]:
    """Return the numbers of concepts that are detected in other bases, as ratios to that of the units.

    Parameters
    ----------
    study, trial, level, layer
        A dissection of a study.
    concepts
        The number of concepts that its units detect.

    Returns
    -------
    dict
        basis_NAME for each basis in which the layer is dissected as well, such as basis_rotate-0. The ratio is not a
        number if the units detect no concept.

    Raises
    ------
    InputError
        If a table cannot be read or is not valid.
    """
    columns = {}
    for folder in sorted((study.dissection(trial, level, layer).parent / BASES).glob("*")):
        if is_complete(folder, layer):
            units = _read(layer_folder(folder, layer) / UNITS)
            found = units[interpretable(units, study.settings.iou)].drop_duplicates(concept_columns(units))
            columns[f"{BASIS}{folder.name}"] = len(found) / concepts if concepts else float("nan")
    return columns


def _read(path: Path) -> pd.DataFrame:
    try:
        table = read_parquet(path)
    except InputError as error:
        raise InputError(f"{error}; remove it and run the study again") from error
    check_units(table, str(path))
    return table
