"""Match the units of two networks, in one pass over a data set."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor, nn

from prunescope.concepts.broden import as_concepts
from prunescope.concepts.protocol import Concepts
from prunescope.devices import choose_device
from prunescope.dissection.batches import Batch, batches
from prunescope.dissection.forward import ForwardPasses, Key, arithmetic
from prunescope.dissection.matching import UnitMatcher, UnitMatching
from prunescope.dissection.settings import DEFAULTS, Precision, Settings, check_precision
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.networks.checks import check_ready, without_wrapper
from prunescope.networks.chosen_preprocessing import PerNetwork, choose_each
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.networks.observing import check_layers
from prunescope.networks.random_weights import random_weights
from prunescope.networks.running import evaluating, moved_to
from prunescope.processes import connected_processes
from prunescope.progress import Shown, shown_progress


def match_units(
    model_a: nn.Module,
    model_b: nn.Module,
    *,
    layers: Sequence[str] | Mapping[str, str],
    concepts: Concepts | str | Path,
    units_axis: UnitsAxis | None = None,
    batch_size: int = DEFAULTS.batch_size,
    device: str | torch.device = "auto",
    precision: Precision = DEFAULTS.precision,
    mean: PerNetwork = None,
    std: PerNetwork = None,
    channels: int | Mapping[str, int] | None = None,
    progress: Shown = "auto",
) -> dict[str, UnitMatching]:
    """Match the units of network B one-to-one to the units of network A that respond most alike.

    Use it to follow units between networks whose units have no numbers in common, such as two trials of a study, or a
    network that was pruned elsewhere. Both networks run once over the images of a data set, in evaluation mode. The
    activations of two units are compared by their Pearson correlation over all images and positions; if the maps
    differ in size, the smaller are resized bilinearly with half-pixel centres. Units are matched such that the sum of
    their correlations is largest (`scipy.optimize.linear_sum_assignment`). Dead units (those that are constant
    everywhere) have a correlation of 0 and are matched last. The linear CKA of the two layers (Kornblith et al. 2019)
    is measured in the same pass; each image and position is one of its examples, and each unit one of its features.

    The batch size and the number of processes affect the results only through rounding errors.

    Parameters
    ----------
    model_a, model_b
        Two networks, or twice the same, that take images [n, channels, ih, iw]. They are left on the device
        and in the mode that they were in, also after an error.
    layers
        The names of the layers in `named_modules()`, if they are the same in both networks; otherwise a mapping from
        the names in A to the names in B. The layers' outputs must be such that `dissect` can dissect them.
    concepts
        The images: a folder in Broden's format, or a data set returned by `open_concepts`. Its labels are not used.
    units_axis
        The axis of the layers' outputs that holds the units, as in `dissect`. It applies to both networks.
    batch_size, device, precision
        As in `dissect`.
    mean, std, channels
        As in `dissect`, for both networks, or for each of them in a mapping, such as
        `mean={"A": (0.5, 0.5, 0.5), "B": (0.485, 0.456, 0.406)}`. By default, each network is given the images as its
        own published weights were trained with them. If only one of the networks states its preprocessing and that is
        not the default, those of the other one must be given.
    progress
        A function that is called with the number of images done and the total number of images of this process. By
        default, a bar is shown on standard error if it is a terminal or belongs to a notebook. False turns this off.

    Returns
    -------
    dict of str to UnitMatching
        The matching of each layer, by its name in A.

    Raises
    ------
    InputError
        If a layer does not exist, its output has an unsupported shape, or the axis of its units cannot be determined;
        if the data set cannot be read; if an activation is not finite; if an argument is out of range; or if it is
        unknown how images are preprocessed for one of the networks, because only the other one states it.

    Warns
    -----
    UserWarning
        If a network has random weights from `build_network`, or if the preprocessing does not seem to fit a network or
        the images (see `doubts`).

    Examples
    --------
    ::

        matching = prunescope.match_units(dense, pruned, layers=["layer4"], concepts="broden1_224")["layer4"]
        prunescope.consistency(found_dense["layer4"], found_pruned["layer4"], units=matching.units)
    """
    settings = Settings.checked(batch_size=batch_size, precision=precision)
    device = choose_device("auto") if device == "auto" else device
    check_precision(settings.precision, device)
    refuse_text(layers, "layers")
    pairs = dict(layers) if isinstance(layers, Mapping) else dict(zip(layers, layers, strict=True))
    wanted = {"A": list(layers), "B": list(dict.fromkeys(pairs.values()))}
    models = {"A": without_wrapper(model_a), "B": without_wrapper(model_b)}
    for name, model in models.items():
        check_ready(model)
        check_layers(model, wanted[name])
        if note := random_weights(model):
            warnings.warn(
                f"network {name} has {note}, because no weights were given and its name loads none; units of untrained "
                "networks are compared",
                stacklevel=2,
            )
    data = as_concepts(concepts)
    preprocessing = choose_each(models, data.image_size, mean, std, channels)
    axes: dict[str, dict[str, int]] = {}
    given_axes = _given_axes(wanted, units_axis)
    matchers = {pair: UnitMatcher(f"{pair[0]} of network A", f"{pair[1]} of network B") for pair in pairs.items()}
    outputs: dict[Key, Tensor] = {}

    def take_in(key: Key, output: Tensor, batch: Batch) -> None:
        # Later layers may overwrite the output, and on a GPU it has been copied already.
        outputs[key] = output if forward.on_gpu else output.clone()
        if len(outputs) == len(keys):
            for (of_a, of_b), matcher in matchers.items():
                matcher.add(outputs["A", of_a], outputs["B", of_b], batch.names)
            outputs.clear()

    keys = [(name, layer) for name, own in wanted.items() for layer in own]
    with ExitStack() as stack:
        for name, model in models.items():
            stack.enter_context(moved_to(model, device))
            axes[name] = units_axes(
                model, wanted[name], data.image_size, given_axes[name], channels=preprocessing[name].channels
            )
        forward = ForwardPasses(models, axes, torch.device(device), preprocessing)
        processes = stack.enter_context(connected_processes())
        if len(data) < processes.count:
            raise InputError(f"{data.root} has {len(data)} images, fewer than the {processes.count} processes")
        mine = processes.share_of(len(data))
        for model in models.values():
            stack.enter_context(evaluating(model))
        stack.enter_context(torch.inference_mode())
        stack.enter_context(arithmetic(precision, forward.device))
        stack.enter_context(forward.stream())
        forward.check(data.image_size)
        report = stack.enter_context(shown_progress(progress, "matching"))
        for batch in batches(data, batch_size, mine, pinned=forward.on_gpu):
            forward.run(batch, keys, take_in)
            report(batch.first + len(batch.names) - mine.start, len(mine))
        forward.finish()
        for matcher in matchers.values():
            matcher.reduce(processes)
        return {of_a: matcher.result() for (of_a, _), matcher in matchers.items()}


def _given_axes(wanted: Mapping[str, Sequence[str]], units_axis: UnitsAxis | None) -> dict[str, UnitsAxis | None]:
    """Return the given axes for each network; raise if an axis is given for a layer that is in neither."""
    if not isinstance(units_axis, Mapping):
        return dict.fromkeys(wanted, units_axis)
    known = list(dict.fromkeys(layer for layers in wanted.values() for layer in layers))
    for layer in units_axis:
        if layer not in known:
            raise InputError(f"units_axis names {layer!r}, which is not one of the layers; {nearest(layer, known)}")
    return {
        name: {layer: axis for layer, axis in units_axis.items() if layer in layers} for name, layers in wanted.items()
    }
