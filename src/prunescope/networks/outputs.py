"""Name the tensors in what a module returns: a tensor, or a tuple, list or mapping that contains several."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor


def named_tensors(output: Any) -> dict[str, Tensor]:
    """Return the tensors in a module's output by name.

    Parameters
    ----------
    output
        A tensor, or a tuple, list or mapping (such as an output object of transformers) whose values are tensors or
        again such structures. Everything else in it is ignored.

    Returns
    -------
    dict of str to Tensor
        The tensors in their order. Each name consists of the keys and positions that lead to the tensor, joined by
        dots. The name of an output that is itself a tensor is empty.

    Examples
    --------
    >>> import torch
    >>> list(named_tensors({"last": torch.zeros(1), "hidden": (torch.zeros(1), None, torch.zeros(1))}))
    ['last', 'hidden.0', 'hidden.2']
    """
    return dict(_walk(output, ""))


def split_layer(layer: str, modules: Collection[str]) -> tuple[str, str | None]:
    """Split the name of a layer into a module and the name of one of its outputs.

    Parameters
    ----------
    layer
        The name of a module, or `MODULE:NAME`, where NAME is the name of a tensor as `named_tensors` gives it.
    modules
        The names of the network's modules.

    Returns
    -------
    tuple of str, and str or None
        The module's name, and the name of the output; None if the layer's name contains none.

    Examples
    --------
    >>> split_layer("encoder:hidden.2", ["encoder"]), split_layer("encoder", ["encoder"])
    (('encoder', 'hidden.2'), ('encoder', None))
    """
    module, colon, part = layer.rpartition(":")
    return (module, part) if colon and layer not in modules else (layer, None)


def described(shapes: Mapping[str, Collection[int]]) -> str:
    """Return a description of named outputs for messages, such as ``last [2, 8, 4, 4], hidden.0 [2, 8]``."""
    shown = [f"{name} {list(shape)}" for name, shape in list(shapes.items())[:10]]
    return ", ".join(shown + [f"... and {len(shapes) - 10} more"] * (len(shapes) > 10)) or "no tensors"


def _walk(output: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(output, Tensor):
        yield name, output
        return
    if isinstance(output, Mapping):
        items = [(str(key), value) for key, value in output.items()]
    elif isinstance(output, list | tuple):
        items = [(str(place), value) for place, value in enumerate(output)]
    else:
        return
    for key, value in items:
        yield from _walk(value, f"{name}.{key}" if name else key)
