"""Data sets of images with labelled concepts in Broden's format (Bau et al. 2017, section 2.1).

The tables are read when a data set is opened; images and labels are read on demand.
"""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from prunescope.concepts.contents import state_of_files
from prunescope.concepts.index import Row
from prunescope.concepts.packed_file import Layout, PackedFile, open_packed, packed_path
from prunescope.concepts.pixels import ImageLabels, read_image, read_labels
from prunescope.concepts.problems import clean
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.tables import Tables, read_tables
from prunescope.errors import InputError
from prunescope.files import expanded


class Sample(NamedTuple):
    """A description of a sample of a data set's images."""

    of: int  # the number of images of the whole data set
    seed: int


@dataclass(frozen=True, eq=False)
class ConceptData:
    """A data set in Broden's format, with images and labels that are read on demand.

    The object can be pickled and used from several processes.

    Attributes
    ----------
    root : Path
        The absolute path of the data set's folder.
    categories : tuple of str
        The categories, in the order of category.csv.
    names, splits : tuple of str
        The columns `image` and `split` of index.csv, for each image.
    image_size, label_size : tuple of int
        The height and width of the images (ih, iw) and of their labels (sh, sw), in pixels.
    labels : DataFrame
        The concepts in ascending order of their numbers, which are the index. The columns are `name`, `category` (the
        primary category, in which the concept covers most pixels) and `categories` (all of its categories).
    rows : tuple of Row
        The rows of index.csv.
    images_from : int64 array [images]
        For each image, the index of its row in index.csv. All rows are used in order, except in a sample.
    labels_from : int64 array [images]
        For each image, the index of the row that provides its labels. This is its own row, except in data returned by
        `permute_labels`.
    sample : Sample or None
        Which sample of the images this is, or None for all images.
    packed : PackedFile or None
        The packed copy from which images and labels are read, or None if they are read from the files.
    """

    root: Path
    categories: tuple[str, ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    labels: pd.DataFrame
    rows: tuple[Row, ...]
    images_from: np.ndarray
    labels_from: np.ndarray
    packed: PackedFile | None
    sample: Sample | None = None

    def __len__(self) -> int:
        return len(self.images_from)

    @property
    def labelled(self) -> np.ndarray:
        """Whether each image has labels of each category, bool [images, categories], as far as index.csv tells.

        A label file counts as a label, even if no pixel of it has one.
        """
        empty = {"", "0"}
        cells = [[cell not in empty for cell in row.cells] for row in self.rows]
        own: np.ndarray = np.array(cells, np.bool_).reshape(len(self.rows), -1)[self.labels_from]
        return own

    @property
    def groups(self) -> np.ndarray:
        """The group of each image, int64 [images]: images with the same text in the column `group` of index.csv.

        An image without a group is a group of its own.
        """
        keys = [self.rows[row].group or int(row) for row in self.images_from]
        numbers: dict[str | int, int] = {}
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)

    def image(self, i: int) -> np.ndarray:
        """Return image `i` in RGB as a uint8 array [ih, iw, 3].

        Raises
        ------
        InputError
            If the file is missing or damaged, or if its size differs from that in index.csv.
        """
        if self.packed is not None:
            return self.packed.image(self.images_from[i])
        return clean(read_image(self.root, self.rows[self.images_from[i]]))

    def image_labels(self, i: int) -> ImageLabels:
        """Return the labels of image `i`.

        Raises
        ------
        InputError
            If a label file is missing or damaged, if its size differs from that in index.csv, or if it contains
            numbers that label.csv does not define.
        """
        if self.packed is not None:
            return self.packed.labels(self.labels_from[i])
        return clean(read_labels(self.root, self.rows[self.labels_from[i]], self.labels.index.to_numpy()))


def open_concepts(directory: str | Path) -> ConceptData:
    """Open a data set in Broden's format.

    The tables are validated when the data set is opened; images and labels are validated when they are read.

    If `pack_concepts` has written a packed copy, images and labels are read from it. If the files have changed since
    (this is checked only when the data set is opened), or if the copy's header is damaged or of another version, a
    warning is issued and the files themselves are read. If an image or its labels are damaged in the packed copy,
    reading them raises an `InputError`.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv, category.csv, label.csv, images/ and, optionally, c_CATEGORY.csv for each category.

    Returns
    -------
    ConceptData
        The open data set.

    Raises
    ------
    InputError
        If the tables have a problem. The message describes the first problem with its file and line, and states how
        many more there are.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    size = tables.rows[0].size
    assert size is not None
    return ConceptData(
        root=root,
        categories=tables.categories,
        names=tuple(row.name for row in tables.rows),
        splits=tuple(row.split for row in tables.rows),
        image_size=(size.ih, size.iw),
        label_size=(size.sh, size.sw),
        labels=tables.labels,
        rows=tables.rows,
        images_from=np.arange(len(tables.rows)),
        labels_from=np.arange(len(tables.rows)),
        packed=_packed(root, tables),
    )


def _packed(root: Path, tables: Tables) -> PackedFile | None:
    path = packed_path(root)
    if not path.exists():
        return None
    try:
        return open_packed(path, Layout.of(tables.rows), state_of_files(root, tables), tables.labels.index.to_numpy())
    except InputError as error:
        warnings.warn(f"{error}; until then the files themselves are read, which is slower", stacklevel=3)
        return None


def as_concepts(given: Concepts | str | Path) -> Concepts:
    """Return an open data set: `given` itself, or the data set in this folder if `given` is a path.

    Raises
    ------
    InputError
        If there is no such data set, or if `given` is an object that lacks members of `Concepts`.
    """
    if isinstance(given, str | Path):
        return open_concepts(given)
    members = [name for name in vars(Concepts) if name == "__len__" or not name.startswith("_")]
    absent = [name for name in members if not hasattr(given, name)]
    if absent:
        raise InputError(
            f"concepts is a {type(given).__name__} without {', '.join(absent)}; give a folder in Broden's format, a "
            "data set from prunescope.open_concepts, or an object that has the members of prunescope.concepts.Concepts"
        )
    return given


def permute_labels(data: ConceptData | str | Path, seed: int) -> ConceptData:
    """Return a copy of a data set in which every image has the labels of another image.

    Concepts that a network detects in such data are detected by chance, so that they serve as a baseline. The labels
    are exchanged along a random cycle through all images, so that no image keeps its own.

    Parameters
    ----------
    data : ConceptData or path
        The data set, with at least two images.
    seed : int
        The seed of the random cycle.

    Returns
    -------
    ConceptData
        The data set with exchanged labels.

    Raises
    ------
    InputError
        If there is only one image, or if there is no such data set.
    """
    if not isinstance(data, ConceptData):
        data = open_concepts(data)
    if len(data) < 2:
        raise InputError(f"{data.root}: one image only; labels can be exchanged among two or more")
    cycle = np.random.default_rng(seed).permutation(len(data))
    labels_from = np.empty_like(cycle)
    labels_from[cycle] = data.labels_from[np.roll(cycle, 1)]
    return dataclasses.replace(data, labels_from=labels_from)
