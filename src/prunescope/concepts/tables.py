"""Read the CSV tables of a data set in Broden's format strictly. Problems are reported with file and line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from prunescope.concepts.csv_table import NUMBER, read_csv
from prunescope.concepts.index import FIXED, Row, folders_stay_inside, read_index
from prunescope.concepts.problems import Problem, Reading
from prunescope.errors import InputError, nearest

_MEMBERSHIP = re.compile(r"(?P<name>[^()]+?)\s*(?:\((?P<count>[0-9]+(?:\.[0-9]*)?)\))?")


@dataclass(frozen=True)
class Tables:
    """The contents of the tables of a data set; see `ConceptData` for the fields."""

    categories: tuple[str, ...]
    labels: pd.DataFrame
    rows: tuple[Row, ...]


def read_tables(root: Path) -> Reading[Tables]:
    """Read category.csv, label.csv, c_*.csv and index.csv in the folder `root`, yielding every problem.

    Raises
    ------
    InputError
        If there is no data set at all, because the folder or its index.csv does not exist.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder; expected a data set in Broden's format (a folder with index.csv, "
            "category.csv, label.csv and images/)"
        )
    if not (root / "index.csv").is_file():
        raise InputError(
            f"{root}: there is no index.csv in this folder; expected a data set in Broden's format. Give the folder "
            "with index.csv, or fetch one with `prunescope concepts download broden`"
        )
    categories = yield from _read_categories(root / "category.csv")
    coverage = {}
    for category in categories:
        coverage[category] = yield from _read_coverage(root / f"c_{category}.csv")
    labels = yield from _read_labels(root / "label.csv", categories, coverage)
    rows = yield from read_index(root / "index.csv", categories, labels.index)
    if not (root / "images").is_dir():
        yield Problem(root / "images", None, "there is no such folder; expected the images and their labels in it")
    yield from folders_stay_inside(root, rows)
    return Tables(categories, labels, rows)


def _read_categories(path: Path) -> Reading[tuple[str, ...]]:
    table = yield from read_csv(path, ["name"])
    if table is None:
        return ()
    names: dict[str, int] = {}
    for line, cell in table.lines("name"):
        name = cell.strip()
        if not name:
            yield Problem(path, line, "the category has no name; give it one or remove the line")
        elif re.search(r"[/\\;()\x00-\x1f]", name) or name in FIXED:
            # The name of a category is also a column of index.csv and part of a file name (c_NAME.csv).
            yield Problem(path, line, f"{name!r} cannot be a category's name; choose a plain word, like 'object'")
        elif name in names:
            yield Problem(path, line, f"the category {name!r} is on line {names[name]} already; keep one of them")
        else:
            names[name] = line
    if not table.numbers:
        yield Problem(path, 1, "there is no category; expected one on each line")
    return tuple(names)


def _read_coverage(path: Path) -> Reading[dict[int, float]]:
    """Return the coverage of each label of one category by its number, without those that are missing."""
    if not path.exists():
        return {}
    table = yield from read_csv(path, ["number"])
    if table is None:
        return {}
    coverage = {}
    for line, number, cell in table.lines("number", "coverage"):
        value = _float(cell) if cell.strip() else 0.0
        if not NUMBER.fullmatch(number):
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
    """Return the concepts as a table, by ascending number, with name, primary category and all categories."""
    lines: dict[int, int] = {}
    names, primaries, memberships = [], [], []
    table = yield from read_csv(path, ["number", "name", "category"])
    for line, cell, name, kinds in () if table is None else table.lines("number", "name", "category"):
        if not NUMBER.fullmatch(cell) or int(cell) == 0:
            yield Problem(path, line, f"the number {cell!r} is not 1, 2, 3, ... (0 stands for no label)")
            continue
        number = int(cell)
        if number in lines:
            yield Problem(path, line, f"the number {number} is on line {lines[number]} already; change one of them")
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
    labels = pd.DataFrame(
        {
            "name": pd.Series(names, dtype=object),
            "category": pd.Series(primaries, dtype=object),
            "categories": pd.Series(memberships, dtype=object),
        }
    ).set_index(pd.Index(list(lines), name="number", dtype="int64"))
    return labels.sort_index()


def _memberships(path: Path, line: int, cell: str, known: tuple[str, ...]) -> Reading[dict[str, float | None]]:
    """Parse a cell such as `object(18);material(18)`; return a label's categories with their counts or None."""
    counts: dict[str, float | None] = {}
    for item in cell.split(";"):
        match = _MEMBERSHIP.fullmatch(item.strip())
        if match is None:
            yield Problem(path, line, f"the category {cell!r} is malformed; expected one like 'object(18);material(7)'")
        elif match["name"] not in known:
            message = f"the category {match['name']!r} is not in category.csv; {nearest(match['name'], known)}"
            yield Problem(path, line, message)
        elif match["name"] in counts:
            yield Problem(path, line, f"the category {match['name']!r} is there twice in {cell!r}; keep one of them")
        else:
            counts[match["name"]] = float(match["count"]) if match["count"] else None
    return counts


def _primary(counts: Mapping[str, float | None], coverage: Mapping[str, float | None]) -> str:
    """Return the primary category of a label, which is the one in which it has the largest coverage.

    If the coverage in one of the categories is unknown, the numbers of images are compared instead; they also decide
    if the coverages are equal. If the categories are still equal, the first one is returned.
    """
    weights: Iterable[Mapping[str, float | None]] = (coverage, counts)
    known = [weight for weight in weights if all(weight[kind] is not None for kind in counts)]
    return max(counts, key=lambda kind: [weight[kind] or 0.0 for weight in known], default="")
