"""Read index.csv, which lists the images of a data set in Broden's format and the labels of each image."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from prunescope.concepts.csv_table import NUMBER, read_csv
from prunescope.concepts.problems import Problem, Reading
from prunescope.errors import nearest
from prunescope.images import MOST_PIXELS

# The columns of index.csv other than those of the categories.
FIXED = ("image", "split", "ih", "iw", "sh", "sw")
# An optional column, unless a category has this name.
GROUP = "group"
_LENGTH = re.compile(r" *0*[1-9][0-9]{0,4} *", re.ASCII)
_PLAIN = re.compile(r"[\w-]+(?:[./][\w-]+)*\.png(?:;[\w-]+(?:[./][\w-]+)*\.png)*", re.ASCII)


class Size(NamedTuple):
    """The height and width of an image (ih, iw) and of its labels (sh, sw) according to the index, in pixels."""

    ih: int
    iw: int
    sh: int
    sw: int


class Row(NamedTuple):
    """One image of the index, with the usable parts of its line."""

    line: int
    name: str  # path relative to images/, or "" if the path cannot be used
    split: str
    size: Size | None  # None if the size cannot be used
    cells: tuple[str, ...]  # one cell for each category, without the items that cannot be used
    group: str = ""  # images with the same text belong together; "" for an image that belongs to no other


def read_index(path: Path, categories: tuple[str, ...], numbers: Iterable[int]) -> Reading[tuple[Row, ...]]:
    """Read index.csv, yielding every problem.

    `categories` are the names in category.csv, and `numbers` are the label numbers in label.csv.
    """
    table = yield from read_csv(path, ["image", *Size._fields])
    if table is None:
        return ()
    for name in table.columns:
        if name not in (*FIXED, GROUP) and name not in categories:
            yield Problem(path, 1, f"the column {name!r} is not in category.csv; {nearest(name, categories)}")
    for name in categories:
        if name not in table.columns:
            yield Problem(path, 1, f"there is no column for the category {name!r} of category.csv; add one")
    if not table.numbers:
        yield Problem(path, 1, "there is no image; expected one on each line")
    lines = table.numbers
    names = yield from _usable_names(path, lines, table.cells("image"))
    splits = [split.strip() for split in table.cells("split", "train")]
    for line, split in zip(lines, splits, strict=True):
        if not split:
            yield Problem(path, line, "the split is empty; expected a word, such as train or val")
    sizes = yield from _uniform_sizes(path, lines, [table.cells(name) for name in Size._fields])
    known = {"", "0", *map(str, numbers)}
    columns = []
    for category in categories:
        cells = table.cells(category, "")
        for at, cell in enumerate(cells):
            # Nearly all cells are empty, a number or a list of plain paths. Recognising these first makes opening fast.
            if cell not in known and not _PLAIN.fullmatch(cell):
                cells[at] = yield from _usable_items(path, lines[at], cell, known)
        columns.append(cells)
    by_image = zip(*columns, strict=True) if columns else ((),) * len(lines)
    groups = [""] * len(lines) if GROUP in categories else [cell.strip() for cell in table.cells(GROUP)]
    return tuple(map(Row._make, zip(lines, names, splits, sizes, by_image, groups, strict=True)))


def _usable_names(path: Path, lines: Sequence[int], names: Sequence[str]) -> Reading[list[str]]:
    """Return the paths of the images in normalised form, with "" in place of paths that cannot be used.

    Different paths of the same image (0.png, ./0.png or a link to it) are reported as duplicates.
    """
    folder = str(path.with_name("images"))
    folders: dict[str, str] = {}  # the resolved path of each folder, cached because there are only a few
    first: dict[str, tuple[int, str]] = {}
    usable = []
    for line, name in zip(lines, names, strict=True):
        if reason := path_problem(name):
            yield Problem(path, line, f"the image's path {name!r} {reason}; expected a path below images/")
            usable.append("")
            continue
        short = posixpath.normpath(name) if "//" in name or "." in name.split("/") else name
        head, _, tail = short.rpartition("/")
        if head not in folders:
            folders[head] = os.path.realpath(f"{folder}/{head}")
        file = f"{folders[head]}/{tail}"
        if os.path.islink(file):  # noqa: PTH114 - there can be hundreds of thousands, and creating Paths is slow
            file = os.path.realpath(file)
        known, other = first.setdefault(file, (line, name))
        if known != line:
            alias = f" as {other!r}" if other != name else ""
            yield Problem(path, line, f"the image {name!r} is on line {known} already{alias}; keep one of them")
        usable.append(short)
    return usable


def _uniform_sizes(path: Path, lines: Sequence[int], columns: Sequence[Sequence[str]]) -> Reading[list[Size | None]]:
    """Return the size in each line, or None where it cannot be used. Sizes that differ are reported as problems."""
    parsed: dict[tuple[str, ...], Size | None] = {}
    expected: tuple[Size, int] | None = None
    sizes = []
    for line, texts in zip(lines, zip(*columns, strict=True), strict=True):
        if texts not in parsed:
            parsed[texts] = Size(*map(int, texts)) if all(map(_LENGTH.fullmatch, texts)) else None
        size = parsed[texts]
        if size is None:
            yield Problem(path, line, f"ih,iw,sh,sw are {','.join(texts)!r}; expected four positive numbers of pixels")
        elif max(size.ih * size.iw, size.sh * size.sw) > MOST_PIXELS:
            message = f"ih,iw,sh,sw are {','.join(texts)}; images and labels may have at most {MOST_PIXELS} pixels each"
            yield Problem(path, line, f"{message}; give smaller ones")
            size = None
        elif expected is None:
            expected = (size, line)
        elif size != expected[0]:
            first = f"{','.join(map(str, expected[0]))} on line {expected[1]}"
            yield Problem(path, line, f"ih,iw,sh,sw are {','.join(texts)}, but {first}; expected one size for all")
        sizes.append(size)
    return sizes


def _usable_items(path: Path, line: int, cell: str, known: set[str]) -> Reading[str]:
    """Return the cell without the items that cannot be used, yielding a problem for each of these."""
    usable = []
    for item in cell.split(";"):
        if NUMBER.fullmatch(item):
            if str(int(item)) in known:
                usable.append(str(int(item)))
            else:
                yield Problem(
                    path, line, f"label {item} is not in label.csv; add it there or correct the cell {cell!r}"
                )
        elif not item.lower().endswith(".png"):
            what = "neither a label's number nor the path of a PNG"
            yield Problem(path, line, f"{item!r} in the cell {cell!r} is {what}; expected these, separated by ;")
        elif reason := path_problem(item):
            yield Problem(path, line, f"the path {item!r} {reason}; expected a path below images/")
        else:
            usable.append(item)
    return ";".join(usable)


def path_problem(path: str) -> str | None:
    """Return the reason why a path of the index cannot be used, or None if it can."""
    if not path:
        return "is empty"
    if ".." in path and ".." in path.split("/"):
        short = posixpath.normpath(path)
        leaves = short.startswith(("..", "/"))
        return "leaves the folder" if leaves else f"goes back up with .. (write {short!r})"
    if path[0] == "/" or path[1:2] == ":":
        return "is absolute"
    if "\\" in path:
        return "has a backslash in it (write /)"
    return None if path.isprintable() else "has an unprintable character in it"


def folders_stay_inside(root: Path, rows: Sequence[Row]) -> Reading[None]:
    """Yield a problem for each folder that is a link to a place outside the data set.

    Links to single files are checked when the files are read.
    """
    # Each cell is cut after its last slash before it is split into paths. Because few distinct cells remain, this is
    # fast. The paths before the last one are still complete, and are cut after they are split.
    heads = {cell[: cell.rfind("/") + 1] for row in rows for cell in (row.name, *row.cells) if cell}
    folders = {item[: item.rfind("/") + 1] for head in heads for item in head.split(";")} | {""}
    inside = root.resolve()
    for folder in sorted(folders):
        if not Path(os.path.realpath(root / "images" / folder)).is_relative_to(inside):
            line = next(row.line for row in rows if any(folder in cell for cell in (row.name, *row.cells)))
            message = f"images/{folder} is a link that leaves the folder; copy what it points to into the data set"
            yield Problem(root / "index.csv", line, message)
