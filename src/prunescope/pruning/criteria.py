"""Which of the kept weights go next."""

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
from prunescope.networks.checks import taking
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
    """Prune a fraction of the kept weights, or down to given weights remaining (Frankle and Bau 2019, section 2).

    Exactly ceil(fraction x kept) weights go, or as many as leave prunable - ceil((1 - remaining) x prunable): those of
    lowest score (by magnitude: Han et al. 2015). Ties go by position, first come first pruned, so that the mask is a
    function of the weights alone. The model itself is not changed: `Mask.apply` does that.

    Parameters
    ----------
    model
        The trained network.
    mask
        What earlier levels kept; None for a dense network.
    fraction
        Of the kept weights that go, 0 to 1; 0.2 if neither this nor `remaining` is given.
    remaining
        Instead of `fraction`: kept / prunable weights afterwards, 0 to 1.
    criterion
        `magnitude`: the score is the weight's absolute value; `random`: it is drawn from `seed`.
    scope
        `global`: scores are compared over all weights together; `layer`: within each weight tensor, which gives its
        own fraction or comes down to its own share.
    exclude
        Names or shell patterns of weights, or of modules whose weights are meant, to leave whole; only with
        `mask=None` (a mask knows what it prunes).
    image_size
        Height and width of the images that the network takes, in pixels, or one number for both. If it is given, the
        network runs twice to check that a pruned weight is zero in what the network computes with, whatever module
        uses it. Otherwise only modules that are no classes of PyTorch's own are checked, each by itself.
    seed
        Of `criterion="random"`.

    Returns
    -------
    Mask
        What is kept now; a subset of `mask`.

    Warns
    -----
    UserWarning
        With `mask=None`: much of the network cannot be pruned, or something that looks like a weight.

    Raises
    ------
    InputError
        A pruned weight would not be zero in what the network computes with, as with weight standardisation; a number
        outside 0 to 1, more weights remaining than the mask keeps, an unknown criterion or scope, a pattern
        that matches nothing, weights that are not finite, a mask of another network.

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
        with taking(model, images):
            check_effective(model, mask, images)
    scores = _scores(model, mask, criterion, seed)
    groups = [list(mask)] if scope == "global" else [[name] for name in mask]
    kept: dict[str, Tensor] = {}
    for names in groups:
        kept |= _keep_highest(names, scores, mask, amount)
    return Mask(kept)


def shuffle(mask: Mask, seed: int) -> Mask:
    """Permute a mask at random within each weight tensor: as many weights of each stay, but others.

    A control: it keeps what a mask says of each layer's size and forgets which weights it chose (Frankle et al. 2021,
    "Pruning neural networks at initialization: why are we missing the mark?").

    Parameters
    ----------
    mask
        Any mask.
    seed
        Of the permutations; the same seed and shapes give the same ones.

    Returns
    -------
    Mask
        Of the same weights.

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
    """How many weights go: a fraction of the kept ones, or all but given weights remaining."""

    value: Fraction
    of_kept: bool

    @classmethod
    def given(cls, fraction: float | None, remaining: float | None) -> Amount:
        """Take the one that is given; without any, a fifth of the kept weights goes.

        Raises
        ------
        InputError
            Both are given, or it is outside 0 to 1.
        """
        if fraction is not None and remaining is not None:
            raise InputError(f"fraction {fraction} and remaining {remaining} are both given; give one of them")
        name, value = ("remaining", remaining) if remaining is not None else ("fraction", fraction)
        value = 0.2 if value is None else value
        if not 0 <= value <= 1:
            meaning = "0.2 prunes a fifth of the kept weights" if name == "fraction" else "0.2 keeps a fifth of all"
            raise InputError(f"{name} is {value}, expected a number from 0 to 1 ({meaning})")
        # By its decimal digits: ceil(0.07 * 100) is 8.
        return cls(Fraction(str(value)), name == "fraction")

    def stay(self, kept: int, prunable: int) -> int:
        """How many of the kept weights stay."""
        if self.of_kept:
            return kept - math.ceil(self.value * kept)
        return prunable - math.ceil((1 - self.value) * prunable)


def refuse_infinite(weights: Mapping[str, Tensor]) -> None:
    """Refuse weights, by their names, that hold infinities or NaN.

    Raises
    ------
    InputError
        The first is named.
    """
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise InputError(f"weight {name!r} holds values that are not finite; a diverged network cannot be pruned")


def _scores(model: nn.Module, mask: Mask, criterion: Criterion, seed: int) -> dict[str, Tensor]:
    # Of another criterion the seed may be any number: nothing is drawn.
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
