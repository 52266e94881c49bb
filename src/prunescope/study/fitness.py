"""Whether a network can be trained and pruned as a recipe says, found out before it is."""

from __future__ import annotations

import warnings
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.checks import taking
from prunescope.pruning import Mask, prune_filters, shrink, unit_numbers
from prunescope.pruning.criteria import Amount
from prunescope.study.recipe import Recipe


def check_training(model: nn.Module, network: str, classes: int, size: int) -> None:
    """Run a network once as training does, without taking a step.

    Parameters
    ----------
    model
        Put into training mode; its batch statistics change.
    network
        Its name, for messages.
    classes
        How many scores it has to put out for an image.
    size
        Of the images, in pixels.

    Raises
    ------
    InputError
        It does not take such images, float32 as they are, or it puts out something else than scores, or all its
        weights are frozen.
    """
    model.train()
    # Two, since batch normalisation of one value fails in training mode; not blank, as no batch of images is.
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.random.fork_rng(devices=[]), taking(model, images):
            scores = model(images)
    except InputError:
        # Another size would not help.
        for name, weight in model.named_parameters():
            if weight.is_floating_point() and weight.dtype != torch.float32:
                raise InputError(
                    f"network {network} fails on images, which are torch.float32: its weight {name!r} is "
                    f"{weight.dtype}; let its function return `model.float()`"
                ) from None
        raise
    check_scores(scores, network, classes, " in training mode")
    if not scores.requires_grad:
        raise InputError(f"network {network} has nothing to train: its weights are frozen, or its scores detached")


def check_scores(scores: Any, network: str, classes: int, mode: str = "") -> None:
    """See that a network puts out a score for each of two images and each class.

    Raises
    ------
    InputError
        What it puts out instead is said.
    """
    found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if found != [2, classes]:
        raise InputError(
            f"network {network} puts out {found} for 2 images{mode}, expected [2, {classes}]: a tensor with a score "
            "for each class of the task"
        )


def check_pruning(model: nn.Module, mask: Mask, recipe: Recipe) -> None:
    """See that a network can be pruned down to the last level.

    Parameters
    ----------
    model
        Dense; unchanged.
    mask
        Its mask.
    recipe
        The study's.

    Raises
    ------
    InputError
        What would end the study at a later level.
    """
    if recipe.pruning.scope == "filters":
        _check_filters(model, recipe)
    else:
        _check_weights(mask, recipe)


def _check_weights(mask: Mask, recipe: Recipe) -> None:
    """See that weights are left at the last level: of none there is nothing to train, to dissect or to show."""
    pruning = recipe.pruning
    if pruning.masks == "branch":
        return
    sizes = [mask.prunable] if pruning.scope == "global" else [tensor.numel() for tensor in mask.values()]
    kept = sizes
    for level in range(1, pruning.levels + 1):
        remaining = None if pruning.remaining is None else pruning.remaining[level - 1]
        amount = Amount.given(pruning.fraction if remaining is None else None, remaining)
        kept = [amount.stay(before, size) for before, size in zip(kept, sizes, strict=True)]
        if not any(kept):
            raise InputError(
                f"recipe {recipe.name}: level {level} of {pruning.levels} would keep none of the {mask.prunable:,} "
                "prunable weights; give fewer levels, a lower pruning.fraction or more weights remaining"
            )


def _check_filters(model: nn.Module, recipe: Recipe) -> None:
    """See that filters can go as far as the last level, and that units keep their numbers then."""
    pruning, size = recipe.pruning, recipe.data.size
    last = 1.0 if pruning.masks == "branch" else pruning.remaining_at(pruning.levels)
    with warnings.catch_warnings():
        # A layer that keeps one filter is told of at the level at which it happens.
        warnings.simplefilter("ignore")
        filters = prune_filters(model, remaining=last, exclude=pruning.exclude, image_size=size)
    shrunk = deepcopy(model)
    shrink(shrunk, filters, size)
    settings = recipe.dissection
    unit_numbers(model, shrunk, filters, settings.layers, size, units_axis=settings.units_axis)
