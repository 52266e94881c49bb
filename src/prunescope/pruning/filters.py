"""Filter pruning: whole filters go, and the network becomes a smaller one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch_pruning.ops import module2type
from torch_pruning.pruner.function import PrunerBox

from prunescope.errors import InputError, nearest
from prunescope.files import write_arrays
from prunescope.networks.checks import taking
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.pruning.codes import codes_at_inputs, codes_at_layers, match_codes
from prunescope.pruning.groups import (
    filter_axis,
    has_filters,
    input_channels,
    is_depthwise,
    one_image,
    output_channels,
)
from prunescope.pruning.mask import Mask, prunable_weights, read_flags

_LOOSELY = 1e-3


class Filters(Mapping[str, Tensor]):
    """The filters of a network that are left, by their numbers in the dense network.

    A mapping from the name of every module with channels (convolution, linear, normalisation, PReLU) to the original
    numbers, int64 and ascending, of those of its output channels that are left.

    Parameters
    ----------
    outputs
        Name of a module -> bool tensor, True for each output channel of the dense network that is left.
    inputs
        The same for the input channels (of a linear module: features) of convolutions and linear modules; without
        depthwise convolutions, whose inputs are their outputs.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    >>> Filters.all(model)["0"]
    tensor([0, 1, 2, 3])
    """

    def __init__(self, outputs: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
        for name, kept in (*outputs.items(), *inputs.items()):
            if kept.dtype != torch.bool or kept.ndim != 1:
                given = f"{kept.dtype} {list(kept.shape)}"
                raise InputError(f"filters of {name!r} are {given}, expected torch.bool [channels]")
        self.outputs = {name: kept.detach().cpu() for name, kept in outputs.items()}
        self.inputs = {name: kept.detach().cpu() for name, kept in inputs.items()}

    @classmethod
    def all(cls, model: nn.Module) -> Filters:
        """Return the filters of a dense network: all."""
        outputs, inputs = {}, {}
        for name, module in model.named_modules():
            if (channels := output_channels(module)) is not None:
                outputs[name] = torch.ones(channels, dtype=torch.bool)
            if has_filters(module) and not is_depthwise(module):
                inputs[name] = torch.ones(input_channels(module), dtype=torch.bool)
        return cls(outputs, inputs)

    @classmethod
    def load(cls, path: str | Path) -> Filters:
        """Read filters that `save` wrote.

        Raises
        ------
        InputError
            The file is missing or holds no filters.
        """
        sides: dict[str, dict[str, Tensor]] = {"outputs": {}, "inputs": {}}
        for key, kept in read_flags(path, "a record of filters").items():
            side, _, name = key.partition("/")
            if side not in sides:
                raise InputError(
                    f"{path} is not a record of filters: {key!r} is not called outputs/MODULE or inputs/MODULE"
                )
            sides[side][name] = kept
        return cls(sides["outputs"], sides["inputs"])

    def save(self, path: str | Path) -> None:
        """Write the filters as safetensors: bool tensors ``outputs/MODULE`` and ``inputs/MODULE`` in dense lengths."""
        outputs = {f"outputs/{name}": kept.numpy() for name, kept in self.outputs.items()}
        write_arrays(Path(path), outputs | {f"inputs/{name}": kept.numpy() for name, kept in self.inputs.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self.outputs[name].nonzero().flatten()

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)

    def __repr__(self) -> str:
        left, dense = (sum(int(count(kept)) for kept in self.outputs.values()) for count in (torch.sum, torch.numel))
        return f"Filters({left:,} of {dense:,} output channels in {len(self)} modules)"

    def mask(self, model: nn.Module) -> Mask:
        """Say in the dense network's shapes which weights are left.

        Parameters
        ----------
        model
            The dense network, or one of its shape.

        Returns
        -------
        Mask
            Of all convolution and linear weights: True where both the weight's filter and its input channel are left.

        Raises
        ------
        InputError
            The filters are of another network.
        """
        self.check(model, dense=True)
        tensors = {}
        for name, weight in prunable_weights(model).items():
            module_name = name.rpartition(".")[0]
            module = model.get_submodule(module_name)
            if module_name not in self.outputs or (self.outputs[module_name].all() and _is_grouped(module)):
                tensors[name] = torch.ones(weight.shape, dtype=torch.bool)
                continue
            kept = self.outputs[module_name][:, None]
            if module_name in self.inputs and not _is_grouped(module):
                kept = kept & self.inputs[module_name]
            if filter_axis(module) == 1:
                kept = kept.T
            tensors[name] = kept.reshape(*kept.shape, *[1] * (weight.ndim - 2)).expand(weight.shape).clone()
        return Mask(tensors)

    def weights_remaining(self, model: nn.Module) -> float:
        """Weights left / weights of the dense network `model`, of all convolutions and linear modules."""
        return self.mask(model).weights_remaining

    def check(self, model: nn.Module, *, dense: bool) -> None:
        """See that a network has these filters: all of them (`dense`), or those that are left.

        Raises
        ------
        InputError
            It is another network.
        """
        own = Filters.all(model)
        shape = "the dense network's" if dense else "the shrunk network's"
        for side, here, there in (("output", own.outputs, self.outputs), ("input", own.inputs, self.inputs)):
            # A depthwise convolution of one channel looks like any other.
            for name in sorted(here.keys() ^ there.keys() if dense or side == "output" else there.keys() - here.keys()):
                missing, known = ("filters", there) if name in here else ("network", here)
                raise InputError(f"module {name!r} is not in the {missing}; {nearest(name, known)}")
            for name, kept in there.items():
                expected = len(kept) if dense else int(kept.sum())
                if len(here[name]) != expected:
                    raise InputError(
                        f"module {name!r} has {len(here[name])} {side} channels, but {shape} are {expected}; "
                        "give the network that the filters were made for"
                    )


def shrink(model: nn.Module, filters: Filters, image_size: int | tuple[int, int]) -> None:
    """Remove filters from a network, in place, with whatever is coupled to them.

    Parameters
    ----------
    model
        A network of dense shape; what is left of its weights and buffers are slices of them, in their order. What is
        frozen stays so.
    filters
        Those that are left.
    image_size
        Height and width of the images it takes, in pixels, or one number for both: what is left must take them.

    Raises
    ------
    InputError
        The filters are of another network, it does not take such images, or what is left does not run or is wired
        otherwise than the dense network.
    """
    filters.check(model, dense=True)
    image = one_image(model, image_size)
    with taking(model, image):
        before = codes_at_inputs(model, Filters.all(model).outputs, image)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    for name, kept in filters.outputs.items():
        module = model.get_submodule(name)
        pruner = PrunerBox[module2type(module)]
        gone = (~kept).nonzero().flatten().tolist()
        if gone:
            pruner.prune_out_channels(module, gone)
        gone = (~filters.inputs[name]).nonzero().flatten().tolist() if name in filters.inputs else []
        if gone:
            pruner.prune_in_channels(module, gone)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    try:
        after = codes_at_inputs(model, filters.outputs, image)
    except Exception as error:
        raise InputError(f"the network {type(model).__name__} does not run with these filters left: {error}") from error
    for name, codes in before.items():
        kept = filters.inputs.get(name, filters.outputs[name])
        # Loosely, since an operation that mixes a few neighbours is no reason to refuse.
        if not np.allclose(codes[kept.numpy()], after[name], rtol=_LOOSELY, atol=0):
            raise InputError(
                f"the network {type(model).__name__} gives module {name!r} other channels than those it keeps once "
                "filters are removed: its channels are coupled in a way that is not understood; exclude the modules "
                "before it from filter pruning"
            )


def unit_numbers(
    dense: nn.Module,
    shrunk: nn.Module,
    filters: Filters,
    layers: Sequence[str],
    image_size: int | tuple[int, int],
    *,
    units_axis: UnitsAxis | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Say which unit of the dense network each unit of a shrunk one is.

    Parameters
    ----------
    dense
        The dense network, or one of its shape; its weights do not matter.
    shrunk
        The same, shrunk to `filters`.
    filters
        Those that are left.
    layers
        Any layers that can be dissected, such as a block that ends in an addition or a concatenation.
    image_size
        Height and width of the images they take, in pixels, or one number for both.
    units_axis
        As in `dissect`.

    Returns
    -------
    dict
        By layer, int64 [units left]: the unit's number in the dense network.

    Raises
    ------
    InputError
        The filters are of another network, it does not take such images, there is no such layer, or its units cannot
        be told apart.
    """
    filters.check(dense, dense=True)
    filters.check(shrunk, dense=False)
    image = one_image(dense, image_size)
    axes = units_axes(dense, layers, (image.shape[2], image.shape[3]), units_axis)
    with taking(dense, image):
        before = codes_at_layers(dense, Filters.all(dense).outputs, layers, axes, image)
        after = codes_at_layers(shrunk, filters.outputs, layers, axes, image)
    return {layer: match_codes(before[layer], after[layer], layer) for layer in layers}


def _is_grouped(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups > 1
