"""Go through the images of a data set and count what the masks of all units have in common with the labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from prunescope.arrays import Array, Values
from prunescope.dissection.batches import Batch
from prunescope.dissection.donors import DonorLabels
from prunescope.dissection.forward import Key
from prunescope.dissection.labels import LabelPixels, label_batch
from prunescope.dissection.layer_pass import LayerCounts, LayerPass, Resources
from prunescope.dissection.maps import shape_of
from prunescope.dissection.sources import Source
from prunescope.networks.geometry import Geometry
from prunescope.processes import Processes
from prunescope.progress import Progress


@dataclass(frozen=True)
class Measurement:
    """What was counted over a whole data set."""

    truth: Array  # int64 [blocks, concepts]: the pixels of each concept
    permuted_truth: Array  # int64 [permutations, concepts]: the same under each permutation of the labels
    present: Array  # int64 [categories]: the images with a label of each category
    layers: dict[Key, LayerCounts]  # in the order in which the layers were computed


def count_pixels(
    source: Source,
    resources: Resources[Values],
    processes: Processes,
    *,
    geometry: Mapping[Key, Geometry] | None = None,
    thresholds: Array | None = None,
    progress: Progress,
) -> Measurement:
    """Estimate the thresholds of all layers in one pass over the images, and count the pixels of the masks.

    The maps from which masks are computed are stored until the thresholds are known. For layers whose stored maps
    exceed the budget, the source goes through the images a second time.

    Parameters
    ----------
    source
        Where the activation maps come from.
    resources
        The data set and its arrangement, the settings, the backend and the storage.
    processes
        The processes that share the images.
    geometry
        The geometry of the receptive fields of each layer, with which maps are aligned with the labels. Layers that it
        does not contain are stretched over the whole image.
    thresholds
        The thresholds of the units of every layer, float64 [units], to be used instead of the quantile.
    progress
        A function that is called with the number of images done and the total number of images.

    Raises
    ------
    InputError
        If an activation is not finite, or if the maps of a layer differ in shape between images.
    """
    backend, layers = resources.backend, dict[Key, LayerPass[Values]]()
    arrangement, concepts = resources.arrangement, resources.concepts
    truth = LabelPixels(arrangement.count, len(concepts.labels), len(concepts.categories), arrangement.lent)
    stored, firsts = resources.storage.buffer(), list[int]()
    donors = DonorLabels(concepts, arrangement.donors)

    def estimate(key: Key, output: Tensor, batch: Batch) -> None:
        if key not in layers:
            layers[key] = LayerPass(key[1], shape_of(output), resources, (geometry or {}).get(key), thresholds)
        layers[key].add(output, batch)

    def count(key: Key, output: Tensor, batch: Batch) -> None:
        kept, labels = layers[key].above(output), backend.labels(batch.labels)
        for some, others in donors.parts(batch.first, len(batch.names), backend):
            layers[key].count(kept.of_images(some), labels, others)

    def report(passes_done: int, batch: Batch) -> None:
        passes = 1 + any(layer.overflowed for layer in layers.values())
        images = batch.first + len(batch.names) - source.images.start
        progress(passes_done * len(source.images) + images, passes * len(source.images))

    for batch in source.batches(estimate):
        truth.add(batch.first, batch.labels)
        firsts.append(batch.first)
        stored.add(backend.labels(batch.labels).record)
        report(0, batch)
    for layer in layers.values():
        layer.settle(processes)
    waiting = [(layer, layer.kept()) for layer in layers.values() if not layer.overflowed]
    for first, record in zip(firsts, stored, strict=True) if waiting else ():
        labels = label_batch(record, backend.array)
        maps = [(layer, next(kept)) for layer, kept in waiting]
        for some, others in donors.parts(first, len(labels.blocks), backend):
            for layer, own in maps:
                layer.count(own.of_images(some), labels, others)
    again = {key for key, layer in layers.items() if layer.overflowed}
    for batch in source.batches(count, only=again) if again else ():
        report(1, batch)
    truth.reduce(processes)
    return Measurement(*truth.result(), {key: layer.result(processes) for key, layer in layers.items()})
