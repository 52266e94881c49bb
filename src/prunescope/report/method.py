"""Describe in words how a study prunes and retrains."""

from __future__ import annotations

from prunescope.pruning.coverage import MOST
from prunescope.report.drawing import percent
from prunescope.store.measured import Measured
from prunescope.store.stored import Pruning

CRITERIA = {
    "magnitude": "those of lowest magnitude",
    "random": "chosen at random",
}
SCOPES = {
    "global": "over all layers together",
    "layer": "by the same fraction in each layer",
    "filters": "by the same fraction in each group of layers",
}

_SHOWN = 4


def method(pruning: Pruning) -> str:
    """Describe the criterion, scope, schedule and retraining of a study.

    Parameters
    ----------
    pruning : Pruning
        The pruning settings of the study's recipe. Values that this function does not know are written unchanged.

    Returns
    -------
    str
        One sentence or a few, as plain text.

    Examples
    --------
    >>> method(Pruning(remaining=(0.5, 0.2), criterion="random", scope="layer", rewind_to="6ep"))
    'Prunes weights, chosen at random, by the same fraction in each layer, down to 50, 20 %; rewinds to 6ep.'
    """
    return f"{_pruning(pruning)}; {_retraining(pruning)}."


def counted(measured: Measured) -> str:
    """Describe which part of the network's parameters the weights remaining are counted over.

    Parameters
    ----------
    measured : Measured
        The measurements of any level of the study.

    Returns
    -------
    str
        A sentence, as plain text. It is empty if the number of parameters is unknown, or if every weight can be pruned
        and together they are at least 90 % of the parameters.

    Examples
    --------
    >>> counted(Measured(weights_remaining=1, top1=0.5, prunable=96, parameters=5139, never_pruned=("0.weight",)))
    "Weights are counted over 96 prunable ones, 1.9 % of the network's 5,139 parameters; 0.weight is never pruned."
    """
    prunable, parameters, names = measured.prunable, measured.parameters, measured.never_pruned
    if not prunable or not parameters or (not names and prunable >= MOST * parameters):
        return ""
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    never = f"; {shown} {'is' if len(names) == 1 else 'are'} never pruned" if names else ""
    return (
        f"Weights are counted over {prunable:,} prunable ones, {percent(prunable / parameters)} % of the network's "
        f"{parameters:,} parameters{never}."
    )


def _pruning(pruning: Pruning) -> str:
    filters = pruning.scope == "filters"
    by_norm = filters and pruning.criterion == "magnitude"
    criterion = "those of lowest L1 norm" if by_norm else CRITERIA.get(pruning.criterion, pruning.criterion)
    parts = [SCOPES.get(pruning.scope, pruning.scope), _how_far(pruning)]
    if pruning.exclude:
        parts.append(f"{', '.join(pruning.exclude)} left unpruned")
    if pruning.masks == "own":
        return ", ".join([f"Prunes {'filters' if filters else 'weights'}", criterion, *parts])
    # A study accepts only masks that were made with the settings in its own recipe. For shuffled masks, the recipe does
    # not contain the original criterion, so the sentence leaves it out.
    if pruning.criterion == "shuffled":
        return f"Takes the masks of the study it branches from, shuffled within each layer: {', '.join(parts)}"
    return f"Takes the masks of the study it branches from: {', '.join([criterion, *parts])}"


def _how_far(pruning: Pruning) -> str:
    if pruning.remaining is not None:
        how_far = f"down to {', '.join(percent(value) for value in pruning.remaining)} %"
    elif pruning.fraction is not None:
        how_far = f"{percent(pruning.fraction)} % of the rest at each level"
    else:
        how_far = "level by level"
    return f"{how_far}, each from the dense network" if pruning.schedule == "one-shot" else how_far


def _retraining(pruning: Pruning) -> str:
    step = pruning.rewind_to or "0it"
    return {
        "rewind": f"rewinds to {step}",
        "fine-tune": f"fine-tunes{f' for {pruning.fine_tune}' if pruning.fine_tune else ''} at the last learning rate",
        "learning-rate": f"rewinds the learning rate to {step} and keeps the weights",
        "reinitialise": "retrains from new random weights",
    }.get(pruning.retraining, pruning.retraining)
