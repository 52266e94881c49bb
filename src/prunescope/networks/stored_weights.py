"""Compute a network's weights where a checkpoint stores them in parts: with masks, parametrised, or normalised.

Pruning tools keep a weight and its mask apart, and weight normalisation keeps a length and a direction. Only products
and norms are computed here. Parts that need code that the file does not contain are refused, and the error names them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.checkpoint_files import listed

_PARAMETRIZED = re.compile(r"^((?:.+\.)?)parametrizations\.([^.]+)\.(.+)$")


class Computed(NamedTuple):
    """The weights of a checkpoint under the names of plain weights.

    Attributes
    ----------
    tensors
        The tensors by the names in the file. Parts are replaced by the weight that they represent. If the shape of that
        weight is not the network's, its place is taken by a tensor of that shape without values, so that an error can
        show the shape.
    problems
        The errors of weights that cannot be computed, whose parts are left as they are. They matter only if the network
        needs these weights; a checkpoint may also contain other networks, such as a teacher.
    originals
        The names of weights of which the file contains only the original of a parametrization, so that `tensors` has
        this original. To become the weight, it must be multiplied by a mask that is stored elsewhere.
    """

    tensors: dict[str, Tensor]
    problems: dict[str, InputError]
    originals: tuple[str, ...] = ()


class _Parts(NamedTuple):
    """The parts of one weight: the names in the file by what they are."""

    kind: str
    names: dict[str, str]


def compute_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path) -> Computed:
    """Compute the weights that a checkpoint stores in parts, where the network has plain weights.

    These are the parts (NAME stands for `weight`, `bias` or another tensor of a module):

    - `NAME_orig` and `NAME_mask`, by `torch.nn.utils.prune`: their product;
    - `NAME` and `NAME_mask`, or `weight` and `mask`: their product;
    - `parametrizations.NAME.original` and `parametrizations.NAME.0.mask`: their product; if there is no mask and
      no other tensor, the original is returned and its name is in `originals`;
    - `NAME_g` and `NAME_v`, or `parametrizations.NAME.original0` and `original1`: weight normalisation, g v / |v|.

    Parts are left as they are where the network itself has them.

    Parameters
    ----------
    model
        The network.
    tensors
        The tensors by the names in the file, which may have a prefix.
    path
        The file, for messages.

    Returns
    -------
    Computed
        The tensors, and the errors of those that cannot be computed.

    Examples
    --------
    >>> pruned = {"weight_orig": torch.tensor([[3.0, 4.0]]), "weight_mask": torch.tensor([[1.0, 0.0]])}
    >>> compute_weights(nn.Linear(2, 1, bias=False), pruned, "pruned.pth").tensors
    {'weight': tensor([[3., 0.]])}
    """
    own = model.state_dict()
    found = {name: parts for name, parts in _parts_of(tensors).items() if _is_plain(own, name, parts)}
    whole: dict[str, Tensor] = {}
    problems: dict[str, InputError] = {}
    for name, parts in found.items():
        try:
            whole[name] = _weight(name, parts, tensors, own[name[_start(own, name) :]].shape, path)
        except InputError as error:
            problems[name] = error
    weight_of = {part: name for name in whole for part in found[name].names.values()}
    # The order of the file is kept.
    computed = {name: whole.get(name, tensors.get(name)) for name in (weight_of.get(part, part) for part in tensors)}
    originals = tuple(name for name in whole if found[name].kind == "original")
    return Computed({name: tensor for name, tensor in computed.items() if tensor is not None}, problems, originals)


def unknown_parametrization(names: Sequence[str], path: str | Path) -> InputError:
    """Return the error for weights of which the file contains only the original of a parametrization."""
    return InputError(
        f"the weights in {path} cannot be used: of {len(names)} weights ({listed(names)}) the file contains only the "
        "original of a parametrization, and not the mask or other code that the network was run with. This is how "
        "torch.ao.pruning stores pruned weights. Give the masks of these weights with --masks (masks=FILE in Python); "
        "or call sparsifier.squash_mask() for torch.ao.pruning, otherwise "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight'), where the network was made, and save "
        "its state_dict() again"
    )


def check_mask(mask: Tensor, shape: torch.Size, name: str, place: str) -> Tensor:
    """Return a mask as a dense bool tensor.

    Parameters
    ----------
    mask
        The mask: bool, or the numbers 0 and 1; it may be sparse.
    shape
        The shape of the weight that it belongs to.
    name, place
        The mask's name, and where it is stored, for messages.

    Returns
    -------
    Tensor
        The mask, which is True where the weight is kept.

    Raises
    ------
    InputError
        If the mask has another shape, no values, or values other than 0 and 1.
    """
    if mask.is_nested:
        raise InputError(
            f"{place}: {name} is nested, expected values of the shape {list(shape)}; save it as torch.bool"
        )
    if mask.shape != shape:
        raise InputError(
            f"{place}: {name} has the shape {list(mask.shape)}, expected that of its weight, {list(shape)}; store a "
            "value of 0 or 1 for every weight"
        )
    if mask.is_meta or mask.is_quantized:
        raise InputError(f"{place}: {name} has no usable values ({mask.dtype} on {mask.device}); save it as torch.bool")
    dense = _dense(mask)
    kept: Tensor = dense != 0
    if not torch.equal(kept.to(dense.dtype), dense):
        other = dense[kept & (dense != 1)].flatten()[0].item()
        raise InputError(
            f"{place}: {name} contains {other:g}, expected only 0 (pruned) and 1 (kept), or bool; if these are scores, "
            "save the mask that they give"
        )
    return kept


def masked(weight: Tensor, kept: Tensor) -> Tensor:
    """Return a weight with its pruned values set to zero, as the product that pruning tools compute."""
    return weight * kept.to(weight.dtype)


def _parts_of(tensors: Mapping[str, Tensor]) -> dict[str, _Parts]:
    """Group the names of parts by the name of the weight that they represent."""
    parametrized: defaultdict[str, dict[str, str]] = defaultdict(dict)
    found: dict[str, _Parts] = {}
    for name in tensors:
        if match := _PARAMETRIZED.match(name):
            parametrized[match[1] + match[2]][match[3]] = name
        elif name.endswith("_orig"):
            weight = name.removesuffix("_orig")
            others = {part: f"{weight}_{part}" for part in ("mask", "u", "v") if f"{weight}_{part}" in tensors}
            kind = "product" if "mask" in others else "spectral" if "u" in others else "unknown"
            if kind != "unknown":
                found[weight] = _Parts(kind, {"original": name, **others})
        elif name.endswith("_g") and f"{name[:-2]}_v" in tensors:
            found[name[:-2]] = _Parts("norm", {"original0": name, "original1": f"{name[:-2]}_v"})
        elif name.endswith("_mask") and name.removesuffix("_mask") in tensors:
            weight = name.removesuffix("_mask")
            if f"{weight}_orig" not in tensors:
                found[weight] = _Parts("product", {"original": weight, "mask": name})
        elif name.endswith(".mask") and f"{name.removesuffix('mask')}weight" in tensors:
            weight = f"{name.removesuffix('mask')}weight"
            if tensors[weight].shape == tensors[name].shape:
                found[weight] = _Parts("product", {"original": weight, "mask": name})
    for weight, names in parametrized.items():
        mask = next((part for part in names if part in ("mask", "0.mask")), None)
        if names.keys() == {"original0", "original1"}:
            kind = "norm"
        elif names.keys() == {"original"}:
            kind = "original"
        else:
            kind = "product" if mask is not None and names.keys() == {"original", mask} else "unknown"
        found[weight] = _Parts(kind, {"mask" if part == mask else part: name for part, name in names.items()})
    return found


def _is_plain(own: Mapping[str, Tensor], weight: str, parts: _Parts) -> bool:
    """Return whether the network has a weight and not its parts, under any prefix of the names in the file."""
    plain, stored = _start(own, weight), _start(own, parts.names.get("mask") or min(parts.names.values()))
    return plain >= 0 and (stored < 0 or plain < stored)


def _start(own: Mapping[str, Tensor], name: str) -> int:
    """Return the length of the shortest prefix without which a name is one of the network's; -1 if there is none."""
    starts = [0] + [place + 1 for place, letter in enumerate(name) if letter == "."]
    return next((start for start in starts if name[start:] in own), -1)


def _weight(name: str, parts: _Parts, tensors: Mapping[str, Tensor], shape: torch.Size, path: str | Path) -> Tensor:
    if parts.kind in ("unknown", "spectral"):
        remove = (
            "torch.nn.utils.remove_spectral_norm(module)"
            if parts.kind == "spectral"
            else f"torch.nn.utils.parametrize.remove_parametrizations(module, {name.rpartition('.')[2]!r})"
        )
        raise InputError(
            f"the weights in {path} cannot be used: {name!r} is stored in parts ({', '.join(parts.names.values())}), "
            f"and what is computed from them is not in the file. Call {remove} where the network was made, and save "
            "its state_dict() again"
        )
    if name in tensors and name not in parts.names.values():
        raise InputError(
            f"the weights in {path} cannot be used: the file contains both {name!r} and its parts "
            f"({', '.join(parts.names.values())}), and it is not known which of them is meant; save only one"
        )
    original = tensors[parts.names["original1" if parts.kind == "norm" else "original"]]
    if original.shape != shape:
        # An untrusted file can state a shape that would not fit into memory.
        return torch.empty(original.shape, dtype=original.dtype, device="meta")
    usable = (original.is_floating_point() or original.is_complex()) and not original.is_meta
    if parts.kind == "original" or not usable:
        return original
    if parts.kind == "norm":
        return _normalised(name, tensors[parts.names["original0"]], original, path)
    mask = parts.names["mask"]
    return masked(_dense(original), check_mask(tensors[mask], shape, mask, f"the weights in {path} cannot be used"))


def _normalised(name: str, length: Tensor, direction: Tensor, path: str | Path) -> Tensor:
    """Return the weight that weight normalisation computes: the direction, scaled to the length."""
    along = [axis for axis, size in enumerate(length.shape) if size != 1]
    expected = [size if axis in along else 1 for axis, size in enumerate(direction.shape)]
    if len(along) > 1 or length.dtype != direction.dtype or (length.ndim and list(length.shape) != expected):
        raise InputError(
            f"the weights in {path} cannot be used: the parts of {name!r} have the shapes {list(length.shape)} "
            f"({length.dtype}) and {list(direction.shape)} ({direction.dtype}), which are not those of weight "
            "normalisation; remove the normalisation or parametrization where the network was made, and save its "
            "state_dict() again"
        )
    if length.is_meta:
        return length.expand(direction.shape)
    # torch.nn.utils.weight_norm calls this function too, so the bits are the same. -1 stands for all axes.
    first = 0 if length.ndim and direction.shape[0] == 1 else -1
    weight: Tensor = torch._weight_norm(_dense(direction), _dense(length), along[0] if along else first)
    return weight


def _dense(tensor: Tensor) -> Tensor:
    dense: Tensor = tensor if tensor.layout == torch.strided else tensor.to_dense()
    return dense
