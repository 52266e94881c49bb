"""Prepare a checkpoint of a series for its dissection: build it, prune it, and count its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import nn

from prunescope.arrays import Array
from prunescope.bounds import MOST_SEED
from prunescope.concepts.protocol import Concepts
from prunescope.dissection.calibration import calibrate
from prunescope.dissection.unit_numbers import read_unit_numbers
from prunescope.errors import InputError
from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.source import build_network
from prunescope.pruning import Coverage, Mask, prune, prune_filters, shrink, unit_numbers
from prunescope.store.series import Checkpoint, SeriesRecipe
from prunescope.tasks.task import Task
from prunescope.training.validation import measure_images


@dataclass(frozen=True)
class SeriesLevel:
    """One checkpoint of a series, with the numbers of its trial and level."""

    trial: int
    level: int
    checkpoint: Checkpoint

    @property
    def key(self) -> tuple[int, int]:
        """The numbers of the trial and the level."""
        return self.trial, self.level

    def __str__(self) -> str:
        file = f" ({self.checkpoint.weights})" if self.checkpoint.weights else ""
        return f"trial {self.trial}, level {self.level}{file}"

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Add the trial, the level and the file to the message of any `InputError` raised in the block."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self}: {error}") from error


@dataclass(frozen=True)
class Prepared:
    """A network that is ready to be dissected.

    Attributes
    ----------
    level
        The numbers of its trial and level, and its checkpoint.
    model
        The network on its device, pruned if the series prunes it.
    measured
        The content of its ``measured.json``.
    prunable
        The number of prunable weights that its kept weights are compared with: those of the trial's first checkpoint.
    mask
        The weights that were kept, if the series pruned the network.
    numbers
        For each layer, the units of the first checkpoint that its units correspond to, int64 [units]; None if they have
        the same numbers, or if it is unknown.
    predictions
        The predictions for the validation images, as `measure_images` returns them, if the series has data.
    """

    level: SeriesLevel
    model: nn.Module
    measured: dict[str, Any]
    prunable: int
    mask: Mask | None = None
    numbers: dict[str, Array] | None = None
    predictions: pd.DataFrame | None = None


# Returns the network of a trial's checkpoint with its weights; the network is modified.
Build = Callable[[SeriesRecipe, int, int], nn.Module]


def build_checkpoint(recipe: SeriesRecipe, trial: int, level: int) -> nn.Module:
    """Build the network of a trial's checkpoint with its weights, before it is pruned.

    Without weights, a network that loads none has random ones: the same at all levels of a trial, which are compared
    with each other, and different ones in each trial.
    """
    checkpoint = recipe.trials[trial][level]
    return build_network(
        checkpoint.network or recipe.network,
        classes=recipe.classes,
        seed=min(recipe.pruning.seed + trial, MOST_SEED),
        weights=checkpoint.weights,
        key=checkpoint.key,
        masks=checkpoint.masks,
    )


def prepare_checkpoint(
    level: SeriesLevel,
    model: nn.Module,
    recipe: SeriesRecipe,
    *,
    concepts: Concepts,
    preprocessing: Preprocessing,
    task: Task | None,
    first: int | None,
    device: str,
) -> Prepared:
    """Prune a checkpoint if the series says so, count its weights and measure its accuracy.

    Parameters
    ----------
    level
        The checkpoint.
    model
        Its network with its weights.
    recipe
        The series.
    concepts
        The labelled images, on which statistics of normalisation layers are estimated after pruning.
    preprocessing
        How the images become the input of the network.
    task
        The images to measure the accuracy on, or None to leave the accuracy out.
    first
        The number of prunable weights of the trial's first checkpoint; None for the first checkpoint itself.
    device
        The device to move the network to.

    Returns
    -------
    Prepared
        The network and its measurements.

    Raises
    ------
    InputError
        If the network cannot be pruned or measured, or if it has more weights than the first checkpoint.
    """
    checkpoint, pruning = level.checkpoint, recipe.pruning
    model = model.to(device)
    with level.naming():
        measured: dict[str, Any] = {"trial": level.trial, "level": level.level, "weights_digest": digest_of(model)}
        whole = prunable_mask(model, recipe)
        coverage = Coverage.of(model, whole)
        kept = sum(int((weight != 0).sum()) for weight in whole.parameters(model).values())
        mask, numbers = None, _given_numbers(checkpoint, recipe)
        if checkpoint.prune_to is not None and checkpoint.prune_to < 1:
            model, mask, filter_numbers = _pruned(model, checkpoint.prune_to, recipe, concepts.image_size)
            kept, numbers = mask.kept, numbers or filter_numbers
            if pruning.recalibrate:
                measured["recalibrated"] = calibrate(model, concepts, preprocessing, device, pruning.seed)
        prunable = first or whole.prunable
        if checkpoint.remaining is not None:
            measured["weights_remaining"] = checkpoint.remaining
        elif kept > prunable:
            raise InputError(
                f"{kept:,} of its weights are not zero, more than the {prunable:,} prunable weights of the first "
                "checkpoint; state its weights remaining (`remaining`), since they cannot be counted"
            )
        elif kept == 0:
            raise InputError("all of its prunable weights are zero, so that there is nothing to dissect")
        else:
            measured |= {"weights_remaining": kept / prunable, "kept": kept, "prunable": prunable}
        if recipe.axis is not None:
            measured["at"] = checkpoint.at
        measured |= {"parameters": coverage.parameters, "never_pruned": list(coverage.outside)}
        predictions = None
        if task is not None and recipe.data is not None:
            result, predictions = measure_images(model, task, recipe.data.batch_size, device)
            measured |= result._asdict()
    return Prepared(level, model, measured, prunable, mask, numbers, predictions)


def prunable_mask(model: nn.Module, recipe: SeriesRecipe) -> Mask:
    """Return the mask that keeps all prunable weights of a network."""
    return Mask.dense(model, recipe.pruning.exclude if recipe.pruning.scope != "filters" else ())


def digest_of(model: nn.Module) -> str:
    """Return a hash of the parameters and buffers of a network, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()


def _pruned(
    model: nn.Module, remaining: float, recipe: SeriesRecipe, size: tuple[int, int]
) -> tuple[nn.Module, Mask, dict[str, Array] | None]:
    """Prune a network in place; return it, its mask and, if filters were removed, its units' numbers."""
    pruning, settings = recipe.pruning, recipe.dissection
    if pruning.scope != "filters":
        mask = prune(
            model, remaining=remaining, criterion=pruning.criterion, scope=pruning.scope, exclude=pruning.exclude,
            image_size=size, seed=pruning.seed,
        )  # fmt: skip
        mask.apply(model)
        return model, mask, None
    dense = deepcopy(model)
    filters = prune_filters(
        model, remaining=remaining, criterion=pruning.criterion, exclude=pruning.exclude, image_size=size,
        seed=pruning.seed,
    )  # fmt: skip
    shrink(model, filters, size)
    numbers = unit_numbers(dense, model, filters, settings.layers, size, units_axis=settings.units_axis)
    return model, filters.mask(dense), numbers


def _given_numbers(checkpoint: Checkpoint, recipe: SeriesRecipe) -> dict[str, Array] | None:
    """Read the numbers of units from the checkpoint's files; `{layer}` in the path stands for the name of a layer."""
    if checkpoint.units is None:
        return None
    layers = recipe.dissection.layers
    if len(layers) > 1 and "{layer}" not in checkpoint.units:
        raise InputError(
            f"units: {checkpoint.units} is one file, but {len(layers)} layers are dissected; write {{layer}} in the "
            "path where the name of the layer stands"
        )
    return {layer: read_unit_numbers(checkpoint.units.replace("{layer}", layer)) for layer in layers}
