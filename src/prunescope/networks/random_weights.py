"""Whether a network still has the random weights that it was built with."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_REMEMBERED = "_prunescope_random"


@dataclass(frozen=True)
class _Random:
    """One of the tensors that were drawn: training or loading weights changes it."""

    seed: int | None
    name: str
    values: Tensor


def remember_random(model: nn.Module, seed: int | None) -> None:
    """Note on a network that its weights are random.

    Parameters
    ----------
    model
        As it was built.
    seed
        Its weights were drawn with; None where the global generator was drawn from.
    """
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and weight.is_floating_point():
            setattr(model, _REMEMBERED, _Random(seed, name, weight.detach().clone()))
            return


def random_weights(model: nn.Module) -> str | None:
    """Say which random weights a network has, if nothing has changed them since `build_network` drew them.

    Parameters
    ----------
    model
        Any network.

    Returns
    -------
    str or None
        Such as ``random weights of seed 0``; None where the weights are others, or nothing is known of them.

    Examples
    --------
    >>> from prunescope.networks import build_network
    >>> random_weights(build_network("prunescope:resnet8x4", seed=3)), random_weights(nn.Linear(2, 2))
    ('random weights of seed 3', None)
    """
    random = vars(model).get(_REMEMBERED)
    weight = None if random is None else dict(model.named_parameters()).get(random.name)
    if random is None or weight is None or not torch.equal(weight.detach().cpu(), random.values):
        return None
    return "random weights" if random.seed is None else f"random weights of seed {random.seed}"
