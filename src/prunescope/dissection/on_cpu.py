"""Process activation maps in compiled kernels on the CPU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from prunescope.arrays import Array
from prunescope.dissection.examples import ExamplesOnCpu
from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.maps import KeptMaps, MapBatch, extremes, float_array, gather, shape_of
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.settings import Presence
from prunescope.dissection.tally import MaskCounts, MaskTallyOnCpu
from prunescope.dissection.thresholds import ExtremesOnCpu, LargestOnCpu, LargestValues
from prunescope.dissection.workers import Workers


@dataclass(frozen=True)
class CpuKernels:
    """The backend that processes maps as NumPy arrays, in compiled kernels; see `Backend`."""

    workers: Workers

    def array(self, part: Array | Tensor) -> Array:
        """Return an array."""
        return part.cpu().numpy() if isinstance(part, Tensor) else part

    def labels(self, labels: LabelBatch[Array]) -> LabelBatch[Array]:
        """Return the labels unchanged."""
        return labels

    def maps(self, first_image: int, output: Tensor) -> MapBatch[Array]:
        """Return the maps in a layer's output and their extremes."""
        maps = float_array(output)
        lows, peaks = extremes(maps, self.workers)
        return MapBatch(first_image, shape_of(output), maps, lows, peaks)

    def above(self, batch: MapBatch[Array], bounds: Array) -> KeptMaps[Array]:
        """Return copies of the maps that exceed their unit's bound."""
        images, units = np.nonzero(batch.peaks > bounds)
        copies = gather(batch.maps, images, units, self.workers)
        return KeptMaps(units, images, batch.peaks[images, units], copies.reshape(-1, *batch.shape[1:]))

    def thresholds(self, units: int, positions: int, quantile: float) -> LargestOnCpu:
        """Estimate thresholds, given the number of values of each unit over all images."""
        return LargestOnCpu(LargestValues(units, positions, quantile), self.workers)

    def extremes(self, units: int) -> ExtremesOnCpu:
        """Find the extremes of each unit."""
        return ExtremesOnCpu(units)

    def examples(self, shape: tuple[int, int, int]) -> ExamplesOnCpu:
        """Keep the images on which each unit is most active."""
        return ExamplesOnCpu(shape, self.workers)

    def tally(
        self, counts: MaskCounts[Array], presence: Presence, axes: tuple[UpsampleAxis, UpsampleAxis]
    ) -> MaskTallyOnCpu:
        """Count the pixels that masks have in common with labels."""
        return MaskTallyOnCpu(counts, presence, axes, self.workers)
