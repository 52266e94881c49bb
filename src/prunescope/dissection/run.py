"""Dissection: the network looks at every image once, then each unit's mask is held against the labels."""

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
from prunescope.dissection.share import Share, sharing
from prunescope.dissection.spool import Budget, Spill
from prunescope.dissection.stream import Holding, LayerStream, no_truth, shape_of, tensors_on
from prunescope.dissection.tally import Presence
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, without_wrapper
from prunescope.networks.geometry import Geometry, receptive_fields
from prunescope.networks.layers import UnitsAxis, check_layers, evaluating, units_axes
from prunescope.networks.random_weights import random_weights
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
    """Say which unit of which layer detects which concept (Bau et al. 2017; Frankle and Bau 2019, section 3).

    The network runs once over the data set's images, in evaluation mode, and observes all layers. The results do not
    depend on the batch size, the budget or the number of processes beyond the network's own floating point.

    Parameters
    ----------
    model
        Takes [n, 3, ih, iw].
    layers
        Names as `named_modules()` gives them; their outputs are [n, units, h, w], [n, h, w, units] or [n, units], or
        tokens, [n, tokens, units] or [n, units, tokens], that form a grid.
    concepts
        Labelled images in Broden's format: a folder, or what `open_concepts` returned.
    units_axis
        Which axis of the layers' outputs holds the units, counted from 0, which is the images' axis, or from the end if
        negative: one number for all layers, or numbers by layer. Layers for which it is not given are measured, with a
        few forward passes on blank images of other sizes (`find_axes` says how).
    quantile
        The fraction of all positions above a unit's threshold.
    iou
        A unit is interpretable when the IoU with its concept is above this.
    presence
        On which images a mask counts as activation for a category: `image`, those with a label of the category
        anywhere; `overlap`, those with one under the mask.
    align
        How maps lie on the labels: `half-pixel`, stretched over the whole image; `receptive-field`, anchored at the
        centres of the units' receptive fields, measured from the network (Bau et al. 2017, section 2.2).
    batch_size
        Images at a time.
    device
        Where the network runs.
    precision
        Of the forward pass: `fp32`; `tf32`, on GPUs that have it; `bf16`, mixed.
    mean, std
        Of each color channel, for images scaled to 0..1; ImageNet's unless told.
    budget
        How much may wait for the thresholds in memory and on disk. A layer that needs more than both gets a second
        forward pass, alone.
    settings
        More to note in the summary (a network's name, say).
    progress
        Called with images done and images in all, of this process; a layer that needs a second forward pass doubles
        the latter.

    Returns
    -------
    Dissection
        Its `.units` is a DataFrame; each layer's parts are under its name.

    Raises
    ------
    InputError
        A layer that is not there or has another output, or of which it cannot be told which axis holds the units; a
        data set that cannot be read, activations that are not finite, a value out of its range.
    OSError
        The disk has no room for what waits; nothing is left there.

    Warns
    -----
    UserWarning
        The network has the random weights that `build_network` drew.

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
    """Dissect several networks, decoding images and labels once.

    Parameters
    ----------
    models
        Networks by name, all with these layers.
    layers, concepts, units_axis, quantile, iou, presence, align, batch_size, device, precision, mean, std, budget, \
    progress
        As in `dissect`.
    settings
        To note in every summary, beside the network's name.

    Returns
    -------
    dict
        A `Dissection` by the network's name.
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
        share = stack.enter_context(sharing())
        mine = share.images(len(data))
        if len(data) < share.processes:
            raise InputError(f"{data.root} has {len(data)} images, fewer than the {share.processes} processes")
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
            stream.settle(share)
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
        share.add(truth)
        noted = _settings(data, quantile, presence) | {"align": align, "precision": precision}
        noted |= {"mean": list(mean), "std": list(std)} | dict(settings or {})
        if units_axis is not None:
            noted |= {"units_axis": dict(units_axis) if isinstance(units_axis, Mapping) else units_axis}
        found: dict[str, dict[str, LayerDissection]] = {name: {} for name in models}
        for key, stream in streams.items():
            name, layer = key
            own: dict[str, Any] = {"name": name} if name else {}
            own |= {"weights": random[name]} if name in random else {}
            own |= _told(geometry[key]) if key in geometry else {}
            found[name][layer] = stream.finish(truth, share, noted | own)
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
    share, truth = Share(), no_truth(data)
    # The maps are in memory already: those that wait take no more than they do.
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
        stream.settle(share)
        for place, (kept, record) in enumerate(zip(stream.kept(), labels, strict=True)):
            stream.count(kept, 64 * place, holding.placed(LabelBatch(*record)))
    noted = _settings(data, quantile, presence) | {"align": "half-pixel"} | dict(settings or {})
    return stream.finish(truth, share, noted)


def _told(geometry: Geometry) -> dict[str, list[str]]:
    return {name: [str(value) for value in getattr(geometry, name)] for name in ("stride", "offset")}


def _settings(data: ConceptData, quantile: float, presence: Presence) -> dict[str, Any]:
    return {"quantile": quantile, "presence": presence, "concepts": str(data.root), "images": len(data)}
