"""What all parts of a recipe have in common: strict models and the types of their fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from prunescope.files import text_problem


class Strict(BaseModel):
    """Base class of the parts of a recipe, which are immutable and do not accept unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _plain(text: str) -> str:
    if problem := text_problem(text):
        raise ValueError(f"{problem}; expected text that can be part of a file name")
    return text


Text = Annotated[str, AfterValidator(_plain)]
