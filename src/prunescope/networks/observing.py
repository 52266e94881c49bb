"""Observe the outputs of a network's layers during forward passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from prunescope.errors import InputError, nearest, refuse_text
from prunescope.networks.checks import check_network
from prunescope.networks.outputs import described, named_tensors, split_layer
from prunescope.networks.tokens import as_maps


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Check that a network has the given layers.

    Parameters
    ----------
    model
        The network.
    layers
        Names of layers, as in `named_modules()`, or `LAYER:NAME` for one of the tensors that a layer returns.

    Raises
    ------
    InputError
        If `layers` is empty, a layer is given twice, or the network does not have a layer. In the last case, the
        message lists layers with similar names.
    """
    check_network(model)
    refuse_text(layers, "layers")
    known = [name for name, _ in model.named_modules() if name]
    if not layers:
        raise InputError(f"no layer is given; {nearest('', known)}")
    for layer, times in Counter(layers).items():
        if split_layer(layer, known)[0] not in known:
            raise InputError(f"the network {type(model).__name__} has no layer {layer!r}; {nearest(layer, known)}")
        if times > 1:
            raise InputError(f"layer {layer!r} is given {times} times; give it once")


@contextmanager
def observe(
    model: nn.Module,
    layers: Sequence[str],
    axes: Mapping[str, int],
    take: Callable[[str, Tensor], None] | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Observe the outputs of layers within the context; all hooks are removed when it ends.

    Parameters
    ----------
    model
        The network. The first tensor that it is called with is the images, [n, channels, h, w].
    layers
        Names of layers, as in `named_modules()`, or `LAYER:NAME` for one of the tensors that a layer returns.
    axes
        The axis of each layer's output that holds the units, as `units_axes` returns it.
    take
        A function that is called with a layer's name and its output, [n, units, h, w] or [n, units], once per forward
        pass and as soon as the layer has returned. Outputs with the units last and tokens that form a grid are turned
        into maps as described in `as_maps`. The tensor is detached and is a view of the output in any memory layout.
        Later layers may overwrite it, so that anything kept of it must be copied.

    Yields
    ------
    dict of str to Tensor
        After each forward pass, a copy of the output of each layer in that pass. It stays empty if `take` is given.

    Raises
    ------
    InputError
        If the network does not have a layer; during a forward pass, if a layer's output has an unsupported shape, or
        if the layer is not called exactly once (an activation function that is used several times, for example).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True))
    >>> with observe(model, ["0"], {"0": 1}) as outputs:
    ...     _ = model(torch.zeros(4, 3, 32, 32))
    >>> outputs["0"].shape
    torch.Size([4, 8, 30, 30])
    >>> with observe(model, ["0"], {"0": 1}, lambda layer, output: print(layer, output.shape)):
    ...     _ = model(torch.zeros(4, 3, 32, 32))
    0 torch.Size([4, 8, 30, 30])
    """
    check_layers(model, layers)
    modules = dict(model.named_modules())
    outputs: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()
    images: list[torch.Size] = []
    prefix = prefix_tokens(model)

    def begin(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        outputs.clear()
        calls.clear()
        images[:] = [given.shape for given in (*arguments, *named.values()) if isinstance(given, Tensor)]

    def recording(layer: str, part: str | None) -> Callable[[nn.Module, Any, Any], None]:
        def record(_module: nn.Module, _arguments: Any, output: Any) -> None:
            calls[layer] += 1
            axis = axes.get(layer)
            maps = None if axis is None else as_maps(output, images[0], prefix, axis, part)
            if maps is None:
                raise InputError(_no_maps(layer, output, images[0], axis))
            if maps.is_complex():
                raise InputError(
                    f"layer {layer!r} returns complex numbers, and units are compared by real activations; choose "
                    "another layer, or let the network return their absolute values"
                )
            if take is None:
                outputs[layer] = maps.detach().clone()
            elif calls[layer] == 1:
                take(layer, maps.detach())

        return record

    def end(_module: nn.Module, _arguments: Any, _output: Any) -> None:
        for layer in layers:
            if calls[layer] != 1:
                outputs.clear()
                raise InputError(call_problem(layer, calls[layer]))

    handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    for layer in layers:
        module, part = split_layer(layer, modules)
        handles += [modules[module].register_forward_hook(recording(layer, part))]
    handles += [model.register_forward_hook(end)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def prefix_tokens(model: nn.Module) -> int | None:
    """Return the number of tokens before the image patches, or None if the network does not specify it.

    timm's networks specify it; for transformers' networks with register tokens, it is their number plus one class
    token.
    """
    prefix = getattr(model, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        return prefix
    registers = getattr(getattr(model, "config", None), "num_register_tokens", None)
    return 1 + registers if isinstance(registers, int) else None


def _no_maps(layer: str, output: Any, images: Sequence[int], axis: int | None) -> str:
    expected = (
        "a tensor [n, units, h, w], [n, units] or [n, h, w, units], or tokens [n, tokens, units] that form a grid"
    )
    instead = "choose another layer (`prunescope layers` lists them)"
    if not isinstance(output, Tensor):
        shapes = {name: tensor.shape for name, tensor in named_tensors(output).items()}
        return (
            f"layer {layer!r} returns a {type(output).__name__} of {described(shapes)} for images of shape "
            f"{list(images)}; expected {expected} in it; {instead}"
        )
    where = "" if axis is None else f", with its units on axis {axis}"
    if output.ndim == 5:
        instead = f"videos and volumes are not supported; {instead}"
    elif axis is None and output.ndim in (3, 4):
        instead += f", or give the axis of its units (--units-axis {layer}=AXIS)"
    return (
        f"layer {layer!r} returns a tensor of shape {list(output.shape)} for images of shape {list(images)}{where}; "
        f"expected {expected} of the image's proportions; {instead}"
    )


def call_problem(layer: str, times: int) -> str:
    """Return the error message for a layer that is not called exactly once per forward pass."""
    if times == 0:
        return f"layer {layer!r} is not called when the network runs, so it has no output; choose another layer"
    return (
        f"layer {layer!r} is called {times} times in one forward pass, so it has several outputs; "
        "choose the layer before it or the block that contains it"
    )
