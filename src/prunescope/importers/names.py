"""The names of concepts by number or by color, as files of several formats give them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.reading import read_json_value, read_text

# What data sets call the pixels that have no label.
VOID = frozenset({"", "background", "unlabeled", "unlabelled", "void", "ignore", "__background__"})
_EXPECTED = (
    "expected a CSV or tab-separated table with the columns number and name (or color and name), lines such as "
    '"12: dog", or JSON such as {"12": "dog"}; a color is written #rrggbb'
)
_NUMBER_COLUMNS = ("number", "index", "idx", "id", "value")
_COLOR = re.compile(r"#?([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
_LINE = re.compile(r"\s*(\d+|#[0-9a-fA-F]{6})\s*[:,\t ]\s*(\S.*?)\s*")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class Names:
    """The names of the values of masks; those in `VOID` stand for pixels without a label.

    Attributes
    ----------
    origin
        The file of the names, for messages.
    numbers
        The name of each number, or None if colors are named.
    colors
        The name of each color (red, green, blue), or None if numbers are named.
    """

    origin: str
    numbers: Mapping[int, str] | None
    colors: Mapping[Color, str] | None

    @property
    def concepts(self) -> list[str]:
        """The names of the concepts, in the order of the numbers that they are stored with, from 1."""
        return list(dict.fromkeys(name for name in self._all().values() if not is_void(name)))

    def stored(self) -> dict[Any, int]:
        """Return the number that each number or color is stored as; 0 stands for no label."""
        numbers = {name: number for number, name in enumerate(self.concepts, 1)}
        return {value: numbers.get(name, 0) for value, name in self._all().items()}

    def _all(self) -> Mapping[Any, str]:
        return self.numbers if self.numbers is not None else self.colors or {}


def is_void(name: str) -> bool:
    """Return whether a name stands for pixels without a label."""
    return name.strip().lower() in VOID


def read_names(given: str | Path | Mapping[Any, str]) -> Names:
    """Read names of concepts.

    Parameters
    ----------
    given
        A mapping from numbers or colors ("#rrggbb") to names, or the path of a file: a CSV or tab-separated table
        with a header, text with a number and a name on each line, or a JSON object.

    Raises
    ------
    InputError
        If the names cannot be read, or if a value is named twice.
    """
    if isinstance(given, Mapping):
        return _names("names", given.items())
    path = expanded(given)
    if path.suffix.lower() == ".json":
        content = read_json_value(path, _EXPECTED)
        if isinstance(content, list):
            content = dict(enumerate(content))
        if not isinstance(content, dict):
            raise InputError(f"{path}: is a {type(content).__name__}; {_EXPECTED}")
        return _names(str(path), content.items())
    text = read_text(path, _EXPECTED)
    return _names(str(path), _table(path, text) or _lines(path, text))


def _table(path: Path, text: str) -> list[tuple[str, str]]:
    """Return the values and names of a table with a header, or nothing if the text is none."""
    first = text.partition("\n")[0]
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in first else ","))
    except csv.Error as error:
        raise InputError(f"{path}: cannot be read as a table ({error}); {_EXPECTED}") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "name" not in header:
        return []
    name = header.index("name")
    value = next((header.index(column) for column in (*_NUMBER_COLUMNS, "color") if column in header), None)
    if value is None:
        return []
    return [(row[value].strip(), row[name].strip()) for row in rows[1:] if len(row) > max(name, value)]


def _lines(path: Path, text: str) -> list[tuple[str, str]]:
    found = []
    for at, line in enumerate(text.splitlines(), 1):
        if line.strip():
            match = _LINE.fullmatch(line)
            if match is None:
                raise InputError(f"{path}:{at}: {line.strip()!r} names no number or color; {_EXPECTED}")
            found.append((match[1], match[2]))
    return found


def _names(origin: str, pairs: Iterable[tuple[Any, Any]]) -> Names:
    numbers: dict[int, str] = {}
    colors: dict[Color, str] = {}
    for value, name in pairs:
        if not isinstance(name, str):
            raise InputError(f"{origin}: {value!r} is called {name!r}; expected a name")
        text = str(value).strip()
        if match := _COLOR.fullmatch(text) if text.startswith("#") else None:
            red, green, blue = (int(part, 16) for part in match.groups())
            _name_once(colors, (red, green, blue), name, origin, text)
        elif text.isascii() and text.isdigit():
            _name_once(numbers, int(text), name, origin, text)
        else:
            raise InputError(f"{origin}: {value!r} is neither a number nor a color; {_EXPECTED}")
    if bool(numbers) == bool(colors):
        what = "names both numbers and colors" if numbers else "contains no names"
        raise InputError(f"{origin}: {what}; {_EXPECTED}")
    return Names(origin, numbers or None, colors or None)


def _name_once(names: dict[Any, str], value: Any, name: str, origin: str, text: str) -> None:
    if names.setdefault(value, name.strip()) != name.strip():
        raise InputError(f"{origin}: {text} is called {names[value]!r} and {name.strip()!r}; keep one of the two")
