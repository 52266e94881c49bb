"""Read dissections that were saved, and check that their files agree with each other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.dissection.basis import BASES
from prunescope.dissection.examples import EXAMPLES_FILE, read_examples
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.settings import DEFAULTS
from prunescope.errors import InputError
from prunescope.files import name_problem
from prunescope.reading import read_json, read_parquet
from prunescope.store.pairs import check_imported, check_pairs
from prunescope.store.tables import check_summary, check_units
from prunescope.store.tallies import PAIRS, TALLY_FILE, read_tally

SUMMARY, UNITS = "summary.json", "units.parquet"
_COUNTED = ("units", "interpretable", "concepts", "by_category", "settings")


def saved_layers(directory: Path) -> list[str]:
    """Return the names of the subfolders that contain the dissection of a layer, in alphabetical order."""
    if not directory.is_dir():
        return []
    return sorted(path.parent.name for path in directory.glob(f"*/{SUMMARY}"))


def read_dissection(directory: Path) -> Dissection:
    """Read the dissection that `Dissection.save` has written to a directory.

    Parameters
    ----------
    directory
        The directory, which contains a folder for each layer.

    Returns
    -------
    Dissection
        The layers, in alphabetical order, and the results in other bases.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, or if files contradict each other. The message names the file.
    """
    layers = {}
    for name in saved_layers(directory):
        found = read_layer(directory / name)
        if found.layer != name:
            raise InputError(
                f"{directory / name / SUMMARY}: layer is {found.layer!r}, but the folder is called {name!r}; give the "
                "folder the name of its layer"
            )
        layers[name] = found
    names = sorted(path.name for path in (directory / BASES).glob("*") if path.is_dir())
    return Dissection(layers, {name: read_dissection(directory / BASES / name) for name in names})


def read_layer(folder: Path) -> LayerDissection:
    """Read the dissection of one layer, or an imported table, that `LayerDissection.save` has written to a folder.

    Nothing in the files is unpickled. The table of units has to follow from the table of pairs, and the counts in the
    summary and in the tally have to agree with both.

    Parameters
    ----------
    folder
        The folder with summary.json.

    Returns
    -------
    LayerDissection
        The dissection, equal to the one that was saved. Its tally and its examples are None if they are not stored.

    Raises
    ------
    InputError
        If a file is missing or cannot be read, or if files contradict each other. The message names the file.
    """
    try:
        found = _read_counts(folder)
    except InputError as error:
        raise InputError(f"{error}; restore the original file, or remove {folder} and dissect again") from error
    images = found.summary["settings"].get("images")
    most = images if isinstance(images, int) else np.iinfo(np.int64).max
    units = found.units["unit"].to_numpy(np.int64)
    return replace(found, examples=read_examples(folder / EXAMPLES_FILE, units, int(most)))


def _read_counts(folder: Path) -> LayerDissection:
    """Read the files of a layer except the examples."""
    summary = read_json(folder / SUMMARY)
    units, pairs = read_parquet(folder / UNITS), read_parquet(folder / PAIRS)
    for column in units.columns:
        if pd.api.types.is_object_dtype(units[column]):  # parquet restores a column of missing labels as None
            units[column] = units[column].where(units[column].notna(), np.nan)
    where = str(folder / SUMMARY)
    settings = summary.get("settings", {})
    if not isinstance(settings, dict):
        raise InputError(f"{where}: settings is {settings!r}, expected fields, each with its value")
    if absent := [name for name in _COUNTED if name not in summary]:
        raise InputError(f"{where}: there is no field {', '.join(absent)}")
    bound = settings.get("iou", DEFAULTS.iou)
    if not isinstance(bound, int | float) or isinstance(bound, bool) or not 0 <= bound < 1:
        raise InputError(f"{where}: iou is {bound!r}, expected a bound from 0 up to 1")
    if not isinstance(summary["by_category"], dict):
        raise InputError(f"{where}: by_category is {summary['by_category']!r}, expected a number for each category")
    layer = settings.get("layer", "")
    if layer != "" and (problem := name_problem(layer)):
        raise InputError(f"{where}: layer is {layer!r}, which cannot be the name of a layer: {problem}")
    if settings.get("format") == "netdissect":
        check_imported(units, pairs, folder)
        check_summary(summary, units, {}, where)
        return LayerDissection("", units, pairs, summary)
    check_units(units, str(folder / UNITS))
    check_summary(summary, units, {}, where)
    check_pairs(pairs, units, str(folder / PAIRS))
    return LayerDissection(layer, units, pairs, summary, read_tally(folder / TALLY_FILE, units, pairs))
