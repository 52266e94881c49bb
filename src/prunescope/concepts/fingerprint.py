"""What state a data set's files are in, told without reading them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunescope.concepts.index import Row
from prunescope.concepts.tables import Tables
from prunescope.errors import InputError


def fingerprint(root: Path, tables: Tables) -> str:
    """Return what changes whenever an image or its labels may have changed.

    It covers the images and labels that the index names, with each file's size and time of change (in nanoseconds),
    and the numbers of label.csv. Names of concepts and the split are not in it: they are read from the tables anyway.
    The files are not opened; an edit that keeps both the size and the time goes unnoticed.
    """
    digest = hashlib.sha256()
    for row in tables.rows:
        digest.update(repr((row.name, row.cells)).encode())
    digest.update(repr(tables.labels.index.tolist()).encode())
    images = f"{root}/images/"
    states = [_state(images + item) for row in tables.rows for item in _files(row.name, row.cells)]
    digest.update("\n".join(states).encode())
    return digest.hexdigest()


def refuse_missing(root: Path, rows: Sequence[Row]) -> None:
    """See that the images and labels that an index names are there; they are not opened.

    Raises
    ------
    InputError
        The first that is missing, and how many are.
    """
    missing = [item for row in rows for item in _files(row.name, row.cells) if not _state(f"{root}/images/{item}")]
    if missing:
        raise InputError(
            f"{root}/images/{missing[0]}: there is no such file, which index.csv names (missing in all: "
            f"{len(missing)}); `prunescope concepts check {root}` lists all that is wrong"
        )


def _files(name: str, cells: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that a row of the index names, within images/."""
    yield name
    for cell in cells:
        # Most cells are empty, a number or one file; only lists need splitting.
        if cell and not cell.isdigit():
            yield from (item for item in cell.split(";") if not item.isdigit()) if ";" in cell else (cell,)


def _state(path: str) -> str:
    """Return a file's size and time of change, nothing if there is no such file."""
    try:
        # Not a Path: making one takes longer than asking for the file's state, and there are hundreds of thousands.
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
