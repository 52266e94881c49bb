"""What a recipe decides for each level: what is never pruned, how much is kept, and for which steps it is trained."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from prunescope.pruning import Filters, Mask, prune_filters
from prunescope.pruning.amount import Amount
from prunescope.store.pruning_settings import PruningSettings
from prunescope.store.recipe import Recipe
from prunescope.training.recipe import StepRange, learning_rate


def dense_mask(model: nn.Module, pruning: PruningSettings) -> Mask:
    """Return the mask that keeps every prunable weight of a dense network.

    Weights that the recipe excludes are not in the mask. If whole filters are removed, the mask contains all weights,
    including those of the excluded layers, because these may still lose input channels.
    """
    return Mask.dense(model, () if pruning.scope == "filters" else pruning.exclude)


def choose_filters(recipe: Recipe, model: nn.Module, filters: Filters | None, amount: Amount, seed: int) -> Filters:
    """Choose the filters that a level keeps, as `prune_filters` does, with the criterion and exclusions of a recipe."""
    pruning = recipe.pruning
    assert pruning.criterion != "shuffled"
    return prune_filters(
        model,
        filters,
        fraction=amount.fraction,
        remaining=amount.remaining,
        criterion=pruning.criterion,
        exclude=pruning.exclude,
        image_size=recipe.data.size,
        seed=seed,
    )


def parent_number(pruning: PruningSettings, level: int) -> int:
    """Return the number of the level that a level, from 1 on, is pruned from: 0 if one-shot, else the one before."""
    return 0 if pruning.schedule == "one-shot" else level - 1


def amounts(pruning: PruningSettings, level: int) -> tuple[Amount, ...]:
    """Return the amounts to prune, one after the other, to obtain a level from its parent (see `parent_number`).

    Parameters
    ----------
    pruning
        The pruning settings of the recipe.
    level
        The number of a level, from 1 on.
    """
    if pruning.remaining is not None:
        return (Amount(remaining=pruning.remaining[level - 1]),)
    if pruning.schedule == "iterative":
        return (Amount(fraction=pruning.fraction),)
    if pruning.scope == "filters":
        return (Amount(remaining=pruning.remaining_at(level)),)
    # One-shot pruning by a fraction keeps as many weights as iterative pruning does at the same level.
    return (Amount(fraction=pruning.fraction),) * level


def kept_together(mask: Mask, pruning: PruningSettings) -> list[int]:
    """Return how many weights a mask keeps in each set that is pruned together (see `pruned_together`)."""
    return [int(tensor.sum()) for tensor in mask.values()] if pruning.scope == "layer" else [mask.kept]


def pruned_together(mask: Mask, pruning: PruningSettings) -> list[int]:
    """Return the size of each set of weights pruned together: one per tensor with ``scope: layer``, else one of all.

    Parameters
    ----------
    mask
        The dense mask.
    pruning
        The pruning settings of the recipe.
    """
    return [tensor.numel() for tensor in mask.values()] if pruning.scope == "layer" else [mask.prunable]


def weights_kept(pruning: PruningSettings, sizes: Sequence[int], given: Sequence[int] | None = None) -> list[list[int]]:
    """Return how many weights every level keeps.

    Parameters
    ----------
    pruning
        The pruning settings of the recipe.
    sizes
        The sizes of the sets of weights that are pruned together (see `pruned_together`).
    given
        The numbers of weights of each set that level 0 keeps, if a given level 0 is pruned already. By default, all.

    Returns
    -------
    list of list of int
        For every level from 0 on, the number of weights that are kept in each set. If whole filters are removed,
        this is the largest number that may be kept.
    """
    levels = [list(sizes if given is None else given)]
    for level in range(1, pruning.levels + 1):
        kept = levels[parent_number(pruning, level)]
        for amount in amounts(pruning, level):
            kept = [amount.stay(before, size) for before, size in zip(kept, sizes, strict=True)]
        levels.append(kept)
    return levels


def level_steps(recipe: Recipe, level: int, steps_per_epoch: int) -> StepRange:
    """Return the steps for which a level is trained; a given level 0 is not trained.

    Parameters
    ----------
    recipe
        The study's recipe.
    level
        The number of the level; 0 is the dense network.
    steps_per_epoch
        The number of training steps per epoch of the task.
    """
    pruning = recipe.pruning
    end = recipe.training.length.iterations(steps_per_epoch)
    if level == 0 and recipe.start is not None:
        return StepRange(0, 0)
    if level == 0 or pruning.retraining == "reinitialise":
        return StepRange(0, end)
    if pruning.retraining == "fine-tune":
        assert pruning.fine_tune is not None
        last_rate = learning_rate(recipe.training, end - 1, steps_per_epoch)
        return StepRange(end, end + pruning.fine_tune.iterations(steps_per_epoch), last_rate)
    return StepRange(pruning.rewind_to.iterations(steps_per_epoch), end)
