"""Open what an earlier run has written to a directory: a dissection, a study, a series or a sweep."""

from __future__ import annotations

from pathlib import Path

from prunescope.api import Study
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.series import Series
from prunescope.store.dissections import SUMMARY, read_dissection, read_layer, saved_layers
from prunescope.store.layout import StudyDirectory
from prunescope.store.stored import read_settings


def load(directory: str | Path) -> Dissection | LayerDissection | Study | Series:
    """Open the results that an earlier run has written to a directory.

    Nothing is written, and nothing in the files is run or unpickled. The files of a dissection are checked against each
    other when they are read; those of a study or a series are checked when they are used.

    Parameters
    ----------
    directory
        The directory that was given as `out` (`--out`), or a folder of it that contains a dissection.

    Returns
    -------
    Dissection
        If the directory contains the dissection of one or several layers, each in a folder with the layer's name, as
        `prunescope dissect` and `Dissection.save` write it. It is equal to the one that was saved, except that its
        layers are in alphabetical order.
    LayerDissection
        If the directory itself is the folder of a layer, or contains an imported table.
    Study
        If the directory contains a study. Its `evidence()` and `units()` read the results, and `run()` continues it.
    Series
        If the directory contains a series or a sweep. The same methods apply, except that a series of networks in
        memory cannot be continued.

    Raises
    ------
    InputError
        If the directory contains none of these, or several dissections, or if a file is damaged, is missing or
        contradicts another one. The message names the file and what to do.

    Examples
    --------
    ::

        found = prunescope.load("out/resnet18")
        found["layer4"].units.query("iou > 0.05")
        prunescope.load("out/demo").evidence()
    """
    root = expanded(directory)
    recipe = StudyDirectory(root).recipe
    if recipe.is_file():
        return Series.read(recipe, root) if read_settings(root).is_series else Study(recipe, root)
    if (root / SUMMARY).is_file():
        return read_layer(root)
    if saved_layers(root):
        return read_dissection(root)
    raise InputError(f"{directory}: {_nothing(root)}")


def _nothing(root: Path) -> str:
    """Return why there is nothing to load, and what to do."""
    if not root.is_dir():
        return "there is no such directory; give the directory that was the --out (`out`) of an earlier run"
    inner = sorted(path.name for path in root.iterdir() if saved_layers(path) or StudyDirectory(path).recipe.is_file())
    if inner:
        shown = ", ".join(inner[:8]) + (", ..." if len(inner) > 8 else "")
        return f"contains several results, in the folders {shown}; give one of them, such as {root / inner[0]}"
    return (
        "contains no finished dissection (LAYER/summary.json) and no study or series (study.yaml); give the directory "
        "that was the --out (`out`) of an earlier run"
    )
