"""Find the prunable weights of a network, and represent those that are kept as a mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from prunescope.errors import InputError, nearest
from prunescope.files import write_arrays
from prunescope.networks.checks import check_network, refuse_meta, refuse_quantised
from prunescope.notebook import as_html


def read_flags(path: str | Path, what: str) -> dict[str, Tensor]:
    """Read named bool tensors from a safetensors file.

    Parameters
    ----------
    path
        A safetensors file.
    what
        A description of the expected content, for messages.

    Returns
    -------
    dict of str to Tensor
        The bool tensors by name.

    Raises
    ------
    InputError
        If the file is missing or damaged, or contains no tensors or tensors of another dtype.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: the file does not exist; expected {what}")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path} cannot be read as {what} in safetensors format: {error}; write the file again or, if a study "
            "wrote it, remove it and run the study again"
        ) from error
    if not tensors:
        raise InputError(f"{path} is not {what}: it contains no tensors")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            raise InputError(f"{path} is not {what}: {name!r} is {tensor.dtype}, expected torch.bool")
    return tensors


def prunable_weights(model: nn.Module, exclude: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """Return the convolution and linear weights of a network.

    They include the projections of queries, keys and values that `torch.nn.MultiheadAttention` stores as its own
    parameters. Biases and normalisation parameters are never pruned.

    Parameters
    ----------
    model
        Any network.
    exclude
        Names or shell patterns (`fc`, `layer1.*`, `conv1.weight`) of weights or modules to exclude. Excluding a module
        also excludes the weights of all modules inside it.

    Returns
    -------
    dict of str to Parameter
        The weights by name, in the order of the network's modules. A weight that several modules share occurs once.

    Raises
    ------
    InputError
        If a pattern matches no weight; if no weight is left to prune; if a weight is computed from other parameters, or
        has no shape or no values yet; or if the network is quantised.
    """
    check_network(model)
    refuse_quantised(model)
    weights = all_prunable(model)
    excluded = matching_weights(weights, exclude)
    kept = {name: weight for name, weight in weights.items() if name not in excluded}
    if not kept:
        raise InputError(
            "there is nothing to prune: the network has no convolution or linear weight that is not excluded"
        )
    for name, weight in kept.items():
        if not isinstance(weight, nn.Parameter):
            raise InputError(
                f"weight {name!r} is not a parameter but computed from others, as in weight or spectral normalisation; "
                "remove that first, or exclude the weight"
            )
        if is_lazy(weight):
            raise InputError(f"weight {name!r} has no shape yet; run the network once, or give its modules their sizes")
        refuse_meta(name, weight)
    return kept


def all_prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return all convolution and linear weights, as `prunable_weights` does but without exclusions and checks."""
    weights: dict[str, nn.Parameter] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for own in _prunable(module):
            weight = getattr(module, own)
            if id(weight) not in seen:
                seen.add(id(weight))
                weights[f"{name}.{own}" if name else own] = weight
    return weights


def _prunable(module: nn.Module) -> list[str]:
    """Return the names of the prunable weights that are a module's own parameters."""
    if isinstance(module, _ConvNd | nn.Linear):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [own for own in projections if getattr(module, own) is not None]
    return []


def matching_weights(weights: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the weights that match a name or a shell pattern, or that are in a module that matches one.

    Parameters
    ----------
    weights
        The names of the weights.
    patterns
        Names or shell patterns of weights or modules.

    Returns
    -------
    set of str
        The names of the weights that match.

    Raises
    ------
    InputError
        If a pattern matches no weight.

    Examples
    --------
    >>> sorted(matching_weights(["conv1.weight", "layer1.0.conv1.weight", "fc.weight"], ["fc", "layer*"]))
    ['fc.weight', 'layer1.0.conv1.weight']
    """
    names = {weight: {weight, *_modules_around(weight)} for weight in weights}
    found: set[str] = set()
    for pattern in patterns:
        matched = {weight for weight, own in names.items() if any(fnmatchcase(name, pattern) for name in own)}
        if not matched:
            known = sorted(set().union(*names.values()))
            raise InputError(f"exclude: no prunable weight or module is called {pattern!r}; {nearest(pattern, known)}")
        found |= matched
    return found


def layer_of(weight: str) -> str:
    """Return the name of a weight's layer, which is the weight's name without the ending `.weight`, if it has one."""
    return weight.removesuffix(".weight")


def _modules_around(weight: str) -> list[str]:
    """Return the names of the modules that contain a weight, the outermost first."""
    parts = weight.split(".")[:-1]
    return [".".join(parts[: depth + 1]) for depth in range(len(parts))]


class Mask(Mapping[str, Tensor]):
    """The kept weights of a network, as a mapping from the name of each prunable weight to a bool tensor.

    Parameters
    ----------
    tensors
        For each prunable weight, by name, a bool tensor of its shape that is True where the weight is kept.

    Raises
    ------
    InputError
        If a tensor is not of dtype bool.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 2))
    >>> mask = Mask.dense(model)
    >>> mask["0.weight"].shape, mask.weights_remaining
    (torch.Size([2, 4]), 1.0)
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            if tensor.dtype != torch.bool:
                raise InputError(f"mask tensor {name!r} is {tensor.dtype}, expected torch.bool")
        self._tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}

    @classmethod
    def dense(cls, model: nn.Module, exclude: tuple[str, ...] = ()) -> Mask:
        """Return the mask that keeps every prunable weight of `model`."""
        weights = prunable_weights(model, exclude)
        return cls({name: torch.ones(w.shape, dtype=torch.bool) for name, w in weights.items()})

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read a mask from a file that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing or does not contain a mask.
        """
        return cls(read_flags(path, "a mask"))

    def save(self, path: str | Path) -> None:
        """Write the mask to a safetensors file, with one bool tensor per weight."""
        write_arrays(Path(path), {name: tensor.numpy() for name, tensor in self.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Mask({self.kept:,} of {self.prunable:,} weights in {len(self)} tensors, {self.weights_remaining:.2%})"

    def _repr_html_(self) -> str:
        import pandas as pd

        rows = [(name, int(tensor.sum()), tensor.numel()) for name, tensor in self.items()]
        table = pd.DataFrame(rows, columns=["weight", "kept", "prunable"])
        return as_html(repr(self), table.assign(remaining=table["kept"] / table["prunable"]))

    @property
    def kept(self) -> int:
        """The number of kept weights."""
        return sum(int(tensor.sum()) for tensor in self.values())

    @property
    def prunable(self) -> int:
        """The number of prunable weights, kept or pruned."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def weights_remaining(self) -> float:
        """The ratio of kept to prunable weights, from 0 to 1."""
        return self.kept / self.prunable

    @property
    def empty(self) -> tuple[str, ...]:
        """The names of the weight tensors that are pruned completely."""
        return tuple(name for name, tensor in self.items() if not tensor.any())

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights of `model` that this mask covers, by name.

        Raises
        ------
        InputError
            If a weight is missing in `model` or has another shape there.
        """
        weights = dict(model.named_parameters(remove_duplicate=False))
        for name, tensor in self.items():
            if name not in weights:
                raise InputError(f"the mask's weight {name!r} is not in the network; {nearest(name, weights)}")
            if weights[name].shape != tensor.shape:
                shapes = f"{list(tensor.shape)}, but shape {list(weights[name].shape)} in the network"
                raise InputError(f"the mask's weight {name!r} has shape {shapes}")
        return {name: weights[name] for name in self}

    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of `model` to exactly zero, in place.

        Raises
        ------
        InputError
            If a weight is missing in `model` or has another shape there.
        """
        with torch.no_grad():
            for name, weight in self.parameters(model).items():
                weight.masked_fill_(~self[name].to(weight.device), 0.0)
