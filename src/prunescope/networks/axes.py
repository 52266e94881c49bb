"""Find the axis of a layer's output that holds its units.

The axis is determined mainly by running the network on images of several sizes, because the shape of one output is
often ambiguous.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from prunescope.networks.outputs import named_tensors
from prunescope.networks.tokens import as_maps, has_proportions

Shape = tuple[int, ...]

# By PyTorch's definition, these modules return [n, units, ...], and those in _UNITS_LAST return [n, ..., units].
_UNITS_FIRST = (
    _ConvNd, _NormBase, nn.GroupNorm, _MaxPoolNd, _AvgPoolNd, _AdaptiveMaxPoolNd, _AdaptiveAvgPoolNd, nn.Upsample,
    nn.PixelShuffle,
)  # fmt: skip
_UNITS_LAST = (nn.Linear, nn.LayerNorm)


class Output(NamedTuple):
    """The shape and strides of a tensor that a module returned."""

    shape: Shape
    stride: Shape | None  # None if the tensor is not strided (sparse, for example)
    name: str  # as `named_tensors` gives it

    @classmethod
    def of(cls, tensor: Tensor, name: str) -> Output:
        """Return the shape and strides of a tensor."""
        return cls(tuple(tensor.shape), tensor.stride() if tensor.layout == torch.strided else None, name)


Outputs = dict[str, list[list[Output]]]  # for each module, one list per call with the tensors that the call returned


class Sizes(NamedTuple):
    """The outputs of a network's modules for images of several sizes.

    Attributes
    ----------
    images
        The shape of the batch of images, [n, channels, h, w].
    outputs
        The outputs for these images.
    taller, wider, larger
        The outputs for one image of twice the height, twice the width, and twice both; empty if the network was not
        run on such an image. If it failed on it, only the outputs of the modules that ran before the failure.
    """

    images: Shape
    outputs: Outputs
    taller: Outputs
    wider: Outputs
    larger: Outputs


@dataclass(frozen=True)
class Unknown:
    """The result for a layer whose units axis cannot be determined.

    Attributes
    ----------
    shape
        The shape of the layer's output, without the batch axis.
    reason
        A clause that explains why the axis cannot be determined.
    needs
        What the user can do, if giving the axis would not be enough; otherwise empty.
    """

    shape: Shape
    reason: str
    needs: str = ""


@contextmanager
def watching(model: nn.Module) -> Iterator[Outputs]:
    """Record the shapes and strides of all outputs of a network's modules.

    The hooks used for this are removed when the context ends.
    """
    outputs: Outputs = defaultdict(list)

    def keep(name: str, output: Any) -> None:
        outputs[name].append([Output.of(tensor, part) for part, tensor in named_tensors(output).items()])

    handles = [
        module.register_forward_hook(lambda _module, _arguments, output, name=name: keep(name, output))
        for name, module in model.named_modules()
        # Scripted modules do not accept hooks.
        if name and not isinstance(module, torch.jit.ScriptModule)
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def find_axes(modules: Mapping[str, nn.Module], sizes: Sizes, prefix: int | None) -> dict[str, int | Unknown]:
    """Find the axis of each layer's output that holds the units.

    The following criteria are tried in this order for every tensor that a module returns:

    1. The change of the shape with the size of the images: axes that change are spatial, and the axis that does not
       change holds the units.
    2. PyTorch's definition of the module: the units come first in a convolution's output and last in a linear
       module's.
    3. The order in memory: the strides reveal a tensor that was permuted from [n, h, w, units] or [n, units, h, w].
    4. Other outputs of the same shape in the network: their axis is used if criteria 1 to 3 determine it and it is the
       same for all of them.
    5. The aspect ratio of the images: it decides if only maps with the units first have that ratio, or only tokens
       with the units last form a grid.

    Parameters
    ----------
    modules
        The network's modules by name.
    sizes
        The outputs of the modules for images of several sizes; see `Sizes`.
    prefix
        The number of tokens before the image patches, or None if the network does not specify it.

    Returns
    -------
    dict of str to int or Unknown
        For each layer, the axis counted from 0, or the reason why it cannot be determined. Layers that return no maps
        are omitted. Each tensor in a tuple, list or mapping has an entry `LAYER:NAME` of its own, and the entry of the
        layer is that of the first one.
    """
    decided = {
        (name, call, index): _by_criteria(modules[name], output, _Changes.of(sizes, name, call, index), sizes.images)
        for name, calls in sizes.outputs.items()
        for call, outputs in enumerate(calls)
        for index, output in enumerate(outputs)
        if len(output.shape) in (3, 4) and output.shape[0] == sizes.images[0]
    }
    agreed: dict[Shape, set[int]] = defaultdict(set)
    for (name, call, index), axis in decided.items():
        if isinstance(axis, int):
            agreed[sizes.outputs[name][call][index].shape[1:]].add(axis)
    found: dict[str, int | Unknown] = {}
    for name, calls in sizes.outputs.items():
        read: list[tuple[Output, int | Unknown, bool]] = []
        for index, output in enumerate(calls[0]):
            axis = 1 if len(output.shape) == 2 else decided.get((name, 0, index), _NOT_MAPS)
            changes = _Changes.of(sizes, name, 0, index)
            if axis is None or (not changes.all and _mixes_tokens(output, agreed, sizes.images, prefix)):
                axis = _by_shape(output, agreed, sizes.images, prefix)
                if isinstance(axis, Unknown) and changes.unseen:
                    axis = replace(axis, reason=f"{axis.reason}; the network takes images of this size only")
            if isinstance(axis, Unknown):
                read.append((output, axis, True))
            elif (maps := _maps(output, sizes.images, prefix, axis)) is not None:
                read.append((output, axis, maps.shape[2:].numel() > 1))
        if not read:
            continue
        first, axis, _ = next((one for one in read if one[2]), read[0])
        found[name] = axis if isinstance(axis, Unknown) else _unless_another(calls[0], first, axis, sizes, prefix, name)
        found |= {f"{name}:{output.name}": axis for output, axis, _ in read if output.name}
    return found


def _unless_another(
    outputs: Sequence[Output], first: Output, axis: int, sizes: Sizes, prefix: int | None, name: str
) -> int | Unknown:
    """Return the axis, or `Unknown` if `as_maps` would take another tensor, because the tensors' axes differ."""
    blank = {output.name: torch.empty(output.shape, device="meta") for output in outputs}
    taken, wanted = (as_maps(blank, sizes.images, prefix, axis, part) for part in (None, first.name))
    if taken is not None and wanted is not None and taken.shape == wanted.shape:
        return axis
    names = ", ".join(f"{name}:{output.name}" for output in outputs)
    return Unknown(
        first.shape[1:], "it returns several maps with their units on different axes", f"choose one: {names}"
    )


# This value means that no axis of a tensor can hold units, because axis 0 is always the batch.
_NOT_MAPS = 0


@dataclass(frozen=True)
class _Changes:
    """The axes of an output that change with the size of the images; None where this could not be measured."""

    taller: frozenset[int] | None
    wider: frozenset[int] | None
    larger: frozenset[int] | None

    @classmethod
    def of(cls, sizes: Sizes, name: str, call: int, index: int) -> _Changes:
        calls = sizes.outputs[name]

        def changed(others: Outputs) -> frozenset[int] | None:
            # The outputs cannot be compared if the number of calls, or of tensors returned, differs between sizes.
            if len(others.get(name, ())) != len(calls) or len(others[name][call]) != len(calls[call]):
                return None
            before, after = calls[call][index].shape, others[name][call][index].shape
            if len(before) != len(after) or not after or after[0] != 1:
                return None
            return frozenset(axis for axis in range(1, len(before)) if before[axis] != after[axis])

        return cls(changed(sizes.taller), changed(sizes.wider), changed(sizes.larger))

    @property
    def unseen(self) -> bool:
        return self.taller is None and self.wider is None and self.larger is None

    @property
    def all(self) -> frozenset[int]:
        return frozenset().union(*(axes for axes in (self.taller, self.wider, self.larger) if axes is not None))


def _by_criteria(module: nn.Module, output: Output, changes: _Changes, images: Shape) -> int | Unknown | None:
    """Determine the units axis of an output by criteria 1 to 3 of `find_axes`; return None if they do not decide."""
    axes = frozenset(range(1, len(output.shape)))
    left = axes - changes.all
    if not left:
        return _NOT_MAPS
    if len(axes) == 3 and changes.taller is not None and changes.taller == changes.wider and len(changes.taller) == 1:
        # Only one axis grows, so it holds tokens. Such a tensor holds, for example, the queries of each attention head.
        return _NOT_MAPS
    if len(axes) == 2 and None not in (changes.taller, changes.wider) and changes.taller != changes.wider:
        # The positions lie along one direction of the image only, so they form no grid.
        return _NOT_MAPS
    if len(axes) == 3 and len(left) == 1:
        down, along = sorted(changes.all)
        if changes.taller == frozenset({along}) and changes.wider == frozenset({down}):
            return Unknown(
                output.shape[1:],
                "its rows run along the images' width and its columns along their height",
                "let it return [n, units, h, w] (`transpose` swaps two axes)",
            )
    if changes.all:
        # An axis of length 1 does not change either if it is a spatial axis that was pooled, so prefer longer axes.
        left = frozenset(axis for axis in left if output.shape[axis] > 1) or left
    elif len(axes) == 3:
        longer = {axis for axis in axes if output.shape[axis] > 1}
        if len(longer) <= 1:
            return longer.pop() if longer else 1
    if len(left) == 1:
        return min(left)
    for axis in (_defined(module, output, images), _in_memory(output)):
        if axis in left:
            return axis
    return None


def _defined(module: nn.Module, output: Output, images: Shape) -> int | None:
    if isinstance(module, _UNITS_FIRST):
        return 1
    last = len(output.shape) - 1
    # Subclasses are excluded because they often permute their input, for example to normalise over channels of maps.
    if type(module) not in _UNITS_LAST or (last == 3 and not has_proportions(output.shape[1:3], images)):
        return None
    return last


def _in_memory(output: Output) -> int | None:
    if output.stride is None or len(output.shape) != 4 or min(output.shape[1:]) == 1:
        return None
    first, second, third = output.stride[1:]
    if first < third < second:
        return 1
    return 3 if second < first < third else None


def _by_shape(output: Output, agreed: Mapping[Shape, set[int]], images: Shape, prefix: int | None) -> int | Unknown:
    shape = output.shape[1:]
    last = len(shape)
    possible = [axis for axis in (1, last) if _maps(output, images, prefix, axis) is not None]
    if not possible:
        return _NOT_MAPS
    others = agreed.get(shape, set())
    if _mixes_tokens(output, agreed, images, prefix):
        return Unknown(shape, f"{_reason(shape)}, and linear modules mix both axes")
    if len(others) == 1:
        return min(others)
    if last == 3:
        fits = [axis for axis in possible if has_proportions(shape[1:] if axis == 1 else shape[:2], images)]
        if fits == [1]:
            return 1
    elif possible == [last]:
        return last
    elif possible == [1]:
        return _NOT_MAPS
    reason = "other layers return the same shape with their units on different axes" if others else _reason(shape)
    return Unknown(shape, reason)


def _mixes_tokens(output: Output, agreed: Mapping[Shape, set[int]], images: Shape, prefix: int | None) -> bool:
    """Return whether linear modules mix tokens as well as units, as in MLP-Mixer.

    The definition of a linear module does not determine the units axis in that case.
    """
    shape = output.shape[1:]
    return (
        len(shape) == 2
        and shape[0] != shape[1]
        and bool(agreed.get(shape, set()) & agreed.get(shape[::-1], set()))
        and all(_maps(output, images, prefix, axis) is not None for axis in (1, 2))
    )


def _reason(shape: Shape) -> str:
    if len(shape) == 2:
        return f"either axis could be tokens that form a grid: {shape[0]} tokens of {shape[1]} units, or vice versa"
    return f"the units could be the {shape[0]} entries of the first axis or the {shape[2]} of the last one"


def _maps(output: Output, images: Shape, prefix: int | None, axis: int) -> Tensor | None:
    return as_maps(torch.empty(output.shape, device="meta"), images, prefix, axis)
