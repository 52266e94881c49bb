"""Which of a file's tensors are a network's: under which prefix their names fit."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# Heads that GoogLeNet and Inception have for training only; published files hold them.
_TRAINING_HEADS = ("AuxLogits.", "aux1.", "aux2.")

# Until 2018 torchvision's DenseNets named `norm.1` what is `norm1` now; Places365's still do.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")


class Fit(NamedTuple):
    """The tensors of a file, under the network's names as far as they fit.

    Attributes
    ----------
    tensors
        By name. Where no prefix makes all names fit, these are all tensors of the file, so that what does not fit can
        be told.
    missing
        The network's names that the file lacks.
    prefix
        What was taken off the names.
    ignored
        The file's names that do not begin with the prefix, where all of the network's names do with it.
    others
        Prefixes with which the names would fit as well, but not the values: a choice between them would be a guess.
    """

    tensors: dict[str, Tensor]
    missing: list[str]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def fit_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Find the prefix under which a file's names are the network's.

    Wrappers put one before every name: `module.` of data-parallel and averaged models, `_orig_mod.` of compiled ones,
    an attribute's name such as `model.` of Lightning's modules, or several of these. A prefix is taken off where it
    ends in a dot, all of the network's tensors are there with it, and no other tensors are. What does not begin with
    it is then ignored.

    Parameters
    ----------
    model
        The network.
    tensors
        By the names in the file.

    Returns
    -------
    Fit
        `num_batches_tracked` may be missing, and all but one of several names of a tensor that the network shares.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> fit = fit_names(nn.Linear(1, 1), {"net.weight": one.view(1, 1), "net.bias": one, "n": one})
    >>> fit.prefix, list(fit.tensors), fit.ignored
    ('net.', ['weight', 'bias'], ('n',))
    """
    own: dict[str, Tensor] = model.state_dict()
    given = dict(tensors)
    if not any(_OLD_DENSENET.match(name) for name in own):
        given = {_OLD_DENSENET.sub(r"\1\2", name): tensor for name, tensor in given.items()}
    counts: Counter[str] = Counter()
    for name in given:
        starts = [0] + [place + 1 for place, letter in enumerate(name) if letter == "."]
        counts.update(name[:start] for start in starts if name[start:] in own)
    parts = {prefix: _part(model, given, prefix) for prefix in counts}
    complete = {
        prefix: part
        for prefix, part in parts.items()
        if not _missing(own, part) and (not prefix or part.keys() <= own.keys())
    }
    # Of several whose names fit, only those whose shapes do too can be meant.
    shaped = {
        prefix: part
        for prefix, part in complete.items()
        if all(part[name].shape == own[name].shape for name in part.keys() & own.keys())
    }
    choice = shaped or complete
    if choice:
        prefix, part = next(iter(choice.items()))
        others = [other for other, its in choice.items() if other != prefix and not _same(part, its, own)]
        ignored = [name for name in given if not name.startswith(prefix)]
        return Fit(part, _missing(own, part), prefix, tuple(ignored), (prefix, *others) if others else ())
    # Told under the prefix that most names have: of the others, all are unknown.
    prefix = max(counts, key=counts.__getitem__, default="")
    rest = {name: tensor for name, tensor in given.items() if not name.startswith(prefix)}
    part = rest | _part(model, given, prefix)
    return Fit(part, _missing(own, part), prefix)


def _part(model: nn.Module, given: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    part = {name.removeprefix(prefix): tensor for name, tensor in given.items() if name.startswith(prefix)}
    if getattr(model, "aux_logits", None) is False:
        part = {name: tensor for name, tensor in part.items() if not name.startswith(_TRAINING_HEADS)}
    return part


def _missing(own: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> list[str]:
    missing = [name for name in own if name not in part and not name.endswith("num_batches_tracked")]
    shared = {_memory(own[name]) for name in part.keys() & own.keys() if own[name].numel()} if missing else set()
    return [name for name in missing if _memory(own[name]) not in shared]


def _memory(tensor: Tensor) -> tuple[object, ...]:
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> bool:
    """Tell whether the network would have the same weights with either."""
    names = [name for name in own if name in one or name in other]
    return all(name in one and name in other and _equal(one[name], other[name]) for name in names)


def _equal(one: Tensor, other: Tensor) -> bool:
    if any(tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized for tensor in (one, other)):
        return False
    # Bytes, since nan is not equal to itself and not all types can be compared.
    first, second = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(first, second)
