"""Follow channels through a network by replacing the values of each channel with a number that identifies it."""

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
from prunescope.networks.observing import observe
from prunescope.networks.running import evaluating

Codes = dict[str, NDArray[np.float64]]

# The relative tolerance for equal codes. Sums of the same codes in the same order differ by far less than this, and
# codes of different channels by far more.
_SAME = 1e-12


def codes_at_inputs(model: nn.Module, kept: Mapping[str, Tensor], images: Tensor) -> Codes:
    """Return the codes that arrive at the input of each module with channels.

    Parameters
    ----------
    model
        The network, dense or shrunk.
    kept
        For each module with channels, by name, a bool tensor [output channels of the dense network] that is True for
        each channel that `model` still has.
    images
        The images to run the network on, [n, 3, h, w].

    Returns
    -------
    dict of str to ndarray
        For each module, float64 [input channels]: the largest value that arrives in each input channel.
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
    """Return the codes in the outputs of layers.

    Parameters
    ----------
    model, kept, images
        As in `codes_at_inputs`.
    layers, axes
        The layers and the axis of each output that holds the units, as in `observe`.

    Returns
    -------
    dict of str to ndarray
        For each layer, float64 [units]: the largest value of each unit.
    """
    found: Codes = {}

    def take(layer: str, output: Tensor) -> None:
        found[layer] = _peaks(output, 1)

    with _coded(model, kept, images), evaluating(model), observe(model, layers, axes, take), torch.inference_mode():
        model(images)
    return found


def match_codes(dense: NDArray[np.float64], left: NDArray[np.float64], layer: str) -> NDArray[np.int64]:
    """Find the codes of a shrunk layer among those of the dense layer.

    Parameters
    ----------
    dense
        The codes of the dense layer, float64 [units].
    left
        The codes of the shrunk layer, float64 [remaining units].
    layer
        The layer's name, for messages.

    Returns
    -------
    int64 array [remaining units]
        The index in `dense` of each code in `left`.

    Raises
    ------
    InputError
        If two channels have the same code, or a code of the shrunk layer does not occur in the dense one. In both
        cases, the layer or one before it mixes channels.
    """
    order = np.argsort(dense, kind="stable")
    ranked = dense[order]
    after = np.searchsorted(ranked, left).clip(0, len(ranked) - 1)
    before = (after - 1).clip(0)
    nearest = np.where(np.abs(ranked[before] - left) < np.abs(ranked[after] - left), before, after)
    distinct = (np.diff(ranked) > 10 * _SAME * np.abs(ranked[1:])).all()
    if not distinct or not np.allclose(ranked[nearest], left, rtol=_SAME, atol=0):
        raise InputError(
            f"layer {layer!r}: its units cannot be distinguished once filters are removed, because the layer or "
            "one before it mixes channels (for example, normalises or sorts over them, or spreads one over several); "
            "choose a layer before that"
        )
    indices: NDArray[np.int64] = order[nearest]
    return indices


@contextmanager
def _coded(model: nn.Module, kept: Mapping[str, Tensor], like: Tensor) -> Iterator[None]:
    """Replace the output of each module with channels by a constant code per channel, from 1 to 2.

    The operations between these modules (additions, concatenations, rectifiers, pooling) pass the codes on. Codes are
    float64, so that sums of different codes differ too. Modules with parameters or buffers receive them in the
    precision of the images.
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
            # Copy the codes, because later modules may overwrite them.
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
    """Draw `count` random codes from 1 to 2 that are at least 1 / (2 count) apart."""
    ranks = torch.randperm(count, generator=generator)
    return 1 + (ranks + torch.rand(count, generator=generator, dtype=torch.float64) / 2) / max(count, 1)


def _channel_axis(module: nn.Module, values: Tensor) -> int:
    """Return the axis of a module's input or output that holds the channels.

    Channels come last for linear modules and layer normalisation, and on axis 1 for other modules. Subclasses of layer
    normalisation that permute their input are recognised by the shape.
    """
    if isinstance(module, nn.Linear) or type(module) is nn.LayerNorm:
        return values.ndim - 1
    if isinstance(module, nn.LayerNorm) and values.shape[-1] == module.normalized_shape[-1] != values.shape[1]:
        return values.ndim - 1
    return 1


def _peaks(values: Tensor, axis: int) -> NDArray[np.float64]:
    """Return the largest value of each channel."""
    peaks: NDArray[np.float64] = values.double().transpose(0, axis).flatten(1).amax(dim=1).cpu().numpy()
    return peaks
