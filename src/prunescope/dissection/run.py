"""Dissection: the network looks at every image once, then each unit's mask is held against the labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import nn

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.dissection.batches import batches
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.stream import LayerStream
from prunescope.dissection.tally import LabelBatch, Presence
from prunescope.errors import InputError, nearest
from prunescope.networks.layers import check_layers, observe
from prunescope.progress import Progress, silent

Array = np.ndarray[Any, Any]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def dissect(
    model: nn.Module,
    *,
    layers: Sequence[str],
    concepts: ConceptData | str | Path,
    quantile: float = 0.005,
    iou: float = 0.05,
    presence: Presence = "image",
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Dissection:
    """Say which unit of which layer detects which concept (Bau et al. 2017; Frankle and Bau 2019, section 3).

    The network runs once over the data set's images, in evaluation mode, and observes all layers. The results do not
    depend on the batch size beyond the network's own floating point.

    Parameters
    ----------
    model
        Takes [n, 3, ih, iw].
    layers
        Names as `named_modules()` gives them; their outputs are [n, units, h, w] or [n, units].
    concepts
        Labelled images in Broden's format: a folder, or what `open_concepts` returned.
    quantile
        The fraction of all positions above a unit's threshold.
    iou
        A unit is interpretable when the IoU with its concept is above this.
    presence
        On which images a mask counts as activation for a category: `image`, those with a label of the category
        anywhere; `overlap`, those with one under the mask.
    batch_size
        Images at a time.
    device
        Where the network runs.
    mean, std
        Of each color channel, for images scaled to 0..1; ImageNet's unless told.
    settings
        More to note in the summary (a network's name, say).
    progress
        Called with images done and images in all.

    Returns
    -------
    Dissection
        Its `.units` is a DataFrame; each layer's parts are under its name.

    Raises
    ------
    InputError
        A layer that is not there or has another output, a data set that cannot be read, activations that are not
        finite, a value out of its range.

    Examples
    --------
    ::

        found = prunescope.dissect(model, layers=["layer4"], concepts="broden1_224")
        found.units.query("iou > 0.05").groupby("category").size()
    """
    _check_settings(quantile, iou, presence, batch_size, mean, std)
    check_layers(model, layers)
    data = concepts if isinstance(concepts, ConceptData) else open_concepts(concepts)
    shift = torch.tensor(mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    scale = torch.tensor(std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
    streams: dict[str, LayerStream] = {}
    labels: list[LabelBatch] = []
    was_training = model.training
    model.to(device).eval()
    try:
        with observe(model, layers) as seen, torch.inference_mode():
            for batch in batches(data, batch_size):
                pixels = torch.from_numpy(batch.images).to(device).permute(0, 3, 1, 2)
                model((pixels.float() / 255 - shift) / scale)
                for layer in layers:
                    maps = _as_maps(seen[layer])
                    if layer not in streams:
                        streams[layer] = LayerStream(layer, len(data), maps.shape[1:], quantile)
                    streams[layer].add(batch.first, maps, batch.names)
                labels.append(batch.labels)
                progress(batch.first + len(batch.names), len(data))
    finally:
        model.train(was_training)
    noted = _settings(data, quantile, presence) | {"mean": list(mean), "std": list(std)} | dict(settings or {})
    return Dissection(
        {
            layer: stream.finish(labels, data, presence=presence, iou=iou, settings={"layer": layer} | noted)
            for layer, stream in streams.items()
        }
    )


def dissect_activations(
    features: Array,
    *,
    concepts: ConceptData | str | Path,
    thresholds: Array | None = None,
    quantile: float = 0.005,
    iou: float = 0.05,
    presence: Presence = "image",
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> LayerDissection:
    """Dissect activation maps from any framework; the layer is called `activations`.

    Parameters
    ----------
    features
        [images, units, h, w] or [images, units], a real type, held as float32; images in the data set's index order.
    concepts, quantile, iou, presence, settings, progress
        As in `dissect`.
    thresholds
        [units], instead of the exact quantile of `features`.

    Raises
    ------
    InputError
        Another number of images than the data set's, another shape or type, values that are not finite.
    """
    _check_settings(quantile, iou, presence, 1, (), ())
    data = concepts if isinstance(concepts, ConceptData) else open_concepts(concepts)
    if features.dtype.kind not in "fiu" or features.ndim not in (2, 4) or 0 in features.shape:
        raise InputError(
            f"features are {features.dtype} {list(features.shape)}, expected real numbers [images, units, h, w] "
            f"or [images, units]"
        )
    if len(features) != len(data):
        raise InputError(
            f"features hold {len(features)} images, {data.root} has {len(data)}; expected one map per image, "
            f"in index order"
        )
    if thresholds is not None and (thresholds.shape != features.shape[1:2] or not np.isfinite(thresholds).all()):
        raise InputError(
            f"thresholds are {list(thresholds.shape)}, expected {features.shape[1]} finite numbers, one a unit"
        )
    maps = features.reshape(*features.shape[:2], *(features.shape[2:] or (1, 1)))
    stream = LayerStream("activations", len(maps), maps.shape[1:], quantile)
    labels = []
    for batch in batches(data, 64, with_images=False):
        part = np.ascontiguousarray(maps[batch.first : batch.first + len(batch.names)], np.float32)
        stream.add(batch.first, part, batch.names)
        labels.append(batch.labels)
        progress(batch.first + len(batch.names), len(data))
    noted = {"layer": "activations"} | _settings(data, quantile, presence) | dict(settings or {})
    given = None if thresholds is None else np.asarray(thresholds, np.float64)
    return stream.finish(labels, data, presence=presence, iou=iou, settings=noted, thresholds=given)


def _as_maps(output: torch.Tensor) -> Array:
    """[n, units] or [n, units, h, w] on any device -> float32 [n, units, h, w], its own copy."""
    maps = output if output.ndim == 4 else output[:, :, None, None]
    return maps.float().contiguous().cpu().numpy()


def _settings(data: ConceptData, quantile: float, presence: Presence) -> dict[str, Any]:
    return {"quantile": quantile, "presence": presence, "concepts": str(data.root), "images": len(data)}


def _check_settings(
    quantile: float, iou: float, presence: str, batch_size: int, mean: Sequence[float], std: Sequence[float]
) -> None:
    if not 0 < quantile < 1:
        raise InputError(f"quantile is {quantile}, expected a fraction between 0 and 1 (0.005 keeps the top 0.5 %)")
    if not 0 <= iou < 1:
        raise InputError(f"iou is {iou}, expected a bound from 0 up to 1 (0.05 in the paper)")
    if presence not in get_args(Presence):
        raise InputError(f"presence is {presence!r}; {nearest(presence, get_args(Presence))}")
    if batch_size < 1:
        raise InputError(f"batch size is {batch_size}, expected at least 1")
    if mean and (len(mean) != 3 or len(std) != 3 or min(std) <= 0):
        raise InputError(f"mean {list(mean)} and std {list(std)}: expected three numbers each, std above 0")
