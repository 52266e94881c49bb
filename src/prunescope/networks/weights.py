"""Read weights from files and load them into networks.

No code in a file is run, and a network is changed only after all weights have been checked against it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.files import replacing
from prunescope.networks.checkpoint_files import listed
from prunescope.networks.checkpoint_keys import Masks, read_checkpoint
from prunescope.networks.prefixes import fit_names
from prunescope.networks.stored_weights import compute_weights, unknown_parametrization
from prunescope.networks.weight_masks import apply_masks, masked_weights

_SHOWN = 10

_OTHER_NETWORK = "give the network that the file was made with"
_DEQUANTISE = (
    "give the checkpoint from before it was quantised, or convert it: torch.save({name: tensor.dequantize() if "
    "tensor.is_quantized else tensor for name, tensor in WEIGHTS.items()}, NEW_FILE)"
)


def load_weights(
    model: nn.Module, path: str | Path, *, key: str | None = None, masks: str | Path | None = None
) -> None:
    """Load a checkpoint's weights into a network, in place.

    Parameters
    ----------
    model
        The network. It is unchanged if the checkpoint cannot be used.
    path
        A safetensors file; a file written by `torch.save` that contains tensors by name or a checkpoint; or an index of
        several such files (`model.safetensors.index.json`), or a folder with one. All names of the network's tensors
        may have a common prefix such as `module.` or `model.`; tensors without the prefix are then ignored with a
        warning. Weights that are stored in parts, such as `weight_orig` and `weight_mask`, are computed, see
        `compute_weights`. Half precision and sparse tensors are converted to the network's dtype and made dense. Only
        tensors are read: a file with code is refused, and the code is not run.
    key
        The key of the weights in a checkpoint that contains several dictionaries, with dots between nested keys, such
        as `ema.module`; or the first part of the names of the network's tensors, such as `student`. By default, the
        usual keys are tried in this order: `state_dict`, `model_state_dict`, `model`, `net`, `network`, `module`,
        `params`, `weights`, then the averages `state_dict_ema`, `model_state_dict_ema`, `model_ema`, `ema_state_dict`,
        `ema`, `params_ema`. Under another key, weights are found if no other entry contains tensors by name.
    masks
        A file with a mask for each pruned weight: tensors of bool or of 0 and 1 in the shape of the weight, under the
        name of the weight or its module, with or without `_mask`. By default, masks under `masks` or `mask` in the
        checkpoint are used, if there are any. Weights whose mask is 0 are set to zero.

    Raises
    ------
    InputError
        If a file does not exist, is damaged, or contains code or no weights; if the weights or masks do not fit the
        network (the message lists the first ten tensors that are missing, unknown or of another shape); if two parts of
        the file fit, such as a student and its teacher; if the file contains only the original of a parametrized weight
        and no mask is given for it; or if a tensor's type cannot be converted to that of the
        network (quantised or complex, for example).

    Warns
    -----
    UserWarning
        If the checkpoint contains several sets of weights and no key is given; if masks in the checkpoint set weights
        to zero; if tensors or masks of the file are ignored; or if values are not finite.
    """
    checkpoint = read_checkpoint(path, key=key, masks=masks)
    fit_weights(model, checkpoint.tensors, path, checkpoint.masks)


def save_weights(model: nn.Module, path: str | Path) -> None:
    """Write a network's weights and buffers to a safetensors file.

    Parameters
    ----------
    model
        The network. Tensors that share memory are written once per name.
    path
        The file to write. If writing fails, no incomplete file is left, and an existing file is kept unchanged.
    """
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    with replacing(Path(path)) as beside:
        # `save_file` is not used because it replaces the OSError of a full disk by an error of its own.
        beside.write_bytes(safetensors.torch.save(tensors, {"format": "pt"}))


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the named tensors of a weights file, as `load_weights` describes it, without masks beside them.

    Parameters
    ----------
    path
        A safetensors file, or a file written by `torch.save`.

    Returns
    -------
    dict of str to Tensor
        The tensors by the names in the file, on the CPU.

    Raises
    ------
    InputError
        If the file does not exist, is damaged, or contains code or no weights.
    """
    return read_checkpoint(path).tensors


def fit_weights(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path, masks: Masks | None = None) -> None:
    """Load named tensors into a network, in place, if all of them fit.

    Parameters
    ----------
    model
        The network. It is unchanged if the tensors do not fit.
    tensors
        The tensors by the names in the file. `num_batches_tracked` may be missing.
    path
        The file that they were read from, for messages.
    masks
        The masks to apply, if there are any.

    Raises
    ------
    InputError
        If the tensors or masks do not fit, as in `load_weights`.

    Warns
    -----
    UserWarning
        If tensors are ignored or contain values that are not finite, as in `load_weights`.
    """
    own = model.state_dict()
    computed = compute_weights(model, tensors, path)
    fit = fit_names(model, computed.tensors)
    if fit.others:
        raise _ambiguous(model, fit.others, path)
    given, missing = fit.tensors, fit.missing
    unknown = [name for name in given if name not in own]
    other = [name for name in own if name in given and own[name].shape != given[name].shape]
    if missing or unknown or other:
        for problem in computed.problems.values():
            raise problem
        lines = [f"{name}: the network has {_shape(own[name])}, the file {_shape(given[name])}" for name in other]
        lines += [f"{name}: {_shape(own[name])} in the network, missing from the file" for name in missing]
        lines += [f"{name}: {_shape(given[name])} in the file, unknown to the network" for name in unknown]
        more = [f"... and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        raise InputError(
            f"the weights in {path} do not fit the network {type(model).__name__}: of its {len(own)} tensors "
            f"{len(other)} have another shape and {len(missing)} are missing from the file; {len(unknown)} in the file "
            f"are unknown to the network. {_way_out(own, given, other)}\n  " + "\n  ".join(lines[:_SHOWN] + more)
        )
    # A parametrization such as torch.ao.pruning's keeps its mask out of the file, so its original may be unpruned.
    originals = {name.removeprefix(fit.prefix) for name in computed.originals if name.startswith(fit.prefix)}
    if originals and masks is not None:
        originals -= masked_weights(model, masks)
    if originals:
        raise unknown_parametrization(sorted(originals), path)
    loadable = _loadable(model, given, path)
    model.load_state_dict(loadable if masks is None else apply_masks(model, loadable, masks), strict=False)
    if fit.ignored:
        warnings.warn(
            f"{path}: the tensors named {fit.prefix}* are the network's; the others are ignored: {listed(fit.ignored)}",
            stacklevel=2,
        )


def classes_in(model: nn.Module, tensors: Mapping[str, Tensor], path: str | Path = "the file") -> int | None:
    """Return the number of classes of weights that differ from a network only in that number.

    Parameters
    ----------
    model
        The network, built for another number of classes.
    tensors
        The tensors by name, as `read_tensors` returns them.
    path
        The file that they were read from, for messages.

    Returns
    -------
    int or None
        The common number of rows of all tensors with another shape than in the network. None if there is no such
        tensor, or if they differ in more than the number of rows.

    Examples
    --------
    >>> classes_in(nn.Linear(8, 1000), nn.Linear(8, 365).state_dict())
    365
    """
    own = model.state_dict()
    given = fit_names(model, compute_weights(model, tensors, path).tensors).tensors
    pairs = [(own[name].shape, given[name].shape) for name in own if name in given]
    pairs = [(here, there) for here, there in pairs if here != there]
    if any(not here or not there or here[1:] != there[1:] for here, there in pairs):
        return None
    rows = {(here[0], there[0]) for here, there in pairs}
    return (rows.pop()[1] or None) if len(rows) == 1 else None


@contextmanager
def tensors_only() -> Iterator[None]:
    """Restrict `torch.load` to tensors within the context, even where other packages ask it to unpickle objects."""
    switch = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before


def _ambiguous(model: nn.Module, prefixes: Sequence[str], path: str | Path) -> InputError:
    shown = " and ".join(f"as {prefix}*" if prefix else "without a prefix" for prefix in prefixes)
    key = next(prefix for prefix in prefixes if prefix).rstrip(".")
    plain = (
        f". For those without a prefix, save them alone: torch.save({{name: tensor for name, tensor in WEIGHTS.items() "
        f"if not name.startswith('{key}.')}}, NEW_FILE)"
    )
    return InputError(
        f"the weights in {path} fit the network {type(model).__name__} more than once, with different values: {shown}. "
        f"Give the prefix of those that are meant as --weights-key {key} (key={key!r} in Python)"
        f"{plain if '' in prefixes else ''}"
    )


def _way_out(own: Mapping[str, Tensor], given: Mapping[str, Tensor], other: Sequence[str]) -> str:
    smaller = [name for name in other if own[name].ndim == given[name].ndim]
    if len(smaller) > 1 and all(
        all(there <= here for there, here in zip(given[name].shape, own[name].shape, strict=True)) for name in smaller
    ):
        return (
            "If filters were removed from the network, give a function that builds it in the smaller shape "
            "(path/to/file.py:function); otherwise, " + _OTHER_NETWORK + "."
        )
    return f"{_OTHER_NETWORK[0].upper()}{_OTHER_NETWORK[1:]}."


def _loadable(model: nn.Module, given: Mapping[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Convert the tensors of a file to the dtypes of the network's tensors, or raise if that is not possible."""
    own = model.state_dict()
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    loadable: dict[str, Tensor] = {}
    for name, tensor in given.items():
        kind, wanted = tensor.dtype, own[name].dtype
        if tensor.is_meta:
            raise _unfit(path, name, "has no values, only a shape (device meta)", "save a network that has weights")
        if tensor.is_quantized:
            raise _unfit(path, name, f"is quantised ({kind})", _DEQUANTISE)
        if name in parameters and not (kind.is_floating_point or kind.is_complex):
            raise _unfit(
                path, name, f"consists of whole numbers ({kind})", "give the checkpoint from before the quantisation"
            )
        if kind.is_complex and not wanted.is_complex:
            raise _unfit(path, name, f"is complex ({kind}), but the network's is {wanted}", _OTHER_NETWORK)
        plain = tensor if tensor.layout == torch.strided else tensor.to_dense()
        cast = plain.to(wanted)
        if not (wanted.is_floating_point or wanted.is_complex) and not torch.equal(cast.to(kind), plain):
            raise _unfit(path, name, f"is {kind}, but the network's is {wanted}", _OTHER_NETWORK)
        loadable[name] = cast
    # Buffers may contain infinity on purpose, as attention masks do.
    spoilt = [
        name
        for name, tensor in loadable.items()
        if tensor.isnan().any() or (name in parameters and not tensor.isfinite().all())
    ]
    if spoilt:
        warnings.warn(
            f"{path}: {len(spoilt)} of its {len(loadable)} tensors contain nan or infinity as {own[spoilt[0]].dtype}; "
            f"outputs of the network that depend on them are meaningless: {listed(spoilt)}",
            stacklevel=4,
        )
    return loadable


def _unfit(path: str | Path, name: str, found: str, instead: str) -> InputError:
    return InputError(f"the weights in {path} cannot be used: {name} {found}; {instead}")


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))
