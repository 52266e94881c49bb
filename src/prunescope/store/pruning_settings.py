"""The pruning settings of a recipe: how the network is pruned and retrained."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from prunescope.bounds import MOST_LEVELS
from prunescope.training.steps import Step
from prunescope.validation import Strict, Text


class PruningSettings(Strict):
    """How the network is pruned and retrained (Frankle and Bau 2019, section 2)."""

    levels: Annotated[
        int,
        Field(ge=0, le=MOST_LEVELS, description="how many times the network is pruned; an alternative to `remaining`"),
    ] = 0
    fraction: Annotated[
        float | None, Field(gt=0, lt=1, description="the fraction of the kept weights that each level prunes")
    ] = 0.2
    remaining: Annotated[
        tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None,
        Field(
            min_length=1,
            max_length=MOST_LEVELS,
            description="weights remaining at level 1, 2, ...; instead of `levels` and `fraction`",
        ),
    ] = None
    schedule: Annotated[
        Literal["iterative", "one-shot"],
        Field(description="`one-shot`: every level is pruned from level 0's trained weights"),
    ] = "iterative"
    criterion: Annotated[
        Literal["magnitude", "random", "shuffled"],
        Field(description="`shuffled`: another study's masks, permuted within each layer (a control)"),
    ] = "magnitude"
    scope: Annotated[
        Literal["global", "layer", "filters"],
        Field(description="`filters` removes whole filters, so that the network becomes smaller"),
    ] = "global"
    exclude: Annotated[tuple[Text, ...], Field(description="names or patterns of weights that are not pruned")] = ()
    retraining: Annotated[
        Literal["rewind", "fine-tune", "learning-rate", "reinitialise"],
        Field(
            description="how a pruned level is trained: from the weights at step `rewind_to` (`rewind`); from the "
            "trained weights, at the last learning rate (`fine-tune`) or from step `rewind_to` of the schedule "
            "(`learning-rate`); or from new random weights (`reinitialise`, a control)"
        ),
    ] = "rewind"
    rewind_to: Annotated[
        Step, Field(description="the step that a level begins at, with `rewind` and `learning-rate`; 0it is the start")
    ] = Step()
    fine_tune: Annotated[Step | None, Field(description="how long a level is trained, with `fine-tune`")] = None
    masks: Annotated[
        Literal["own", "branch"],
        Field(description="`branch` takes the masks of the study that this one branches from (controls)"),
    ] = "own"

    @model_validator(mode="before")
    @classmethod
    def _levels_or_remaining(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        given = {name: value for name, value in given.items() if value is not None}
        if isinstance(given.get("remaining"), list | tuple):
            return {"levels": len(given["remaining"]), "fraction": None} | given
        if "levels" not in given and "remaining" not in given:
            raise PydanticCustomError("missing", "is missing", {"field": ("pruning", "levels")})
        return given

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for wrong, name, expected in (
            (self._is_not_descending(), "remaining", "expected fractions that fall from level to level"),
            (
                self.remaining is not None and self.levels != len(self.remaining),
                "levels",
                f"`remaining` has {len(self.remaining or ())} entries; omit `levels`",
            ),
            (
                self.remaining is not None and self.fraction is not None,
                "fraction",
                "`remaining` determines how much is kept at every level; give only one of the two",
            ),
            (
                self.scope == "filters" and self.criterion == "shuffled",
                "criterion",
                "a mask is shuffled weight by weight, and `scope: filters` removes whole filters; give another scope",
            ),
            (
                self.criterion == "shuffled" and self.masks == "own",
                "criterion",
                "it permutes the masks of another study; give `masks: branch` too",
            ),
            (
                self.criterion == "random" and self.masks == "branch",
                "criterion",
                "`masks: branch` takes another study's masks, so that nothing is drawn; give one of the two",
            ),
            (
                self.retraining == "fine-tune" and self.fine_tune in (None, Step()),
                "fine_tune",
                "expected how long `retraining: fine-tune` trains a level, such as 10ep",
            ),
            (
                self.retraining != "fine-tune" and self.fine_tune is not None,
                "fine_tune",
                f"`retraining: {self.retraining}` does not fine-tune; omit this field or give `retraining: fine-tune`",
            ),
        ):
            if wrong:
                raise misfit(("pruning", name), getattr(self, name), expected)
        return self

    def _is_not_descending(self) -> bool:
        kept = (1.0, *(self.remaining or ()))
        return any(after >= before for before, after in pairwise(kept))

    @property
    def rewinds(self) -> bool:
        """Whether levels begin with the weights of step `rewind_to`."""
        return self.retraining == "rewind"

    def remaining_at(self, level: int) -> float:
        """Return the fraction of the weights that the recipe keeps at a level."""
        if self.remaining is not None and level > 0:
            return self.remaining[level - 1]
        return float((1 - (self.fraction or 0)) ** level)


def pruning_seed(seed: int, level: int) -> int:
    """Return the seed for the random pruning scores of a level of the trial with seed `seed`."""
    return seed * 1000 + level


def misfit(field: tuple[str, ...], given: Any, expected: str) -> PydanticCustomError:
    """Return an error for a field that contradicts other fields of the recipe."""
    shown = str(given) if isinstance(given, Step) else given
    return PydanticCustomError("misfit", "{expected}", {"field": field, "input": shown, "expected": expected})
