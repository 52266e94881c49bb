"""The CSV tables of a data set in Broden's format, read strictly: every problem has a file and a line."""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from prunescope.concepts.problems import Problem, Reading
from prunescope.errors import InputError, nearest

_FIXED = ("image", "split", "ih", "iw", "sh", "sw")
_NUMBER = re.compile(r" *[0-9]{1,9} *", re.ASCII)
_LENGTH = re.compile(r" *0*[1-9][0-9]{0,4} *", re.ASCII)
_PLAIN = re.compile(r"[\w-]+(?:[./][\w-]+)*\.png(?:;[\w-]+(?:[./][\w-]+)*\.png)*", re.ASCII)
_MEMBERSHIP = re.compile(r"(?P<name>[^()]+?)\s*(?:\((?P<count>[0-9]+(?:\.[0-9]*)?)\))?")


class Size(NamedTuple):
    """What the index says of an image's size and of its labels' size, in pixels."""

    ih: int
    iw: int
    sh: int
    sw: int


class Row(NamedTuple):
    """One image of the index: what could be used of its line."""

    line: int
    name: str  # "" if the path cannot be used
    split: str
    size: Size | None  # None if it cannot be read
    cells: tuple[str, ...]  # one per category, without the items that cannot be used


@dataclass(frozen=True)
class Tables:
    """The tables of a data set."""

    categories: tuple[str, ...]
    labels: pd.DataFrame
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Csv:
    numbers: list[int]  # the lines that the records start on
    columns: dict[str, list[str]]

    def cells(self, name: str, absent: str = "") -> list[str]:
        """Return a column's cells, all `absent` where there is no such column."""
        return self.columns.get(name) or [absent] * len(self.numbers)

    def lines(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Go through the table: each line's number and its cells in the columns `names`."""
        return zip(self.numbers, *map(self.cells, names), strict=True)


def read_tables(root: Path) -> Reading[Tables]:
    """Read category.csv, label.csv, c_*.csv and index.csv below `root`, yielding every problem.

    Raises
    ------
    InputError
        There is no data set at all: no such folder, or no index.csv in it.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder; expected a data set in Broden's format (a folder with index.csv, "
            "category.csv, label.csv and images/)"
        )
    if not (root / "index.csv").is_file():
        raise InputError(
            f"{root}: no index.csv in this folder; expected a data set in Broden's format. Give the folder that holds "
            "index.csv, or fetch one with `prunescope concepts download broden`"
        )
    categories = yield from _read_categories(root / "category.csv")
    coverage = {}
    for category in categories:
        coverage[category] = yield from _read_coverage(root / f"c_{category}.csv")
    labels = yield from _read_labels(root / "label.csv", categories, coverage)
    rows = yield from _read_index(root / "index.csv", categories, labels.index)
    if not (root / "images").is_dir():
        yield Problem(root / "images", None, "there is no such folder; expected the images and their labels in it")
    yield from _folders_stay_inside(root, rows)
    return Tables(categories, labels, rows)


def _read_csv(path: Path, required: Sequence[str]) -> Reading[_Csv | None]:
    """Read a table with a header; None if there is no table with the `required` columns in the file."""
    try:
        # Bytes first: a decoding error can then be given its line.
        raw = path.read_bytes()
    except OSError as error:
        yield Problem(path, None, f"cannot be read: {error.strerror}; expected a table of {', '.join(required)}")
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        yield Problem(path, line, f"byte {raw[error.start]:#04x} is not UTF-8; save the table as UTF-8")
        return None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    numbers: list[int] = []
    records: list[list[str]] = []
    start = 1
    try:
        for record in reader:
            if record:
                numbers.append(start)
                records.append(record)
            start = reader.line_num + 1
    except csv.Error as error:
        yield Problem(path, start, f"this is not a line of a CSV table ({error}); look for a stray quote")
    if not records:
        yield Problem(path, 1, f"the table is empty; expected a header with {', '.join(required)}")
        return None
    columns = tuple(name.strip() for name in records[0])
    repeated = sorted({name for name in columns if columns.count(name) > 1})
    missing = [name for name in required if name not in columns]
    for name in repeated:
        yield Problem(path, numbers[0], f"the column {name!r} is there more than once; keep one of them")
    for name in missing:
        yield Problem(path, numbers[0], f"there is no column {name!r}; {nearest(name, columns)}")
    if repeated or missing:
        return None
    whole = [at for at in range(1, len(records)) if len(records[at]) == len(columns)]
    for at in sorted(set(range(1, len(records))).difference(whole)):
        found = f"{len(records[at])} cells"
        yield Problem(path, numbers[at], f"{found}; expected {len(columns)}, one for each column of the header")
    cells = map(list, zip(*(records[at] for at in whole), strict=True)) if whole else ([] for _ in columns)
    return _Csv([numbers[at] for at in whole], dict(zip(columns, cells, strict=True)))


def _read_categories(path: Path) -> Reading[tuple[str, ...]]:
    table = yield from _read_csv(path, ["name"])
    if table is None:
        return ()
    names: dict[str, int] = {}
    for line, cell in table.lines("name"):
        name = cell.strip()
        if not name:
            yield Problem(path, line, "the category has no name; give it one or remove the line")
        elif re.search(r"[/\\;()\x00-\x1f]", name) or name in _FIXED:
            # The name is a column of the index and a part of a file's name (c_NAME.csv).
            yield Problem(path, line, f"{name!r} cannot be a category's name; choose a plain word, like 'object'")
        elif name in names:
            yield Problem(path, line, f"the category {name!r} is on line {names[name]} already; keep one of them")
        else:
            names[name] = line
    if not table.numbers:
        yield Problem(path, 1, "there is no category; expected one on each line")
    return tuple(names)


def _read_coverage(path: Path) -> Reading[dict[int, float]]:
    """Read how much each label of one category covers; nothing where the file or a number is missing."""
    if not path.exists():
        return {}
    table = yield from _read_csv(path, ["number"])
    if table is None:
        return {}
    coverage = {}
    for line, number, cell in table.lines("number", "coverage"):
        value = _float(cell) if cell.strip() else 0.0
        if not _NUMBER.fullmatch(number):
            yield Problem(path, line, f"the number {number!r} is not a label's number; expected one like 12")
        elif value is None:
            yield Problem(path, line, f"the coverage {cell!r} is not a number; expected one like 3.5, or nothing")
        elif cell.strip():
            coverage[int(number)] = value
    return coverage


def _float(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _read_labels(
    path: Path, categories: tuple[str, ...], coverage: Mapping[str, Mapping[int, float]]
) -> Reading[pd.DataFrame]:
    """Read the concepts: a table by number with name, primary category and all categories."""
    lines: dict[int, int] = {}
    names, primaries, memberships = [], [], []
    table = yield from _read_csv(path, ["number", "name", "category"])
    for line, cell, name, kinds in () if table is None else table.lines("number", "name", "category"):
        if not _NUMBER.fullmatch(cell) or int(cell) == 0:
            yield Problem(path, line, f"the number {cell!r} is not 1, 2, 3, ... (0 stands for no label)")
            continue
        number = int(cell)
        if number in lines:
            yield Problem(path, line, f"the number {number} is on line {lines[number]} already; give one another")
            continue
        counts = yield from _memberships(path, line, kinds, categories)
        if not name.strip():
            yield Problem(path, line, f"label {number} has no name; give it one")
        lines[number] = line
        names.append(name.strip())
        memberships.append(tuple(counts))
        primaries.append(_primary(counts, {kind: coverage[kind].get(number) for kind in counts}))
    if table is not None and not table.numbers:
        yield Problem(path, 1, "there is no label; expected one on each line")
    for category, covered in coverage.items():
        for number in covered if table is not None else ():
            if number not in lines:
                message = f"label {number} is not in label.csv; add it there or remove it here"
                yield Problem(path.with_name(f"c_{category}.csv"), None, message)
    return pd.DataFrame(
        {
            "name": pd.Series(names, dtype=object),
            "category": pd.Series(primaries, dtype=object),
            "categories": pd.Series(memberships, dtype=object),
        }
    ).set_index(pd.Index(list(lines), name="number", dtype="int64"))


def _memberships(path: Path, line: int, cell: str, known: tuple[str, ...]) -> Reading[dict[str, float | None]]:
    """Read a cell such as `object(18);material(18)`: the categories of a label, with counts where they are given."""
    counts: dict[str, float | None] = {}
    for item in cell.split(";"):
        match = _MEMBERSHIP.fullmatch(item.strip())
        if match is None:
            yield Problem(path, line, f"the category {cell!r} is malformed; expected one like 'object(18);material(7)'")
        elif match["name"] not in known:
            message = f"the category {match['name']!r} is not in category.csv; {nearest(match['name'], known)}"
            yield Problem(path, line, message)
        else:
            counts[match["name"]] = float(match["count"]) if match["count"] else None
    return counts


def _primary(counts: Mapping[str, float | None], coverage: Mapping[str, float | None]) -> str:
    """Choose the category in which a label covers most; by images where coverage is unknown; the first of equals."""
    weights: Iterable[Mapping[str, float | None]] = (coverage, counts)
    known = [weight for weight in weights if all(weight[kind] is not None for kind in counts)]
    return max(counts, key=lambda kind: [weight[kind] or 0.0 for weight in known], default="")


def _read_index(path: Path, categories: tuple[str, ...], numbers: Iterable[int]) -> Reading[tuple[Row, ...]]:
    table = yield from _read_csv(path, ["image", *Size._fields])
    if table is None:
        return ()
    for name in table.columns:
        if name not in _FIXED and name not in categories:
            yield Problem(path, 1, f"the column {name!r} is not in category.csv; {nearest(name, categories)}")
    for name in categories:
        if name not in table.columns:
            yield Problem(path, 1, f"there is no column for the category {name!r} of category.csv; add one")
    if not table.numbers:
        yield Problem(path, 1, "there is no image; expected one on each line")
    lines = table.numbers
    names = yield from _usable_names(path, lines, table.cells("image"))
    splits = table.cells("split", "train")
    for line, split in zip(lines, splits, strict=True):
        if not split.strip():
            yield Problem(path, line, "the split is empty; expected a word, such as train or val")
    sizes = yield from _uniform_sizes(path, lines, [table.cells(name) for name in Size._fields])
    known = {"", "0", *map(str, numbers)}
    columns = []
    for category in categories:
        cells = table.cells(category, "")
        for at, cell in enumerate(cells):
            # Nearly every cell is empty, a number or a list of plain paths: told at once, for opening to be quick.
            if cell not in known and not _PLAIN.fullmatch(cell):
                cells[at] = yield from _usable_items(path, lines[at], cell, known)
        columns.append(cells)
    by_image = zip(*columns, strict=True) if columns else ((),) * len(lines)
    return tuple(map(Row._make, zip(lines, names, splits, sizes, by_image, strict=True)))


def _usable_names(path: Path, lines: Sequence[int], names: Sequence[str]) -> Reading[list[str]]:
    """Return the images' paths, "" for those that cannot be used."""
    first: dict[str, int] = {}
    usable = []
    for line, name in zip(lines, names, strict=True):
        if reason := _unusable(name):
            yield Problem(path, line, f"the image's path {name!r} {reason}; expected one below images/")
        elif (known := first.setdefault(name, line)) != line:
            yield Problem(path, line, f"the image {name!r} is on line {known} already; keep one of them")
        usable.append("" if reason else name)
    return usable


def _uniform_sizes(path: Path, lines: Sequence[int], columns: Sequence[Sequence[str]]) -> Reading[list[Size | None]]:
    """Return the sizes line by line, None where there is none."""
    parsed: dict[tuple[str, ...], Size | None] = {}
    expected: tuple[Size, int] | None = None
    sizes = []
    for line, texts in zip(lines, zip(*columns, strict=True), strict=True):
        if texts not in parsed:
            parsed[texts] = Size(*map(int, texts)) if all(map(_LENGTH.fullmatch, texts)) else None
        size = parsed[texts]
        if size is None:
            yield Problem(path, line, f"ih,iw,sh,sw are {','.join(texts)!r}; expected four positive numbers of pixels")
        elif expected is None:
            expected = (size, line)
        elif size != expected[0]:
            first = f"{','.join(map(str, expected[0]))} on line {expected[1]}"
            yield Problem(path, line, f"ih,iw,sh,sw are {','.join(texts)}, but {first}; expected one size for all")
        sizes.append(size)
    return sizes


def _usable_items(path: Path, line: int, cell: str, known: set[str]) -> Reading[str]:
    """Return the cell without the items that cannot be used."""
    usable = []
    for item in cell.split(";"):
        if _NUMBER.fullmatch(item):
            if str(int(item)) in known:
                usable.append(str(int(item)))
            else:
                yield Problem(
                    path, line, f"label {item} is not in label.csv; add it there or correct the cell {cell!r}"
                )
        elif not item.lower().endswith(".png"):
            what = "neither a label's number nor the path of a PNG"
            yield Problem(path, line, f"{item!r} in the cell {cell!r} is {what}; expected such, separated by ;")
        elif reason := _unusable(item):
            yield Problem(path, line, f"the path {item!r} {reason}; expected one below images/")
        else:
            usable.append(item)
    return ";".join(usable)


def _unusable(path: str) -> str | None:
    """Say why a path of the index cannot be used; None if it can."""
    if not path:
        return "is empty"
    if ".." in path and ".." in path.split("/"):
        return "leaves the folder"
    if path[0] == "/" or path[1:2] == ":":
        return "is absolute"
    if "\\" in path:
        return "has a backslash in it (write /)"
    return None if path.isprintable() else "has an unprintable character in it"


def _folders_stay_inside(root: Path, rows: Sequence[Row]) -> Reading[None]:
    """Refuse folders that are links to somewhere else; single files are looked at when they are read."""
    # A cell up to its last / is a folder, after further paths if it has several: few distinct ones remain to be split.
    heads = {cell[: cell.rfind("/") + 1] for row in rows for cell in (row.name, *row.cells) if cell}
    folders = {item[: item.rfind("/") + 1] for head in heads for item in head.split(";")} | {""}
    inside = root.resolve()
    for folder in sorted(folders):
        if not Path(os.path.realpath(root / "images" / folder)).is_relative_to(inside):
            line = next(row.line for row in rows if any(folder in cell for cell in (row.name, *row.cells)))
            message = f"images/{folder} is a link that leaves the folder; copy what it points to into the data set"
            yield Problem(root / "index.csv", line, message)
