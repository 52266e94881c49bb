"""Match the names of a file's tensors to a network's, allowing for a common prefix."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

# The auxiliary classifiers of GoogLeNet and Inception are used for training only, but published files contain them.
_TRAINING_HEADS = ("AuxLogits.", "aux1.", "aux2.")

# Until 2018, torchvision's DenseNets used the name `norm.1` for today's `norm1`. Files of Places365 still do.
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)$")


class Fit(NamedTuple):
    """The tensors of a file, renamed to the network's names as far as they match.

    Attributes
    ----------
    tensors
        The tensors by name, without the prefix. If the names do not match under any prefix, these are all tensors of
        the file, so that an error message can list the mismatches.
    missing
        The names of the network's tensors that the file lacks.
    prefix
        The prefix that was removed from the names.
    ignored
        The names in the file that do not start with the prefix; empty if the names do not match under any prefix.
    others
        All prefixes under which the names match, if the tensors have different values under some of them, so that the
        choice is ambiguous. Otherwise empty.
    """

    tensors: dict[str, Tensor]
    missing: list[str]
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def fit_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> Fit:
    """Find the prefix under which the names in a file match the network's names.

    Wrappers add a prefix to every name: `module.` for data-parallel and averaged models, `_orig_mod.` for compiled
    ones, the name of an attribute such as `model.` for Lightning modules, or several of these. A prefix that ends in a
    dot is removed if the tensors with this prefix are exactly those of the network. Tensors without the prefix are
    then ignored.

    Parameters
    ----------
    model
        The network.
    tensors
        The tensors by the names in the file.

    Returns
    -------
    Fit
        The renamed tensors. The file may lack `num_batches_tracked`, and all but one of the names of a tensor that
        several modules of the network share.

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
    # If the names match under several prefixes, prefer those under which the shapes match too.
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
    # Nothing matches, so report the mismatches under the prefix with the most matching names.
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
    """Return whether the network would have the same weights with either set of tensors."""
    names = [name for name in own if name in one or name in other]
    return all(name in one and name in other and _equal(one[name], other[name]) for name in names)


def _equal(one: Tensor, other: Tensor) -> bool:
    if any(tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized for tensor in (one, other)):
        return False
    # Compare bytes, because NaN is not equal to itself and some dtypes do not support comparison.
    first, second = (tensor.contiguous().flatten().view(torch.uint8) for tensor in (one, other))
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(first, second)
