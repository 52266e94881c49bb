"""Remember that a network was built with random weights, and detect later whether it still has them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

_REMEMBERED = "_prunescope_random"


@dataclass(frozen=True)
class _Random:
    """A copy of one of the randomly drawn tensors, for comparison: training or loading weights changes the tensor."""

    seed: int | None
    name: str
    values: Tensor


def remember_random(model: nn.Module, seed: int | None) -> None:
    """Mark a network as having random weights.

    Parameters
    ----------
    model
        The network as it was built. The mark is stored in an attribute of it.
    seed
        The seed of its weights, or None if they were drawn from the global generator.
    """
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and weight.is_floating_point():
            setattr(model, _REMEMBERED, _Random(seed, name, weight.detach().clone()))
            return


def random_weights(model: nn.Module) -> str | None:
    """Return a description of a network's random weights if they are unchanged since `build_network` drew them.

    Parameters
    ----------
    model
        Any network.

    Returns
    -------
    str or None
        The description, for example ``random weights of seed 0``; None if the weights have changed or their origin is
        unknown.

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
