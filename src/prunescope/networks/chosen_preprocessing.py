"""Choose the preprocessing of the images that networks are given."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from torch import nn

from prunescope.bounds import LEAST_STD, MOST_COLOR, shown
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, without_wrapper
from prunescope.networks.doubts import doubts
from prunescope.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, LUMA, Preprocessing, check_channels
from prunescope.networks.published_preprocessing import preprocessing_of
from prunescope.networks.running import image_channels

_DEFAULT = Preprocessing(
    IMAGENET_MEAN, IMAGENET_STD, source="the default, mean and standard deviation of ImageNet: the network names none"
)


def choose_preprocessing(
    models: Mapping[str, nn.Module],
    image_size: tuple[int, int],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
) -> Preprocessing:
    """Choose the preprocessing of the images that several networks are given.

    Parameters
    ----------
    models
        The networks by name.
    image_size
        The height and the width of the images in pixels.
    mean, std
        The mean and the standard deviation of each channel, for images scaled to 0..1. They take precedence over those
        of the networks. By default, they are those that `preprocessing_of` finds, and otherwise those of ImageNet.
    channels
        The number of channels: 3 for RGB, 1 for grayscale. By default, it is the smallest number that `image_channels`
        returns for a network. For 1, a mean or standard deviation found for RGB is averaged with the weights with which
        colors are converted to grey.

    Returns
    -------
    Preprocessing
        The preprocessing with the chosen numbers.

    Raises
    ------
    InputError
        If a network cannot be used (see `check_ready`); if the number of channels is neither 1 nor 3; if `mean` or
        `std` have another length, or are out of range; or if the networks were trained with different preprocessing and
        `mean` and `std` are not both given.

    Warns
    -----
    UserWarning
        If the preprocessing does not seem to fit a network or the images (see `doubts`).
    """
    models = {name: without_wrapper(model) for name, model in models.items()}
    for model in models.values():
        check_ready(model)
    if channels is None:
        channels = min(image_channels(model, image_size) for model in models.values())
    check_channels(channels)
    own_mean = None if mean is None else _checked("mean", mean, channels)
    own_std = None if std is None else _checked("std", std, channels)
    chosen = _replaced(_common(models, needed=own_mean is None or own_std is None), own_mean, own_std, channels)
    found = [doubt for model in models.values() for doubt in doubts(model, chosen, image_size)]
    for doubt in dict.fromkeys(found):
        warnings.warn(doubt, stacklevel=3)
    return chosen


PerNetwork: TypeAlias = "Sequence[float] | Mapping[str, Sequence[float]] | None"


def choose_each(
    models: Mapping[str, nn.Module],
    image_size: tuple[int, int],
    mean: PerNetwork = None,
    std: PerNetwork = None,
    channels: int | Mapping[str, int] | None = None,
) -> dict[str, Preprocessing]:
    """Choose the preprocessing of the images that each of several networks is given, which may differ.

    Parameters
    ----------
    models
        The networks by name.
    image_size
        The height and the width of the images in pixels.
    mean, std, channels
        As in `choose_preprocessing`, for all networks, or a mapping from the names of networks to their own values.

    Returns
    -------
    dict of str to Preprocessing
        The preprocessing of each network.

    Raises
    ------
    InputError
        As in `choose_preprocessing`, except that networks may have been trained with different preprocessing. If only
        some of the networks state their preprocessing, the others must have the same or be given theirs, since it is
        unknown whether they are copies of those that state it.

    Warns
    -----
    UserWarning
        As in `choose_preprocessing`.
    """
    models = {name: without_wrapper(model) for name, model in models.items()}
    for model in models.values():
        check_ready(model)
    given = {"mean": mean, "std": std, "channels": channels}
    for argument, values in given.items():
        if isinstance(values, Mapping) and (unknown := [name for name in values if name not in models]):
            raise InputError(f"{argument} is given for {unknown[0]!r}, expected the networks {', '.join(models)}")
    own: dict[str, dict[str, Any]] = {
        name: {
            argument: values.get(name) if isinstance(values, Mapping) else values for argument, values in given.items()
        }
        for name in models
    }
    unstated = {
        name: model
        for name, model in models.items()
        if preprocessing_of(model) is None and (own[name]["mean"] is None or own[name]["std"] is None)
    }
    stated = {name: model for name, model in models.items() if name not in unstated}
    for name, model in stated.items():
        if unstated and preprocessing_of(model) is not None:
            _common({name: model, **unstated}, needed=True)
    counts = {name: image_channels(model, image_size) for name, model in models.items()}
    for name, model in models.items():
        if not any(isinstance(module, nn.Conv2d) for module in model.modules()):
            counts[name] = min(counts.values())
    chosen = {}
    for name, model in models.items():
        count = counts[name] if own[name]["channels"] is None else own[name]["channels"]
        check_channels(count)
        own_mean = None if own[name]["mean"] is None else _checked("mean", own[name]["mean"], count)
        own_std = None if own[name]["std"] is None else _checked("std", own[name]["std"], count)
        chosen[name] = _replaced(_common({name: model}, needed=False), own_mean, own_std, count)
    found = [doubt for name, model in models.items() for doubt in doubts(model, chosen[name], image_size)]
    for doubt in dict.fromkeys(found):
        warnings.warn(doubt, stacklevel=3)
    return chosen


def _common(models: Mapping[str, nn.Module], *, needed: bool) -> Preprocessing:
    """Return the preprocessing of the first network.

    Raise if the order of the channels is another one for another network, or if the mean or the standard deviation are
    and they are needed.
    """
    found = {name: preprocessing_of(model) or _DEFAULT for name, model in models.items()}
    (first, base), *others = found.items()
    for name, other in others:
        if other.order != base.order or (needed and other.numbers != base.numbers):
            raise InputError(
                f"the networks {first!r} and {name!r} were trained with different preprocessing: {_told(base)}, and "
                f"{_told(other)}; give mean and std, or do not use them together"
            )
    return base


def _told(one: Preprocessing) -> str:
    order = "" if one.order == "RGB" else f" for channels in the order {one.order}"
    return f"mean {list(one.mean)} and std {list(one.std)}{order} ({one.source})"


def _replaced(
    base: Preprocessing, mean: tuple[float, ...] | None, std: tuple[float, ...] | None, channels: int
) -> Preprocessing:
    base = replace(base, mean=_with_channels(base.mean, channels), std=_with_channels(base.std, channels))
    if mean is not None and std is not None:
        return Preprocessing(mean, std, order=base.order)
    if mean is not None:
        return replace(base, mean=mean, source=f"mean given; std: {base.source}")
    if std is not None:
        return replace(base, std=std, source=f"std given; mean: {base.source}")
    return base


def _checked(name: str, given: Sequence[float], channels: int) -> tuple[float, ...]:
    least = LEAST_STD if name == "std" else -MOST_COLOR
    try:
        values = () if isinstance(given, str) else tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if len(values) != channels or not all(least <= value <= MOST_COLOR for value in values):
        count = "three numbers, one for each of R, G and B" if channels == 3 else "one number, for grey images"
        above = "above 0 and " if name == "std" else ""
        raise InputError(f"{name} is {shown(list(values) or given)}, expected {count}, {above}at most {MOST_COLOR:g}")
    return values


def _with_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    if len(values) == channels:
        return values
    if channels == 1:
        return (sum(weight * value for weight, value in zip(LUMA, values, strict=True)),)
    return values * channels
