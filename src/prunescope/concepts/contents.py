"""List the files of a data set, and detect whether they may have changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from prunescope.concepts.index import Row
from prunescope.concepts.packed_file import PackedFile
from prunescope.concepts.problems import clean
from prunescope.concepts.tables import Tables, read_tables
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.fingerprints import HASHED
from prunescope.hashes import SAMPLED
from prunescope.listings import Listing, list_files, state_of


def list_concepts(directory: str | Path) -> tuple[Listing, Listing]:
    """List the files of a data set in Broden's format.

    Only the files that the data set is read from are listed. Missing files are left out.

    Returns
    -------
    Listing
        The images.
    Listing
        The tables and the label files.

    Raises
    ------
    InputError
        If there is no data set, or if its tables have a problem.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    names = ["index.csv", "category.csv", "label.csv", *(f"c_{category}.csv" for category in tables.categories)]
    # Several rows of the index may name the same file, which is listed once.
    layers = dict.fromkeys(f"images/{item}" for row in tables.rows for item in _labels(row.cells))
    images = dict.fromkeys(f"images/{row.name}" for row in tables.rows)
    below = f"{root}/"
    return list_files((name, below + name) for name in images), list_files(
        (name, below + name) for name in (*names, *layers)
    )


def list_packed(packed: PackedFile) -> Listing:
    """Return the listing of a packed copy, which is a single file."""
    return list_files([("packed/concepts.safetensors", str(packed.path))])


def digest_packed(packed: PackedFile) -> str:
    """Return 32 hexadecimal digits of a hash of the contents of a packed copy.

    The hash covers all labels and all images, or a sample of 1,000 images if there are more than 10,000. It does not
    cover the header, which identifies the state of the original files, including their time stamps: these change when
    the data set is copied or moved.
    """
    digest = hashlib.sha256(np.ascontiguousarray(packed.words).data)
    digest.update(np.ascontiguousarray(packed.spans).data)
    count = len(packed.images)
    if count <= HASHED:
        digest.update(np.ascontiguousarray(packed.images).data)
    else:
        for place in np.sort(np.random.default_rng(0).choice(count, SAMPLED, replace=False)):
            digest.update(np.ascontiguousarray(packed.images[place]).data)
    return digest.hexdigest()[:32]


def state_of_files(root: Path, tables: Tables) -> str:
    """Return a hash that changes whenever an image or its labels may have changed.

    A packed copy stores this hash, so that it can be compared with the current files. The hash covers the paths of the
    images and labels in the index, the size and the modification time (in nanoseconds) of each of these files, and the
    numbers in label.csv. It does not cover the names of concepts and the split, which are always read from the tables.
    The files are not opened, so that an edit that keeps both the size and the modification time is not detected.
    """
    digest = hashlib.sha256()
    for row in tables.rows:
        digest.update(repr((row.name, row.cells)).encode())
    digest.update(repr(tables.labels.index.tolist()).encode())
    images = f"{root}/images/"
    found = (state_of(images + item) for row in tables.rows for item in (row.name, *_labels(row.cells)))
    digest.update("\n".join(f"{state[0]} {state[1]}" if state else "" for state in found).encode())
    return digest.hexdigest()


def refuse_missing(root: Path, rows: Sequence[Row]) -> None:
    """Raise if an image or label file that the index names is missing. The files are not opened.

    Raises
    ------
    InputError
        If a file is missing. The message names the first one and the number of missing files.
    """
    named = (item for row in rows for item in (row.name, *_labels(row.cells)))
    missing = [item for item in named if state_of(f"{root}/images/{item}") is None]
    if missing:
        raise InputError(
            f"{root}/images/{missing[0]}: there is no such file, which index.csv names (missing in all: "
            f"{len(missing)}); `prunescope concepts check {root}` lists all that is wrong"
        )


def _labels(cells: tuple[str, ...]) -> Iterator[str]:
    """Yield the label files that a row of the index names, as paths relative to images/."""
    for cell in cells:
        # Most cells are empty, a number or a single file. Splitting only the lists makes this fast.
        if cell and not cell.isdigit():
            yield from (item for item in cell.split(";") if not item.isdigit()) if ";" in cell else (cell,)
