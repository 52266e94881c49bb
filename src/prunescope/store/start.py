"""The start of a study from given weights, as its recipe states it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from prunescope.validation import Strict, Text

File = Annotated[Text, Field(min_length=1)]


def _one_or_several(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


Files = Annotated[tuple[File, ...], BeforeValidator(_one_or_several, json_schema_input_type=File | tuple[File, ...])]


class Start(Strict):
    """The weights that a study begins with, instead of training the dense network itself."""

    weights: Annotated[
        Files,
        Field(
            min_length=1,
            description="the file of weights that are level 0, or a list with a file for each trial; level 0 is "
            "measured and dissected, but not trained, and weights that are zero stay pruned",
        ),
    ]
    key: Annotated[
        Text | None, Field(min_length=1, description="the key of the weights within these files; found by default")
    ] = None
    masks: Annotated[
        Files | None,
        Field(min_length=1, description="a file of masks that are applied to the weights, or one per trial"),
    ] = None
    rewind_weights: Annotated[
        Files | None,
        Field(
            min_length=1,
            description="the file of the weights at step `rewind_to`, or one per trial; for `retraining: rewind`",
        ),
    ] = None

    def files(self) -> dict[str, tuple[str, ...]]:
        """Return the files that are given, by the name of their field; each field has one file per trial."""
        fields = {"weights": self.weights, "masks": self.masks, "rewind_weights": self.rewind_weights}
        return {name: files for name, files in fields.items() if files is not None}
