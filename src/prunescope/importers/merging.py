"""Merge data sets in Broden's format into one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.concepts.index import Row
from prunescope.concepts.pixels import read_cell
from prunescope.concepts.problems import clean
from prunescope.errors import InputError, refuse_text
from prunescope.importers.writing import Found, ImportOptions, write_found


@dataclass(frozen=True)
class _Reader:
    """Makes a labelled image from a row of one of the data sets, with the numbers of the merged one."""

    categories: Sequence[tuple[str, ...]]  # of each data set
    numbers: Sequence[np.ndarray]  # for each data set: the new number of each number

    def __call__(self, item: tuple[int, Path, str, Row]) -> Found:
        """Read the labels; the writer reads the image."""
        at, root, name, row = item
        size = None if row.size is None else (row.size.sh, row.size.sw)
        labels: dict[str, list[Any]] = {}
        for category, cell in zip(self.categories[at], row.cells, strict=True):
            layers, everywhere = clean(read_cell(root, row, cell, size))
            try:
                mine = [self.numbers[at][layer] for _, layer in layers]
            except IndexError as error:
                raise InputError(
                    f"{root}: the labels of {row.name} name a concept that label.csv does not define; "
                    "`prunescope concepts check` lists the problems"
                ) from error
            labels[category] = mine + [int(self.numbers[at][number]) for number in everywhere]
        group = f"{at}/{row.group}" if row.group else ""
        return Found(name, root / "images" / row.name, labels, row.split, group, same_size=False)


def merge_concepts(directories: Sequence[str | Path], out: str | Path, **options: Unpack[ImportOptions]) -> Path:
    """Write a data set in Broden's format from the images of several.

    The concepts are numbered anew, and concepts with the same name become one. The images keep their splits, and are
    stored in one folder for each of the data sets.

    Parameters
    ----------
    directories
        The folders of the data sets.
    out
        The folder to write, which must be absent or empty.
    **options
        Options of `prunescope.importers.writing.ImportOptions`, such as `resize`, which is needed if the data
        sets have images of different sizes or labels of another size than their images.

    Returns
    -------
    Path
        The merged data set's folder.

    Raises
    ------
    InputError
        If a data set cannot be opened, or if an image or its labels cannot be used.
    """
    refuse_text(directories, "directories")
    sets = [open_concepts(directory) for directory in directories]
    if not sets:
        raise InputError("directories is empty; give the folders of the data sets to merge")
    names = list(dict.fromkeys(name for data in sets for name in data.labels["name"]))
    by_name = {name: number for number, name in enumerate(names, 1)}
    categories = list(dict.fromkeys(name for data in sets for name in data.categories))
    numbers = [_new_numbers(data, by_name) for data in sets]
    folders = _folders(sets)
    items = [
        (at, data.root, f"{folders[at]}/{Path(row.name).with_suffix('').as_posix()}", row)
        for at, data in enumerate(sets)
        for row in data.rows
    ]
    reader = _Reader([data.categories for data in sets], numbers)
    about = {"format": "merge", "directories": [str(data.root) for data in sets]}
    return write_found(out, items, reader, names, categories, about, **options)


def _new_numbers(data: ConceptData, by_name: dict[str, int]) -> np.ndarray:
    """Return the new number of each number of a data set, -1 for those that it does not define."""
    numbers = np.full(int(data.labels.index.max()) + 1, -1, np.int64)
    numbers[0] = 0
    numbers[data.labels.index] = [by_name[name] for name in data.labels["name"]]
    return numbers


def _folders(sets: Sequence[ConceptData]) -> list[str]:
    """Return a name for the images of each data set: that of its folder, with a number where two are alike."""
    seen: dict[str, int] = defaultdict(int)
    found = []
    for data in sets:
        name = data.root.name or "data"
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return found
