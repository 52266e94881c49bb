"""A network's layers: which there are, and what they put out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.bounds import MOST_SIZE, check_count
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.networks.tokens import as_maps


def list_layers(model: nn.Module, size: int = 224) -> pd.DataFrame:
    """List the layers whose units can be dissected.

    One forward pass on zeros, in evaluation mode, shows them; the network is left as it was.

    Parameters
    ----------
    model
        A network that takes images [n, 3, size, size].
    size
        The images' height and width in pixels.

    Returns
    -------
    DataFrame
        In the order of `named_modules()`, a row per layer that puts out maps [n, units, h, w] or [n, units], or what
        `as_maps` takes as such, once per forward pass. Columns: `layer` (its name), `type` (its class), `shape` (of
        the maps without n: a tuple), `units`.

    Raises
    ------
    InputError
        If the network cannot take images of that size.

    Examples
    --------
    >>> list_layers(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), size=32)
      layer               type        shape  units
    0     0             Conv2d  (8, 30, 30)      8
    1     1  AdaptiveAvgPool2d    (8, 1, 1)      8
    2     2            Flatten         (8,)      8
    """
    check_network(model)
    check_count("size", size, 1, MOST_SIZE, "the images' side in pixels")
    modules = {name: module for name, module in model.named_modules() if name}
    outputs: dict[str, list[tuple[int, ...] | None]] = {name: [] for name in modules}
    # Two, so that an output that does not begin with the images is told apart.
    images = blank_images(model, 2, (size, size))
    prefix = prefix_tokens(model)

    def listing(shapes: list[tuple[int, ...] | None]) -> Callable[[nn.Module, Any, Any], None]:
        def add(module: nn.Module, _arguments: Any, output: Any) -> None:
            maps = _maps(module, output, images.shape, prefix)
            shapes.append(None if maps is None else tuple(maps.shape[1:]))

        return add

    handles = [module.register_forward_hook(listing(outputs[name])) for name, module in modules.items()]
    try:
        with evaluating(model), torch.no_grad(), taking(model, images):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        (name, type(modules[name]).__name__, shapes[0], shapes[0][0])
        for name, shapes in outputs.items()
        if len(shapes) == 1 and shapes[0] is not None
    ]
    return pd.DataFrame(rows, columns=["layer", "type", "shape", "units"])


def check_network(model: object) -> None:
    """Check that a network is given, and not its name.

    Raises
    ------
    InputError
        It is anything else than a module.
    """
    if not isinstance(model, nn.Module):
        name = repr(model) if isinstance(model, str) else "NAME"
        raise InputError(
            f"the network is {model!r}, expected a torch.nn.Module; prunescope.build_network({name}) builds one"
        )


def check_layers(model: nn.Module, layers: Sequence[str]) -> None:
    """Check that a network has these layers.

    Parameters
    ----------
    model
        The network.
    layers
        Names as `named_modules()` gives them.

    Raises
    ------
    InputError
        If there are none, one is named twice, or the network has no such layer: then the message names the nearest.
    """
    check_network(model)
    refuse_text(layers, "layers")
    known = [name for name, _ in model.named_modules() if name]
    if not layers:
        raise InputError(f"no layer is given; {nearest('', known)}")
    for layer, times in Counter(layers).items():
        if layer not in known:
            raise InputError(f"the network {type(model).__name__} has no layer {layer!r}; {nearest(layer, known)}")
        if times > 1:
            raise InputError(f"layer {layer!r} is given {times} times; give it once")


@contextmanager
def observe(
    model: nn.Module, layers: Sequence[str], take: Callable[[str, Tensor], None] | None = None
) -> Iterator[dict[str, Tensor]]:
    """Observe what layers put out, and leave nothing behind.

    Parameters
    ----------
    model
        The network. The first tensor it is called with is the images, [n, 3, h, w].
    layers
        Names as `named_modules()` gives them.
    take
        Called with a layer's name and its output, [n, units, h, w] or [n, units], without gradient, as soon as the
        layer has put it out and once per forward pass. A view of the output itself, in whatever memory layout: later
        layers may write over it, so what is kept of it must be copied. Units that are last and tokens that form a grid
        become maps, as `as_maps` says.

    Yields
    ------
    dict of str to Tensor
        After each forward pass, by layer: a copy of its output in that pass; empty where `take` was given them.

    Raises
    ------
    InputError
        If the network has no such layer; in a forward pass, if a layer's output has another shape, or if the layer is
        not called or more than once (an activation function used in several places).

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True))
    >>> with observe(model, ["0"]) as outputs:
    ...     _ = model(torch.zeros(4, 3, 32, 32))
    >>> outputs["0"].shape
    torch.Size([4, 8, 30, 30])
    >>> with observe(model, ["0"], lambda layer, output: print(layer, output.shape)):
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

    def recording(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, _arguments: Any, output: Any) -> None:
            calls[layer] += 1
            maps = _maps(module, output, images[0], prefix)
            if maps is None:
                raise InputError(_no_maps(layer, output, images[0]))
            if take is None:
                outputs[layer] = maps.detach().clone()
            elif calls[layer] == 1:
                take(layer, maps.detach())

        return record

    def end(_module: nn.Module, _arguments: Any, _output: Any) -> None:
        for layer in layers:
            if calls[layer] != 1:
                outputs.clear()
                raise InputError(_called(layer, calls[layer]))

    handles = [model.register_forward_pre_hook(begin, with_kwargs=True)]
    handles += [modules[layer].register_forward_hook(recording(layer)) for layer in layers]
    handles += [model.register_forward_hook(end)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode, and each of its modules back into its own mode afterwards.

    Parameters
    ----------
    model
        The network.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def blank_images(model: nn.Module, count: int, size: tuple[int, int]) -> Tensor:
    """Give zeros [count, 3, height, width] in the network's precision, where the network is."""
    like = next(model.parameters(), torch.zeros(()))
    return torch.zeros(count, 3, *size, dtype=like.dtype, device=like.device)


@contextmanager
def taking(model: nn.Module, images: Tensor) -> Iterator[None]:
    """Say of whatever goes wrong while a network runs on images that it cannot take such.

    Raises
    ------
    InputError
        Something went wrong; one that is raised within stays as it is.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the network {type(model).__name__} cannot take images of {images.shape[2]} x {images.shape[3]} pixels "
            f"({type(error).__name__}: {(str(error).splitlines() or [''])[0]}); give another size"
        ) from error


def _maps(module: nn.Module, output: Any, images: Sequence[int], prefix: int | None) -> Tensor | None:
    """Take a layer's output as maps; these kinds put their units first, whatever the shape looks like."""
    if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d) and output.shape[0] == images[0]:
        maps: Tensor = output
        return maps
    return as_maps(output, images, prefix)


def prefix_tokens(model: nn.Module) -> int | None:
    """How many tokens stand before an image's patches, where it tells: timm's do, transformers' registers too."""
    prefix = getattr(model, "num_prefix_tokens", None)
    if isinstance(prefix, int):
        return prefix
    registers = getattr(getattr(model, "config", None), "num_register_tokens", None)
    return 1 + registers if isinstance(registers, int) else None


def _no_maps(layer: str, output: Any, images: Sequence[int]) -> str:
    expected = (
        "a tensor [n, units, h, w], [n, units] or [n, h, w, units], or tokens [n, tokens, units] that form a grid"
    )
    instead = "choose another layer (`prunescope layers` lists them)"
    if isinstance(output, Tensor):
        return (
            f"layer {layer!r} puts out a tensor of shape {list(output.shape)} for images of shape {list(images)}; "
            f"expected {expected} of the image's proportions; {instead}"
        )
    return f"layer {layer!r} puts out a {type(output).__name__}; expected {expected}, or exactly one in it; {instead}"


def _called(layer: str, times: int) -> str:
    if times == 0:
        return f"layer {layer!r} is not called when the network runs, so it has no output; choose another layer"
    return (
        f"layer {layer!r} is called {times} times in one forward pass, so that its output is not one thing; "
        "choose the layer before it or the block that holds it"
    )
