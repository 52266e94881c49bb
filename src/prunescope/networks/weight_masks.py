"""Apply masks that are stored apart from the weights."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.checkpoint_files import listed
from prunescope.networks.checkpoint_keys import Masks
from prunescope.networks.stored_weights import check_mask, masked

_PARAMETRIZED = re.compile(r"(?:^|(?<=\.))parametrizations\.([^.]+)\.(?:\d+\.)?mask$")


def pair_masks(weights: Sequence[str | Path], masks: Sequence[str | Path]) -> list[str | Path | None]:
    """Return the file of masks of each file of weights; None for each if there are no masks.

    Raises
    ------
    InputError
        If there are masks, but not one file for each file of weights.
    """
    if masks and len(masks) != len(weights):
        raise InputError(
            f"--masks is given for {len(masks)} and --weights for {len(weights)} files; give one file of masks for "
            "each file of weights, in the same order"
        )
    return [*masks] if masks else [None] * len(weights)


def apply_masks(model: nn.Module, tensors: Mapping[str, Tensor], masks: Masks) -> dict[str, Tensor]:
    """Set the pruned weights of a network to zero.

    Parameters
    ----------
    model
        The network.
    tensors
        The network's tensors by name, dense and with the network's shapes.
    masks
        The masks. They are named as the weights, or as their modules, with or without `_mask` or `.mask` at the end,
        and their names may have a common prefix. Weights without a mask stay as they are.

    Returns
    -------
    dict of str to Tensor
        The tensors, with zeros where a mask prunes.

    Raises
    ------
    InputError
        If masks that are required do not fit the network: by their names, their shapes, or values other than 0 and 1.

    Warns
    -----
    UserWarning
        If masks that are not required do not fit and are ignored, or set weights to zero.

    Examples
    --------
    >>> import torch
    >>> masks = Masks({"weight": torch.tensor([[True, False]])}, "masks.pth", required=True)
    >>> apply_masks(nn.Linear(2, 1), {"weight": torch.ones(1, 2), "bias": torch.ones(1)}, masks)
    {'weight': tensor([[1., 0.]]), 'bias': tensor([1.])}
    """
    try:
        kept = _fit_masks(model, masks)
    except InputError as error:
        if masks.required:
            raise
        warnings.warn(f"{masks.place} are ignored, because they do not fit the network: {error}", stacklevel=4)
        return dict(tensors)
    pruned = {name: masked(tensors[name], mask) for name, mask in kept.items() if name in tensors}
    zeroed = sum(int((tensors[name] != 0).sum() - (weight != 0).sum()) for name, weight in pruned.items())
    if zeroed and not masks.required:
        warnings.warn(f"{masks.place} are applied; they set {zeroed:,} weights to zero", stacklevel=4)
    return {**tensors, **pruned}


def masked_weights(model: nn.Module, masks: Masks) -> set[str]:
    """Return the names of the weights that masks belong to; none if the masks do not fit the network."""
    try:
        return set(_fit_masks(model, masks))
    except InputError:
        if masks.required:
            raise
        return set()


def _fit_masks(model: nn.Module, masks: Masks) -> dict[str, Tensor]:
    """Return the masks as dense bool tensors, by the names of the network's weights."""
    own: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    counts: Counter[str] = Counter()
    for name in masks.tensors:
        starts = [0] + [place + 1 for place, letter in enumerate(name) if letter == "."]
        counts.update(name[:start] for start in starts if _weight_of(name[start:], own) is not None)
    # This is the shortest of the prefixes under which most names fit.
    prefix = min(counts, key=lambda prefix: (-counts[prefix], len(prefix)), default="")
    weights = {name: _weight_of(name.removeprefix(prefix), own) for name in masks.tensors if name.startswith(prefix)}
    unknown = [name for name in masks.tensors if weights.get(name) is None]
    if unknown:
        raise InputError(
            f"{masks.place} do not fit the network {type(model).__name__}: {len(unknown)} of {len(masks.tensors)} "
            f"names are not of its weights: {listed(unknown)}. Name each mask as its weight, such as "
            f"{next((name for name in own if name.endswith('weight')), 'conv1.weight')!r}"
        )
    kept: dict[str, Tensor] = {}
    for name, weight in weights.items():
        assert weight is not None
        if weight in kept:
            raise InputError(
                f"{masks.place} contain two masks for {weight!r}, the second as {name!r}; keep one of them"
            )
        kept[weight] = check_mask(masks.tensors[name], own[weight].shape, name, masks.place)
    return kept


def _weight_of(name: str, own: Mapping[str, Tensor]) -> str | None:
    return next((form for form in _forms(name) if form in own), None)


def _forms(name: str) -> Iterator[str]:
    """Yield the names of weights that a mask's name may mean."""
    yield name
    yield _PARAMETRIZED.sub(r"\1", name)
    yield name.removesuffix("_mask")
    module = name.removesuffix("_mask").removesuffix(".mask")
    yield f"{module}.weight" if module != "mask" else "weight"
