"""The one error a user's input can cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message says what was given, where, what was expected and what to do. The command line prints it without a
    traceback and exits with code 2.
    """


def refuse_text(given: object, name: str) -> None:
    """Refuse one text where a list of them is expected, since it would be taken letter by letter.

    Raises
    ------
    InputError
        It is given; the message shows the list.
    """
    if isinstance(given, str):
        raise InputError(f"{name}: give a list, [{given!r}], not {given!r}")


def nearest(name: str, known: Iterable[str], count: int = 3) -> str:
    """Say which of the `known` names are nearest to a misspelt one, for the end of an error message.

    >>> nearest("layer5", ["layer3", "layer4", "fc"])
    'the nearest are: layer4, layer3'
    """
    names = list(known)
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"the nearest are: {', '.join(close)}"
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return f"there are: {shown}" if names else "there are none"
