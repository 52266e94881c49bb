"""Check all tables, images and labels of a data set in Broden's format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.concepts.chunks import by_chunks
from prunescope.concepts.index import Row
from prunescope.concepts.pixels import read_image, read_labels
from prunescope.concepts.problems import Problem, collect
from prunescope.concepts.tables import Tables, read_tables
from prunescope.files import expanded
from prunescope.progress import Shown, shown_progress


@dataclass(frozen=True, eq=False)
class Check:
    """The result of `check_concepts`: the problems of a data set and a summary of its labels.

    Attributes
    ----------
    problems : tuple of Problem
        The problems of the tables, followed by those of the images in the order of the index. It is empty if nothing
        is wrong.
    table : DataFrame
        A row for each category, with the columns `category`, `images`, `concepts` and `pixels`: the number of images
        with a label of this primary category, the number of concepts found on any pixel, and the number of labelled
        pixels (at the resolution of the labels). Only images with readable labels are counted.
    """

    problems: tuple[Problem, ...]
    table: pd.DataFrame


@dataclass(frozen=True)
class _Seen:
    """The problems and label counts of some images."""

    problems: list[Problem]
    images: np.ndarray  # int64 [categories]
    pixels: np.ndarray  # int64 [categories]
    numbers: np.ndarray  # int64, the numbers of the concepts on these images


def check_concepts(directory: str | Path, workers: int | None = None, progress: Shown = "auto") -> Check:
    """Find all problems of a data set in Broden's format, in its tables and in all of its images and labels.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv.
    workers : int, optional
        The number of processes that read images. By default, it is the number of processors.
    progress : callable, 'auto' or False
        Called with the number of images checked and the total number of images. By default, a bar is shown on standard
        error if it is a terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    Check
        The problems and a summary of the labels.

    Raises
    ------
    InputError
        If there is no data set at all, because the folder or its index.csv does not exist. All other problems are
        returned.
    """
    root = expanded(directory).absolute()
    tables, problems = collect(read_tables(root))
    rows = tables.rows if (root / "images").is_dir() else ()
    primary = tables.labels["category"].to_numpy()[:, None] == np.array(tables.categories, dtype=object)
    look = partial(_look, root, tables.labels.index.to_numpy(), primary)
    seen = []
    with shown_progress(progress, "checking") as report:
        for part in by_chunks(look, rows, workers, report):
            seen.append(part)
            problems += part.problems
    return Check(tuple(problems), _table(tables, seen))


def _look(root: Path, defined: np.ndarray, primary: np.ndarray, rows: Iterable[Row]) -> _Seen:
    problems: list[Problem] = []
    images, pixels = np.zeros((2, primary.shape[1]), dtype=np.int64)
    numbers = np.zeros(0, dtype=np.int64)
    for row in rows:
        if row.name:
            problems += collect(read_image(root, row))[1]
        labels, wrong = collect(read_labels(root, row, defined))
        problems += wrong
        if labels is not None:
            palette = len(labels.starts) - 1
            present = np.zeros((palette, primary.shape[1]), dtype=bool)
            named = np.repeat(np.arange(palette), np.diff(labels.starts))
            np.logical_or.at(present, named, primary[np.searchsorted(defined, labels.numbers)])
            images += present.any(axis=0)
            pixels += np.bincount(labels.codes.ravel(), minlength=palette) @ present
            numbers = np.union1d(numbers, labels.numbers)
    return _Seen(problems, images, pixels, numbers)


def _table(tables: Tables, seen: list[_Seen]) -> pd.DataFrame:
    nothing = np.zeros(len(tables.categories), dtype=np.int64)
    numbers = sorted({int(number) for part in seen for number in part.numbers})
    concepts = tables.labels.loc[numbers, "category"].value_counts()
    return pd.DataFrame(
        {
            "category": list(tables.categories),
            "images": sum((part.images for part in seen), nothing),
            "concepts": [int(concepts.get(category, 0)) for category in tables.categories],
            "pixels": sum((part.pixels for part in seen), nothing),
        }
    )
