"""List a network's layers, and find the axis of their outputs that holds the units."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from prunescope.bounds import MOST_SIZE, check_count
from prunescope.errors import InputError, nearest
from prunescope.networks.axes import Outputs, Sizes, Unknown, find_axes, watching
from prunescope.networks.checks import check_ready, explain_failures, without_wrapper
from prunescope.networks.observing import call_problem, check_layers, prefix_tokens
from prunescope.networks.outputs import described, split_layer
from prunescope.networks.preprocessing import check_channels
from prunescope.networks.running import blank_images, evaluating, image_channels
from prunescope.networks.source import build_network
from prunescope.networks.tokens import as_maps

# The axis of an output that holds the units: one number for all layers, or one for each layer by its name.
UnitsAxis = int | Mapping[str, int]


def list_layers(
    model: nn.Module | str,
    size: int = 224,
    *,
    units_axis: UnitsAxis | None = None,
    channels: int | None = None,
    classes: int | None = None,
    weights: str | Path | None = None,
    weights_key: str | None = None,
    masks: str | Path | None = None,
) -> pd.DataFrame:
    """List the layers that can be dissected.

    They are found by forward passes on zeros in evaluation mode. The network is left unchanged.

    Parameters
    ----------
    model
        A network that takes images [n, channels, size, size], or the name of one, as `build_network` takes it.
    size
        The height and width of the images in pixels.
    units_axis
        The axis of the layers' outputs that holds the units, as in `dissect`.
    channels
        The number of channels of the images. By default, it is determined by `image_channels`.
    classes, weights, weights_key, masks
        The number of outputs, the file of weights, the key of the weights in it and the file of masks of a network
        given by its name, as in `build_network`.

    Returns
    -------
    DataFrame
        One row, in the order of `named_modules()`, for each layer that is called once per forward pass and returns maps
        [n, units, h, w], [n, h, w, units] or [n, units], or tokens that form maps. If a layer returns several of these
        in a tuple, list or mapping, its own row describes the first, and each of them also has a row `LAYER:NAME`. The
        columns are `layer` (its name), `type` (its class), `shape` (a tuple: the shape of the maps without n, with the
        units first), `units` (their number) and `note`. If the units axis of a layer cannot be determined, `note`
        explains why, `shape` is the shape of the output itself without n, and `units` is missing (`pandas.NA`).

    Raises
    ------
    InputError
        If the network cannot take such images or cannot be built, if `units_axis` names a layer that it does not have
        or is not an axis, or if `classes` or `weights` are given for a network that is built already.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> list_layers(model, size=32).drop(columns="note")
      layer               type        shape  units
    0     0             Conv2d  (8, 30, 30)      8
    1     1  AdaptiveAvgPool2d    (8, 1, 1)      8
    2     2            Flatten         (8,)      8
    """
    if isinstance(model, str):
        model = build_network(model, classes=classes, weights=weights, key=weights_key, masks=masks)
    elif not (classes is None and weights is None and weights_key is None and masks is None):
        raise InputError(
            "classes, weights and masks are for a network given by its name; load_weights changes a built one"
        )
    check_ready(model)
    check_count("size", size, 1, MOST_SIZE, "the images' side in pixels")
    if channels is not None:
        check_channels(channels)
    model = without_wrapper(model)
    modules = {name: module for name, module in model.named_modules() if name}
    given = _given_axes(list(modules), units_axis)
    images = blank_images(model, 2, (size, size), channels or image_channels(model, (size, size)))
    outputs, found = _measured_axes(model, images)
    prefix = prefix_tokens(model)
    rows: list[tuple[str, str, tuple[int, ...], int | None, str]] = []
    for name, module in modules.items():
        if len(outputs.get(name, ())) != 1:
            continue
        kind = type(module).__name__
        blank = {output.name: torch.empty(output.shape, device="meta") for output in outputs[name][0]}
        parts = [part for part in blank if f"{name}:{part}" in found]
        for part in [None, *(parts if len(parts) > 1 else ())]:
            layer = name if part is None else f"{name}:{part}"
            axis = given.get(layer, found.get(layer))
            if isinstance(axis, Unknown):
                rows.append((layer, kind, axis.shape, None, _no_axis(layer, axis)))
            elif axis is not None and (maps := as_maps(blank, images.shape, prefix, axis, part)) is not None:
                rows.append((layer, kind, tuple(maps.shape[1:]), maps.shape[1], ""))
    return pd.DataFrame(rows, columns=["layer", "type", "shape", "units", "note"]).astype({"units": "Int64"})


def units_axes(
    model: nn.Module,
    layers: Sequence[str],
    image_size: tuple[int, int],
    units_axis: UnitsAxis | None = None,
    *,
    channels: int | None = None,
) -> dict[str, int]:
    """Find the axis of each layer's output that holds the units.

    The axis is determined as `find_axes` describes, by up to four forward passes on zeros in evaluation mode: on images
    of this size, and on taller, wider and larger ones. For the latter, only shapes are computed if the network allows
    it. The network may fail on images of the other sizes if it fails after the layer, or if the axis can be determined
    in another way. It is left unchanged.

    Parameters
    ----------
    model
        The network.
    layers
        Names of layers, as in `named_modules()`, or `LAYER:NAME` for one of the tensors that a layer returns.
    image_size
        The height and the width of the images in pixels.
    units_axis
        The axis if it is known: one number for all these layers, or numbers for some of them by name. Axes are counted
        from 0, which is the batch axis, or from the end if negative. Given axes are returned without measurement.
    channels
        The number of channels of the images. By default, it is determined by `image_channels`.

    Returns
    -------
    dict of str to int
        The axis for each layer. Layers that return no maps are omitted.

    Raises
    ------
    InputError
        If the axis of a layer cannot be determined and is not given; if `units_axis` is not an axis or names another
        layer; if a layer does not exist, or is not called exactly once; or if the network cannot take images of this
        size.
    """
    check_layers(model, layers)
    axes = _given_axes(layers, units_axis)
    if set(layers) <= axes.keys():
        return axes
    images = blank_images(model, 2, image_size, channels or image_channels(model, image_size))
    outputs, found = _measured_axes(model, images)
    for layer in layers:
        if layer in axes:
            continue
        module, part = split_layer(layer, outputs)
        if len(outputs.get(module, ())) != 1:
            raise InputError(call_problem(layer, len(outputs.get(module, ()))))
        shapes = {output.name: output.shape for output in outputs[module][0]}
        if part is not None and part not in shapes:
            raise InputError(_no_part(module, part, shapes))
        axis = found.get(layer)
        if isinstance(axis, Unknown):
            h, w = image_size
            shape = ", ".join(map(str, ("n", *axis.shape)))
            raise InputError(
                f"layer {layer!r} returns [{shape}] for images of {h} x {w} pixels: {_no_axis(layer, axis)}"
            )
        if axis is not None:
            axes[layer] = axis
    return axes


def _measured_axes(model: nn.Module, images: Tensor) -> tuple[Outputs, dict[str, int | Unknown]]:
    """Run a network on blank images of several sizes; return its modules' outputs for `images`, and their axes."""
    n, channels, h, w = images.shape
    devices = [images.device] if images.is_cuda else []
    with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices):
        with watching(model) as outputs, explain_failures(model, images):
            model(images)

        shapes = _without_values(model)

        def look(height: int, width: int) -> Outputs:
            # Running one image instead of several also shows whether the first axis of an output is the batch axis. A
            # network that takes one size only fails here, but often after the layers of interest.
            image = (1, channels, height, width)
            if shapes is not None:
                with watching(shapes) as others, suppress(Exception):
                    shapes(torch.empty(image, dtype=images.dtype, device="meta"))
                    return others
            with watching(model) as others, suppress(Exception):
                model(images.new_zeros(image))
            return others

        taller, wider = look(2 * h, w), look(h, 2 * w)
        seen = outputs.keys() <= taller.keys() & wider.keys()
        larger = {} if seen else look(2 * h, 2 * w)
    modules = dict(model.named_modules())
    sizes = Sizes((n, channels, h, w), outputs, taller, wider, larger)
    return outputs, find_axes(modules, sizes, prefix_tokens(model))


def _without_values(model: nn.Module) -> nn.Module | None:
    """Return a copy of a network on the meta device, which computes shapes only, or None if it cannot be copied.

    The copy takes no memory and nearly no time. It fails where a network uses values of tensors, or tensors that are
    neither parameters nor buffers.
    """
    try:
        known: dict[int, Any] = {
            id(weight): nn.Parameter(weight.to("meta"), weight.requires_grad) for weight in model.parameters()
        }
        known |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
        shapes = copy.deepcopy(model, known)
        for module in shapes.modules():
            # Batch normalisation keeps the shape, but on the meta device it is by far the slowest operation, since it
            # is decomposed into many others.
            if isinstance(module, BatchNorm) and type(module).forward is BatchNorm.forward:
                module.forward = Tensor.clone  # type: ignore[assignment, method-assign]
        return shapes
    except Exception:  # a network may hold anything, such as an open file
        return None


def _given_axes(layers: Sequence[str], units_axis: UnitsAxis | None) -> dict[str, int]:
    """Check the given axes and return them by layer."""
    if units_axis is None:
        return {}
    axes = dict(units_axis) if isinstance(units_axis, Mapping) else dict.fromkeys(layers, units_axis)
    for layer, axis in axes.items():
        if layer not in layers and split_layer(layer, layers)[0] not in layers:
            raise InputError(f"units_axis names {layer!r}, which is not one of the layers; {nearest(layer, layers)}")
        if not isinstance(axis, int) or isinstance(axis, bool) or axis not in (-3, -2, -1, 1, 2, 3):
            raise InputError(
                f"units_axis of layer {layer!r} is {axis!r}, expected 1, 2 or 3 (0 is the images' axis), or -1, -2 or "
                "-3 from the end: 1 for [n, units, h, w], -1 for [n, h, w, units] or [n, tokens, units]"
            )
    return axes


def _no_part(layer: str, part: str, shapes: Mapping[str, Sequence[int]]) -> str:
    if list(shapes) == [""]:
        return f"layer {layer!r} returns one tensor of shape {list(shapes[''])}, and no {part!r}; leave out :{part}"
    return f"layer {layer!r} returns no tensor {part!r}; it returns: {described(shapes)}"


def _no_axis(layer: str, unknown: Unknown) -> str:
    remedy = unknown.needs or (
        f"give --units-axis {layer}=1 if they come first, as in [n, units, ...], or {layer}=-1 if they come last (in "
        f"Python units_axis={{{layer!r}: 1}}, in a recipe dissection.units_axis)"
    )
    return f"the axis of the units cannot be determined: {unknown.reason}; {remedy}"
