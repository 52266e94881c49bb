"""Dissect networks and activation maps.

A network runs once over all images, which determines the thresholds. Each unit's masks are then compared with the
labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.concepts.broden import ConceptData, as_concepts
from prunescope.dissection.batches import Batch, batches
from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.look import Key, Look, arithmetic
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.settings import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Align,
    Precision,
    check_choice,
    check_precision,
    check_settings,
)
from prunescope.dissection.spool import Budget, Spill
from prunescope.dissection.stream import Holding, LayerStream, no_truth, shape_of, tensors_on
from prunescope.dissection.tally import Presence
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, without_wrapper
from prunescope.networks.geometry import Geometry, receptive_fields
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.networks.observing import check_layers, evaluating
from prunescope.networks.random_weights import random_weights
from prunescope.processes import Processes, connected_processes
from prunescope.progress import Progress, silent

Array = np.ndarray[Any, Any]


def dissect(
    model: nn.Module,
    *,
    layers: Sequence[str],
    concepts: ConceptData | str | Path,
    units_axis: UnitsAxis | None = None,
    quantile: float = 0.005,
    iou: float = 0.05,
    presence: Presence = "image",
    align: Align = "half-pixel",
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> Dissection:
    """Find the concepts that the units of a network detect (Bau et al. 2017; Frankle and Bau 2019, section 3).

    The network runs once over the images of the data set, in evaluation mode, and all layers are observed in the same
    pass. The batch size, the budget and the number of processes affect the results only through rounding errors in the
    network's own computations.

    Parameters
    ----------
    model
        A network that takes images [n, 3, ih, iw].
    layers
        The names of the layers in `named_modules()`. The layers' outputs must have the shape [n, units, h, w],
        [n, h, w, units] or [n, units], or consist of tokens that form a grid, [n, tokens, units] or [n, units, tokens].
    concepts
        Labelled images in Broden's format: a folder, or a data set returned by `open_concepts`.
    units_axis
        The axis of the layers' outputs that holds the units: one number for all layers, or a mapping from layer names
        to numbers. Axes are counted from 0, the axis of the images, or from the end if negative. For layers without a
        given axis, it is determined by a few forward passes on blank images of other sizes (see `find_axes`).
    quantile
        The fraction of all positions at which a unit's activation exceeds its threshold.
    iou
        A unit is interpretable if the IoU with its concept is above this bound.
    presence
        The images on which mask pixels count as activation for a category. With `image`, these are the images that have
        a label of the category anywhere; with `overlap`, the images that have one under the mask.
    align
        The alignment of activation maps with the labels. With `half-pixel`, maps are stretched over the whole image;
        with `receptive-field`, map positions are placed at the centres of the units' receptive fields, which are
        measured from the network (Bau et al. 2017, section 2.2).
    batch_size
        The number of images in a batch.
    device
        The device that the network runs on.
    precision
        The precision of the forward pass: `fp32`, `tf32` (on NVIDIA GPUs that support it) or `bf16` (mixed precision).
    mean, std
        The mean and standard deviation of each color channel, which normalise images scaled to 0..1; those of ImageNet
        by default.
    budget
        The amounts of memory and disk space in which activation maps may be stored until the thresholds are known. A
        layer that needs more than both together gets a second forward pass.
    settings
        Further settings to store in the summary, such as the name of the network.
    progress
        A function that is called with the number of images done and the total number of images of this process. The
        total doubles if a layer needs a second forward pass.

    Returns
    -------
    Dissection
        The results. `.units` is a DataFrame with the units of all layers; indexing with a layer's name returns the
        results of that layer.

    Raises
    ------
    InputError
        If a layer does not exist, its output has an unsupported shape, or the axis of its units cannot be determined;
        if the data set cannot be read; if an activation is not finite; or if an argument is out of range.
    OSError
        If there is not enough disk space for the stored activation maps. The temporary file is removed.

    Warns
    -----
    UserWarning
        If the network has random weights from `build_network`.

    Examples
    --------
    ::

        found = prunescope.dissect(model, layers=["layer4"], concepts="broden1_224")
        found.units.query("iou > 0.05").groupby("category").size()
    """
    found = dissect_networks(
        {"": model}, layers=layers, concepts=concepts, units_axis=units_axis, quantile=quantile, iou=iou,
        presence=presence, align=align, batch_size=batch_size, device=device, precision=precision, mean=mean, std=std,
        budget=budget, settings=settings, progress=progress,
    )  # fmt: skip
    return found[""]


def dissect_networks(
    models: Mapping[str, nn.Module],
    *,
    layers: Sequence[str],
    concepts: ConceptData | str | Path,
    units_axis: UnitsAxis | None = None,
    quantile: float = 0.005,
    iou: float = 0.05,
    presence: Presence = "image",
    align: Align = "half-pixel",
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    precision: Precision = "fp32",
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    budget: Budget = Budget(),  # noqa: B008 - frozen
    settings: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Dissection]:
    """Dissect several networks in one pass over the data set, so that images and labels are decoded only once.

    Parameters
    ----------
    models
        The networks by name. All of them must have the given layers.
    layers, concepts, units_axis, quantile, iou, presence, align, batch_size, device, precision, mean, std, budget, \
    progress
        As in `dissect`.
    settings
        Further settings to store in every summary, in addition to the network's name.

    Returns
    -------
    dict of str to Dissection
        The results of each network, by its name.

    Raises
    ------
    InputError, OSError
        As in `dissect`.

    Warns
    -----
    UserWarning
        As in `dissect`.
    """
    check_settings(quantile, iou, presence, batch_size, mean, std)
    check_choice("align", align, Align)
    check_precision(precision, device)
    models = {name: without_wrapper(model) for name, model in models.items()}
    for model in models.values():
        check_ready(model)
        check_layers(model, layers)
    random = {name: note for name, model in models.items() if (note := random_weights(model))}
    for name, note in random.items():
        warnings.warn(
            f"the network{f' {name}' if name else ''} has {note}: no weights were given, and its name loads none. "
            "Give a file of weights, or a name with published ones such as torchvision:resnet18@DEFAULT",
            stacklevel=3 if name == "" else 2,
        )
    data = as_concepts(concepts)
    geometry: dict[tuple[str, str], Geometry] = {}
    axes: dict[str, dict[str, int]] = {}
    for name, model in models.items():
        model.to(device)
        axes[name] = units_axes(model, layers, data.image_size, units_axis)
        if align == "receptive-field":
            fields = receptive_fields(model, layers, data.image_size, units_axis=axes[name])
            geometry |= {(name, layer): field for layer, field in fields.items()}
    look = Look(models, axes, torch.device(device), mean, std)
    streams: dict[Key, LayerStream] = {}
    truth = no_truth(data)

    def take_in(key: Key, output: Tensor, batch: Batch) -> None:
        if key not in streams:
            streams[key] = LayerStream(key[1], shape_of(output), holding, geometry.get(key))
        streams[key].add(batch.first, output, batch.names)

    def tell(looks_done: int, images: int) -> None:
        looks = 1 + any(stream.overflowed for stream in streams.values())
        progress(looks_done * len(mine) + images, looks * len(mine))

    def count_again(key: Key, output: Tensor, batch: Batch) -> None:
        streams[key].count(output, batch.first, holding.placed(batch.labels))

    with ExitStack() as stack:
        processes = stack.enter_context(connected_processes())
        mine = processes.share_of(len(data))
        if len(data) < processes.count:
            raise InputError(f"{data.root} has {len(data)} images, fewer than the {processes.count} processes")
        workers = stack.enter_context(Workers(torch.get_num_threads()))
        spill = stack.enter_context(Spill(budget.on(look.device)))
        holding = Holding(data, quantile, presence, iou, workers, spill, tensors_on(look.device))
        for model in models.values():
            stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(arithmetic(precision, look.device))
        stack.enter_context(look.stream())
        look.check(data.image_size)
        labels = spill.spool()
        for batch in batches(data, batch_size, mine, pinned=look.on_gpu):
            look.at(batch, [(name, layer) for name in models for layer in layers], take_in)
            batch.labels.add_truth(holding.blocks(batch.first, len(batch.names)), truth)
            labels.append(tuple(holding.placed(batch.labels)))
            tell(0, batch.first + len(batch.names) - mine.start)
        look.finish()
        for stream in streams.values():
            stream.settle(processes)
        waiting = {key: stream.kept() for key, stream in streams.items() if not stream.overflowed}
        first = mine.start
        for record in labels:
            placed = holding.placed(LabelBatch(*record))
            for key, kept in waiting.items():
                streams[key].count(next(kept), first, placed)
            first += len(placed.codes)
        again = [key for key, stream in streams.items() if stream.overflowed]
        for batch in batches(data, batch_size, mine, pinned=look.on_gpu) if again else ():
            look.at(batch, again, count_again, to_the_end=False)
            tell(1, batch.first + len(batch.names) - mine.start)
        look.finish()
        processes.all_reduce(truth)
        noted = _settings(data, quantile, presence) | {"align": align, "precision": precision}
        noted |= {"mean": list(mean), "std": list(std)} | dict(settings or {})
        if units_axis is not None:
            noted |= {"units_axis": dict(units_axis) if isinstance(units_axis, Mapping) else units_axis}
        found: dict[str, dict[str, LayerDissection]] = {name: {} for name in models}
        for key, stream in streams.items():
            name, layer = key
            own: dict[str, Any] = {"name": name} if name else {}
            own |= {"weights": random[name]} if name in random else {}
            own |= {"dtype": look.dtype(name)} if look.dtype(name) != "float32" else {}
            own |= _told(geometry[key]) if key in geometry else {}
            found[name][layer] = stream.finish(truth, processes, noted | own)
    return {name: Dissection(parts) for name, parts in found.items()}


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
    """Dissect activation maps that were computed elsewhere, by any framework.

    Parameters
    ----------
    features
        The activation maps, [images, units, h, w] or [images, units], of any real type; they are converted to float32.
        The images must be in the order of the data set's index.
    concepts, quantile, iou, presence, settings, progress
        As in `dissect`.
    thresholds
        The threshold of each unit, [units], to be used instead of the exact quantile of `features`.

    Returns
    -------
    LayerDissection
        The results, with `activations` as the name of the layer.

    Raises
    ------
    InputError
        If the number of images differs from that of the data set; if `features` or `thresholds` have an unsupported
        shape or type, or values that are not finite; or if an argument is out of range.
    """
    check_settings(quantile, iou, presence, 1, (), ())
    data = as_concepts(concepts)
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
    if thresholds is not None and thresholds.dtype.kind not in "fiu":
        raise InputError(f"thresholds are {thresholds.dtype}, expected numbers")
    if thresholds is not None and (thresholds.shape != features.shape[1:2] or not np.isfinite(thresholds).all()):
        raise InputError(
            f"thresholds are {list(thresholds.shape)}, expected {features.shape[1]} finite numbers, one a unit"
        )
    maps = features.reshape(*features.shape[:2], *(features.shape[2:] or (1, 1)))
    given = None if thresholds is None else np.asarray(thresholds, np.float64)
    processes, truth = Processes(), no_truth(data)
    # The maps are in memory already, and their copies that are stored until the thresholds are known fit there too.
    budget = Budget(memory=2 * features.nbytes + (1 << 30))
    with Spill(budget) as spill, Workers(torch.get_num_threads()) as workers:
        holding = Holding(data, quantile, presence, iou, workers, spill, tensors_on(torch.device("cpu")))
        stream = LayerStream("activations", maps.shape[1:], holding, thresholds=given)
        labels = spill.spool()
        for batch in batches(data, 64, range(len(data)), with_images=False):
            part = np.array(maps[batch.first : batch.first + len(batch.names)], np.float32)
            stream.add(batch.first, torch.from_numpy(part), batch.names)
            batch.labels.add_truth(holding.blocks(batch.first, len(batch.names)), truth)
            labels.append(tuple(holding.placed(batch.labels)))
            progress(batch.first + len(batch.names), len(data))
        stream.settle(processes)
        for place, (kept, record) in enumerate(zip(stream.kept(), labels, strict=True)):
            stream.count(kept, 64 * place, holding.placed(LabelBatch(*record)))
    noted = _settings(data, quantile, presence) | {"align": "half-pixel"} | dict(settings or {})
    return stream.finish(truth, processes, noted)


def _told(geometry: Geometry) -> dict[str, list[str]]:
    return {name: [str(value) for value in getattr(geometry, name)] for name in ("stride", "offset")}


def _settings(data: ConceptData, quantile: float, presence: Presence) -> dict[str, Any]:
    return {"quantile": quantile, "presence": presence, "concepts": str(data.root), "images": len(data)}
