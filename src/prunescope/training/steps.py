"""Points in training, written in epochs and iterations: `90ep`, `500it`, `1ep20it`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from prunescope.bounds import MOST_STEPS, shown

FORM = r"(?:([0-9]+)ep)?(?:([0-9]+)it)?"


@dataclass(frozen=True)
class Step:
    """A point in training, given as a number of epochs plus a number of iterations after the start.

    Attributes
    ----------
    epochs
        The number of epochs.
    steps
        The number of iterations after those epochs.

    Examples
    --------
    >>> Step.parse("1ep20it").iterations(steps_per_epoch=100)
    120
    >>> str(Step.parse("6ep"))
    '6ep'
    """

    epochs: int = 0
    steps: int = 0

    @classmethod
    def parse(cls, text: str) -> Step:
        """Parse a text such as `90ep`, `500it` or `1ep20it`.

        Raises
        ------
        ValueError
            If the text does not have this form, or a number is too large.
        """
        found = re.fullmatch(FORM, text) if isinstance(text, str) else None
        if found is None or not any(found.groups()):
            raise ValueError(
                f"{shown(text)} is not a step of training; expected epochs, iterations or both: 90ep, 500it, 1ep20it"
            )
        # Python refuses to convert strings of thousands of digits to int.
        epochs, steps = (int(digits) if len(digits) < 1000 else MOST_STEPS + 1 for digits in found.groups("0"))
        if max(epochs, steps) > MOST_STEPS:
            raise ValueError(f"expected at most {MOST_STEPS:,} epochs and {MOST_STEPS:,} iterations")
        return cls(epochs, steps)

    def iterations(self, steps_per_epoch: int) -> int:
        """Return the number of optimiser steps up to this point, given the number of steps per epoch."""
        return self.epochs * steps_per_epoch + self.steps

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + (f"{self.steps}it" if self.steps or not epochs else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic validate a step from its text, and serialise it as text."""
        return core_schema.no_info_plain_validator_function(
            lambda given: given if isinstance(given, cls) else cls.parse(given),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Describe a step in a JSON schema as a string of this form."""
        return {"type": "string", "pattern": r"^(\d+ep)?(\d+it)?$", "examples": ["90ep", "500it", "1ep20it"]}
