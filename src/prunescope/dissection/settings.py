"""The settings of a dissection, and checks of their values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch

from prunescope.bounds import LEAST_QUANTILE, LEAST_STD, MOST_COLOR, MOST_COUNT, is_whole, shown
from prunescope.dissection.tally import Presence
from prunescope.errors import InputError, nearest

Align = Literal["half-pixel", "receptive-field"]
Precision = Literal["fp32", "tf32", "bf16"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_settings(
    quantile: float, iou: float, presence: str, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Raise if a setting of a dissection is out of range. `mean` and `std` are not checked if both are empty.

    Raises
    ------
    InputError
        If a setting is out of range. The message says what was expected.
    """
    if not LEAST_QUANTILE <= quantile <= 1 - LEAST_QUANTILE:
        raise InputError(f"quantile is {quantile}, expected a fraction between 0 and 1 (0.005 keeps the top 0.5 %)")
    if not 0 <= iou < 1:
        raise InputError(f"iou is {iou}, expected a bound from 0 up to 1 (0.05 in the paper)")
    check_choice("presence", presence, Presence)
    if not is_whole(batch_size) or not 1 <= batch_size <= MOST_COUNT:
        raise InputError(f"batch size is {shown(batch_size)}, expected at least 1 image, at most {MOST_COUNT:,}")
    if not len(mean) and not len(std):
        return
    colors = len(mean) == 3 and len(std) == 3 and all(abs(value) <= MOST_COLOR for value in mean)
    if not colors or not all(LEAST_STD <= value <= MOST_COLOR for value in std):
        raise InputError(
            f"mean {list(mean)} and std {list(std)}: expected three numbers each, std above 0, at most {MOST_COLOR:g}"
        )


def check_precision(precision: str, device: str | torch.device) -> None:
    """Raise if a precision does not exist or a device does not support it.

    Raises
    ------
    InputError
        If `precision` is unknown, or is `tf32` on a device that is not an NVIDIA GPU. The message names an alternative.
    """
    check_choice("precision", precision, Precision)
    if precision == "tf32" and torch.device(device).type != "cuda":
        raise InputError(f"precision tf32 is for NVIDIA GPUs, and the device is {device}; give fp32 (or bf16)")


def check_choice(what: str, given: str, choices: Any) -> None:
    """Raise if a value is not one of the choices of a `Literal` type.

    Raises
    ------
    InputError
        If `given` is not one of `choices`. The message starts with `what` and names the nearest choice.
    """
    if given not in get_args(choices):
        raise InputError(f"{what} is {given!r}; {nearest(given, get_args(choices))}")
