"""Images with labelled concepts in Broden's format (Bau et al. 2017, section 2.1): tables at once, pixels on demand."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.concepts.contents import state_of_files
from prunescope.concepts.index import Row
from prunescope.concepts.packed_file import Layout, PackedFile, open_packed, packed_path
from prunescope.concepts.pixels import ImageLabels, read_image, read_labels
from prunescope.concepts.problems import clean
from prunescope.concepts.tables import Tables, read_tables
from prunescope.errors import InputError
from prunescope.files import expanded


@dataclass(frozen=True, eq=False)
class ConceptData:
    """A data set in Broden's format, read lazily; it can be pickled and used from many processes.

    Attributes
    ----------
    root : Path
        The folder, absolute.
    categories : tuple of str
        In category.csv's order.
    names, splits : tuple of str
        The index's image and split columns, in index order.
    image_size, label_size : tuple of int
        Height and width of the images (ih, iw) and of their labels (sh, sw), in pixels.
    labels : DataFrame
        The concepts by ascending number, with `name`, `category` (the primary one: that in which the concept covers
        most) and `categories` (all of them).
    rows : tuple of Row
        The index as read.
    labels_from : int64 array [images]
        Whose labels each image is held against: its own, unless the data are permuted.
    packed : PackedFile or None
        The packed copy that images and labels are read from, if there is one.
    """

    root: Path
    categories: tuple[str, ...]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    labels: pd.DataFrame
    rows: tuple[Row, ...]
    labels_from: np.ndarray
    packed: PackedFile | None

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, i: int) -> np.ndarray:
        """Read image `i` as uint8 [ih, iw, 3] in RGB.

        Raises
        ------
        InputError
            The file is missing, damaged or of another size than the index says.
        """
        if self.packed is not None:
            return self.packed.image(i)
        return clean(read_image(self.root, self.rows[i]))

    def image_labels(self, i: int) -> ImageLabels:
        """Read what is labelled on image `i`.

        Raises
        ------
        InputError
            A layer is missing, damaged or of another size than the index says, or has numbers nobody defines.
        """
        if self.packed is not None:
            return self.packed.labels(self.labels_from[i])
        return clean(read_labels(self.root, self.rows[self.labels_from[i]], self.labels.index.to_numpy()))


def open_concepts(directory: str | Path) -> ConceptData:
    """Open a data set in Broden's format; the tables are validated now, the images when they are read.

    Where `pack_concepts` has made a packed copy, images and labels are read from it. Should the files have changed
    since, which is looked for now and not again, or should the copy's header be damaged or be of another version, a
    warning says so and the files themselves are read. Damage to an image or its labels is an `InputError` when they
    are read.

    Parameters
    ----------
    directory : str or Path
        The folder with index.csv, category.csv, label.csv, optionally c_CATEGORY.csv, and images/.

    Raises
    ------
    InputError
        Naming the first problem of the tables with its file and line, and how many more there are.
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


def as_concepts(given: ConceptData | str | Path) -> ConceptData:
    """Return a data set that is open, or open the one in a folder."""
    return given if isinstance(given, ConceptData) else open_concepts(given)


def permuted(data: ConceptData | str | Path, seed: int) -> ConceptData:
    """Hold every image against another image's labels: what a network detects then, it detects by chance.

    The labels go round one random cycle through all images, so that none keeps its own.

    Parameters
    ----------
    data : ConceptData or path
        At least two images.
    seed : int
        The same seed gives the same exchange.

    Raises
    ------
    InputError
        There is only one image, or there is no such data set.
    """
    data = as_concepts(data)
    if len(data) < 2:
        raise InputError(f"{data.root}: one image only; labels can be exchanged among two or more")
    cycle = np.random.default_rng(seed).permutation(len(data))
    labels_from = np.empty_like(cycle)
    labels_from[cycle] = np.roll(cycle, 1)
    return dataclasses.replace(data, labels_from=labels_from)
