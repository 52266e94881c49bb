"""Count the pixels that each unit's masks have in common with each concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from prunescope.arrays import Array, Values
from prunescope.dissection.kernels import kernel
from prunescope.dissection.labels import LabelBatch
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import UpsampleAxis
from prunescope.dissection.settings import Presence
from prunescope.dissection.workers import Workers
from prunescope.processes import Processes


@dataclass(frozen=True)
class Counts:
    """Pixel counts over a whole data set, as exact integers."""

    truth: Array  # int64 [concepts]: G, the pixels of each concept
    intersect: Array  # int64 [units, concepts]: I, the pixels in both the unit's mask and the concept
    activation: Array  # int64 [units, categories]: A, the mask pixels in images in which the category is present
    area: Array  # int64 [units]: the mask pixels in all images


@dataclass(frozen=True)
class Tally:
    """Pixel counts for each block of images, from which intervals are computed; see `arrange`.

    The fields are those of `Counts`, which are their sums over the blocks.
    """

    truth: Array  # int64 [blocks, concepts]
    intersect: Array  # int32 or int64 [blocks, units, concepts]
    activation: Array  # int64 [blocks, units, categories]
    area: Array  # int64 [blocks, units]

    def total(self) -> Counts:
        """Return the sums over all blocks."""
        return Counts(*(part.sum(axis=0, dtype=np.int64) for part in vars(self).values()))


@dataclass(frozen=True)
class MaskCounts:
    """The counts of a `Tally` that depend on masks: all but `truth`, which depends on the labels alone."""

    intersect: Array
    activation: Array
    area: Array

    @classmethod
    def empty(cls, units: int, concepts: int, categories: int, block_pixels: int, blocks: int) -> MaskCounts:
        """Return counts of zero.

        No count of a block can exceed `block_pixels`, the number of label pixels in the images of a block.
        """
        return cls(
            np.zeros((blocks, units, concepts), np.int32 if block_pixels < 2**31 else np.int64),
            np.zeros((blocks, units, categories), np.int64),
            np.zeros((blocks, units), np.int64),
        )


class MaskBatch(NamedTuple, Generic[Values]):
    """The masks of a layer's units for a batch of images, which are where maps exceed thresholds, and the labels."""

    kept: KeptMaps[Values]  # includes every map with a value above its unit's threshold
    thresholds: Values  # float64 [units]
    labels: LabelBatch[Values]


class MaskTallyOnCpu:
    """Counts the pixels of masks on the CPU, in a compiled kernel.

    Parameters
    ----------
    counts
        The counts to add to.
    presence
        The images in which mask pixels count as activation, as in `Settings`.
    axes
        The positions of the label pixels on the maps, along the vertical and the horizontal axis.
    workers
        The threads to run in.
    """

    def __init__(
        self, counts: MaskCounts, presence: Presence, axes: tuple[UpsampleAxis, UpsampleAxis], workers: Workers
    ) -> None:
        self._counts, self._presence, self._axes, self._workers = counts, presence, axes, workers

    def add(self, batch: MaskBatch[Array], /) -> None:
        """Add the pixels that the masks of some images have in common with their labels."""
        kept, thresholds, labels = batch
        above = np.flatnonzero(kept.peaks > thresholds[kept.units])
        order = above[np.argsort(kept.units[above], kind="stable")]
        unit_starts = np.searchsorted(kept.units[order], np.arange(len(thresholds) + 1))
        self._workers.run(
            _count_masks, len(thresholds), kept.maps, kept.images, order, unit_starts, thresholds,
            *self._axes[0], *self._axes[1], labels.codes, labels.first_rows, labels.starts, labels.columns,
            labels.categories, labels.present, labels.blocks, self._presence == "overlap",
            self._counts.intersect, self._counts.activation, self._counts.area,
        )  # fmt: skip

    def reduce(self, processes: Processes) -> None:
        """Add the counts of other processes."""
        for part in vars(self._counts).values():
            processes.all_reduce(part)

    def result(self) -> MaskCounts:
        """Return the counts."""
        return self._counts


@kernel
def _count_masks(
    maps: Array,
    images: Array,
    order: Array,
    unit_starts: Array,
    thresholds: Array,
    y_starts: Array,
    y_weights: Array,
    x_starts: Array,
    x_weights: Array,
    codes: Array,
    first_rows: Array,
    starts: Array,
    columns: Array,
    categories: Array,
    present: Array,
    blocks: Array,
    overlap: bool,
    intersect: Array,
    activation: Array,
    area: Array,
    first_unit: int,
    last_unit: int,
) -> None:
    h, w = maps.shape[1], maps.shape[2]
    histogram = np.zeros(len(starts), np.int64)
    touched = np.empty(len(starts), np.int64)
    here = np.empty(present.shape[1], np.bool_)
    for unit in range(first_unit, last_unit):
        threshold = thresholds[unit]
        for index in range(unit_starts[unit], unit_starts[unit + 1]):
            values, image = maps[order[index]], images[order[index]]
            first, count, pixels, block = first_rows[image], 0, 0, blocks[image]
            for y in range(h):
                below = min(y + 1, h - 1)
                # Bilinear values lie between those at the four corners: if no corner exceeds the threshold, then no
                # pixel does.
                above = 0
                for x in range(w):
                    above += max(values[y, x], values[below, x]) > threshold
                if above == 0:
                    continue
                for x in range(w):
                    right = min(x + 1, w - 1)
                    a, b = np.float64(values[y, x]), np.float64(values[y, right])
                    c, d = np.float64(values[below, x]), np.float64(values[below, right])
                    if max(max(a, b), max(c, d)) <= threshold:
                        continue
                    left_end, right_end = x_starts[x], x_starts[x + 1]
                    if left_end == right_end:
                        continue
                    for row in range(y_starts[y], y_starts[y + 1]):
                        start = a + (c - a) * y_weights[row]
                        slope = (b + (d - b) * y_weights[row]) - start
                        # Values along a row of pixels between two map columns are monotonic, even after rounding.
                        ends = max(start + slope * x_weights[left_end], start + slope * x_weights[right_end - 1])
                        if ends <= threshold:
                            continue
                        for column in range(left_end, right_end):
                            if start + slope * x_weights[column] > threshold:
                                code = first + codes[image, row, column]
                                if histogram[code] == 0:
                                    touched[count] = code
                                    count += 1
                                histogram[code] += 1
                                pixels += 1
            area[block, unit] += pixels
            for category in range(len(here)):
                here[category] = present[image, category] and not overlap
            for code in touched[:count]:
                for entry in range(starts[code], starts[code + 1]):
                    intersect[block, unit, columns[entry]] += histogram[code]
                if overlap:
                    here |= categories[code]
                histogram[code] = 0
            for category in range(len(here)):
                if here[category]:
                    activation[block, unit, category] += pixels
