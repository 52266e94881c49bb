"""The start of a level: which weights are pruned, from which weights it is trained, and for which steps."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from prunescope.networks.weights import load_weights
from prunescope.pruning import Mask, prune, shuffle
from prunescope.pruning.mask import layer_of
from prunescope.randomness import seed_of
from prunescope.store.pruning_settings import pruning_seed
from prunescope.study.given import given_start
from prunescope.study.levels import Kept, Level
from prunescope.study.schedule import amounts, choose_filters, dense_mask, level_steps
from prunescope.training.recipe import StepRange

_SHUFFLE, _REINITIALISE = 100, 101  # purposes in the keys of random seeds, distinct from those of training


class LevelStart(NamedTuple):
    """The state of a level before its first training step."""

    model: nn.Module
    mask: Mask  # for `model`, which is smaller than the dense network if filters are removed
    kept: Kept  # the kept part of the dense network
    steps: StepRange  # the steps to train for

    @property
    def empty_layers(self) -> list[str]:
        """The names of the layers that have no weights left, in the order of the network's modules."""
        empty = self.kept.mask.empty
        return [layer_of(name) for name, _ in self.model.named_parameters(remove_duplicate=False) if name in empty]


def begin_dense(level: Level, steps_per_epoch: int) -> LevelStart:
    """Begin level 0.

    Newly initialised weights are all kept, and trained for the full length of training. Weights that the recipe's
    `start` gives are not trained, and those that are zero stay pruned.
    """
    if level.recipe.start is not None:
        model, mask = given_start(level.recipe, level.trial, level.classes)
        return LevelStart(model, mask, Kept(mask), level_steps(level.recipe, 0, steps_per_epoch))
    model = level.dense()
    mask = dense_mask(model, level.recipe.pruning)
    return LevelStart(model, mask, Kept(mask), level_steps(level.recipe, 0, steps_per_epoch))


def prune_level(level: Level, origin: Level | None = None) -> Kept:
    """Choose the weights or filters that a level keeps.

    Parameters
    ----------
    level
        A level from 1 on. The levels before it have to be trained.
    origin
        The same level of a finished study from which the mask is taken. The network is pruned if this is None.

    Returns
    -------
    Kept
        The kept part of the dense network.
    """
    pruning = level.recipe.pruning
    if origin is not None:
        taken = origin.kept()
        if pruning.criterion != "shuffled":
            return taken
        return Kept(shuffle(taken.mask, seed_of(level.seed, _SHUFFLE, level.level)))
    assert pruning.criterion != "shuffled"
    parent, seed = level.parent, pruning_seed(level.seed, level.level)
    model, kept = parent.trained(), parent.kept()
    if pruning.scope == "filters":
        filters = kept.filters
        for amount in amounts(pruning, level.level):
            filters = choose_filters(level.recipe, model, filters, amount, seed)
        assert filters is not None
        return Kept(filters.mask(level.dense()), filters)
    mask = kept.mask
    for amount in amounts(pruning, level.level):
        mask = prune(
            model,
            mask,
            fraction=amount.fraction,
            remaining=amount.remaining,
            criterion=pruning.criterion,
            scope=pruning.scope,
            seed=seed,
        )
    return Kept(mask)


def rewind_level(level: Level, kept: Kept, steps_per_epoch: int) -> LevelStart:
    """Begin a pruned level: choose its initial weights and the steps that it is trained for.

    The recipe's `pruning.retraining` selects rewinding (Frankle and Bau 2019, section 2; for step 0, Frankle and Carbin
    2019), fine-tuning (Han et al. 2015), learning-rate rewinding (Renda et al. 2020, section 3.1), or new random
    weights as a control.

    Parameters
    ----------
    level
        A level from 1 on.
    kept
        The part of the dense network that the level keeps.
    steps_per_epoch
        The number of training steps per epoch of the task.

    Returns
    -------
    LevelStart
        The pruned network on the CPU, its mask and the steps to train for.
    """
    retraining = level.recipe.pruning.retraining
    if retraining == "rewind":
        model = level.dense()
        load_weights(model, level.directory.rewind(level.trial))
    elif retraining == "reinitialise":
        model = level.dense(seed_of(level.seed, _REINITIALISE, level.level))
    else:
        model = level.parent.trained_in_dense_shape()
    mask = kept.remove_the_rest(model, level.recipe.data.size)
    return LevelStart(model, mask, kept, level_steps(level.recipe, level.level, steps_per_epoch))
