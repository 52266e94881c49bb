"""Find groups of filters that can only be removed together, from torch-pruning's dependency graph."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch_pruning import DependencyGraph
from torch_pruning.ops import OPTYPE

from prunescope.errors import InputError
from prunescope.networks.checks import explain_failures
from prunescope.networks.running import blank_images, evaluating, image_channels
from prunescope.pruning.mask import matching_weights

Indices = NDArray[np.int64]
Side = Literal["outputs", "inputs"]

# Operations that map each input channel to an output channel of its own, so that a channel removed from the input is
# also removed from the output.
_CARRIERS = (OPTYPE.BN, OPTYPE.PRELU, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT, OPTYPE.RESHAPE)
_FILTERS = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR)


@dataclass(frozen=True)
class Member:
    """The channels on one side of a module that belong to a group of filters.

    Attributes
    ----------
    module
        The module's name.
    side
        Whether these are output channels or input channels (features for a linear module).
    indices
        The indices of the channels, int64 [channels].
    filters
        For each channel, the index of the filter in the group that it belongs to, int64 [channels].
    """

    module: str
    side: Side
    indices: Indices
    filters: Indices


@dataclass(frozen=True)
class FilterGroup:
    """A group of filters of coupled modules; each filter of the group consists of one or more channels of every member.

    Attributes
    ----------
    size
        The number of filters in the group.
    members
        The sides of modules that are coupled. The first one is the module that computes the filters.
    """

    size: int
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The name of the module that computes the filters."""
        return self.members[0].module


def filter_groups(
    model: nn.Module, image_size: int | tuple[int, int], exclude: Sequence[str] = ()
) -> list[FilterGroup]:
    """Find the groups of filters that can be removed.

    Modules are coupled if their channels are added, multiplied or normalised together; a concatenation couples each of
    its inputs with a range of its channels. The couplings are taken from torch-pruning, the implementation of DepGraph
    (Fang et al. 2023). Filters without a group are never removed. These are the outputs of the network, excluded
    filters, and filters coupled with anything other than ungrouped or depthwise convolutions, linear modules, batch
    normalisation, PReLU, concatenation, flattening and element-wise operations.

    Parameters
    ----------
    model
        The network. It is left unchanged.
    image_size
        The height and width of the images that the network takes, in pixels, or one number for both.
    exclude
        Names or shell patterns of weights or modules that keep all their filters.

    Returns
    -------
    list of FilterGroup
        The groups, which have no channel in common, in the order in which torch-pruning reaches them from the network's
        output.

    Raises
    ------
    InputError
        If a pattern matches nothing; if the network does not take images of this size; if some of its convolutions or
        linear modules do not run in evaluation mode, so that their couplings are unknown; or if torch-pruning cannot
        follow the network.
    """
    names = {module: name for name, module in model.named_modules()}
    owners = {f"{name}.weight" if name else "weight": module for module, name in names.items() if has_filters(module)}
    whole = {id(owners[weight]) for weight in matching_weights(owners, exclude)}
    graph, runs = _traced(model, image_size)
    idle = [names[module] for module in owners.values() if not runs[module]]
    if idle:
        raise InputError(
            f"module {idle[0]!r} does not run in evaluation mode, so that it is not known which filters it depends on; "
            "filters can only be pruned if all modules run (for example, without auxiliary classifiers)"
        )
    whole |= {id(module) for module in owners.values() if runs[module] > 1}
    shared = Counter(id(module.weight) for module in owners.values())
    # Removing channels would replace a shared weight by a separate one in each module, so such modules stay whole.
    tied = {id(module) for module in owners.values() if shared[id(module.weight)] > 1}
    found = [
        _group(group, names)
        for group in graph.get_all_groups()
        if all(_can_shrink(item, whole, tied) for item in group.items)
    ]
    return _disjoint([group for group in found if _is_there(group, model)])


def has_filters(module: nn.Module) -> bool:
    """Return whether a module is a convolution or a linear module."""
    return isinstance(module, _ConvNd | nn.Linear)


def is_depthwise(module: nn.Module) -> bool:
    """Return whether a module is a depthwise convolution, in which each filter has one input channel of its own."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def filter_axis(module: nn.Module) -> int:
    """Return the axis of a convolution's or linear module's weight that indexes its filters."""
    return int(isinstance(module, _ConvNd) and module.transposed and module.groups == 1)


def input_channels(module: nn.Module) -> int:
    """Return the number of input channels of a convolution, or of input features of a linear module."""
    return module.in_channels if isinstance(module, _ConvNd) else int(module.get_parameter("weight").shape[1])


def output_channels(module: nn.Module) -> int | None:
    """Return the number of output channels of a module, or None if the module has no parameters per channel."""
    if isinstance(module, _ConvNd):
        return module.out_channels
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, _BatchNorm | _InstanceNorm):
        return module.num_features
    if isinstance(module, nn.GroupNorm):
        return module.num_channels
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[-1]
    if isinstance(module, nn.PReLU) and module.num_parameters > 1:
        return module.num_parameters
    return None


def one_image(model: nn.Module, image_size: int | tuple[int, int]) -> Tensor:
    """Return one black image [1, 3, h, w] in the network's precision and on its device.

    Parameters
    ----------
    model
        The network.
    image_size
        The height and width in pixels, or one number for both.

    Returns
    -------
    Tensor
        Zeros [1, 3, h, w].

    Raises
    ------
    InputError
        If the size is not positive.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(size) < 1:
        raise InputError(f"images cannot be of {size[0]} x {size[1]} pixels; give a height and width of at least 1")
    return blank_images(model, 1, size, image_channels(model, size))


def _traced(model: nn.Module, image_size: int | tuple[int, int]) -> tuple[DependencyGraph, Counter[nn.Module]]:
    """Trace a network with torch-pruning, and count the calls of each module."""
    image = one_image(model, image_size)
    runs: Counter[nn.Module] = Counter()

    def count(module: nn.Module, _arguments: Any, _output: Any) -> None:
        runs[module] += 1

    with evaluating(model), ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(count).remove)
        with torch.no_grad(), explain_failures(model, image):
            model(image)
    try:
        # torch-pruning follows gradients, and warns about parameters outside known modules. Filters that are coupled
        # with such parameters are not removed.
        with evaluating(model), _all_trainable(model), torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            return DependencyGraph().build_dependency(model, (image,), verbose=False), runs
    except Exception as error:
        raise InputError(
            f"torch-pruning cannot follow how the filters of the network {type(model).__name__} are coupled "
            f"({type(error).__name__}: {error}); prune its weights instead"
        ) from error


@contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _can_shrink(item: Any, whole: set[int], tied: set[int]) -> bool:
    node = item.dep.target
    if node.type in _FILTERS:
        module = node.module
        if id(module) in tied or (getattr(module, "groups", 1) > 1 and not is_depthwise(module)):
            return False
        # A node without successors is an output of the network.
        return _side(item) == "inputs" or (bool(node.outputs) and id(module) not in whole)
    # A reshape node without inputs reshapes a parameter, such as that of a PReLU, and does not flatten a map.
    if node.type == OPTYPE.RESHAPE and node.inputs and len(getattr(node.grad_fn, "_saved_self_sym_sizes", ())) != 4:
        return False
    return node.type in _CARRIERS and bool(node.outputs)


def _group(group: Any, names: dict[nn.Module, str]) -> FilterGroup:
    members = tuple(
        Member(
            names[item.dep.target.module],
            _side(item),
            np.array(item.idxs, np.int64),
            np.array(item.root_idxs, np.int64),
        )
        for item in group.items
        if item.dep.target.module in names and output_channels(item.dep.target.module) is not None
    )
    return FilterGroup(len(members[0].indices), members)


def _side(item: Any) -> Side:
    """Return the side of a module that an item of torch-pruning's group refers to.

    Modules with the same input and output channels, such as batch normalisation, have one pruning function for both
    sides in torch-pruning; their side is "outputs".
    """
    return "inputs" if item.dep.handler.__name__ == "prune_in_channels" else "outputs"


def _is_there(group: FilterGroup, model: nn.Module) -> bool:
    """Return whether the modules have all channels of a group.

    Some are missing if an operation splits, pads or rearranges channels, which torch-pruning does not follow.
    """
    for member in group.members:
        module = model.get_submodule(member.module)
        takes_in = member.side == "inputs" and has_filters(module)
        channels = input_channels(module) if takes_in else output_channels(module)
        if channels is None or member.indices.max() >= channels:
            return False
    return True


def _disjoint(groups: list[FilterGroup]) -> list[FilterGroup]:
    """Omit groups with a common channel, because the filters of one cannot be removed without those of the other."""
    seen: Counter[tuple[str, Side, int]] = Counter()
    channels = [
        [(member.module, member.side, int(index)) for member in group.members for index in member.indices]
        for group in groups
    ]
    for own in channels:
        seen.update(own)
    return [group for group, own in zip(groups, channels, strict=True) if all(seen[channel] == 1 for channel in own)]
