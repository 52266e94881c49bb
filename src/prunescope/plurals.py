"""Numbers with nouns."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a number with a noun in the singular or the plural.

    >>> counted(1, "concept"), counted(1200, "unit")
    ('1 concept', '1,200 units')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
