"""Dissect networks and activation maps."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from prunescope.arrays import Array
from prunescope.concepts.broden import ConceptData, as_concepts
from prunescope.concepts.protocol import Concepts
from prunescope.concepts.sample import as_sample
from prunescope.devices import choose_device
from prunescope.dissection.arrangement import Arrangement, arrange
from prunescope.dissection.backend import choose_backend
from prunescope.dissection.basis import Basis, parse_bases
from prunescope.dissection.counting import count_pixels
from prunescope.dissection.forward import ForwardPasses, Key, arithmetic
from prunescope.dissection.layer_pass import Resources
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.scores import Score, score_function
from prunescope.dissection.settings import (
    DEFAULTS,
    Align,
    Precision,
    Presence,
    Settings,
    check_precision,
)
from prunescope.dissection.sources import ArrayMaps, MapsInBases, NetworkMaps
from prunescope.dissection.storage import Budget, Storage
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks.checks import check_ready, without_wrapper
from prunescope.networks.chosen_preprocessing import choose_preprocessing
from prunescope.networks.geometry import Geometry, receptive_fields
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.networks.observing import check_layers
from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.random_weights import random_weights
from prunescope.networks.running import evaluating, moved_to
from prunescope.processes import Processes, connected_processes
from prunescope.progress import Progress, Shown, shown_progress, silent


def dissect(
    model: nn.Module,
    *,
    layers: Sequence[str],
    concepts: Concepts | str | Path,
    units_axis: UnitsAxis | None = None,
    quantile: float = DEFAULTS.quantile,
    iou: float = DEFAULTS.iou,
    presence: Presence = DEFAULTS.presence,
    chance: int = DEFAULTS.chance,
    basis: Sequence[str] = DEFAULTS.basis,
    align: Align = DEFAULTS.align,
    batch_size: int = DEFAULTS.batch_size,
    device: str | torch.device = "auto",
    precision: Precision = DEFAULTS.precision,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    channels: int | None = None,
    score: str | Score = "iou",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    images: int | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Shown = "auto",
) -> Dissection:
    """Find the concepts that the units of a network detect (Bau et al. 2017; Frankle and Bau 2019, section 3).

    The network runs once over the images of the data set, in evaluation mode, and all layers are observed in the same
    pass. The batch size, the budget and the number of processes affect the results only through rounding errors in the
    network's own computations.

    Parameters
    ----------
    model
        A network that takes images [n, channels, ih, iw]. Its own output is ignored. It is left on the device and in
        the mode that it was in, also after an error.
    layers
        The names of the layers in `named_modules()`. The layers' outputs must have the shape [n, units, h, w],
        [n, h, w, units] or [n, units], or consist of tokens that form a grid, [n, tokens, units] or [n, units, tokens].
        If a layer returns a tuple, list or mapping, its first output of this kind is taken, and `LAYER:NAME` selects
        another (see `list_layers`).
    concepts
        Labelled images: a folder in Broden's format, a data set returned by `open_concepts`, or an object of your own
        that has the members of `prunescope.concepts.Concepts`.
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
    chance
        The number of permutations of the labels. Every unit is compared with its best concepts when each image has the
        labels of another image with labels of the same categories, which gives its `p` and `q`; 0 turns this off. The
        labels of other images are read from the packed copy of the data set (see `pack_concepts`). Without one, all
        labels are decoded twice.
    basis
        Other bases in which the layers are dissected as well, in the same pass. `rotate:SEED` turns the units by a
        random orthogonal matrix, and `rotate:SEED:POWER` by a power of it from 0 (the identity) to 1; the path of a
        .safetensors file gives a matrix [directions, units], such as principal components, for all layers or one for
        each layer under its name. The directions then take the place of the units.
    align
        The alignment of activation maps with the labels. With `half-pixel`, maps are stretched over the whole image;
        with `receptive-field`, map positions are placed at the centres of the units' receptive fields, which are
        measured from the network (Bau et al. 2017, section 2.2).
    batch_size
        The number of images in a batch.
    device
        The device that the network runs on. With `auto`, this is a GPU if there is one, and otherwise the CPU.
    precision
        The precision of the forward pass: `fp32`, `tf32` (on NVIDIA GPUs that support it) or `bf16` (mixed precision).
    mean, std
        The mean and standard deviation of each channel, which normalise images scaled to 0..1. By default, they are
        those that the network's published weights were trained with (see `preprocessing_of`), or those of ImageNet if
        the network does not state any. Images are not resized.
    channels
        The number of channels of the images that the network is given: 3 for RGB, or 1 for grey. By default, it is 1
        if the network's first convolution takes one channel, and otherwise 3.
    score
        The score by which a unit's concept is chosen: `iou`, or a function that computes scores from pixel counts (see
        `prunescope.dissection.scores.Score`). With a function, the tables have an additional column `score`, and a unit
        is interpretable if the score of its concept is above the bound `iou`.
    budget
        The amounts of memory and disk space in which activation maps may be stored until the thresholds are known. A
        layer that needs more than both together gets a second forward pass.
    images
        The number of images of a stratified sample to dissect on, for a quick look (see
        `prunescope.concepts.sample_concepts`); by default, all images. The summary states that it is a sample.
    settings
        Further settings to store in the summary, such as the name of the network.
    progress
        A function that is called with the number of images done and the total number of images of this process. The
        total doubles if a layer needs a second forward pass. By default, a bar is shown on standard error if it is a
        terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    Dissection
        The results. `.units` is a DataFrame with the units of all layers; indexing with a layer's name returns the
        results of that layer, and `.bases` holds the results in other bases.

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
        If the network has random weights from `build_network`, or if the preprocessing does not seem to fit the network
        or the images (see `doubts`).

    Examples
    --------
    ::

        found = prunescope.dissect(model, layers=["layer4"], concepts="broden1_224")
        found.units.query("iou > 0.05").groupby("category").size()
    """
    chosen = Settings.checked(
        quantile=quantile,
        iou=iou,
        presence=presence,
        chance=chance,
        basis=basis,
        align=align,
        precision=precision,
        batch_size=batch_size,
    )
    check_ready(without_wrapper(model))  # before a data set is opened, which may take longer
    data = as_sample(concepts, images)
    with shown_progress(progress, "dissecting") as report:
        found = dissect_networks(
            {"": model},
            layers=layers,
            concepts=data,
            settings=chosen,
            preprocessing=choose_preprocessing({"": model}, data.image_size, mean, std, channels),
            units_axis=units_axis,
            score=score,
            device=device,
            budget=budget,
            metadata=settings,
            progress=report,
        )
    return found[""]


def dissect_networks(
    models: Mapping[str, nn.Module],
    *,
    layers: Sequence[str],
    concepts: Concepts | str | Path,
    settings: Settings = DEFAULTS,
    preprocessing: Preprocessing | Mapping[str, Preprocessing] | None = None,
    units_axis: UnitsAxis | None = None,
    score: str | Score = "iou",
    device: str | torch.device = "auto",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    metadata: Mapping[str, Any] | None = None,
    progress: Progress = silent,
) -> dict[str, Dissection]:
    """Dissect several networks in one pass over the data set, so that images and labels are decoded only once.

    Parameters
    ----------
    models
        The networks by name. All of them must have the given layers.
    settings
        The settings of the dissection.
    preprocessing
        How pixels are turned into the input of the networks, or of each network by its name. A given preprocessing is
        used without checking whether it fits the networks. By default, `choose_preprocessing` chooses that of the
        networks' published weights.
    layers, concepts, units_axis, score, device, budget, progress
        As in `dissect`.
    metadata
        Further entries for the settings that every summary stores, in addition to the network's name.

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
    device = choose_device(str(device))
    check_precision(settings.precision, device)
    score_of = score_function(score)
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
    if preprocessing is None:
        preprocessing = choose_preprocessing(models, data.image_size)
    each = dict.fromkeys(models, preprocessing) if isinstance(preprocessing, Preprocessing) else preprocessing
    geometry: dict[Key, Geometry] = {}
    axes: dict[str, dict[str, int]] = {}
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(moved_to(model, device))
            channels = each[name].channels
            axes[name] = units_axes(model, layers, data.image_size, units_axis, channels=channels)
            if settings.align == "receptive-field":
                fields = receptive_fields(model, layers, data.image_size, units_axis=axes[name], channels=channels)
                geometry |= {(name, layer): field for layer, field in fields.items()}
        forward = ForwardPasses(models, axes, torch.device(device), each)
        processes = stack.enter_context(connected_processes())
        mine = processes.share_of(len(data))
        if len(data) < processes.count:
            raise InputError(f"{data.root} has {len(data)} images, fewer than the {processes.count} processes")
        workers = stack.enter_context(Workers(torch.get_num_threads()))
        storage = stack.enter_context(Storage(budget.on(forward.device)))
        arrangement = _arranged(data, settings)
        resources = Resources(data, arrangement, settings, choose_backend(forward.device, workers), storage)
        for model in models.values():
            stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(arithmetic(settings.precision, forward.device))
        stack.enter_context(forward.stream())
        forward.check(data.image_size, ran=units_axis is None and settings.precision == "fp32")
        keys = tuple((name, layer) for name in models for layer in layers)
        bases = {key: (key[1], _in_bases(key, settings.basis)) for key in keys}
        source = MapsInBases(NetworkMaps(forward, keys, data, arrangement.blocks, mine, settings.batch_size), bases)
        geometry |= {other: geometry[key] for key, (_, others) in bases.items() if key in geometry for other in others}
        measured = count_pixels(source, resources, processes, geometry=geometry, progress=progress)
    noted = _noted(data, settings) | {"align": settings.align, "precision": settings.precision}
    further = _noted_score(score) | dict(metadata or {})
    if units_axis is not None:
        further |= {"units_axis": dict(units_axis) if isinstance(units_axis, Mapping) else units_axis}
    places = {other: (*key, basis) for key, (_, others) in bases.items() for other, basis in others.items()}
    found: dict[tuple[str, str], dict[str, LayerDissection]] = {}
    for key, counts in measured.layers.items():
        name, layer, basis = places.get(key, (*key, None))
        own: dict[str, Any] = {"name": name} if name else {}
        own |= {} if basis is None else {"basis": basis.given}
        own |= {"weights": random[name]} if name in random else {}
        own |= {"dtype": forward.dtype(name)} if forward.dtype(name) != "float32" else {}
        own |= _noted_geometry(geometry[key]) if key in geometry else {}
        found.setdefault((name, "" if basis is None else basis.name), {})[layer] = LayerDissection.from_counts(
            layer,
            counts,
            measured.truth,
            measured.permuted_truth,
            measured.present,
            data,
            arrangement.left_out,
            score_of,
            settings.iou,
            noted | each[name].noted() | further | own,
        )
    names = [one.name for one in parse_bases(settings.basis)]
    return {
        name: Dissection(found[name, ""], {basis: Dissection(found[name, basis]) for basis in names}) for name in models
    }


def dissect_activations(
    features: Array,
    *,
    concepts: Concepts | str | Path,
    thresholds: Array | None = None,
    quantile: float = DEFAULTS.quantile,
    iou: float = DEFAULTS.iou,
    presence: Presence = DEFAULTS.presence,
    chance: int = DEFAULTS.chance,
    score: str | Score = "iou",
    settings: Mapping[str, Any] | None = None,
    progress: Shown = "auto",
) -> LayerDissection:
    """Dissect activation maps that were computed elsewhere, by any framework.

    Parameters
    ----------
    features
        The activation maps, [images, units, h, w] or [images, units], of any real type; they are converted to float32.
        The images must be in the order of the data set's index.
    concepts, quantile, iou, presence, chance, score, settings, progress
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
    chosen = Settings.checked(quantile=quantile, iou=iou, presence=presence, chance=chance)
    score_of = score_function(score)
    data = as_concepts(concepts)
    if features.dtype.kind not in "fiu" or features.ndim not in (2, 4) or 0 in features.shape:
        raise InputError(
            f"features are {features.dtype} {list(features.shape)}, expected real numbers [images, units, h, w] "
            f"or [images, units]"
        )
    if len(features) != len(data):
        raise InputError(
            f"features contain {len(features)} images, but {data.root} has {len(data)}; expected one map for each "
            "image, in the order of its index"
        )
    if thresholds is not None and thresholds.dtype.kind not in "fiu":
        raise InputError(f"thresholds are {thresholds.dtype}, expected numbers")
    if thresholds is not None and (thresholds.shape != features.shape[1:2] or not np.isfinite(thresholds).all()):
        raise InputError(
            f"thresholds are {list(thresholds.shape)}, expected {features.shape[1]} finite numbers, one for each unit"
        )
    given = None if thresholds is None else np.asarray(thresholds, np.float64)
    # The maps are in memory already, and their copies that are stored until the thresholds are known fit there too.
    budget = Budget(memory=2 * features.nbytes + (1 << 30))
    with (
        Storage(budget) as storage,
        Workers(torch.get_num_threads()) as workers,
        shown_progress(progress, "dissecting") as report,
    ):
        arrangement = _arranged(data, chosen)
        resources = Resources(data, arrangement, chosen, choose_backend(torch.device("cpu"), workers), storage)
        source = ArrayMaps(("", "activations"), features, data, arrangement.blocks)
        measured = count_pixels(source, resources, Processes(), thresholds=given, progress=report)
    (counts,) = measured.layers.values()
    noted = _noted(data, chosen) | {"align": "half-pixel"} | _noted_score(score) | dict(settings or {})
    # With given thresholds, the size of the masks does not follow from the quantile.
    present = measured.present if given is None else None
    return LayerDissection.from_counts(
        "activations", counts, measured.truth, measured.permuted_truth, present, data, arrangement.left_out, score_of,
        chosen.iou, noted,
    )  # fmt: skip


def _in_bases(key: Key, given: Sequence[str]) -> dict[Key, Basis]:
    """Return a key for the maps of a layer in each other basis. Messages contain it as the name of the layer."""
    return {(key[0], f"{key[1]} in the basis {one.given}"): one for one in parse_bases(given)}


def _arranged(data: Concepts, settings: Settings) -> Arrangement:
    found = arrange(data, settings.chance)
    if settings.chance and not len(found.donors):
        warnings.warn(
            f"{data.root}: no image has another one with labels of the same categories, so that labels cannot be "
            "permuted; there are no p-values",
            stacklevel=3,
        )
    return found


def _noted_geometry(geometry: Geometry) -> dict[str, list[str]]:
    return {name: [str(value) for value in getattr(geometry, name)] for name in ("stride", "offset")}


def _noted_score(score: str | Score) -> dict[str, str]:
    """Return the entry for the score by which concepts are chosen; nothing for the IoU."""
    if score == "iou":
        return {}
    return {"score": score if isinstance(score, str) else getattr(score, "__qualname__", type(score).__qualname__)}


def _noted(data: Concepts, settings: Settings) -> dict[str, Any]:
    """Return the settings that the summary of every dissection stores."""
    noted: dict[str, Any] = {
        "quantile": settings.quantile,
        "presence": settings.presence,
        "chance": settings.chance,
        "concepts": str(data.root),
        "images": len(data),
    }
    if isinstance(data, ConceptData) and data.sample is not None:
        noted["sample"] = {"of": data.sample.of, "seed": data.sample.seed}
    return noted
