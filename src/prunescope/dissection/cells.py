"""Read published CSV tables and check that the values of their cells are possible."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, cast

import pandas as pd

from prunescope.concepts.csv_table import parse_csv
from prunescope.concepts.problems import collect
from prunescope.errors import InputError

MOST_BYTES = 1 << 28
MOST = 2**53  # Up to here, float64 represents every whole number exactly.
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?", re.ASCII)
_SHOWN = 40


@dataclass(frozen=True)
class Sheet:
    """A table of text cells that knows the line of the file that each row came from.

    Attributes
    ----------
    path
        The file that the table was read from.
    table
        The cells as text, with the columns of the file and rows indexed from 0.
    lines
        The line number in the file of each row, counted from 1.
    """

    path: Path
    table: pd.DataFrame
    lines: list[int]

    @classmethod
    def read(cls, path: Path, what: str) -> Sheet:
        """Read a CSV file, which may be compressed (.gz, .bz2, .xz, .zip).

        Parameters
        ----------
        path
            The file.
        what
            A description of the expected table, used in error messages.

        Raises
        ------
        InputError
            If the file does not exist, cannot be read or decompressed, has more than `MOST_BYTES` bytes of content, or
            is not a CSV table.
        """
        if not path.is_file():
            raise InputError(f"{path}: this file does not exist; expected a {what}")
        found, problems = collect(parse_csv(path, _content(path, what), ()))
        if problems:
            problem = problems[0]
            line = "" if problem.line is None else f", line {problem.line}"
            raise InputError(f"{path}{line}: cannot be read as a {what}: {problem.message}")
        assert found is not None
        return cls(path, pd.DataFrame(found.columns, dtype=str), found.numbers)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.table.columns)

    def where(self, row: int, column: str) -> str:
        """Return a text that names a cell by its file, line and column, and shows its value."""
        cell = self.table[column].iloc[row]
        shown = cell if len(cell) <= _SHOWN else f"{cell[:_SHOWN]}..."
        return f"{self.path}, line {self.lines[row]}: {column} is {shown!r}"

    def refuse(self, row: int, column: str, expected: str) -> NoReturn:
        """Raise an error about the value of one cell.

        Raises
        ------
        InputError
            Always. The message names the file, line, column and value, and what was expected.
        """
        raise InputError(f"{self.where(row, column)}, expected {expected}")

    def counts(self, column: str, least: int = 0) -> pd.Series[int]:
        """Return a column of whole numbers.

        Raises
        ------
        InputError
            If a cell is not a whole number from `least` to `MOST`.
        """
        values = self._numbers(column)
        bad = ~((values >= least) & (values <= MOST) & (values % 1 == 0))
        return self._checked(column, values, bad, f"a whole number of at least {least}").astype("int64")

    def fractions(self, column: str) -> pd.Series[float]:
        """Return a column of numbers from 0 to 1.

        Raises
        ------
        InputError
            If a cell is not a number from 0 to 1.
        """
        values = self._numbers(column)
        return self._checked(column, values, ~((values >= 0) & (values <= 1)), "a number from 0 to 1").astype("float64")

    def _numbers(self, column: str) -> pd.Series[float]:
        cells = self.table[column].str.strip(" ")
        plain = cells.map(lambda cell: _NUMBER.fullmatch(cell) is not None).astype(bool)
        # Python reads 1e999 as infinity, which the bounds refuse, while some versions of pandas raise an error.
        return self._checked(column, cells.where(plain, "0").map(float), ~plain, "a number")

    def _checked(self, column: str, values: pd.Series[float], bad: pd.Series[bool], expected: str) -> pd.Series[float]:
        if bad.any():
            self.refuse(int(bad.to_numpy().argmax()), column, expected)
        return values


def _content(path: Path, what: str) -> bytes:
    """Read a whole file and decompress it according to its file name extension."""
    opening = cast("dict[str, Callable[[Path], IO[bytes]]]", {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open})
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise InputError(f"{path}: contains {len(names)} files; expected a single one, a {what}")
                with archive.open(names[0]) as file:
                    content = file.read(MOST_BYTES + 1)
        else:
            with opening.get(path.suffix, _open)(path) as file:
                content = file.read(MOST_BYTES + 1)
    except InputError:
        raise
    except (zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path}: cannot be decompressed ({error}); expected a {what}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); expected a {what}") from error
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: contains more than {MOST_BYTES:,} bytes; expected a {what}")
    return content


def _open(path: Path) -> IO[bytes]:
    """Open a file that is not compressed."""
    return path.open("rb")
