"""Count the pixels that each unit's masks have in common with each concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from prunescope.arrays import Array, Values
from prunescope.dissection.kernels import kernel
from prunescope.dissection.labels import DonorBatch, LabelBatch
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
class MaskCounts(Generic[Values]):
    """The counts that depend on masks: those of a `Tally` but for `truth`, and two comparisons with chance.

    In one comparison, the mask is mirrored left to right. In the other, it is compared with the labels of other images.
    """

    intersect: Values
    activation: Values
    area: Values
    mirrored_intersect: Values  # int32 or int64 [units, concepts]
    mirrored_activation: Values  # int64 [units, categories]
    permuted_intersect: Values  # int32 or int64 [permutations, units, concepts]
    permuted_activation: Values  # int64 [permutations, units, categories]


def empty_counts(units: int, concepts: int, categories: int, pixels: Array, permutations: int = 0) -> MaskCounts[Array]:
    """Return counts of zero.

    Parameters
    ----------
    units, concepts, categories
        Their numbers.
    pixels
        int64 [blocks]: the number of label pixels in the images of each block, which no count can exceed.
    permutations
        The number of permutations of the labels.
    """
    block, whole = (np.int32 if most < 2**31 else np.int64 for most in (pixels.max(), pixels.sum()))
    return MaskCounts(
        np.zeros((len(pixels), units, concepts), block),
        np.zeros((len(pixels), units, categories), np.int64),
        np.zeros((len(pixels), units), np.int64),
        np.zeros((units, concepts), whole),
        np.zeros((units, categories), np.int64),
        np.zeros((permutations, units, concepts), whole),
        np.zeros((permutations, units, categories), np.int64),
    )


class MaskBatch(NamedTuple, Generic[Values]):
    """The masks of a layer's units for a batch of images, which are where maps exceed thresholds, and the labels."""

    kept: KeptMaps[Values]  # includes every map with a value above its unit's threshold
    thresholds: Values  # float64 [units]
    labels: LabelBatch[Values]
    donors: DonorBatch[Values] | None = None  # None if there are no permutations


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
        self, counts: MaskCounts[Array], presence: Presence, axes: tuple[UpsampleAxis, UpsampleAxis], workers: Workers
    ) -> None:
        self._counts, self._presence, self._axes, self._workers = counts, presence, axes, workers

    def add(self, batch: MaskBatch[Array], /) -> None:
        """Add the pixels that the masks of some images have in common with their labels."""
        kept, thresholds, labels, donors = batch
        above = np.flatnonzero(kept.peaks > thresholds[kept.units])
        order = above[np.argsort(kept.units[above], kind="stable")]
        unit_starts = np.searchsorted(kept.units[order], np.arange(len(thresholds) + 1))
        counts, overlap = self._counts, self._presence == "overlap"
        nobody = np.empty((0, len(labels.blocks)), np.int64)
        others, at = (labels, nobody) if donors is None else (donors.labels, donors.at)
        self._workers.run(
            _count_masks, len(thresholds), kept.maps, kept.images, order, unit_starts, thresholds,
            *self._axes[0], *self._axes[1], labels.blocks, _palettes(labels), _palettes(others), at, overlap,
            tuple(vars(counts).values()),
        )  # fmt: skip

    def reduce(self, processes: Processes) -> None:
        """Add the counts of other processes."""
        for part in vars(self._counts).values():
            processes.all_reduce(part)

    def result(self) -> MaskCounts[Array]:
        """Return the counts."""
        return self._counts


class _Palettes(NamedTuple):
    """The parts of a `LabelBatch` that masks are compared with."""

    codes: Array
    ends: Array  # unsigned integers [images, sh, sw]: the column after the run of equal codes that the pixel is in
    first_rows: Array
    starts: Array
    columns: Array
    categories: Array
    present: Array


def _palettes(labels: LabelBatch[Array]) -> _Palettes:
    ends = np.empty(labels.codes.shape, np.uint16 if labels.codes.shape[2] < 1 << 16 else np.uint32)
    _find_runs(labels.codes, ends)
    return _Palettes(
        labels.codes, ends, labels.first_rows, labels.starts, labels.columns, labels.categories, labels.present
    )


@kernel
def _find_runs(codes: Array, ends: Array) -> None:
    last = codes.shape[2] - 1
    for image in range(len(codes)):
        for row in range(codes.shape[1]):
            line, line_ends = codes[image, row], ends[image, row]
            end = last + 1
            line_ends[last] = end
            for column in range(last - 1, -1, -1):
                if line[column] != line[column + 1]:
                    end = column + 1
                line_ends[column] = end


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
    blocks: Array,
    own: _Palettes,
    others: _Palettes,
    donors: Array,
    overlap: bool,
    counts: tuple[Array, ...],
    first_unit: int,
    last_unit: int,
) -> None:
    (
        intersect, activation, area, mirrored_intersect, mirrored_activation, permuted_intersect, permuted_activation,
    ) = counts  # fmt: skip
    h, w = maps.shape[1], maps.shape[2]
    most = max(len(own.starts), len(others.starts))
    histogram, touched = np.zeros(most, np.int64), np.empty(most, np.int64)
    # The mask consists of spans of pixels: at most one in each row between two columns of the map.
    spans = np.empty((len(y_weights) * w, 3), np.int64)
    for unit in range(first_unit, last_unit):
        threshold = thresholds[unit]
        for index in range(unit_starts[unit], unit_starts[unit + 1]):
            values, image = maps[order[index]], images[order[index]]
            block, count = blocks[image], 0
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
                        # Values along a row of pixels between two map columns are monotonic, even after rounding, so
                        # that those above the threshold follow each other.
                        ends = max(start + slope * x_weights[left_end], start + slope * x_weights[right_end - 1])
                        if ends <= threshold:
                            continue
                        first, last = left_end, right_end
                        while not start + slope * x_weights[first] > threshold:
                            first += 1
                        while not start + slope * x_weights[last - 1] > threshold:
                            last -= 1
                        spans[count, 0], spans[count, 1], spans[count, 2] = row, first, last
                        count += 1
            mask = spans[:count]
            area[block, unit] += (mask[:, 2] - mask[:, 1]).sum()
            _compare(
                mask, False, own, image, overlap, histogram, touched, intersect[block, unit], activation[block, unit]
            )
            _compare(
                mask, True, own, image, overlap, histogram, touched, mirrored_intersect[unit], mirrored_activation[unit]
            )
            for row in range(len(donors)):
                if donors[row, image] >= 0:
                    _compare(
                        mask, False, others, donors[row, image], overlap, histogram, touched,
                        permuted_intersect[row, unit], permuted_activation[row, unit],
                    )  # fmt: skip


@kernel
def _compare(
    mask: Array,
    mirrored: bool,
    labels: _Palettes,
    image: int,
    overlap: bool,
    histogram: Array,
    touched: Array,
    intersect: Array,
    activation: Array,
) -> None:
    codes, ends, first = labels.codes[image], labels.ends[image], labels.first_rows[image]
    count, pixels, width = 0, 0, codes.shape[1]
    for index in range(len(mask)):
        row, column, last = mask[index]
        if mirrored:
            column, last = width - last, width - column
        pixels += last - column
        while column < last:
            end = min(np.int64(ends[row, column]), last)
            code = first + np.int64(codes[row, column])
            if histogram[code] == 0:
                touched[count] = code
                count += 1
            histogram[code] += end - column
            column = end
    for category in range(len(activation)):
        if not overlap and labels.present[image, category]:
            activation[category] += pixels
    here = np.zeros(len(activation), np.bool_) if overlap else labels.present[image]
    for code in touched[:count]:
        for entry in range(labels.starts[code], labels.starts[code + 1]):
            intersect[labels.columns[entry]] += histogram[code]
        if overlap:
            here |= labels.categories[code]
        histogram[code] = 0
    if overlap:
        for category in range(len(activation)):
            if here[category]:
                activation[category] += pixels
