"""The two ways to process activation maps: compiled kernels on the CPU, or tensor operations on a GPU."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from prunescope.arrays import Array, Values
from prunescope.dissection.accumulator import Accumulator
from prunescope.dissection.examples import Examples
from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.maps import KeptMaps, MapBatch
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.on_cpu import CpuKernels
from prunescope.dissection.on_device import DeviceTensors
from prunescope.dissection.settings import Presence
from prunescope.dissection.storage import Record
from prunescope.dissection.tally import MaskBatch, MaskCounts
from prunescope.dissection.thresholds import Extremes, ThresholdEstimate
from prunescope.dissection.workers import Workers


class Backend(Protocol[Values]):
    """Processes activation maps, either as NumPy arrays or as tensors on one device.

    Both give the same integers.
    """

    def array(self, part: Array | Tensor) -> Values:
        """Return an array in the form that this backend works with."""

    def labels(self, labels: LabelBatch[Array]) -> LabelBatch[Values]:
        """Return labels in the form that this backend works with."""

    def maps(self, first_image: int, output: Tensor) -> MapBatch[Values]:
        """Return the maps in a layer's output [n, units, h, w] or [n, units] and their extremes."""

    def above(self, batch: MapBatch[Values], bounds: Values) -> KeptMaps[Values]:
        """Return copies of the maps that exceed their unit's bound."""

    def thresholds(self, units: int, positions: int, quantile: float) -> ThresholdEstimate[Values]:
        """Estimate thresholds, given the number of values of each unit over all images."""

    def extremes(self, units: int) -> Accumulator[MapBatch[Values], Extremes]:
        """Find the extremes of each unit.

        `add` raises a `NotFiniteError` if a value is not finite.
        """

    def examples(self, shape: tuple[int, int, int]) -> Accumulator[MapBatch[Values], Examples]:
        """Keep the images on which each unit is most active, given the shape (units, h, w) of an image's maps."""

    def tally(
        self, counts: MaskCounts[Array], presence: Presence, axes: tuple[UpsampleAxis, UpsampleAxis]
    ) -> Accumulator[MaskBatch[Values], MaskCounts[Array]]:
        """Count the pixels that masks have in common with labels.

        Parameters
        ----------
        counts
            The counts to start with.
        presence
            The images in which mask pixels count as activation, as in `Settings`.
        axes
            The positions of the label pixels on the maps, along the vertical and the horizontal axis.
        """


def kept_maps(record: Record, backend: Backend[Values]) -> KeptMaps[Values]:
    """Return maps that were stored as a record."""
    units, images, peaks, maps = (backend.array(part) for part in record)
    return KeptMaps(units, images, peaks, maps)


def choose_backend(device: torch.device, workers: Workers) -> Backend[Any]:
    """Return the backend for activation maps on a device: tensor operations on a GPU, otherwise compiled kernels.

    Parameters
    ----------
    device
        The device that the maps are computed on.
    workers
        The threads that compiled kernels run in.
    """
    return DeviceTensors(device) if device.type == "cuda" else CpuKernels(workers)
