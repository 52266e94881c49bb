"""Look at every table and every pixel of a data set, and say all that is wrong with it."""

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
from prunescope.progress import Progress


@dataclass(frozen=True, eq=False)
class Check:
    """What a data set holds, and all that is wrong with it.

    Attributes
    ----------
    problems : tuple of Problem
        Those of the tables, then those of the images in index order; empty for a clean data set.
    table : DataFrame
        A row per category with what has a label of it as primary category: `images`, `concepts` (that stand on a
        pixel) and `pixels` (at the labels' size), over the images whose labels can be read.
    """

    problems: tuple[Problem, ...]
    table: pd.DataFrame


@dataclass(frozen=True)
class _Seen:
    """What some images hold."""

    problems: list[Problem]
    images: np.ndarray  # int64 [categories]
    pixels: np.ndarray  # int64 [categories]
    numbers: np.ndarray  # int64: the concepts on them


def check_concepts(directory: str | Path, workers: int | None = None, progress: Progress | None = None) -> Check:
    """Find every problem of a data set in Broden's format, in its tables and in all of its images.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv.
    workers : int, optional
        Processes that read images; as many as there are processors unless told.
    progress : callable, optional
        Called with the number of images looked at and the number of all images.

    Raises
    ------
    InputError
        There is no data set at all: no such folder, or no index.csv in it. Nothing else that is wrong raises.
    """
    root = expanded(directory).absolute()
    tables, problems = collect(read_tables(root))
    rows = tables.rows if (root / "images").is_dir() else ()
    primary = tables.labels["category"].to_numpy()[:, None] == np.array(tables.categories, dtype=object)
    look = partial(_look, root, tables.labels.index.to_numpy(), primary)
    seen = []
    for part in by_chunks(look, rows, workers, progress):
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
