"""Look at one unit of a dissected layer: the images that excite it most, and its activation maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from prunescope.arrays import Array
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.sample import as_sample, sample_concepts
from prunescope.devices import choose_device
from prunescope.dissection.examples import Examples
from prunescope.dissection.figures import enlarged
from prunescope.dissection.forward import arithmetic
from prunescope.dissection.maps import float_maps
from prunescope.dissection.masks import anchored_axis, stretch
from prunescope.dissection.outlines import outlined
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, explain_failures, without_wrapper
from prunescope.networks.layers import units_axes
from prunescope.networks.observing import observe
from prunescope.networks.preprocessing import Normaliser, Preprocessing, colors
from prunescope.networks.running import evaluating, moved_to

_BATCH = 32
_TYPES = (torch.float16, torch.bfloat16, torch.float64)  # of the images, other than float32


def row_of(units: pd.DataFrame, unit: int) -> int:
    """Return the row of a unit in a table of units.

    Raises
    ------
    InputError
        If the table does not have the unit.
    """
    rows = np.flatnonzero(units["unit"].to_numpy() == unit)
    if isinstance(unit, bool) or not isinstance(unit, int | np.integer) or not len(rows):
        raise InputError(
            f"unit is {unit!r}, expected one of the layer's {len(units):,} units, which are numbered from "
            f"{units['unit'].min()} to {units['unit'].max()}"
        )
    return int(rows[0])


def dissected_images(settings: Mapping[str, Any], concepts: Concepts | str | Path | None) -> Concepts:
    """Open the data set that a layer was dissected on.

    Parameters
    ----------
    settings
        The settings in the layer's summary.
    concepts
        The data set, if it is not in the folder that the settings state.

    Raises
    ------
    InputError
        If the data set cannot be opened, or has another number of images than was dissected.
    """
    root, count, sample = settings.get("concepts"), settings.get("images"), settings.get("sample")
    if concepts is None and (not isinstance(root, str) or not Path(root).is_dir()):
        raise InputError(
            f"the images were dissected from {root!r}, which is not a folder here; give the data set as `concepts`"
        )
    given = root if concepts is None else concepts
    assert given is not None
    if isinstance(sample, Mapping) and isinstance(given, str | Path):
        data: Concepts = sample_concepts(given, count, sample.get("seed", 0))
    else:
        data = as_sample(given, None)
    if count is not None and len(data) != count:
        raise InputError(
            f"concepts: {data.root} has {len(data)} images, but {count} were dissected; give the same data"
        )
    return data


def example_images(
    examples: Examples, row: int, threshold: float, settings: Mapping[str, Any], data: Concepts, *, large: bool
) -> Array:
    """Return the images that excite a unit most, with the unit's mask outlined.

    Parameters
    ----------
    examples
        The examples of the layer.
    row
        The row of the unit.
    threshold
        The unit's threshold.
    settings
        The settings in the layer's summary.
    data
        The data set.
    large
        Whether small images are enlarged.

    Returns
    -------
    Array
        uint8 [n, height, width, 3], in descending order of activation; n is 4, or less if there are fewer images.
    """
    height, width = data.image_size
    there = [place for place, image in enumerate(examples.images[row]) if 0 <= image < len(data)]
    if not there:
        return np.zeros((0, height, width, 3), np.uint8)
    images = np.stack([data.image(int(examples.images[row, place])) for place in there])
    maps = examples.maps[row, there]
    axes = None
    if "stride" in settings and "offset" in settings:
        strides, offsets = ([Fraction(value) for value in settings[name]] for name in ("stride", "offset"))
        axes = (
            anchored_axis(maps.shape[1], height, height, strides[0], offsets[0]),
            anchored_axis(maps.shape[2], width, width, strides[1], offsets[1]),
        )
    masks = stretch(maps, (height, width), axes) > threshold
    return outlined(enlarged(images) if large else images, masks)


def stored_maps(examples: Examples | None, row: int, unit: int, images: Sequence[int]) -> Array:
    """Return a unit's maps for images among its examples, float32 [images, h, w].

    Raises
    ------
    InputError
        If an image is not among the unit's examples.
    """
    known = [] if examples is None else [int(image) for image in examples.images[row] if image >= 0]
    for image in images:
        if image not in known:
            raise InputError(
                f"the map of unit {unit} for image {image} is not stored, only those of the images that excite it most "
                f"({', '.join(map(str, known)) or 'none'}); give the network as `model` to compute it"
            )
    assert examples is not None
    maps: Array = examples.maps[row, [known.index(image) for image in images]]
    return maps


def computed_maps(
    model: nn.Module, layer: str, row: int, images: Array, settings: Mapping[str, Any], device: str
) -> Array:
    """Run a network on images as in a dissection, and return the maps of one unit.

    Parameters
    ----------
    model
        The network. It is left on its device and in its mode.
    layer
        The name of the layer.
    row
        The index of the unit in the layer's output.
    images
        uint8 [n, ih, iw, 3]: the images, in RGB.
    settings
        The settings in the layer's summary, which state the preprocessing.
    device
        The device to run on.

    Returns
    -------
    Array
        float32 [n, h, w].

    Raises
    ------
    InputError
        If the settings do not state the preprocessing, or if the network does not have the layer or the unit.
    """
    mean, std = (colors(settings.get(name)) for name in ("mean", "std"))
    if mean is None or std is None:
        raise InputError("the summary states no mean and std, so that the network cannot be run as in the dissection")
    preprocessing = Preprocessing(mean, std, order=settings.get("order", "RGB"))
    model = without_wrapper(model)
    check_ready(model)
    place = torch.device(choose_device(device))
    dtype = next((kind for kind in _TYPES if str(kind) == f"torch.{settings.get('dtype')}"), torch.float32)
    normalise = Normaliser(preprocessing, place)
    maps = []
    with moved_to(model, place), evaluating(model), torch.inference_mode():
        axes = units_axes(
            model, [layer], images.shape[1:3], settings.get("units_axis"), channels=preprocessing.channels
        )
        with arithmetic(settings.get("precision", "fp32"), place), observe(model, [layer], axes) as outputs:
            for first in range(0, len(images), _BATCH):
                inputs = normalise(torch.from_numpy(images[first : first + _BATCH]).to(place)).to(dtype)
                with explain_failures(model, inputs):
                    model(inputs)
                found = float_maps(outputs[layer])
                if row >= found.shape[1]:
                    raise InputError(f"layer {layer!r} of the network has {found.shape[1]} units, fewer than dissected")
                maps.append(found[:, row].cpu().numpy().copy())
    return np.concatenate(maps)
