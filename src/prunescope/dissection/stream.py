"""One layer's maps as they come: thresholds, the maps that may pass them, the most exciting images."""

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
from prunescope.dissection.masks import Stretch, anchored_axis, stretch_axis
from prunescope.dissection.on_device import FirstPassOnDevice
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import pair_scores, summarise, tally_arrays, unit_scores
from prunescope.dissection.share import Share
from prunescope.dissection.spool import Record, Spill
from prunescope.dissection.tally import BLOCKS, MaskCounts, MaskTally, MaskTallyOnCpu, Presence, Tally
from prunescope.dissection.tally_on_device import MaskTallyOnDevice
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks.geometry import Geometry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Holding:
    """How maps are held against labels: see `dissect`."""

    concepts: ConceptData
    quantile: float
    presence: Presence
    iou: float
    workers: Workers
    spill: Spill
    device: torch.device | None = None  # where maps are held as tensors, instead of by compiled kernels

    def blocks(self, first_image: int, count: int) -> Array:
        """Say to which block of consecutive images each of `count` images belongs, int64 [count]."""
        return (first_image + np.arange(count)) * BLOCKS // len(self.concepts)

    def placed(self, labels: LabelBatch) -> LabelBatch:
        """Bring labels to where the maps are held."""
        return labels if self.device is None else labels.on(self.device)

    @property
    def block_pixels(self) -> int:
        """Label pixels of a block's images, at most."""
        sh, sw = self.concepts.label_size
        return -(-len(self.concepts) // BLOCKS) * sh * sw


class LayerStream:
    """Collects what one layer's dissection needs in a single pass over the images.

    A map whose largest value is at or under its unit's running bound can never reach above the threshold; only the
    others wait until the thresholds are known.

    Parameters
    ----------
    layer
        Its name.
    shape
        (units, h, w) of the layer's output for one image.
    holding
        The data set and the settings.
    geometry
        Where the units look, for maps anchored at receptive fields; half-pixel centres without it.
    thresholds
        float64 [units], instead of the quantile's.
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
        """Whether the maps did not fit the budget, so that the network has to run for this layer once more."""
        return self._kept.overflowed

    def add(self, first_image: int, output: Tensor, names: Sequence[str]) -> None:
        """Take in the layer's output for the next images.

        Parameters
        ----------
        first_image
            The first one's place in the data set.
        output
            [images, units, h, w] or [images, units]; nothing of it is held on to.
        names
            Of the images, for errors.

        Raises
        ------
        InputError
            A map is of another shape than the first, or holds a value that is not finite; layer, unit and image named.
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

    def settle(self, share: Share) -> None:
        """Fix the thresholds, once all images of all processes were taken in."""
        self._levels, self._examples = self._first.settle(share)

    def kept(self) -> Iterator[KeptMaps]:
        """Give back the maps that wait, batch by batch as `add` took them in."""
        return (KeptMaps(*record) for record in self._kept)

    def count(self, kept: KeptMaps | Tensor, first_image: int, labels: LabelBatch) -> None:
        """Hold the maps of some images against their labels.

        Parameters
        ----------
        kept
            What waited of these images, or the layer's whole output for them.
        first_image
            The first one's place in the data set.
        labels
            Of these images, where the maps are held.
        """
        thresholds = self._levels.thresholds
        if isinstance(kept, Tensor):
            kept = self._first.above(kept, thresholds)
        self._tally.add(kept, thresholds, labels, self._holding.blocks(first_image, len(labels.codes)))

    def finish(self, truth: Array, share: Share, settings: dict[str, Any]) -> LayerDissection:
        """Score the units.

        Parameters
        ----------
        truth
            int64 [blocks, concepts]: pixels of each concept on all images.
        share
            The processes to add up.
        settings
            What to note in the summary.
        """
        counts = self._tally.counts()
        counts.reduce(share)
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
    """Say where maps of a network on this device are held as tensors; None: by compiled kernels on the CPU."""
    return device if device.type == "cuda" else None


def no_truth(concepts: ConceptData) -> Array:
    """Return the truth of no image yet, int64 [blocks, concepts]."""
    return np.zeros((BLOCKS, len(concepts.labels)), np.int64)


def shape_of(output: Tensor) -> tuple[int, int, int]:
    """Return (units, h, w) of a layer's output [n, units, h, w] or [n, units]."""
    units, h, w = (*output.shape[1:], 1, 1)[:3]
    return units, h, w


def _axes(data: ConceptData, cells: tuple[int, int], geometry: Geometry | None) -> tuple[Stretch, Stretch]:
    if geometry is None:
        return stretch_axis(cells[0], data.label_size[0]), stretch_axis(cells[1], data.label_size[1])
    down, along = (
        anchored_axis(count, pixels, image, stride, offset)
        for count, pixels, image, stride, offset in zip(
            cells, data.label_size, data.image_size, geometry.stride, geometry.offset, strict=True
        )
    )
    return down, along
