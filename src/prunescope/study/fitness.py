"""Whether a network can be trained and pruned as a recipe says, found out before it is."""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, taking
from prunescope.networks.layers import check_layers, evaluating, observe, units_axes
from prunescope.networks.source import build_network
from prunescope.pruning import Coverage, Mask, prune_filters, shrink, unit_numbers
from prunescope.pruning.criteria import Amount
from prunescope.pruning.effective import check_effective
from prunescope.study.recipe import Recipe

_SHOWN = 6


@dataclass(frozen=True)
class Fit:
    """A recipe's network as it was found before any work.

    Attributes
    ----------
    model
        Of the recipe's own seed; its batch statistics have changed.
    mask
        Of its prunable weights.
    coverage
        How much of it these are.
    notes
        What is worth a line of its own, though it is no error.
    """

    model: nn.Module
    mask: Mask
    coverage: Coverage
    notes: tuple[str, ...]


def check_recipe(recipe: Recipe, classes: int, image_size: tuple[int, int], *, classes_known: bool = True) -> Fit:
    """Check that a recipe's network can be trained, pruned and dissected as the recipe says.

    Parameters
    ----------
    recipe
        The study's.
    classes
        Of its task.
    image_size
        Height and width of the labelled images.
    classes_known
        False where `classes` is an assumption, because the data is not there; then the number of scores is not checked.

    Raises
    ------
    InputError
        Something would keep the study from running to its end, or would make its numbers wrong.
    """
    model = build_network(recipe.network, classes=classes, seed=recipe.seed)
    check_ready(model)
    size, layers = recipe.data.size, recipe.dissection.layers
    check_layers(model, layers)
    # Of a network as it is built: modules that take their sizes from the first images have none yet.
    mask = Mask.dense(model, recipe.pruning.excluded_weights)
    coverage = Coverage.of(model, mask)
    check_training(model, recipe.network, classes if classes_known else None, size)
    notes = [coverage.note()]
    check_pruning(model, mask, recipe)
    if recipe.pruning.scope != "filters":
        notes.append(_weights_used(model, mask, _two_images(size, size)))
    images = _two_images(*image_size)
    axes = units_axes(model, layers, image_size, recipe.dissection.units_axis)
    with evaluating(model), torch.inference_mode(), observe(model, layers, axes), taking(model, images):
        scores = model(images)
    check_scores(scores, recipe.network, classes if classes_known else None)
    return Fit(model, mask, coverage, tuple(filter(None, notes)))


def _weights_used(model: nn.Module, mask: Mask, images: Tensor) -> str:
    """Check that the network computes with its weights as they are; name those that it computes nothing with."""
    try:
        unused = check_effective(model, mask, images)
    except InputError:
        raise
    except Exception as error:
        return (
            "it is not known whether a pruned weight is zero in what the network computes with: the network does not "
            f"run while its weights are followed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        )
    if not unused:
        return ""
    more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
    return (
        f"the network computes nothing with {', '.join(unused[:_SHOWN])}{more} when it runs on images, and yet they "
        "are counted and pruned like the others; `pruning.exclude` leaves them out"
    )


def _two_images(height: int, width: int) -> Tensor:
    """Draw images: not blank, as no batch of images is."""
    # Two, since batch normalisation of one value fails in training mode.
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def check_training(model: nn.Module, network: str, classes: int | None, size: int) -> None:
    """Run a network once as training does, without taking a step.

    Parameters
    ----------
    model
        Put into training mode; its batch statistics change.
    network
        Its name, for messages.
    classes
        How many scores it has to put out for an image; None if that is not known.
    size
        Of the images, in pixels.

    Raises
    ------
    InputError
        It does not take such images, float32 as they are, or it puts out something else than scores, or all its
        weights are frozen.
    """
    model.train()
    images = _two_images(size, size)
    with torch.random.fork_rng(devices=[]), taking(model, images):
        scores = model(images)
    check_scores(scores, network, classes, " in training mode")
    if not scores.requires_grad:
        raise InputError(f"network {network} has nothing to train: its weights are frozen, or its scores detached")


def check_scores(scores: Any, network: str, classes: int | None, mode: str = "") -> None:
    """See that a network puts out a score for each of two images and each class, of which None may be any number.

    Raises
    ------
    InputError
        What it puts out instead is said.
    """
    found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if classes is None and isinstance(scores, Tensor) and scores.ndim == 2 and len(scores) == 2:
        return
    if found != [2, classes]:
        raise InputError(
            f"network {network} puts out {found} for 2 images{mode}, expected [2, {classes or 'classes'}]: a tensor "
            "with a score for each class of the task"
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
