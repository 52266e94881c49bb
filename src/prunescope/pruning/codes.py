"""Following channels through a network: each carries a number of its own instead of what it would put out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from prunescope.errors import InputError
from prunescope.networks.layers import evaluating, observe

Codes = dict[str, NDArray[np.float64]]

# Sums of the same codes in the same order differ by far less, codes of different channels by far more.
_SAME = 1e-12


def codes_at_inputs(model: nn.Module, kept: Mapping[str, Tensor], images: Tensor) -> Codes:
    """Say which codes arrive at each module with channels.

    Parameters
    ----------
    model
        The network, whole or shrunk.
    kept
        Name of each module with channels -> bool tensor, True for each output channel of the dense network that
        `model` still has.
    images
        What to run it on, [n, 3, h, w].

    Returns
    -------
    dict
        By module, float64 [input channels].
    """
    arrived: Codes = {}

    def arriving(name: str, module: nn.Module) -> Callable[[nn.Module, Any], None]:
        def keep(_module: nn.Module, arguments: tuple[Any, ...]) -> None:
            arrived[name] = _peaks(arguments[0], _channel_axis(module, arguments[0]))

        return keep

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if name in kept:
                stack.callback(module.register_forward_pre_hook(arriving(name, module)).remove)
        with _coded(model, kept, images), evaluating(model), torch.inference_mode():
            model(images)
    return arrived


def codes_at_layers(
    model: nn.Module, kept: Mapping[str, Tensor], layers: Sequence[str], axes: Mapping[str, int], images: Tensor
) -> Codes:
    """Say which codes layers put out: by layer, float64 [units]; see `codes_at_inputs` and `observe`."""
    found: Codes = {}

    def take(layer: str, output: Tensor) -> None:
        found[layer] = _peaks(output, 1)

    with _coded(model, kept, images), evaluating(model), observe(model, layers, axes, take), torch.inference_mode():
        model(images)
    return found


def match_codes(dense: NDArray[np.float64], left: NDArray[np.float64], layer: str) -> NDArray[np.int64]:
    """Find each code of a shrunk layer among those of the dense one.

    Parameters
    ----------
    dense, left
        float64 [units], [units left].
    layer
        Its name, for the message.

    Returns
    -------
    int64 array [units left]
        Places in `dense`.

    Raises
    ------
    InputError
        Two channels have one code, or a code is new: the layer, or one before it, mixes channels.
    """
    order = np.argsort(dense, kind="stable")
    ranked = dense[order]
    after = np.searchsorted(ranked, left).clip(0, len(ranked) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(ranked[before] - left) < np.abs(ranked[after] - left), before, after)
    told_apart = (np.diff(ranked) > 10 * _SAME * np.abs(ranked[1:])).all()
    if not told_apart or not np.allclose(ranked[nearest], left, rtol=_SAME, atol=0):
        raise InputError(
            f"layer {layer!r}: its units cannot be told apart once filters are removed, because something up to it "
            "mixes channels (normalises or sorts over them, say, or spreads one over several); choose the layer before "
            "that"
        )
    places: NDArray[np.int64] = order[nearest]
    return places


@contextmanager
def _coded(model: nn.Module, kept: Mapping[str, Tensor], like: Tensor) -> Iterator[None]:
    """Let modules with channels put out a code for each channel, from 1 to 2, the same at every position.

    What lies between them, additions, concatenations, rectifiers, pooling, carries the codes on. They are float64, so
    that sums of them differ too; what computes with parameters or buffers gets them in the images' precision.
    """
    generator = torch.Generator().manual_seed(0)
    codes = {name: _spread(len(kept[name]), generator) for name in sorted(kept)}

    def cast(_module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return tuple(map(_like, arguments)), {name: _like(value) for name, value in named.items()}

    def _like(value: Any) -> Any:
        return value.to(like.dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    def coding(own: Tensor) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def code(module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
            axis = _channel_axis(module, output)
            shape = [1] * output.ndim
            shape[axis] = len(own)
            # A copy, since what follows may write over it.
            return own.reshape(shape).expand(output.shape).clone()

        return code

    with ExitStack() as stack:
        for name, module in model.named_modules():
            if next(chain(module.parameters(recurse=False), module.buffers(recurse=False)), None) is not None:
                stack.callback(module.register_forward_pre_hook(cast, with_kwargs=True).remove)
            if name in kept:
                own = codes[name][kept[name]].to(like.device)
                stack.callback(module.register_forward_hook(coding(own)).remove)
        yield


def _spread(count: int, generator: torch.Generator) -> Tensor:
    """Draw codes from 1 to 2 that are half of 1 / count apart at least, however many there are."""
    places = torch.randperm(count, generator=generator)
    return 1 + (places + torch.rand(count, generator=generator, dtype=torch.float64) / 2) / max(count, 1)


def _channel_axis(module: nn.Module, values: Tensor) -> int:
    """Linear modules and layer normalisation have their channels last, unless a class of its own turns them around."""
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return values.ndim - 1
    if isinstance(module, nn.LayerNorm) and values.shape[-1] == module.normalized_shape[-1] != values.shape[1]:
        return values.ndim - 1
    return 1


def _peaks(values: Tensor, axis: int) -> NDArray[np.float64]:
    """Give the largest value of each channel."""
    peaks: NDArray[np.float64] = values.double().transpose(0, axis).flatten(1).amax(dim=1).cpu().numpy()
    return peaks
