"""Points in training, written as people say them: `90ep`, `500it`, `1ep20it`."""

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
    """So many epochs and so many iterations after the start.

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
        """Read a step.

        Raises
        ------
        ValueError
            The text is none.
        """
        found = re.fullmatch(FORM, text) if isinstance(text, str) else None
        if found is None or not any(found.groups()):
            raise ValueError(
                f"{shown(text)} is no step of training; expected epochs, iterations or both: 90ep, 500it, 1ep20it"
            )
        # Python does not read a number of thousands of digits.
        epochs, steps = (int(digits) if len(digits) < 1000 else MOST_STEPS + 1 for digits in found.groups("0"))
        if max(epochs, steps) > MOST_STEPS:
            raise ValueError(f"expected at most {MOST_STEPS:,} epochs and {MOST_STEPS:,} iterations")
        return cls(epochs, steps)

    def iterations(self, steps_per_epoch: int) -> int:
        """Count the optimiser's steps up to this point."""
        return self.epochs * steps_per_epoch + self.steps

    def __str__(self) -> str:
        epochs = f"{self.epochs}ep" if self.epochs else ""
        return epochs + (f"{self.steps}it" if self.steps or not epochs else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let recipes write a step as text."""
        return core_schema.no_info_plain_validator_function(
            lambda given: given if isinstance(given, cls) else cls.parse(given),
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        """Describe a step as text of this form."""
        return {"type": "string", "pattern": r"^(\d+ep)?(\d+it)?$", "examples": ["90ep", "500it", "1ep20it"]}
