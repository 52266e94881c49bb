"""Choose the weights to prune next."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.bounds import check_count
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.networks.checks import explain_failures
from prunescope.pruning.amount import Amount
from prunescope.pruning.coverage import Coverage
from prunescope.pruning.effective import check_effective, check_own_forward
from prunescope.pruning.groups import one_image
from prunescope.pruning.mask import Mask

Criterion = Callable[[str, Tensor], Tensor]
"""A function that scores weights. It receives the name and the values of a weight tensor (for `prune_filters`, with the
filters on the first axis) and returns a score for each weight (or filter); those with the lowest scores are pruned."""

BuiltinCriterion = Literal["magnitude", "random"]
Scope = Literal["global", "layer"]


def prune(
    model: nn.Module,
    mask: Mask | None = None,
    *,
    fraction: float | None = None,
    remaining: float | None = None,
    criterion: BuiltinCriterion | Criterion = "magnitude",
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Mask:
    """Prune a fraction of the kept weights, or down to given weights remaining (Frankle and Bau 2019, section 2).

    The weights with the lowest scores are pruned (magnitude pruning: Han et al. 2015). Their number is exactly
    ceil(fraction x kept), or the number that leaves prunable - ceil((1 - remaining) x prunable) weights. Among equal
    scores, weights at earlier positions are pruned first, so that the mask is a function of the weights alone. The
    model is not changed; use `Mask.apply` for that.

    Parameters
    ----------
    model
        The trained network.
    mask
        The weights that earlier levels kept, or None for a dense network.
    fraction
        The fraction of the kept weights to prune, from 0 to 1. It is 0.2 if neither this nor `remaining` is given.
    remaining
        The ratio of kept to prunable weights after pruning, from 0 to 1; an alternative to `fraction`.
    criterion
        The score of a weight: its absolute value (`magnitude`), a random number drawn with `seed` (`random`), or what a
        function returns. The function is called as ``criterion(name, weight)`` for each weight tensor and returns a
        tensor of the same shape with a score for each weight, pruned or not. The tensor `weight` is a copy.
    scope
        Whether scores are compared over all weights together (`global`) or within each weight tensor (`layer`). In the
        second case, `fraction` or `remaining` applies to each tensor separately.
    exclude
        Names or shell patterns of weights, or of modules with weights, that are not to be pruned. It can only be given
        with `mask=None`, because a mask already determines which weights are prunable.
    image_size
        The height and width of the images that the network takes, in pixels, or one number for both. If it is given,
        the network runs twice to check that every module uses pruned weights as zeros. Otherwise, only modules that
        are not PyTorch's own classes are checked, each in isolation, and only with `mask=None`.
    seed
        The seed of `criterion="random"`.

    Returns
    -------
    Mask
        The weights that are kept now, a subset of `mask`.

    Warns
    -----
    UserWarning
        With `mask=None`, if more than 10 % of the parameters, or one that looks like a weight, cannot be pruned.

    Raises
    ------
    InputError
        If the network transforms weights before using them, so that a pruned weight is not zero (weight
        standardisation, for example); if both `fraction` and `remaining` are given, or one is outside 0 to 1; if
        `remaining` is more than the mask keeps; if the criterion or scope is unknown, or the criterion returns anything
        other than a score for each weight; if a pattern matches nothing, or `exclude` is given with a mask; if weights
        are not finite; or if the mask belongs to another network.

    Examples
    --------
    >>> model = nn.Linear(5, 2, bias=False)
    >>> mask = prune(model, fraction=0.2)
    >>> mask.kept, prune(model, mask, fraction=0.2).kept, prune(model, mask, remaining=0.5).kept
    (8, 6, 5)

    A criterion of your own; here, the weights with the lowest values are pruned:

    >>> prune(model, criterion=lambda name, weight: weight).kept
    8
    """
    amount = Amount(fraction, remaining)
    check_criterion(criterion)
    if scope not in get_args(Scope):
        raise InputError(f"scope is {scope!r}; {nearest(str(scope), get_args(Scope))}")
    refuse_text(exclude, "exclude")
    if criterion == "random":
        check_count("seed", seed, -(2**63), 2**64 - 1)
    if mask is None:
        mask = Mask.dense(model, tuple(exclude))
        check_own_forward(model, mask)
        if note := Coverage.of(model, mask).note():
            warnings.warn(note, stacklevel=2)
    elif exclude:
        raise InputError(
            "exclude can only be given without a mask, because a mask already determines which weights it prunes"
        )
    if image_size is not None:
        image = one_image(model, image_size)
        images = torch.rand(2, *image.shape[1:], generator=torch.Generator().manual_seed(0)).to(image)
        with explain_failures(model, images):
            check_effective(model, mask, images)
    scores = _scores(model, mask, criterion, seed)
    groups = [list(mask)] if scope == "global" else [[name] for name in mask]
    kept: dict[str, Tensor] = {}
    for names in groups:
        kept |= _keep_highest(names, scores, mask, amount)
    return Mask(kept)


def shuffle(mask: Mask, seed: int) -> Mask:
    """Permute a mask at random within each weight tensor.

    The result is a control for experiments: it keeps the number of kept weights in each layer but not the choice of
    weights (Frankle et al. 2021, "Pruning neural networks at initialization: why are we missing the mark?").

    Parameters
    ----------
    mask
        Any mask.
    seed
        The seed of the permutations. The same seed and shapes give the same permutations.

    Returns
    -------
    Mask
        The permuted mask, with the same names and shapes.

    Examples
    --------
    >>> mask = Mask({"fc.weight": torch.tensor([[True, True, False], [True, False, False]])})
    >>> shuffle(mask, seed=1)
    Mask(3 of 6 weights in 1 tensors, 50.00%)
    """
    generator = torch.Generator().manual_seed(seed)
    return Mask(
        {
            name: tensor.flatten()[torch.randperm(tensor.numel(), generator=generator)].reshape(tensor.shape)
            for name, tensor in mask.items()
        }
    )


def refuse_infinite(weights: Mapping[str, Tensor]) -> None:
    """Raise if weights contain infinities or NaN.

    Parameters
    ----------
    weights
        The weights by name.

    Raises
    ------
    InputError
        If a weight tensor has a value that is not finite. The message names the first such tensor.
    """
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise InputError(
                f"weight {name!r} contains values that are not finite; a network that diverged cannot be pruned"
            )


def check_criterion(criterion: object) -> None:
    """Raise if a criterion is neither the name of a built-in criterion nor a function.

    Raises
    ------
    InputError
        If the criterion is anything else. The message lists the names that are most similar.
    """
    if not callable(criterion) and criterion not in get_args(BuiltinCriterion):
        known = get_args(BuiltinCriterion)
        raise InputError(f"criterion is {criterion!r}; {nearest(str(criterion), known)}; or give a function")


def score(criterion: Criterion, name: str, weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the scores of a weight tensor by a user's criterion.

    Parameters
    ----------
    criterion
        The function.
    name
        The name of the weight.
    weight
        The values of the weight. The criterion receives a copy.
    shape
        The shape that the scores are expected to have.

    Returns
    -------
    Tensor
        The scores, on the CPU and in floating point.

    Raises
    ------
    InputError
        If the criterion returns anything other than real numbers of this shape, or returns NaN.
    """
    expected = f"expected a tensor of scores of shape {list(shape)}, of which the lowest are pruned"
    scores = criterion(name, weight.detach().clone())
    if not isinstance(scores, Tensor) or list(scores.shape) != list(shape) or scores.is_complex():
        returned = f"{scores.dtype} {list(scores.shape)}" if isinstance(scores, Tensor) else type(scores).__name__
        raise InputError(f"the criterion returned {returned} for weight {name!r}; {expected}")
    if scores.isnan().any():
        raise InputError(f"the criterion returned NaN for weight {name!r}; {expected}")
    scores = scores.detach().cpu()
    return scores if scores.is_floating_point() else scores.double()


def _scores(model: nn.Module, mask: Mask, criterion: BuiltinCriterion | Criterion, seed: int) -> dict[str, Tensor]:
    # `seed` is only checked for the random criterion. With other criteria, the generator might not accept it.
    generator = torch.Generator().manual_seed(seed if criterion == "random" else 0)
    weights = mask.parameters(model)
    refuse_infinite(weights)
    scores = {}
    for name, weight in weights.items():
        if callable(criterion):
            scores[name] = score(criterion, name, weight, weight.shape)
        elif criterion == "magnitude":
            scores[name] = weight.detach().abs().cpu()
        else:
            scores[name] = torch.rand(weight.shape, generator=generator, dtype=torch.float64)
    return scores


def _keep_highest(names: list[str], scores: dict[str, Tensor], mask: Mask, amount: Amount) -> dict[str, Tensor]:
    was_kept = torch.cat([mask[name].flatten() for name in names])
    candidates = torch.cat([scores[name].flatten() for name in names])[was_kept]
    count = len(candidates) - amount.stay(len(candidates), len(was_kept))
    if count < 0:
        where = names[0] if len(names) == 1 else "the mask"
        raise InputError(
            f"remaining is {amount.remaining}, but {where} keeps only {len(candidates) / len(was_kept):.4g} of its "
            "weights; pruning cannot restore pruned weights, so give a smaller number"
        )
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
