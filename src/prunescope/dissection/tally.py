"""Counting pixels: how often each unit's mask meets each concept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numba
import numpy as np

from prunescope.concepts.pixels import ImageLabels
from prunescope.dissection.masks import Stretch
from prunescope.dissection.share import Share

Array = np.ndarray[Any, Any]
Presence = Literal["image", "overlap"]

BLOCKS = 32


class LabelBatch(NamedTuple):
    """The labels of some images, their palettes laid end to end."""

    codes: Array  # unsigned [images, sh, sw]
    first_rows: Array  # int64 [images]: where an image's palette begins
    starts: Array  # int64 [rows + 1]
    columns: Array  # int64: a concept's place among the data set's concepts
    categories: Array  # bool [rows, categories]: the categories that have a label on such a pixel
    present: Array  # bool [images, categories]: the categories that have a label anywhere in the image


def join_labels(labels: Sequence[ImageLabels], numbers: Array, primary: Array, count: int) -> LabelBatch:
    """Lay the palettes of several images end to end.

    Parameters
    ----------
    labels
        Of each image.
    numbers
        The data set's concept numbers, ascending; a concept's column is its place here.
    primary
        int64 [concepts]: the place of each concept's primary category. A label makes its primary category present,
        whichever layer names it.
    count
        Of categories.
    """
    rows = np.array([0, *(len(image.starts) - 1 for image in labels)])
    entries = np.array([0, *(len(image.numbers) for image in labels)]).cumsum()
    starts = [image.starts[:-1] + entry for image, entry in zip(labels, entries, strict=False)]
    widest = max((image.codes.dtype for image in labels), key=lambda dtype: dtype.itemsize)
    first_rows = rows.cumsum()
    spans = np.concatenate([*starts, entries[-1:]]).astype(np.int64)
    columns = np.searchsorted(numbers, np.concatenate([image.numbers for image in labels]))
    categories = np.zeros((len(spans) - 1, count), np.bool_)
    categories[np.repeat(np.arange(len(categories)), np.diff(spans)), primary[columns]] = True
    return LabelBatch(
        codes=np.stack([image.codes for image in labels]).astype(widest, copy=False),
        first_rows=first_rows[:-1],
        starts=spans,
        columns=columns,
        categories=categories,
        present=np.logical_or.reduceat(categories, first_rows[:-1], axis=0),
    )


@dataclass(frozen=True)
class KeptMaps:
    """Maps that reach above their unit's threshold."""

    units: Array  # int64 [maps]
    images: Array  # int64 [maps]
    maps: Array  # float32 [maps, h, w]

    def __getitem__(self, which: Array) -> KeptMaps:
        """Take some of them, by place or by a mask."""
        return KeptMaps(self.units[which], self.images[which], self.maps[which])


@dataclass(frozen=True)
class Counts:
    """Pixel counts over a whole data set, exact integers."""

    truth: Array  # int64 [concepts]: G, pixels of each concept
    intersect: Array  # int64 [units, concepts]: I
    activation: Array  # int64 [units, categories]: A, mask pixels on the images where the category is present
    area: Array  # int64 [units]: mask pixels on all images


@dataclass(frozen=True)
class Tally:
    """Pixel counts by block of consecutive images, for error bars; their sums are the data set's counts."""

    truth: Array  # int64 [blocks, concepts]
    intersect: Array  # int32 or int64 [blocks, units, concepts]
    activation: Array  # int64 [blocks, units, categories]
    area: Array  # int64 [blocks, units]

    @classmethod
    def empty(cls, units: int, concepts: int, categories: int, block_pixels: int, blocks: int = BLOCKS) -> Tally:
        """Return a tally of nothing yet; a count cannot pass `block_pixels`, the pixels of a block's images."""
        small = np.int32 if block_pixels < 2**31 else np.int64
        return cls(
            np.zeros((blocks, concepts), np.int64),
            np.zeros((blocks, units, concepts), small),
            np.zeros((blocks, units, categories), np.int64),
            np.zeros((blocks, units), np.int64),
        )

    def total(self) -> Counts:
        """Add up the blocks."""
        return Counts(*(part.sum(axis=0, dtype=np.int64) for part in vars(self).values()))

    def reduce(self, share: Share) -> None:
        """Add what other processes counted."""
        for part in vars(self).values():
            share.add(part)

    def add_labels(self, labels: LabelBatch, blocks: Array) -> None:
        """Count the concepts' pixels on some images; `blocks` int64 [images] says to which block each belongs."""
        _count_labels(labels.codes, labels.first_rows, labels.starts, labels.columns, blocks, self.truth)

    def add_masks(
        self,
        kept: KeptMaps,
        thresholds: Array,
        labels: LabelBatch,
        blocks: Array,
        presence: Presence,
        axes: tuple[Stretch, Stretch],
    ) -> None:
        """Hold the masks of some images against their labels.

        Parameters
        ----------
        kept
            Maps of these images; `images` counts from the batch's first. Every map with a value above its unit's
            threshold must be among them.
        thresholds
            float64 [units].
        labels
            Of these images.
        blocks
            int64 [images]: to which block each belongs.
        presence
            On which images mask pixels count as activation: those with a label of the category anywhere (`image`,
            Bau et al. 2017) or under the mask (`overlap`, NetDissect-Lite).
        axes
            Where the label pixels lie on the maps, down and along.
        """
        order = np.argsort(kept.units, kind="stable")
        kept = kept[order]
        unit_starts = np.searchsorted(kept.units, np.arange(len(thresholds) + 1))
        _count_masks(
            kept.maps, kept.images, unit_starts, thresholds, *axes[0], *axes[1], *labels, blocks,
            presence == "overlap", self.intersect, self.activation, self.area,
        )  # fmt: skip


@numba.njit(cache=True)
def _count_labels(codes: Array, first_rows: Array, starts: Array, columns: Array, blocks: Array, truth: Array) -> None:
    histogram = np.zeros(len(starts), np.int64)
    for image in range(len(codes)):
        first = first_rows[image]
        last = first_rows[image + 1] if image + 1 < len(codes) else len(starts) - 1
        for code in codes[image].flat:
            histogram[first + code] += 1
        for row in range(first, last):
            for entry in range(starts[row], starts[row + 1]):
                truth[blocks[image], columns[entry]] += histogram[row]


@numba.njit(parallel=True, cache=True)
def _count_masks(
    maps: Array,
    images: Array,
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
) -> None:
    h, w = maps.shape[1], maps.shape[2]
    for unit in numba.prange(len(thresholds)):
        threshold = thresholds[unit]
        histogram = np.zeros(len(starts), np.int64)
        touched = np.empty(len(starts), np.int64)
        here = np.empty(present.shape[1], np.bool_)
        for index in range(unit_starts[unit], unit_starts[unit + 1]):
            values, image = maps[index], images[index]
            first, count, pixels, block = first_rows[image], 0, 0, blocks[image]
            for y in range(h):
                below = min(y + 1, h - 1)
                for x in range(w):
                    right = min(x + 1, w - 1)
                    a, b = np.float64(values[y, x]), np.float64(values[y, right])
                    c, d = np.float64(values[below, x]), np.float64(values[below, right])
                    # A bilinear patch lies between its corners: without one above the threshold it has no pixel above.
                    if max(max(a, b), max(c, d)) <= threshold:
                        continue
                    for row in range(y_starts[y], y_starts[y + 1]):
                        start = a + (c - a) * y_weights[row]
                        slope = (b + (d - b) * y_weights[row]) - start
                        for column in range(x_starts[x], x_starts[x + 1]):
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
