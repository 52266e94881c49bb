"""Choose the weights to prune next."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from prunescope.bounds import check_count
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.networks.checks import explain_failures
from prunescope.pruning.coverage import Coverage
from prunescope.pruning.effective import check_effective, check_own_forward
from prunescope.pruning.groups import one_image
from prunescope.pruning.mask import Mask

Criterion = Literal["magnitude", "random"]
Scope = Literal["global", "layer"]


def prune(
    model: nn.Module,
    mask: Mask | None = None,
    *,
    fraction: float | None = None,
    remaining: float | None = None,
    criterion: Criterion = "magnitude",
    scope: Scope = "global",
    exclude: Sequence[str] = (),
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
) -> Mask:
    """Prune a fraction of the kept weights, or prune to given weights remaining (Frankle and Bau 2019, section 2).

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
        The score of a weight: its absolute value (`magnitude`), or a random number drawn with `seed` (`random`).
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
        `remaining` is more than the mask keeps; if the criterion or scope is unknown; if a pattern matches nothing, or
        `exclude` is given with a mask; if weights are not finite; or if the mask belongs to another network.

    Examples
    --------
    >>> model = nn.Linear(5, 2, bias=False)
    >>> mask = prune(model, fraction=0.2)
    >>> mask.kept, prune(model, mask, fraction=0.2).kept, prune(model, mask, remaining=0.5).kept
    (8, 6, 5)
    """
    amount = Amount.given(fraction, remaining)
    for what, given, known in (("criterion", criterion, get_args(Criterion)), ("scope", scope, get_args(Scope))):
        if given not in known:
            raise InputError(f"{what} is {given!r}; {nearest(str(given), known)}")
    refuse_text(exclude, "exclude")
    if criterion == "random":
        check_count("seed", seed, -(2**63), 2**64 - 1)
    if mask is None:
        mask = Mask.dense(model, tuple(exclude))
        check_own_forward(model, mask)
        if note := Coverage.of(model, mask).note():
            warnings.warn(note, stacklevel=2)
    elif exclude:
        raise InputError("exclude goes with the first pruning: a mask already knows which weights it prunes")
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


@dataclass(frozen=True)
class Amount:
    """The amount to prune: a fraction of the kept weights, or all weights except given weights remaining.

    Attributes
    ----------
    value
        The fraction to prune, or the weights remaining, from 0 to 1.
    of_kept
        Whether `value` is the fraction of the kept weights to prune.
    """

    value: Fraction
    of_kept: bool

    @classmethod
    def given(cls, fraction: float | None, remaining: float | None) -> Amount:
        """Return the amount for a fraction or weights remaining; without either, a fifth of the kept weights.

        Raises
        ------
        InputError
            If both are given, or the given number is outside 0 to 1.
        """
        if fraction is not None and remaining is not None:
            raise InputError(f"fraction {fraction} and remaining {remaining} are both given; give one of them")
        name, value = ("remaining", remaining) if remaining is not None else ("fraction", fraction)
        value = 0.2 if value is None else value
        if not 0 <= value <= 1:
            meaning = "0.2 prunes a fifth of the kept weights" if name == "fraction" else "0.2 keeps a fifth of all"
            raise InputError(f"{name} is {value}, expected a number from 0 to 1 ({meaning})")
        # Take the decimal digits of the number, because in floating point ceil(0.07 * 100) is 8.
        return cls(Fraction(str(value)), name == "fraction")

    def stay(self, kept: int, prunable: int) -> int:
        """Return the number of weights that stay, given the numbers of kept and of prunable weights."""
        if self.of_kept:
            return kept - math.ceil(self.value * kept)
        return prunable - math.ceil((1 - self.value) * prunable)


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
            raise InputError(f"weight {name!r} holds values that are not finite; a diverged network cannot be pruned")


def _scores(model: nn.Module, mask: Mask, criterion: Criterion, seed: int) -> dict[str, Tensor]:
    # Other criteria draw nothing, and `seed` is not checked for them, so that the generator may not accept it.
    generator = torch.Generator().manual_seed(seed if criterion == "random" else 0)
    scores = {}
    weights = mask.parameters(model)
    refuse_infinite(weights)
    for name, weight in weights.items():
        if criterion == "magnitude":
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
            f"remaining is {float(amount.value)}, but {where} keeps only {len(candidates) / len(was_kept):.4g} of its "
            "weights; pruning brings none back, so give less"
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
