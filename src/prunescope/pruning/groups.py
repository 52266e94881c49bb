"""Which filters go together: torch-pruning's dependency graph, read once into plain arrays."""

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
from prunescope.networks.checks import taking
from prunescope.networks.layers import blank_images, evaluating
from prunescope.pruning.mask import matching_weights

Places = NDArray[np.int64]
Side = Literal["outputs", "inputs"]

# What carries its input's channels on, each for itself; of these, whatever is removed before stays removed after.
_CARRIERS = (OPTYPE.BN, OPTYPE.PRELU, OPTYPE.ELEMENTWISE, OPTYPE.CONCAT, OPTYPE.RESHAPE)
_FILTERS = (OPTYPE.CONV, OPTYPE.DEPTHWISE_CONV, OPTYPE.LINEAR)


@dataclass(frozen=True)
class Member:
    """One side of a module whose channels a group's filters are.

    Attributes
    ----------
    module
        Its name.
    side
        The channels it puts out, or those it takes in (of a linear module: features).
    places
        int64: which of its channels.
    filters
        int64, as long: to which of the group's filters each belongs.
    """

    module: str
    side: Side
    places: Places
    filters: Places


@dataclass(frozen=True)
class FilterGroup:
    """Filters that go together: number f of the group is one channel, or several, of every member.

    Attributes
    ----------
    size
        How many filters it has.
    members
        The module that puts the filters out comes first.
    """

    size: int
    members: tuple[Member, ...]

    @property
    def name(self) -> str:
        """The module that puts the filters out."""
        return self.members[0].module


def filter_groups(
    model: nn.Module, image_size: int | tuple[int, int], exclude: Sequence[str] = ()
) -> list[FilterGroup]:
    """Find the groups of filters that can be removed, in the order in which the network's output depends on them.

    Modules are coupled where their channels are added, multiplied or normalised together; a concatenation couples a
    stretch of its channels with each of its inputs (Fang et al. 2023, "DepGraph", whose implementation this reads).
    What is left out stays whole: the network's own outputs, what is excluded, and what is coupled with something else
    than ungrouped or depthwise convolutions, linear modules, batch normalisation, PReLU, concatenation, flattening
    and operations by element.

    Parameters
    ----------
    model
        The network; it is left as it was.
    image_size
        Height and width of the images it takes, in pixels, or one number for both.
    exclude
        Names or shell patterns of weights or modules that keep their filters.

    Raises
    ------
    InputError
        A pattern matches nothing, the network does not take such images, or some of its modules do not run in
        evaluation mode, so that it is not known what they are coupled with.
    """
    names = {module: name for name, module in model.named_modules()}
    owners = {f"{name}.weight" if name else "weight": module for module, name in names.items() if has_filters(module)}
    whole = {id(owners[weight]) for weight in matching_weights(owners, exclude)}
    graph, runs = _traced(model, image_size)
    idle = [names[module] for module in owners.values() if not runs[module]]
    if idle:
        raise InputError(
            f"module {idle[0]!r} does not run in evaluation mode, so that it is not known which filters it depends on; "
            "filters are pruned in networks that run as a whole (without auxiliary classifiers, say)"
        )
    whole |= {id(module) for module in owners.values() if runs[module] > 1}
    shared = Counter(id(module.weight) for module in owners.values())
    # To lose channels is to get weights of its own.
    tied = {id(module) for module in owners.values() if shared[id(module.weight)] > 1}
    found = [
        _group(group, names)
        for group in graph.get_all_groups()
        if all(_can_shrink(item, whole, tied) for item in group.items)
    ]
    return _disjoint([group for group in found if _is_there(group, model)])


def has_filters(module: nn.Module) -> bool:
    """Say whether a module is a convolution or linear."""
    return isinstance(module, _ConvNd | nn.Linear)


def is_depthwise(module: nn.Module) -> bool:
    """Say whether a module is a convolution whose every filter sees its own channel only."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels


def filter_axis(module: nn.Module) -> int:
    """Say along which axis of a convolution's or linear module's weight its filters lie."""
    return int(isinstance(module, _ConvNd) and module.transposed and module.groups == 1)


def input_channels(module: nn.Module) -> int:
    """How many channels, of a linear module features, a convolution or linear module takes in."""
    return module.in_channels if isinstance(module, _ConvNd) else int(module.get_parameter("weight").shape[1])


def output_channels(module: nn.Module) -> int | None:
    """How many channels a module puts out; None for one that has none of its own."""
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
    """Give one black image [1, 3, h, w] of the network's precision, where the network is.

    Raises
    ------
    InputError
        The size is not positive.
    """
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(size) < 1:
        raise InputError(f"images cannot be of {size[0]} x {size[1]} pixels; give at least 1")
    return blank_images(model, 1, size)


def _traced(model: nn.Module, image_size: int | tuple[int, int]) -> tuple[DependencyGraph, Counter[nn.Module]]:
    """Let torch-pruning see the network run, and count how often each module does."""
    image = one_image(model, image_size)
    runs: Counter[nn.Module] = Counter()

    def count(module: nn.Module, _arguments: Any, _output: Any) -> None:
        runs[module] += 1

    with evaluating(model), ExitStack() as stack:
        for module in model.modules():
            stack.callback(module.register_forward_hook(count).remove)
        with torch.no_grad(), taking(model, image):
            model(image)
    try:
        # torch-pruning follows gradients, and warns of parameters that stand alone; what they belong to stays whole.
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
        # A node from which nothing follows is the network's output.
        return _side(item) == "inputs" or (bool(node.outputs) and id(module) not in whole)
    # What comes from no other node is a parameter, such as a PReLU's, and no map that is flattened.
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
    return FilterGroup(len(members[0].places), members)


def _side(item: Any) -> Side:
    """Tell the sides apart; where a module's outputs are its inputs, torch-pruning has one function for both."""
    return "inputs" if item.dep.handler.__name__ == "prune_in_channels" else "outputs"


def _is_there(group: FilterGroup, model: nn.Module) -> bool:
    """Say whether the modules have all of its channels; what halves, pads or rearranges them is not followed."""
    for member in group.members:
        module = model.get_submodule(member.module)
        takes_in = member.side == "inputs" and has_filters(module)
        channels = input_channels(module) if takes_in else output_channels(module)
        if channels is None or member.places.max() >= channels:
            return False
    return True


def _disjoint(groups: list[FilterGroup]) -> list[FilterGroup]:
    """Leave out groups that share a channel: the filters of one cannot go without those of the other."""
    seen: Counter[tuple[str, Side, int]] = Counter()
    channels = [
        [(member.module, member.side, int(place)) for member in group.members for place in member.places]
        for group in groups
    ]
    for own in channels:
        seen.update(own)
    return [group for group, own in zip(groups, channels, strict=True) if all(seen[channel] == 1 for channel in own)]
