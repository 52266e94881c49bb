"""YAML that somebody else may have written: plain values, of a size that can be handled."""

from __future__ import annotations

from typing import Any

import yaml

MOST_NODES = 100_000
MOST_BITS = 256
DEEPEST = 100
_NESTED = "a value holds itself, or is nested too deep; write it out"


class UnreadableError(Exception):
    """A text is no YAML, or holds a value that cannot be read; `line` is where, counted from 1."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


def loaded(text: str) -> Any:
    """Read a YAML document into plain values.

    Raises
    ------
    UnreadableError
        It is no YAML, a value cannot be (a date such as 2001-99-99), or aliases make it hold itself or more than
        100,000 values.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _check(node, yaml.SafeLoader(""), 0, 0)
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or error
        raise UnreadableError(f"no YAML: {reason}", mark.line + 1 if mark else None) from error
    except RecursionError as error:
        raise UnreadableError(_NESTED, None) from error


def _check(node: yaml.Node, loader: yaml.SafeLoader, seen: int, depth: int) -> int:
    """Look at every value as often as it is used; return how many there are."""
    line = node.start_mark.line + 1
    if depth > DEEPEST:
        raise UnreadableError(_NESTED, None)
    seen += 1
    if seen > MOST_NODES:
        raise UnreadableError(f"holds more than {MOST_NODES:,} values; write fewer aliases", line)
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
        return  # Reading the document tells, unless the value only has a meaning in its place, as `<<` has.
    except (ValueError, OverflowError) as error:
        raise UnreadableError(f"{shown!r} cannot be read as a value; as a text it goes in quotes", line) from error
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        raise UnreadableError(f"{shown!r} is too large a number", line)
