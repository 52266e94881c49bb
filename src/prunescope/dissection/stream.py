"""Dissect one layer from a stream of its activation maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.first_pass import FirstPass, FirstPassOnCpu
from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.maps import KeptMaps, NotFiniteError
from prunescope.dissection.masks import UpsampleAxis, anchored_axis, half_pixel_axis
from prunescope.dissection.on_device import FirstPassOnDevice
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import pair_scores, summarise, tally_arrays, unit_scores
from prunescope.dissection.spool import Record, Spill
from prunescope.dissection.tally import BLOCKS, MaskCounts, MaskTally, MaskTallyOnCpu, Presence, Tally
from prunescope.dissection.tally_on_device import MaskTallyOnDevice
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks.geometry import Geometry
from prunescope.processes import Processes

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Holding:
    """The data set, settings and resources of a dissection; see `dissect` for the settings."""

    concepts: ConceptData
    quantile: float
    presence: Presence
    iou: float
    workers: Workers
    spill: Spill
    device: torch.device | None = None  # processes maps as tensors on this device; None for compiled CPU kernels

    def blocks(self, first_image: int, count: int) -> Array:
        """Return the block of consecutive images that each of `count` images belongs to, int64 [count]."""
        return (first_image + np.arange(count)) * BLOCKS // len(self.concepts)

    def placed(self, labels: LabelBatch) -> LabelBatch:
        """Return labels on the device that processes the maps."""
        return labels if self.device is None else labels.on(self.device)

    @property
    def block_pixels(self) -> int:
        """The largest number of label pixels in the images of a block."""
        sh, sw = self.concepts.label_size
        return -(-len(self.concepts) // BLOCKS) * sh * sw


class LayerStream:
    """Dissects one layer in a single pass over the images.

    During the pass, each unit has a lower bound of its threshold that rises as images are added. Maps with a value
    above the bound are stored until the thresholds are known; the others cannot exceed the threshold and are dropped.

    Parameters
    ----------
    layer
        The name of the layer.
    shape
        The shape (units, h, w) of the layer's output for one image.
    holding
        The data set, the settings and the resources.
    geometry
        The stride and offset of the centres of the units' receptive fields, which are then the positions of the map
        values. Without it, maps are upsampled with half-pixel centres.
    thresholds
        Thresholds, float64 [units], to be used instead of the quantile.
    """

    def __init__(
        self,
        layer: str,
        shape: tuple[int, int, int],
        holding: Holding,
        geometry: Geometry | None = None,
        thresholds: Array | None = None,
    ) -> None:
        units, h, w = shape
        concepts, workers, device = holding.concepts, holding.workers, holding.device
        self.layer, self._shape, self._holding = layer, shape, holding
        images, quantile, presence = len(concepts), holding.quantile, holding.presence
        counts = MaskCounts.empty(units, len(concepts.labels), len(concepts.categories), holding.block_pixels)
        axes = _axes(concepts, (h, w), geometry)
        self._first: FirstPass
        self._tally: MaskTally
        if device is None:
            self._first = FirstPassOnCpu(shape, images, quantile, thresholds, workers)
            self._tally = MaskTallyOnCpu(counts, presence, axes, workers)
        else:
            self._first = FirstPassOnDevice(shape, images, quantile, thresholds, device)
            self._tally = MaskTallyOnDevice(counts, presence, axes, device)
        self._kept = holding.spill.spool(self._still_possible)

    @property
    def overflowed(self) -> bool:
        """Whether the stored maps exceeded the budget, so that this layer needs a second forward pass."""
        return self._kept.overflowed

    def add(self, first_image: int, output: Tensor, names: Sequence[str]) -> None:
        """Add the layer's output for the next images.

        Parameters
        ----------
        first_image
            The index of the first of these images in the data set.
        output
            [images, units, h, w] or [images, units]. No reference to it is kept.
        names
            The names of the images, for error messages.

        Raises
        ------
        InputError
            If the maps have another shape than those of earlier images, or if a value is not finite; the message then
            names the layer, unit and image.
        """
        if shape_of(output) != self._shape:
            raise InputError(
                f"layer {self.layer!r}: its output is {list(shape_of(output))} for image {names[0]}, and was "
                f"{list(self._shape)} for earlier ones; all images must give maps of one shape"
            )
        try:
            kept = self._first.add(first_image, output)
        except NotFiniteError as found:
            raise InputError(
                f"layer {self.layer!r}, unit {found.unit}, image {names[found.image]}: an activation is "
                f"{found.value}; thresholds need finite values. Look at the weights, and at mean and std"
            ) from None
        self._kept.append(kept)

    def settle(self, processes: Processes) -> None:
        """Compute the thresholds. It must be called once, after all processes have added all their images."""
        self._levels, self._examples = self._first.settle(processes)

    def kept(self) -> Iterator[KeptMaps]:
        """Return the stored maps of each batch, in the order of the calls of `add`."""
        return (KeptMaps(*record) for record in self._kept)

    def count(self, kept: KeptMaps | Tensor, first_image: int, labels: LabelBatch) -> None:
        """Count the pixels that the masks of some images have in common with the labels.

        Parameters
        ----------
        kept
            The stored maps of these images, or the layer's whole output for them.
        first_image
            The index of the first of these images in the data set.
        labels
            The labels of these images, as returned by `Holding.placed`.
        """
        thresholds = self._levels.thresholds
        if isinstance(kept, Tensor):
            kept = self._first.above(kept, thresholds)
        self._tally.add(kept, thresholds, labels, self._holding.blocks(first_image, len(labels.codes)))

    def finish(self, truth: Array, processes: Processes, settings: dict[str, Any]) -> LayerDissection:
        """Compute the scores of the units from the counts of all processes.

        Parameters
        ----------
        truth
            int64 [blocks, concepts]: the number of pixels of each concept in the images of all processes.
        processes
            The processes that share the dissection.
        settings
            The settings to store in the summary.

        Returns
        -------
        LayerDissection
            The results for this layer.
        """
        counts = self._tally.counts()
        counts.reduce(processes)
        tally = Tally(truth, counts.intersect, counts.activation, counts.area)
        concepts = self._holding.concepts
        pairs = pair_scores(tally.total(), concepts.labels, concepts.categories)
        thresholds, dead = self._levels
        known = pd.DataFrame({"unit": np.arange(self._shape[0]), "threshold": thresholds, "dead": dead})
        units = unit_scores(pairs, known, concepts.categories)
        summary = summarise(units, concepts.categories, self._holding.iou, {"layer": self.layer} | settings)
        arrays = tally_arrays(tally, concepts.labels, pairs)
        return LayerDissection(self.layer, units, pairs, summary, arrays, self._examples)

    def _still_possible(self, record: Record) -> Record:
        return self._first.still_possible(KeptMaps(*record))


def tensors_on(device: torch.device) -> torch.device | None:
    """Return the device itself if it is a GPU, where maps are processed as tensors; None for compiled CPU kernels."""
    return device if device.type == "cuda" else None


def no_truth(concepts: ConceptData) -> Array:
    """Return label pixel counts of zero, int64 [blocks, concepts]."""
    return np.zeros((BLOCKS, len(concepts.labels)), np.int64)


def shape_of(output: Tensor) -> tuple[int, int, int]:
    """Return the shape (units, h, w) of a layer's output for one image.

    The output is [n, units, h, w] or [n, units]; in the latter case h = w = 1.
    """
    units, h, w = (*output.shape[1:], 1, 1)[:3]
    return units, h, w


def _axes(data: ConceptData, cells: tuple[int, int], geometry: Geometry | None) -> tuple[UpsampleAxis, UpsampleAxis]:
    if geometry is None:
        return half_pixel_axis(cells[0], data.label_size[0]), half_pixel_axis(cells[1], data.label_size[1])
    down, along = (
        anchored_axis(count, pixels, image, stride, offset)
        for count, pixels, image, stride, offset in zip(
            cells, data.label_size, data.image_size, geometry.stride, geometry.offset, strict=True
        )
    )
    return down, along
