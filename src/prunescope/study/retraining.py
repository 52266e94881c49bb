"""The start of a level: which weights are pruned, from which weights it is trained, and for which steps."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from prunescope.networks.weights import load_weights
from prunescope.pruning import Mask, prune, prune_filters, shuffle
from prunescope.randomness import seed_of
from prunescope.store.recipe import pruning_seed
from prunescope.study.levels import Kept, Level
from prunescope.training.recipe import StepRange, learning_rate

_SHUFFLE, _REINITIALISE = 100, 101  # purposes in the keys of random seeds, distinct from those of training


class LevelStart(NamedTuple):
    """The state of a level before its first training step."""

    model: nn.Module
    mask: Mask  # for `model`, which is smaller than the dense network if filters are removed
    kept: Kept  # the kept part of the dense network
    course: StepRange  # the steps to train for


def begin_dense(level: Level, steps_per_epoch: int) -> LevelStart:
    """Begin level 0: newly initialised weights, all of which are kept and trained for the full length of training."""
    model = level.dense()
    # If filters are removed, all weights are counted, including those of layers that keep all their filters.
    mask = Mask.dense(model, level.recipe.pruning.excluded_weights)
    return LevelStart(model, mask, Kept(mask), StepRange(0, level.recipe.training.length.iterations(steps_per_epoch)))


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
    one_shot = pruning.schedule == "one-shot"
    before = level.at(0 if one_shot else level.level - 1)
    model, kept, seed = before.trained(), before.kept(), pruning_seed(level.seed, level.level)
    remaining = None if pruning.remaining is None else pruning.remaining[level.level - 1]
    fraction = pruning.fraction if remaining is None else None
    if pruning.scope == "filters":
        if one_shot and fraction is not None:
            remaining, fraction = pruning.remaining_at(level.level), None
        filters = prune_filters(
            model, kept.filters, fraction=fraction, remaining=remaining, criterion=pruning.criterion,
            exclude=pruning.exclude, image_size=level.recipe.data.size, seed=seed,
        )  # fmt: skip
        return Kept(filters.mask(level.dense()), filters)
    mask = kept.mask
    # One-shot pruning by a fraction keeps as many weights as iterative pruning does at the same level.
    for _ in range(level.level if one_shot and fraction is not None else 1):
        mask = prune(
            model, mask, fraction=fraction, remaining=remaining, criterion=pruning.criterion, scope=pruning.scope,
            seed=seed,
        )  # fmt: skip
    return Kept(mask)


def begin_retraining(level: Level, kept: Kept, steps_per_epoch: int) -> LevelStart:
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
    pruning, training = level.recipe.pruning, level.recipe.training
    end = training.length.iterations(steps_per_epoch)
    rewound = StepRange(pruning.rewind_to.iterations(steps_per_epoch), end)
    before = level.at(0 if pruning.schedule == "one-shot" else level.level - 1)
    if pruning.retraining == "rewind":
        model, course = level.dense(), rewound
        load_weights(model, level.directory.rewind(level.trial))
    elif pruning.retraining == "learning-rate":
        model, course = before.trained_in_dense_shape(), rewound
    elif pruning.retraining == "fine-tune":
        assert pruning.fine_tune is not None
        model, last = before.trained_in_dense_shape(), learning_rate(training, end - 1, steps_per_epoch)
        course = StepRange(end, end + pruning.fine_tune.iterations(steps_per_epoch), last)
    else:
        model = level.dense(seed_of(level.seed, _REINITIALISE, level.level))
        course = StepRange(0, end)
    return LevelStart(model, kept.remove_the_rest(model, level.recipe.data.size), kept, course)
