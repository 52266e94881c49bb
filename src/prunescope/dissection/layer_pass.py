"""Accumulate the thresholds, the examples and the pixel counts of one layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic

import numpy as np
from torch import Tensor

from prunescope.arrays import Array, Values
from prunescope.concepts.protocol import Concepts
from prunescope.dissection.accumulator import Accumulator
from prunescope.dissection.arrangement import Arrangement
from prunescope.dissection.backend import Backend, kept_maps
from prunescope.dissection.batches import Batch
from prunescope.dissection.examples import Examples
from prunescope.dissection.labels import DonorBatch, LabelBatch
from prunescope.dissection.maps import KeptMaps, MapBatch, NotFiniteError, shape_of
from prunescope.dissection.masks import UpsampleAxis, anchored_axis, half_pixel_axis
from prunescope.dissection.settings import Settings
from prunescope.dissection.storage import Record, Storage
from prunescope.dissection.tally import MaskBatch, MaskCounts, empty_counts
from prunescope.dissection.thresholds import Extremes, GivenThresholds, ThresholdEstimate, Thresholds, thresholds_of
from prunescope.errors import InputError
from prunescope.networks.geometry import Geometry
from prunescope.processes import Processes


@dataclass(frozen=True)
class Resources(Generic[Values]):
    """What the layers of a dissection share."""

    concepts: Concepts
    arrangement: Arrangement
    settings: Settings
    backend: Backend[Values]
    storage: Storage


@dataclass(frozen=True)
class LayerCounts:
    """What was accumulated for one layer over all images."""

    thresholds: Thresholds
    examples: Examples
    masks: MaskCounts[Array]


class LayerPass(Generic[Values]):
    """Accumulates the thresholds, the examples and the pixel counts of one layer.

    The layer's outputs for all images are passed to `add`. Meanwhile, each unit has a lower bound of its threshold that
    rises as images are added. Maps with a value above the bound are stored; the others cannot exceed the threshold and
    are dropped. After `settle`, the stored maps of each batch are passed to `count`, or those that
    `above` returns if the stored maps exceeded the budget.

    Parameters
    ----------
    layer
        The name of the layer, for messages.
    shape
        The shape (units, h, w) of the layer's output for one image.
    resources
        The data set and its arrangement, the settings, the backend and the storage.
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
        resources: Resources[Values],
        geometry: Geometry | None = None,
        thresholds: Array | None = None,
    ) -> None:
        units, h, w = shape
        concepts, settings, backend = resources.concepts, resources.settings, resources.backend
        self._layer, self._shape = layer, shape
        self._backend: Backend[Values] = backend
        self._estimate: ThresholdEstimate[Values] = (
            backend.thresholds(units, len(concepts) * h * w, settings.quantile)
            if thresholds is None
            else GivenThresholds(thresholds, backend.array(thresholds))
        )
        self._extremes: Accumulator[MapBatch[Values], Extremes] = backend.extremes(units)
        self._examples: Accumulator[MapBatch[Values], Examples] = backend.examples(shape)
        sh, sw = concepts.label_size
        arrangement = resources.arrangement
        counts = empty_counts(
            units,
            len(concepts.labels),
            len(concepts.categories),
            np.bincount(arrangement.blocks) * sh * sw,
            len(arrangement.donors),
        )
        axes = _axes(concepts, (h, w), geometry)
        self._tally: Accumulator[MaskBatch[Values], MaskCounts[Array]] = backend.tally(counts, settings.presence, axes)
        self._kept = resources.storage.buffer(self._still_possible)

    @property
    def overflowed(self) -> bool:
        """Whether the stored maps exceeded the budget, so that this layer's outputs are needed a second time."""
        return self._kept.overflowed

    def add(self, output: Tensor, batch: Batch) -> None:
        """Add the layer's output for the next images.

        Parameters
        ----------
        output
            [images, units, h, w] or [images, units]. No reference to it is kept.
        batch
            The batch of these images.

        Raises
        ------
        InputError
            If the maps have another shape than those of earlier images, or if a value is not finite; the message then
            names the layer, unit and image.
        """
        if shape_of(output) != self._shape:
            raise InputError(
                f"layer {self._layer!r}: its output is {list(shape_of(output))} for image {batch.names[0]}, and was "
                f"{list(self._shape)} for earlier ones; the maps of all images must have one shape"
            )
        maps = self._backend.maps(batch.first, output)
        try:
            self._extremes.add(maps)
        except NotFiniteError as found:
            raise InputError(
                f"layer {self._layer!r}, unit {found.unit}, image {batch.names[found.image]}: an activation is "
                f"{found.value}; thresholds need finite values. Check the weights, mean and std"
            ) from None
        self._examples.add(maps)
        kept = self._backend.above(maps, self._estimate.bounds)
        self._estimate.add(kept)
        self._kept.add(kept.record)

    def settle(self, processes: Processes) -> None:
        """Compute the thresholds, after all processes have added all their images."""
        self._examples.reduce(processes)
        self._extremes.reduce(processes)
        self._estimate.reduce(processes)
        self._thresholds = thresholds_of(self._estimate.result(), self._extremes.result())
        self._bounds: Values = self._backend.array(self._thresholds.values)

    def kept(self) -> Iterator[KeptMaps[Values]]:
        """Return the stored maps of each batch, in the order of the calls of `add`."""
        return (kept_maps(record, self._backend) for record in self._kept)

    def count(
        self, kept: KeptMaps[Values], labels: LabelBatch[Values], donors: DonorBatch[Values] | None = None
    ) -> None:
        """Count the pixels that masks, computed from the stored maps of some images, have in common with the labels."""
        self._tally.add(MaskBatch(kept, self._bounds, labels, donors))

    def above(self, output: Tensor) -> KeptMaps[Values]:
        """Return the maps in the output for some images that exceed their unit's threshold."""
        return self._backend.above(self._backend.maps(0, output), self._bounds)

    def result(self, processes: Processes) -> LayerCounts:
        """Return the thresholds, examples and counts, after all processes have counted all their images."""
        self._tally.reduce(processes)
        return LayerCounts(self._thresholds, self._examples.result(), self._tally.result())

    def _still_possible(self, record: Record) -> Record:
        return kept_maps(record, self._backend).above(self._estimate.bounds).record


def _axes(concepts: Concepts, cells: tuple[int, int], geometry: Geometry | None) -> tuple[UpsampleAxis, UpsampleAxis]:
    if geometry is None:
        return half_pixel_axis(cells[0], concepts.label_size[0]), half_pixel_axis(cells[1], concepts.label_size[1])
    down, along = (
        anchored_axis(count, pixels, image, stride, offset)
        for count, pixels, image, stride, offset in zip(
            cells, concepts.label_size, concepts.image_size, geometry.stride, geometry.offset, strict=True
        )
    )
    return down, along
