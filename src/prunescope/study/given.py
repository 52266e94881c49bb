"""Read, check and list the files of the weights that a study begins with."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from torch import nn

from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.listings import Listing, list_files
from prunescope.networks.checkpoint_files import checkpoint_paths, listed
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights
from prunescope.pruning import Mask
from prunescope.store.recipe import Recipe
from prunescope.store.start import Start
from prunescope.study.schedule import dense_mask


class Given(NamedTuple):
    """The network that a trial begins with, and the mask of its weights that are not pruned yet."""

    model: nn.Module
    mask: Mask


def given_start(recipe: Recipe, trial: int, classes: int | None) -> Given:
    """Build the network of level 0 of a trial from the recipe's `start`.

    Prunable weights that are zero count as pruned, unless the recipe removes whole filters.

    Raises
    ------
    InputError
        If the weights or masks cannot be read or do not fit the network, if they are not finite, or if all prunable
        weights are zero.
    """
    start = _start_of(recipe)
    file = start.weights[trial]
    masks = None if start.masks is None else expanded(start.masks[trial])
    model = build_network(recipe.network, classes=classes, seed=recipe.seed + trial)
    _load(model, recipe, "weights", trial, masks)
    mask = dense_mask(model, recipe.pruning)
    if recipe.pruning.scope != "filters":
        mask = Mask({name: weight.detach() != 0 for name, weight in mask.parameters(model).items()})
    if not mask.kept:
        raise InputError(
            f"start.weights: all prunable weights in {file} are zero, so that nothing is left to prune; give a file of "
            "weights that are not zero"
        )
    return Given(model, mask)


def given_rewinding_point(recipe: Recipe, trial: int, classes: int | None) -> nn.Module:
    """Build the network at the step that a trial rewinds to from the recipe's `start.rewind_weights`.

    Raises
    ------
    InputError
        If the weights cannot be read, do not fit the network or are not finite.
    """
    model = build_network(recipe.network, classes=classes, seed=recipe.seed + trial)
    _load(model, recipe, "rewind_weights", trial)
    return model


def check_given(recipe: Recipe, classes: int) -> tuple[list[Mask], list[str]]:
    """Check all files of a recipe's `start` before anything runs.

    Parameters
    ----------
    recipe
        A recipe with a `start`.
    classes
        The number of classes of its task.

    Returns
    -------
    tuple of list of Mask and list of str
        The mask of level 0 of each trial, and notes for the user on weights that are pruned already.

    Raises
    ------
    InputError
        As in `given_start` and `given_rewinding_point`.
    """
    start, masks, notes = _start_of(recipe), [], []
    for trial, file in enumerate(start.weights):
        model, mask = given_start(recipe, trial, classes)
        masks.append(mask)
        zeros = sum(int((weight == 0).sum()) for weight in mask.parameters(model).values())
        if zeros:
            kept = (
                "they are trained like the others, because whole filters are removed"
                if recipe.pruning.scope == "filters"
                else f"they stay pruned, so that level 0 has {mask.weights_remaining:.1%} of its weights"
            )
            zero = "zero" if start.masks is None else "zero or masked"
            notes.append(f"trial {trial}: {zeros:,} prunable weights in {file} are {zero}; {kept}")
        if start.rewind_weights is not None:
            given_rewinding_point(recipe, trial, classes)
    return masks, notes


def list_given(recipe: Recipe, *, rewinding: bool) -> Listing:
    """List the files of a recipe's `start`, by names that do not depend on their paths.

    Parameters
    ----------
    recipe
        The study's recipe. Without a `start` the list is empty.
    rewinding
        Whether to list the weights to rewind to, or otherwise the weights and masks of level 0.

    Raises
    ------
    InputError
        If a file does not exist.
    """
    given = {} if recipe.start is None else recipe.start.files()
    found: list[tuple[str, str]] = []
    for field, files in given.items():
        if (field == "rewind_weights") != rewinding:
            continue
        for trial, file in enumerate(files):
            try:
                paths = checkpoint_paths(expanded(file))
            except InputError as error:
                raise InputError(f"start.{field}: {error}") from error
            if not paths[0].exists():
                raise InputError(f"start.{field}: {file} does not exist; give the path of a file of weights or masks")
            found += [(f"trial-{trial}/{field}" + (f"-{i}" if i else ""), str(path)) for i, path in enumerate(paths)]
    return list_files(found)


def _start_of(recipe: Recipe) -> Start:
    assert recipe.start is not None
    return recipe.start


def _load(model: nn.Module, recipe: Recipe, field: str, trial: int, masks: Path | None = None) -> None:
    start = _start_of(recipe)
    file = expanded(start.files()[field][trial])
    try:
        load_weights(model, file, key=start.key, masks=masks)
    except InputError as error:
        given = f"start.{field}" if masks is None else "start.weights with start.masks"
        raise InputError(f"{given}: {error}") from error
    bad = [name for name, weight in model.named_parameters() if not weight.isfinite().all()]
    if bad:
        raise InputError(
            f"start.{field}: {file} contains nan or infinity in {listed(bad)}; give weights that are all finite"
        )
