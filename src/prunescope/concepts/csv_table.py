"""Read CSV tables strictly, with the line number of every record."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunescope.concepts.problems import Problem, Reading
from prunescope.errors import nearest
from prunescope.files import read_file

# A cell with the number of a label.
NUMBER = re.compile(r" *[0-9]{1,9} *", re.ASCII)


@dataclass(frozen=True)
class CsvTable:
    """A table stored by column. All of its records have as many cells as the header."""

    numbers: list[int]  # the line number at which each record starts
    columns: dict[str, list[str]]

    def cells(self, name: str, absent: str = "") -> list[str]:
        """Return the cells of a column. If there is no such column, each cell is `absent`."""
        return self.columns.get(name) or [absent] * len(self.numbers)

    def lines(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """Iterate over the records: each is a tuple of its line number and its cells in the columns `names`."""
        return zip(self.numbers, *map(self.cells, names), strict=True)


def read_csv(path: Path, required: Sequence[str]) -> Reading[CsvTable | None]:
    """Read a table with a header, yielding its problems; return None if a `required` column is missing."""
    try:
        # The file is read as bytes, so that the line of a decoding error can be determined.
        raw = read_file(path)
    except OSError as error:
        yield Problem(path, None, f"cannot be read: {error.strerror}; expected a table of {', '.join(required)}")
        return None
    return (yield from parse_csv(path, raw, required))


def parse_csv(path: Path, raw: bytes, required: Sequence[str]) -> Reading[CsvTable | None]:
    """Parse the content of a file as `read_csv` does. The reported problems refer to `path`."""
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
    return CsvTable([numbers[at] for at in whole], dict(zip(columns, cells, strict=True)))
