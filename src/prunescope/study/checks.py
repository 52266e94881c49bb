"""Checks, made before a study runs, that its network can be trained, pruned and dissected as the recipe states."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.dissection.basis import parse_bases
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, explain_failures
from prunescope.networks.doubts import doubts
from prunescope.networks.layers import units_axes
from prunescope.networks.observing import check_layers, observe
from prunescope.networks.running import evaluating
from prunescope.networks.source import build_network
from prunescope.pruning import Coverage, Mask, shrink, unit_numbers
from prunescope.pruning.amount import Amount
from prunescope.pruning.effective import check_effective
from prunescope.store.recipe import Recipe
from prunescope.study.given import check_given
from prunescope.study.schedule import choose_filters, dense_mask, kept_together, pruned_together, weights_kept

_SHOWN = 6


@dataclass(frozen=True)
class CheckedNetwork:
    """The result of checking a recipe's network.

    Attributes
    ----------
    model
        The network, initialised with the recipe's seed. The checks have changed its batch statistics.
    mask
        The dense mask of the network's prunable weights.
    given
        The mask of level 0 of each trial if the recipe gives its weights, otherwise empty.
    coverage
        The parts of the network that are prunable, and those that are not.
    notes
        Messages to show to the user that are not errors.
    """

    model: nn.Module
    mask: Mask
    given: tuple[Mask, ...]
    coverage: Coverage
    notes: tuple[str, ...]


def check_recipe(
    recipe: Recipe, classes: int, image_size: tuple[int, int], *, classes_known: bool = True
) -> CheckedNetwork:
    """Check that a recipe's network can be trained, pruned and dissected as the recipe says.

    Parameters
    ----------
    recipe
        The study's recipe.
    classes
        The number of classes of its task.
    image_size
        Height and width of the labelled images, in pixels.
    classes_known
        Whether `classes` is known. If it is only assumed, because the data are not available, neither the number of
        scores that the network returns nor the files of a recipe's `start` are checked.

    Returns
    -------
    CheckedNetwork
        The network, its dense mask, its coverage and notes for the user.

    Raises
    ------
    InputError
        If the study could not run to its end, or if its results would be wrong.
    """
    model = build_network(recipe.network, classes=classes, seed=recipe.seed)
    check_ready(model)
    size, layers = recipe.data.size, recipe.dissection.layers
    check_layers(model, layers)
    # The mask is that of the network before its first forward pass, when modules sized by their input have no size yet.
    mask = dense_mask(model, recipe.pruning)
    coverage = Coverage.of(model, mask)
    check_training(model, recipe.network, classes if classes_known else None, size)
    notes = [coverage.note(), *doubts(model, recipe.data.preprocessing(), image_size)]
    given: list[Mask] = []
    if recipe.start is not None and classes_known:
        given, found = check_given(recipe, classes)
        notes += found
    check_pruning(model, mask, recipe, given)
    if recipe.pruning.scope != "filters":
        notes += _weights_used(model, mask, _two_images(size, size))
    images = _two_images(*image_size)
    axes = units_axes(model, layers, image_size, recipe.dissection.units_axis)
    units: dict[str, int] = {}

    def count(layer: str, output: Tensor) -> None:
        units[layer] = output.shape[1]

    with (
        evaluating(model),
        torch.inference_mode(),
        observe(model, layers, axes, count),
        explain_failures(model, images),
    ):
        scores = model(images)
    for basis, layer in product(parse_bases(recipe.dissection.basis), layers):
        if basis.seed is None:
            basis.matrix(layer, units[layer])  # raises if the file does not fit
    check_scores(scores, recipe.network, classes if classes_known else None)
    return CheckedNetwork(model, mask, tuple(given), coverage, tuple(filter(None, notes)))


def _weights_used(model: nn.Module, mask: Mask, images: Tensor) -> list[str]:
    """Raise if pruned weights are not zero in the network's operations; return notes on unused weights."""
    try:
        use = check_effective(model, mask, images)
    except InputError:
        raise
    except Exception as error:
        return [
            "it could not be checked whether pruned weights are zero in the network's operations, because the network "
            f"fails while its weights are followed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
        ]
    notes = []
    if use.unused:
        notes.append(
            f"the network does not use {_first(use.unused)} when it runs on images, but they are counted and pruned "
            "like the other weights; `pruning.exclude` excludes them"
        )
    if use.training_only:
        notes.append(
            f"the network uses {_first(use.training_only)} in training mode only. They are counted and pruned like the "
            "others, but the network is measured and dissected without them; `pruning.exclude` excludes them"
        )
    if use.unregistered:
        shapes = _first([" x ".join(map(str, shape)) for shape in use.unregistered])
        notes.append(
            f"the network also computes with parameters that are not registered in it, of shape {shapes}. They are "
            "neither trained nor counted nor pruned nor stored; if they belong to modules in a Python list, put these "
            "into an nn.ModuleList"
        )
    return notes


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _two_images(height: int, width: int) -> Tensor:
    """Return two random images [2, 3, height, width]; like real images, they are not blank."""
    # Batch normalisation fails in training mode if it has one value per channel only, as with a single image.
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def check_training(model: nn.Module, network: str, classes: int | None, size: int) -> None:
    """Check that a network can be trained, by one forward pass in training mode on two random float32 images.

    Parameters
    ----------
    model
        The network. It is put into training mode, and its batch statistics change.
    network
        The network's name, for error messages.
    classes
        The number of scores that the network has to return for each image, or None if it is not known.
    size
        The height and width of the images, in pixels.

    Raises
    ------
    InputError
        If the network does not accept the images, if its output is not a tensor of scores, or if no gradient reaches
        its weights.
    """
    model.train()
    images = _two_images(size, size)
    with torch.random.fork_rng(devices=[]), explain_failures(model, images):
        scores = model(images)
    check_scores(scores, network, classes, " in training mode")
    if not scores.requires_grad:
        raise InputError(
            f"network {network} cannot be trained: all its weights are frozen, or its output is detached from them"
        )


def check_scores(scores: Any, network: str, classes: int | None, mode: str = "") -> None:
    """Check that a network's output for two images is a tensor of scores [2, classes].

    Parameters
    ----------
    scores
        The output of the network.
    network
        The network's name, for error messages.
    classes
        The expected number of classes, or None to accept any number.
    mode
        Words that the error message adds after "for 2 images".

    Raises
    ------
    InputError
        If the output is anything else.
    """
    found = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
    if classes is None and isinstance(scores, Tensor) and scores.ndim == 2 and len(scores) == 2:
        return
    if found != [2, classes]:
        raise InputError(
            f"network {network} returns {found} for 2 images{mode}, expected [2, {classes or 'classes'}]: a tensor "
            "with a score for each class of the task"
        )


def check_pruning(model: nn.Module, mask: Mask, recipe: Recipe, given: Sequence[Mask] = ()) -> None:
    """Check that a network can be pruned down to the recipe's last level.

    Parameters
    ----------
    model
        The dense network, which is not modified.
    mask
        The dense mask of the network's prunable weights.
    recipe
        The study's recipe.
    given
        The masks of level 0, one per trial, if the recipe gives its weights.

    Raises
    ------
    InputError
        If pruning would fail at a later level.
    """
    if recipe.pruning.scope == "filters":
        _check_filters(model, recipe)
    else:
        for kept in given or (mask,):
            _check_weights(kept, recipe)


def _check_weights(mask: Mask, recipe: Recipe) -> None:
    """Raise if a level would keep no weights at all, or more than level 0 of `mask`."""
    pruning = recipe.pruning
    if pruning.masks == "branch":
        return
    present = kept_together(mask, pruning)
    levels = weights_kept(pruning, pruned_together(mask, pruning), present)
    if pruning.levels and any(after > before for before, after in zip(present, levels[1], strict=True)):
        assert pruning.remaining is not None
        where = "one of its tensors" if pruning.scope == "layer" else "level 0"
        raise InputError(
            f"recipe {recipe.name}: pruning.remaining begins with {pruning.remaining[0]}, but of the weights in "
            f"start.weights, {where} has fewer left; give a lower number, or pruning.levels and pruning.fraction"
        )
    empty = next((level for level, kept in enumerate(levels) if not any(kept)), None)
    if empty is None:
        return
    raise InputError(
        f"recipe {recipe.name}: level {empty} of {pruning.levels} would keep none of the {mask.prunable:,} prunable "
        "weights; give fewer levels, a lower pruning.fraction or more weights remaining"
    )


def _check_filters(model: nn.Module, recipe: Recipe) -> None:
    """Raise if filters cannot be removed down to the last level, or the units left cannot be matched to dense ones."""
    pruning, size = recipe.pruning, recipe.data.size
    amount = Amount(remaining=1.0 if pruning.masks == "branch" else pruning.remaining_at(pruning.levels))
    with warnings.catch_warnings():
        # The warning about layers that keep a single filter is given at the level at which that happens.
        warnings.simplefilter("ignore")
        filters = choose_filters(recipe, model, None, amount, recipe.seed)
    shrunk = deepcopy(model)
    shrink(shrunk, filters, size)
    settings = recipe.dissection
    unit_numbers(model, shrunk, filters, settings.layers, size, units_axis=settings.units_axis)
