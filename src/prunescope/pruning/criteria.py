"""Which of the kept weights go next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.errors import InputError, nearest
from prunescope.pruning.mask import Mask

Criterion = Literal["magnitude", "random"]
Scope = Literal["global", "layer"]


def prune(
    model: nn.Module,
    mask: Mask | None = None,
    *,
    fraction: float = 0.2,
    criterion: Criterion = "magnitude",
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> Mask:
    """Prune a fraction of the kept weights (Frankle and Bau 2019, section 2; Han et al. 2015).

    Exactly ceil(fraction x kept) weights go, those of lowest score; ties go by position, first come first pruned, so
    that the mask is a function of the weights alone. The model itself is not changed: `Mask.apply` does that.

    Parameters
    ----------
    model
        The trained network.
    mask
        What earlier levels kept; None for a dense network.
    fraction
        Of the kept weights that go, 0 to 1.
    criterion
        `magnitude`: the score is the weight's absolute value; `random`: it is drawn from `seed`.
    scope
        `global`: scores are compared over all weights together; `layer`: each weight tensor gives its own fraction.
    exclude
        Names or shell patterns of weights to leave whole; only with `mask=None` (a mask knows what it prunes).
    seed
        Of `criterion="random"`.

    Returns
    -------
    Mask
        What is kept now; a subset of `mask`.

    Raises
    ------
    InputError
        A fraction outside 0 to 1, an unknown criterion or scope, a pattern that matches nothing, weights that are not
        finite, a mask of another network.

    Examples
    --------
    >>> model = nn.Linear(5, 2, bias=False)
    >>> mask = prune(model, fraction=0.2)
    >>> mask.kept, prune(model, mask, fraction=0.2).kept
    (8, 6)
    """
    if not 0 <= fraction <= 1:
        raise InputError(
            f"fraction is {fraction}, expected a number from 0 to 1 (0.2 prunes a fifth of the kept weights)"
        )
    for what, given, known in (("criterion", criterion, get_args(Criterion)), ("scope", scope, get_args(Scope))):
        if given not in known:
            raise InputError(f"{what} is {given!r}; {nearest(str(given), known)}")
    if mask is None:
        mask = Mask.dense(model, tuple(exclude))
    elif exclude:
        raise InputError("exclude goes with the first pruning: a mask already knows which weights it prunes")
    scores = _scores(model, mask, criterion, seed)
    groups = [list(mask)] if scope == "global" else [[name] for name in mask]
    kept: dict[str, Tensor] = {}
    for names in groups:
        kept |= _keep_highest(names, scores, mask, fraction)
    return Mask(kept)


def _scores(model: nn.Module, mask: Mask, criterion: Criterion, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scores = {}
    for name, weight in mask.parameters(model).items():
        if not torch.isfinite(weight).all():
            raise InputError(f"weight {name!r} holds values that are not finite; a diverged network cannot be pruned")
        if criterion == "magnitude":
            scores[name] = weight.detach().abs().cpu()
        else:
            scores[name] = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    return scores


def _keep_highest(names: list[str], scores: dict[str, Tensor], mask: Mask, fraction: float) -> dict[str, Tensor]:
    was_kept = torch.cat([mask[name].flatten() for name in names])
    candidates = torch.cat([scores[name].flatten() for name in names])[was_kept]
    count = math.ceil(Fraction(str(fraction)) * len(candidates))
    stays = torch.ones(len(candidates), dtype=torch.bool)
    if count:
        bound = candidates.kthvalue(count).values
        stays[candidates < bound] = False
        ties = (candidates == bound).nonzero().flatten()
        stays[ties[: count - int((~stays).sum())]] = False
    kept = was_kept.clone()
    kept[was_kept] = stays
    parts = torch.split(kept, [mask[name].numel() for name in names])
    return {name: part.reshape(mask[name].shape).clone() for name, part in zip(names, parts, strict=True)}
