"""Represent the filters that are left after filter pruning, and shrink networks to them."""

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
from prunescope.networks.checks import explain_failures
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
    """The filters of a network that are left after filter pruning.

    This is a mapping from the name of each module with channels (convolution, linear, normalisation, PReLU) to the
    indices of its remaining output channels in the dense network, as an ascending int64 tensor.

    Parameters
    ----------
    outputs
        For each module, by name, a bool tensor [output channels of the dense network] that is True for each channel
        that is left.
    inputs
        The same for the input channels of convolutions and the input features of linear modules. Depthwise
        convolutions are omitted, because their input channels are the same as their output channels.

    Raises
    ------
    InputError
        If a tensor is not one-dimensional and of dtype bool.

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
        """Return all filters of a dense network."""
        outputs, inputs = {}, {}
        for name, module in model.named_modules():
            if (channels := output_channels(module)) is not None:
                outputs[name] = torch.ones(channels, dtype=torch.bool)
            if has_filters(module) and not is_depthwise(module):
                inputs[name] = torch.ones(input_channels(module), dtype=torch.bool)
        return cls(outputs, inputs)

    @classmethod
    def load(cls, path: str | Path) -> Filters:
        """Read filters from a file that `save` wrote.

        Raises
        ------
        InputError
            If the file is missing or does not contain filters.
        """
        sides: dict[str, dict[str, Tensor]] = {"outputs": {}, "inputs": {}}
        for key, kept in read_flags(path, "a record of filters").items():
            side, _, name = key.partition("/")
            if side not in sides:
                raise InputError(
                    f"{path} is not a record of filters: {key!r} is not of the form outputs/MODULE or inputs/MODULE"
                )
            sides[side][name] = kept
        return cls(sides["outputs"], sides["inputs"])

    def save(self, path: str | Path) -> None:
        """Write the filters to a safetensors file.

        The file contains bool tensors ``outputs/MODULE`` and ``inputs/MODULE`` with one entry per channel of the dense
        network.
        """
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
        """Return the weights that are left, as a mask of the dense network.

        Parameters
        ----------
        model
            The dense network, or a network of the same shapes.

        Returns
        -------
        Mask
            A mask of all convolution and linear weights that is True where both the filter and the input channel of
            the weight are left.

        Raises
        ------
        InputError
            If the filters belong to another network.
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
        """Return the ratio of the convolution and linear weights left to those of the dense network `model`."""
        return self.mask(model).weights_remaining

    def check(self, model: nn.Module, *, dense: bool) -> None:
        """Check that the filters belong to a network.

        Parameters
        ----------
        model
            The network.
        dense
            Whether `model` is the dense network. Otherwise, it is expected to be shrunk to these filters.

        Raises
        ------
        InputError
            If the modules of the network, or the numbers of their channels, do not match.
        """
        own = Filters.all(model)
        network = "the dense network" if dense else "the shrunk network"
        for side, here, there in (("output", own.outputs, self.outputs), ("input", own.inputs, self.inputs)):
            # A depthwise convolution with one channel left looks like an ordinary convolution, which has inputs.
            for name in sorted(here.keys() ^ there.keys() if dense or side == "output" else there.keys() - here.keys()):
                missing, known = ("filters", there) if name in here else ("network", here)
                raise InputError(f"module {name!r} is not in the {missing}; {nearest(name, known)}")
            for name, kept in there.items():
                expected = len(kept) if dense else int(kept.sum())
                if len(here[name]) != expected:
                    raise InputError(
                        f"module {name!r} has {len(here[name])} {side} channels, but {expected} in {network}; "
                        "give the network that the filters were made for"
                    )


def shrink(model: nn.Module, filters: Filters, image_size: int | tuple[int, int]) -> None:
    """Remove filters, and all channels that are coupled to them, from a network in place.

    Parameters
    ----------
    model
        The network, with the shapes of the dense network. The remaining weights and buffers are slices of the original
        ones, in the same order. Frozen parameters stay frozen.
    filters
        The filters that are left.
    image_size
        The height and width of the images that the network takes, in pixels, or one number for both. The shrunk network
        is tested on an image of this size.

    Raises
    ------
    InputError
        If the filters belong to another network; if the network does not take images of this size; or if the shrunk
        network does not run, or connects its channels differently than the dense network.
    """
    filters.check(model, dense=True)
    image = one_image(model, image_size)
    with explain_failures(model, image):
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
        # The tolerance is loose, because an operation that mixes a few neighbouring channels need not be refused.
        if not np.allclose(codes[kept.numpy()], after[name], rtol=_LOOSELY, atol=0):
            raise InputError(
                f"the network {type(model).__name__} with filters removed gives module {name!r} other channels than "
                "those it keeps: its channels are coupled in a way that is not understood; exclude the modules before "
                "it from filter pruning"
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
    """Return the index in the dense network of each unit of a shrunk network.

    Parameters
    ----------
    dense
        The dense network, or a network of the same shapes; its weights are not used.
    shrunk
        The same network, shrunk to `filters`.
    filters
        The filters that are left.
    layers
        Names of layers. Every layer that can be dissected is allowed, including a block that ends in an addition or a
        concatenation.
    image_size
        The height and width of the images that the networks take, in pixels, or one number for both.
    units_axis
        The axis of the layers' outputs that holds the units, as in `dissect`.

    Returns
    -------
    dict of str to ndarray
        For each layer, int64 [remaining units]: the index of each unit in the dense network.

    Raises
    ------
    InputError
        If the filters belong to another network; if the network does not take images of this size; if a layer does not
        exist; or if the units of a layer cannot be distinguished.
    """
    filters.check(dense, dense=True)
    filters.check(shrunk, dense=False)
    image = one_image(dense, image_size)
    axes = units_axes(dense, layers, (image.shape[2], image.shape[3]), units_axis)
    with explain_failures(dense, image):
        before = codes_at_layers(dense, Filters.all(dense).outputs, layers, axes, image)
        after = codes_at_layers(shrunk, filters.outputs, layers, axes, image)
    return {layer: match_codes(before[layer], after[layer], layer) for layer in layers}


def _is_grouped(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.groups > 1
