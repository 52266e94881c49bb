"""Read YAML from untrusted sources into plain values of limited size."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000
MOST_BITS = 256
DEEPEST = 100
_NESTED = "a value contains itself or is nested too deeply; write it without aliases"


class UnreadableError(Exception):
    """Raised if a text is not valid YAML or contains a value that cannot be read.

    Attributes
    ----------
    line
        The line of the problem, counted from 1, or None if it is not known.
    """

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def loaded(text: str) -> Any:
    """Parse a YAML document into plain values.

    Raises
    ------
    UnreadableError
        If the text is not valid YAML, if a value is impossible (such as the date 2001-99-99) or an integer has more
        than 256 bits, or if aliases make a value contain itself or the document hold more than 100,000 values.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check(node, yaml.SafeLoader(""), 0, 0)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or error
        raise UnreadableError(f"this is not valid YAML: {reason}", mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise UnreadableError(_NESTED, None) from error


def _check(node: yaml.Node, loader: yaml.SafeLoader, seen: int, depth: int) -> int:
    """Check every value, once for each use through an alias; return the number of values seen so far."""
    line = node.start_mark.line + 1
    if depth > DEEPEST:
        raise UnreadableError(_NESTED, None)
    seen += 1
    if seen > MOST_NODES:
        raise UnreadableError(f"there are more than {MOST_NODES:,} values; use fewer aliases", line)
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node, loader, line)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            seen = _check(value, loader, seen, depth + 1)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            seen = _check(value, loader, _check(key, loader, seen, depth + 1), depth + 1)
    return seen


def _check_scalar(node: yaml.ScalarNode, loader: yaml.SafeLoader, line: int) -> None:
    shown = node.value if len(node.value) <= 40 else f"{node.value[:40]}..."
    try:
        value = loader.construct_object(node)
    except yaml.YAMLError:
        return  # Parsing the document reports the error, unless the value is valid in its context, such as `<<`.
    except (ValueError, OverflowError) as error:
        raise UnreadableError(f"{shown!r} cannot be read as a value; if it is text, put it in quotes", line) from error
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UnreadableError(f"{shown!r} is too large", line)
