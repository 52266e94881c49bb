"""Which files hold a data set's images, labels and tables, and whether they may have changed."""

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
from prunescope.fingerprints import HASHED, SAMPLED, Listing, list_files, state_of


def list_concepts(directory: str | Path) -> tuple[Listing, Listing]:
    """List the files that a data set in Broden's format is read from: its images, then its labels with all tables.

    Other files in the folder do not count, and those that are missing are left out.

    Raises
    ------
    InputError
        There is no data set, or its tables have a problem.
    """
    root = expanded(directory).absolute()
    tables = clean(read_tables(root))
    names = ["index.csv", "category.csv", "label.csv", *(f"c_{category}.csv" for category in tables.categories)]
    # Several rows may name one file.
    layers = dict.fromkeys(f"images/{item}" for row in tables.rows for item in _labels(row.cells))
    images = dict.fromkeys(f"images/{row.name}" for row in tables.rows)
    below = f"{root}/"
    return list_files((name, below + name) for name in images), list_files(
        (name, below + name) for name in (*names, *layers)
    )


def list_packed(packed: PackedFile) -> Listing:
    """List a packed copy, which is one file."""
    return list_files([("packed/concepts.safetensors", str(packed.path))])


def digest_packed(packed: PackedFile) -> str:
    """Hash what a packed copy holds: all labels, and its images (a sample of 1,000 where there are over 10,000).

    The header is left out: it tells which state of the files the copy was made of, which differs after they were moved.
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
    """Return what changes whenever an image or its labels may have changed: what a packed copy is known by.

    It covers the images and labels that the index names, with each file's size and time of change (in nanoseconds),
    and the numbers of label.csv. Names of concepts and the split are not in it: they are read from the tables anyway.
    The files are not opened; an edit that keeps both the size and the time goes unnoticed.
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
    """See that the images and labels that an index names are there; they are not opened.

    Raises
    ------
    InputError
        The first that is missing, and how many are.
    """
    named = (item for row in rows for item in (row.name, *_labels(row.cells)))
    missing = [item for item in named if state_of(f"{root}/images/{item}") is None]
    if missing:
        raise InputError(
            f"{root}/images/{missing[0]}: there is no such file, which index.csv names (missing in all: "
            f"{len(missing)}); `prunescope concepts check {root}` lists all that is wrong"
        )


def _labels(cells: tuple[str, ...]) -> Iterator[str]:
    """Yield the files of labels that a row of the index names, within images/."""
    for cell in cells:
        # Most cells are empty, a number or one file; only lists need splitting.
        if cell and not cell.isdigit():
            yield from (item for item in cell.split(";") if not item.isdigit()) if ";" in cell else (cell,)
