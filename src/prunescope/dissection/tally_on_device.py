"""Count the pixels of masks on a device, which gives the same integers as the compiled CPU kernel."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from prunescope.arrays import Array
from prunescope.dissection.labels import DonorBatch, LabelBatch
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.settings import Presence
from prunescope.dissection.tally import MaskBatch, MaskCounts
from prunescope.processes import Processes

# Work is split so that the largest tensors have about this many elements: a few hundred megabytes each.
AT_ONCE = 1 << 24


class _Axis(NamedTuple):
    starts: Tensor  # int64 [cells]: the first pixel between each map row and the next
    counts: Tensor  # int64 [cells]: the number of pixels between each map row and the next
    weights: Tensor  # float64 [pixels]: the weight of the next map row

    @classmethod
    def on(cls, device: torch.device, axis: UpsampleAxis) -> _Axis:
        starts = torch.from_numpy(axis.starts).to(device)
        return cls(starts[:-1], starts.diff(), torch.from_numpy(axis.weights).to(device))


class _Comparison(NamedTuple):
    """Labels that masks are compared with, and the counts to add to."""

    labels: LabelBatch[Tensor]
    images: Tensor | None  # int64 [images of the batch]: their indices in `labels`, or -1; None if they are the same
    intersect: Tensor  # [blocks, units, concepts]
    activation: Tensor  # int64 [blocks, units, categories]
    area: Tensor  # int64 [blocks, units]


class MaskTallyOnDevice:
    """Counts the pixels of masks on a device, with Triton kernels or, without Triton, tensor operations.

    Parameters
    ----------
    counts, presence, axes
        As in `MaskTallyOnCpu`.
    device
        The device that the maps are on.
    """

    def __init__(
        self,
        counts: MaskCounts[Array],
        presence: Presence,
        axes: tuple[UpsampleAxis, UpsampleAxis],
        device: torch.device,
    ) -> None:
        self._presence, self._device = presence, device
        self._kernels = _kernels(device)
        self._axes = axes if self._kernels is None else self._kernels.Axes(*axes, device)
        self._counts = MaskCounts(*(torch.from_numpy(part).to(device) for part in vars(counts).values()))
        self._unused = torch.zeros((1, counts.area.shape[1]), dtype=torch.int64, device=device)
        self._down, self._along = (_Axis.on(device, axis) for axis in axes)

    def add(self, batch: MaskBatch[Tensor], /) -> None:
        """Add the pixels that the masks of some images have in common with their labels."""
        kept, thresholds, labels, donors = batch
        comparisons = self._comparisons(labels, donors)
        widest = max(int(one.labels.widest) for one in comparisons)
        if self._kernels is not None:
            for part in kept.split(max(1, 8 * AT_ONCE // widest)):
                for one in comparisons:
                    counts = one.intersect, one.activation, one.area
                    self._kernels.count_masks(
                        _moved(part, one.images), thresholds, one.labels, self._axes, counts, self._presence
                    )
            return
        own = thresholds[kept.units]
        size = max(1, AT_ONCE // max(widest, labels.codes[0].numel()))
        for some in torch.split((kept.peaks > own).nonzero()[:, 0], size):
            part = kept.at(some)
            pixels = self._pixels(part, own[some])
            for one in comparisons:
                self._add(part, pixels, one)

    def reduce(self, processes: Processes) -> None:
        """Add the counts of other processes."""
        for part in vars(self._counts).values() if processes.count > 1 else ():
            total = part.cpu().numpy()
            processes.all_reduce(total)
            part.copy_(torch.from_numpy(total))

    def result(self) -> MaskCounts[Array]:
        """Return the counts."""
        return MaskCounts(*(part.cpu().numpy() for part in vars(self._counts).values()))

    def _comparisons(self, labels: LabelBatch[Tensor], donors: DonorBatch[Tensor] | None) -> list[_Comparison]:
        counts = self._counts
        # A mirrored mask has as many pixels in common with labels as the mask with mirrored labels.
        mirrored = replace(labels, codes=labels.codes.flip(2), blocks=torch.zeros_like(labels.blocks))
        found = [
            _Comparison(labels, None, counts.intersect, counts.activation, counts.area),
            _Comparison(
                mirrored, None, counts.mirrored_intersect[None], counts.mirrored_activation[None], self._unused
            ),
        ]
        if donors is not None:
            found += [
                _Comparison(donors.labels, images, intersect[None], activation[None], self._unused)
                for images, intersect, activation in zip(
                    donors.at, counts.permuted_intersect, counts.permuted_activation, strict=True
                )
            ]
        return found

    def _add(self, kept: KeptMaps[Tensor], mask: tuple[Tensor, Tensor, Tensor], one: _Comparison) -> None:
        labels, widest = one.labels, int(one.labels.widest)
        images = kept.images if one.images is None else one.images[kept.images]
        known, images = images >= 0, images.clamp(min=0)
        maps, row, column = mask
        histograms = torch.zeros((len(kept.maps), widest), dtype=torch.int64, device=self._device)
        codes = labels.codes[images[maps], row, column].long()
        histograms.view(-1).index_add_(0, maps * widest + codes, known[maps].long())
        pixels = histograms.sum(1)
        maps, codes = histograms.nonzero(as_tuple=True)
        rows = labels.first_rows[images[maps]] + codes
        owners, within = _parts(labels.starts[rows + 1] - labels.starts[rows])
        columns = labels.columns[labels.starts[rows[owners]] + within]
        cells = labels.blocks[images] * one.intersect.shape[1] + kept.units
        counted = histograms[maps, codes].to(one.intersect.dtype)
        one.intersect.view(-1).index_add_(0, cells[maps[owners]] * one.intersect.shape[2] + columns, counted[owners])
        here = labels.present[images].long()
        if self._presence == "overlap":
            here = torch.zeros_like(here).index_add_(0, maps, labels.categories[rows].long()).clamp_(max=1)
        one.activation.flatten(0, 1).index_add_(0, cells, here * pixels[:, None])
        one.area.view(-1).index_add_(0, cells, pixels)

    def _pixels(self, kept: KeptMaps[Tensor], thresholds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the map, the row and the column of each pixel of the maps' masks, int64 [pixels] each."""
        corners = kept.maps.double()
        right = torch.cat([corners[:, :, 1:], corners[:, :, -1:]], 2)
        below, across = (torch.cat([part[:, 1:], part[:, -1:]], 1) for part in (corners, right))
        # Bilinear values lie between those at the four corners: if no corner exceeds the threshold, no pixel does.
        highest = torch.maximum(torch.maximum(corners, right), torch.maximum(below, across))
        cells = (highest > thresholds[:, None, None]).nonzero(as_tuple=True)
        maps, y, x = cells
        a, b, c, d = (part[cells] for part in (corners, right, below, across))

        owners, within = _parts(self._down.counts[y])
        row = self._down.starts[y[owners]] + within
        weights = self._down.weights[row]
        starts = a[owners] + (c - a)[owners] * weights
        slopes = (b[owners] + (d - b)[owners] * weights) - starts
        row_maps, row_x = maps[owners], x[owners]

        owners, within = _parts(self._along.counts[row_x])
        column = self._along.starts[row_x[owners]] + within
        maps = row_maps[owners]
        inside = starts[owners] + slopes[owners] * self._along.weights[column] > thresholds[maps]
        some = inside.nonzero()[:, 0]
        return maps[some], row[owners[some]], column[some]


def _moved(kept: KeptMaps[Tensor], images: Tensor | None) -> KeptMaps[Tensor]:
    """Return maps with other images; those with image -1 get a peak that exceeds no threshold."""
    if images is None:
        return kept
    moved = images[kept.images]
    return replace(kept, images=moved.clamp(min=0), peaks=kept.peaks.where(moved >= 0, -torch.inf))


def _kernels(device: torch.device) -> ModuleType | None:
    """Return the module of Triton kernels; None if the device is not an NVIDIA GPU or Triton is not installed.

    Without the kernels, masks are counted by tensor operations, which take longer.
    """
    if device.type != "cuda" or find_spec("triton") is None:
        return None
    from prunescope.dissection import mask_kernels

    return mask_kernels


def _parts(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Enumerate the parts of items, where item i has `counts[i]` parts.

    Returns the item that each part belongs to, and the index of the part in its item, int64 [parts] each.

    >>> _parts(torch.tensor([2, 0, 1]))
    (tensor([0, 0, 2]), tensor([0, 1, 0]))
    """
    owners = torch.arange(len(counts), device=counts.device).repeat_interleave(counts)
    return owners, torch.arange(len(owners), device=counts.device) - (counts.cumsum(0) - counts)[owners]
