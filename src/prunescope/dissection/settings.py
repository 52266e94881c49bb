"""The settings of a dissection, their defaults and the checks of their values."""

from __future__ import annotations

import numbers
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationError

from prunescope.bounds import LEAST_QUANTILE, LEAST_STD, MOST_COLOR, MOST_COUNT, shown
from prunescope.dissection.basis import parse_bases
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.validation import Strict

Presence = Literal["image", "overlap"]
Align = Literal["half-pixel", "receptive-field"]
Precision = Literal["fp32", "tf32", "bf16"]

MOST_CHANCE = 1000

_EXPECTED = {
    "quantile": "expected a fraction between 0 and 1 (0.005 keeps the top 0.5 %)",
    "iou": "expected a bound from 0 up to 1 (0.05 in the paper)",
    "chance": f"expected a number of permutations from 0 to {MOST_CHANCE:,} (0 turns them off)",
    "batch_size": f"expected at least 1 image, at most {MOST_COUNT:,}",
}


def _at_least(least: float, given: float) -> float:
    if given < least:
        raise ValueError(f"expected at least {least:g}")
    return given


def _bases(given: tuple[str, ...]) -> tuple[str, ...]:
    try:
        parse_bases(given)
    except InputError as error:
        raise ValueError(str(error)) from error
    return given


Mean = Annotated[float, Field(ge=-MOST_COLOR, le=MOST_COLOR)]
Std = Annotated[float, Field(gt=0, le=MOST_COLOR), AfterValidator(partial(_at_least, LEAST_STD))]


class Settings(Strict):
    """The settings that decide what a dissection finds, and how it computes that.

    Attributes
    ----------
    quantile
        The fraction of all positions at which a unit's activation exceeds its threshold.
    iou
        A unit is interpretable if the IoU with its concept is above this bound.
    presence
        The images on which mask pixels count as activation for a category. With `image`, these are the images that have
        a label of the category anywhere; with `overlap`, the images that have one under the mask.
    chance
        The number of permutations of the labels, with which the units are compared; 0 turns this off.
    basis
        Other bases in which the layers are dissected as well, as text; see `prunescope.dissect`.
    align
        The alignment of activation maps with the labels. With `half-pixel`, maps are stretched over the whole image;
        with `receptive-field`, map positions are placed at the centres of the units' receptive fields.
    precision
        The precision of the forward pass.
    batch_size
        The number of images in a batch. It affects the results only through rounding errors of the network.
    """

    quantile: Annotated[
        float, Field(gt=0, lt=1, le=1 - LEAST_QUANTILE), AfterValidator(partial(_at_least, LEAST_QUANTILE))
    ] = 0.005
    iou: Annotated[float, Field(ge=0, lt=1)] = 0.05
    presence: Presence = "image"
    chance: Annotated[int, Field(ge=0, le=MOST_CHANCE, description="permutations of the labels; 0 for none")] = 20
    basis: Annotated[
        tuple[str, ...],
        AfterValidator(_bases),
        Field(description="further bases to dissect the layers in: `rotate:SEED[:POWER]` or FILE.safetensors"),
    ] = ()
    align: Annotated[Align, Field(description="how activation maps are aligned with the labels")] = "half-pixel"
    precision: Annotated[Precision, Field(description="the precision of the forward pass")] = "fp32"
    batch_size: Annotated[int, Field(gt=0, le=MOST_COUNT)] = 32

    @classmethod
    def checked(cls, **given: Any) -> Self:
        """Return the settings given as keyword arguments, and the defaults of the others.

        Raises
        ------
        InputError
            If a setting is out of range. The message says what was expected and, for a choice, names the nearest one.
        """
        for name in _EXPECTED.keys() & given.keys():
            # Pydantic would convert booleans and text to numbers.
            if not isinstance(given[name], numbers.Real) or isinstance(given[name], bool):
                raise _out_of_range(name, given[name])
        if "basis" in given:
            refuse_text(given["basis"], "basis")
            parse_bases(given["basis"])
        try:
            return cls(**given)
        except ValidationError as error:
            name = str(error.errors()[0]["loc"][0])
            raise _out_of_range(name, given[name]) from None


def _out_of_range(name: str, given: Any) -> InputError:
    what = name.replace("_", " ")
    if name in _EXPECTED:
        return InputError(f"{what} is {shown(given)}, {_EXPECTED[name]}")
    choices = get_args(Settings.model_fields[name].annotation)
    return InputError(f"{what} is {shown(given)}; {nearest(str(given), choices)}")


DEFAULTS = Settings()


def check_precision(precision: Precision, device: object) -> None:
    """Raise if a device does not support a precision.

    Raises
    ------
    InputError
        If `precision` is `tf32` and the device is not an NVIDIA GPU. The message names an alternative.
    """
    if precision == "tf32" and not str(device).startswith("cuda"):
        raise InputError(f"precision tf32 is for NVIDIA GPUs, and the device is {device}; give fp32 (or bf16)")
