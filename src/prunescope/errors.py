"""The error that is raised when the user's input cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The error that is raised when something the user has given cannot be used.

    The message states what was given and where, what was expected, and what to do. The command line prints the message
    without a traceback and exits with code 2.
    """


def refuse_text(given: object, name: str) -> None:
    """Raise if a single string is given where a list of strings is expected.

    A string is itself a sequence of strings, so that without this check each of its characters would be used as an
    item.

    Raises
    ------
    InputError
        If `given` is a string. The message shows the list to give instead.
    """
    if isinstance(given, str):
        raise InputError(f"{name}: give a list, [{given!r}], not {given!r}")


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Return the end of an error message about a misspelt name: the `known` names that are most similar to it.

    If none is similar, the first eight known names are listed.

    >>> nearest("layer5", ["layer3", "layer4", "fc"])
    'the nearest are: layer4, layer3'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"the nearest are: {', '.join(close)}"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"there are: {shown}" if names else "there are none"
