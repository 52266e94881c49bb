"""The amount of weights that one pruning step removes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from prunescope.errors import InputError


@dataclass(frozen=True)
class Amount:
    """The amount to prune, as a fraction of the kept weights or as the weights that remain.

    Attributes
    ----------
    fraction
        The fraction of the kept weights to prune, from 0 to 1. It is 0.2 if neither this nor `remaining` is given.
    remaining
        The ratio of kept to prunable weights after pruning, from 0 to 1; an alternative to `fraction`.

    Raises
    ------
    InputError
        If both are given, or the given number is outside 0 to 1.

    Examples
    --------
    >>> Amount(fraction=0.2).stay(kept=80, prunable=100), Amount(remaining=0.5).stay(kept=80, prunable=100)
    (64, 50)
    """

    fraction: float | None = None
    remaining: float | None = None

    def __post_init__(self) -> None:
        if self.fraction is not None and self.remaining is not None:
            raise InputError(
                f"fraction {self.fraction} and remaining {self.remaining} are both given; give one of them"
            )
        for name, value, meaning in (
            ("fraction", self.fraction, "0.2 prunes a fifth of the kept weights"),
            ("remaining", self.remaining, "0.2 keeps a fifth of all weights"),
        ):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, expected a number from 0 to 1 ({meaning})")

    def stay(self, kept: int, prunable: int) -> int:
        """Return how many weights remain, given the numbers of kept and of prunable weights."""
        # The decimal digits of the numbers are used, because in floating point ceil(0.07 * 100) is 8.
        if self.remaining is not None:
            return prunable - math.ceil((1 - Fraction(str(self.remaining))) * prunable)
        fraction = Fraction(str(0.2 if self.fraction is None else self.fraction))
        return kept - math.ceil(fraction * kept)
