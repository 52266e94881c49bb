"""The measurements taken after a level's training, which curves are drawn from, and checks of their consistency."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunescope.errors import InputError
from prunescope.reading import read_json

Count = Annotated[int, Field(ge=0, lt=2**63, strict=True)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]


class Measured(BaseModel):
    """One level's measurements.

    Attributes
    ----------
    trial, level
        The numbers of the trial and the level.
    weights_remaining
        The fraction of the prunable weights that is kept.
    kept, prunable
        The number of kept weights and of prunable weights.
    steps
        The number of steps for which the level was trained; 0 for a level 0 whose weights were given.
    top1, top5
        The top-1 and top-5 accuracy on the validation images, as fractions.
    loss
        The mean cross-entropy loss over the validation images.
    parameters
        The number of parameters of the network.
    never_pruned
        The names of parameters that look like weights but are never pruned.
    empty
        The names of the layers that have no weights left.
    at
        The position on the axis of a series, if it does not show the weights remaining: a number or a label.
    weights_digest
        A hash of the weights of a checkpoint of a series.
    recalibrated
        The number of images from which the statistics of normalisation layers were estimated after pruning.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    trial: Count | None = None
    level: Count | None = None
    weights_remaining: Annotated[float, Field(gt=0, le=1, strict=True)]
    kept: Count | None = None
    prunable: Count | None = None
    steps: Count | None = None
    top1: Share | None = None
    top5: Share | None = None
    loss: float | None = None
    parameters: Count | None = None
    never_pruned: tuple[str, ...] = ()
    at: float | str | None = None
    weights_digest: str | None = None
    recalibrated: Count | None = None
    empty: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if self.kept is None or self.prunable is None:
            return self
        if not 0 < self.kept <= self.prunable:
            raise ValueError(
                f"kept is {self.kept} and prunable {self.prunable}, expected kept to be from 1 to prunable"
            )
        if not math.isclose(self.weights_remaining, self.kept / self.prunable, rel_tol=1e-9):
            raise ValueError(
                f"weights_remaining is {self.weights_remaining}, but kept / prunable is {self.kept} / {self.prunable}"
            )
        # Only weights that were given, to a study or a series, can be pruned already at level 0.
        if self.level == 0 and self.kept != self.prunable and self.weights_digest is None and self.steps != 0:
            raise ValueError(f"level 0 keeps {self.kept} of {self.prunable} weights, expected all of them")
        return self

    @model_validator(mode="after")
    def _top5_holds_top1(self) -> Self:
        if self.top5 is not None and self.top1 is not None and self.top5 < self.top1:
            raise ValueError(f"top5 is {self.top5}, below top1, {self.top1}")
        return self


def read_measured(path: Path, trial: int, level: int) -> Measured:
    """Read and validate one level's measurements.

    Parameters
    ----------
    path
        The level's ``measured.json``.
    trial, level
        The numbers of the trial and the level that the file is expected to belong to.

    Returns
    -------
    Measured
        The measurements.

    Raises
    ------
    InputError
        If the file cannot be read, if a value is impossible, or if the file belongs to another trial or level.
    """
    content = read_json(path, "remove it and run the study again")
    try:
        found = Measured.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}; remove the file and run the study again") from error
    for name, given, expected in (("trial", found.trial, trial), ("level", found.level, level)):
        if given not in (None, expected):
            raise InputError(
                f"{path}: {name} is {given}, but it is in the folder of {name} {expected}; restore the level's own "
                "file, or remove this one and run the study again"
            )
    return found


def first_problem(error: ValidationError) -> str:
    """Return a description of the first problem of a validation error."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    message = f"{message[:1].lower()}{message[1:]}"
    if not field:
        return message if first["type"] == "value_error" else f"the file: {message}"
    given = repr(first["input"])
    shown = "" if first["type"] == "missing" or len(given) > 200 else f" is {given}"
    return f"{field}{shown}: {message}"
