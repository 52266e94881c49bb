"""Which weights of a network are kept."""

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


def read_flags(path: str | Path, what: str) -> dict[str, Tensor]:
    """Read bool tensors by name.

    Parameters
    ----------
    path
        A safetensors file.
    what
        Is expected in it, for messages.

    Raises
    ------
    InputError
        The file is missing, damaged or empty, or holds other tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; {what} expected")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise InputError(
            f"{path} is not readable as {what} (safetensors expected): {error}; write it again (where a study wrote "
            "it: remove it and run the study again)"
        ) from error
    if not tensors:
        raise InputError(f"{path} is not {what}: it holds nothing")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.bool:
            raise InputError(f"{path} is not {what}: {name!r} is {tensor.dtype}, expected torch.bool")
    return tensors


def prunable_weights(model: nn.Module, exclude: tuple[str, ...] = ()) -> dict[str, nn.Parameter]:
    """The convolution and linear weights of a network, by name, in the order of its modules.

    Biases and normalisation are not pruned; a weight that several modules share is named once. The projections of
    queries, keys and values that `torch.nn.MultiheadAttention` holds itself are linear weights like any other.

    Parameters
    ----------
    model
        Any network.
    exclude
        Names or shell patterns (`fc`, `layer1.*`, `conv1.weight`) of weights to leave whole, or of modules, whose
        weights are left whole with those of all modules within.

    Raises
    ------
    InputError
        A pattern matches no weight, nothing is left to prune, a weight is computed from others or has no shape or no
        values yet, or the network is quantised.
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
                f"weight {name!r} is no parameter but computed from others, as by weight or spectral normalisation; "
                "remove that first, or exclude the weight"
            )
        if is_lazy(weight):
            raise InputError(f"weight {name!r} has no shape yet; run the network once, or give its modules their sizes")
        refuse_meta(name, weight)
    return kept


def all_prunable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give all weights that would be pruned if none were excluded, whatever they are; see `prunable_weights`."""
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
    """Name the prunable weights that a module holds itself."""
    if isinstance(module, _ConvNd | nn.Linear):
        return ["weight"]
    if isinstance(module, nn.MultiheadAttention):
        projections = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [own for own in projections if getattr(module, own) is not None]
    return []


def matching_weights(weights: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Find the weights that a name or shell pattern matches, or that lie in a module which one matches.

    Raises
    ------
    InputError
        A pattern matches none.

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
    """Name the layer that a weight belongs to; one of several in a module keeps its own name."""
    return weight.removesuffix(".weight")


def _modules_around(weight: str) -> list[str]:
    """Name the modules that hold a weight, the outermost first."""
    parts = weight.split(".")[:-1]
    return [".".join(parts[: depth + 1]) for depth in range(len(parts))]


class Mask(Mapping[str, Tensor]):
    """The kept weights of a network: a boolean tensor of the weight's shape for each prunable weight, by its name.

    Parameters
    ----------
    tensors
        Name of a weight -> bool tensor of its shape, True where the weight is kept.

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
        """Read a mask that `save` wrote.

        Raises
        ------
        InputError
            The file is missing or is no mask.
        """
        return cls(read_flags(path, "a mask"))

    def save(self, path: str | Path) -> None:
        """Write the mask as safetensors, a bool tensor per weight."""
        write_arrays(Path(path), {name: tensor.numpy() for name, tensor in self.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Mask({self.kept:,} of {self.prunable:,} weights in {len(self)} tensors, {self.weights_remaining:.2%})"

    @property
    def kept(self) -> int:
        """How many weights are kept."""
        return sum(int(tensor.sum()) for tensor in self.values())

    @property
    def prunable(self) -> int:
        """How many weights there are to prune."""
        return sum(tensor.numel() for tensor in self.values())

    @property
    def weights_remaining(self) -> float:
        """Kept weights / prunable weights, from 0 to 1."""
        return self.kept / self.prunable

    @property
    def empty(self) -> tuple[str, ...]:
        """Names of the weights of which nothing is kept."""
        return tuple(name for name, tensor in self.items() if not tensor.any())

    def parameters(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the weights of `model` that this mask speaks of, by name.

        Raises
        ------
        InputError
            A weight is missing in `model` or has another shape.
        """
        weights = dict(model.named_parameters(remove_duplicate=False))
        for name, tensor in self.items():
            if name not in weights:
                raise InputError(f"the mask's weight {name!r} is not in the network; {nearest(name, weights)}")
            if weights[name].shape != tensor.shape:
                shapes = f"{list(tensor.shape)}, the network's {list(weights[name].shape)}"
                raise InputError(f"the mask's weight {name!r} has shape {shapes}")
        return {name: weights[name] for name in self}

    def apply(self, model: nn.Module) -> None:
        """Set the pruned weights of `model` to exactly zero, in place."""
        with torch.no_grad():
            for name, weight in self.parameters(model).items():
                weight.masked_fill_(~self[name].to(weight.device), 0.0)
