"""Labels of a batch of images, with the palettes of all images concatenated in one array.

An image's palette lists the sets of concepts that its pixels have, one set per row. The entries of a row are its
concepts, and a pixel's code is the index of its row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

import numpy as np
import torch
from torch import Tensor

from prunescope.arrays import Array, Values
from prunescope.concepts.packed_file import PackedFile
from prunescope.concepts.pixels import ImageLabels
from prunescope.dissection.kernels import kernel
from prunescope.processes import Processes


@dataclass(frozen=True)
class LabelBatch(Generic[Values]):
    """Labels of some images, with concatenated palettes, as NumPy arrays or as tensors on one device."""

    codes: Values  # unsigned integers (on a device uint8 or int32) [images, sh, sw]: row in the image's palette
    first_rows: Values  # int64 [images]: index of the first row of each image's palette
    starts: Values  # int64 [rows + 1]: row r has the entries starts[r] to starts[r + 1] - 1
    columns: Values  # int64 [entries]: index of the entry's concept among the data set's concepts
    entry_rows: Values  # int64 [entries]: the row of each entry
    categories: Values  # bool [rows, categories]: the primary categories of the row's concepts
    present: Values  # bool [images, categories]: the categories that have a label anywhere in the image
    pixels: Values  # int64 [rows]: number of pixels that have the row's code
    blocks: Values  # int64 [images]: the block of images that each image belongs to
    widest: Array  # int64 []: number of rows of the largest palette; always a NumPy array

    @property
    def record(self) -> tuple[Values | Array, ...]:
        """All parts, in the order in which they are stored."""
        return tuple(vars(self).values())


@dataclass(frozen=True)
class DonorBatch(Generic[Values]):
    """Labels of other images, which take the place of the labels of the images of a batch (permuted labels)."""

    labels: LabelBatch[Values]  # of the donors
    at: Values  # int64 [permutations, images of the batch]: the donor's index in `labels`, -1 where there is none


def on_device(labels: LabelBatch[Array], device: torch.device) -> LabelBatch[Tensor]:
    """Copy labels to a device, as tensors."""
    # PyTorch supports few operations on 16-bit unsigned integers.
    codes = labels.codes if labels.codes.dtype == np.uint8 else labels.codes.astype(np.int32)
    return label_batch((codes, *labels.record[1:]), lambda part: torch.as_tensor(part).to(device, non_blocking=True))


def label_batch(record: Sequence[Array | Tensor], array: Callable[[Array | Tensor], Values]) -> LabelBatch[Values]:
    """Return labels that were stored as a record, with `array` applied to each of its parts."""
    *parts, widest = record
    assert isinstance(widest, np.ndarray)
    codes, first_rows, starts, columns, entry_rows, categories, present, pixels, blocks = map(array, parts)
    return LabelBatch(codes, first_rows, starts, columns, entry_rows, categories, present, pixels, blocks, widest)


class LabelPixels:
    """Counts the labelled pixels of each concept in each block of images.

    Parameters
    ----------
    blocks
        The number of blocks.
    concepts
        The number of concepts.
    categories
        The number of categories.
    lent
        bool [permutations, images of the data set]: whether each image's labels are those of another image.
    """

    def __init__(self, blocks: int, concepts: int, categories: int, lent: Array) -> None:
        self._counts, self._lent = np.zeros((blocks, concepts), np.int64), lent
        self._present = np.zeros(categories, np.int64)
        self._permuted = np.zeros((len(lent), concepts), np.int64)

    def add(self, first: int, labels: LabelBatch[Array], /) -> None:
        """Add the labels of some consecutive images, the first of which has the index `first`."""
        self._present += labels.present.sum(axis=0)
        rows = np.diff(labels.first_rows, append=len(labels.pixels))
        images = np.repeat(np.arange(len(rows)), rows)[labels.entry_rows]
        cells = labels.blocks[images] * self._counts.shape[1] + labels.columns
        # bincount adds float64 weights, which is exact for integer sums below 2 ** 53.
        counts = np.bincount(cells, labels.pixels[labels.entry_rows], self._counts.size)
        self._counts += counts.astype(np.int64).reshape(self._counts.shape)
        for row, lent in enumerate(self._lent[:, first : first + len(rows)]):
            pixels = labels.pixels[labels.entry_rows] * lent[images]
            self._permuted[row] += np.bincount(labels.columns, pixels, self._counts.shape[1]).astype(np.int64)

    def reduce(self, processes: Processes) -> None:
        """Add the counts of other processes."""
        processes.all_reduce(self._counts)
        processes.all_reduce(self._permuted)
        processes.all_reduce(self._present)

    def result(self) -> tuple[Array, Array, Array]:
        """Return the counts of each block, those under each permutation of the labels, and the images by category.

        The counts are int64 [blocks, concepts]. Those under permutations, int64 [permutations, concepts], are the
        pixels of those images whose labels another image gets. The last, int64 [categories], is the number of images
        with a label of each category.
        """
        return self._counts, self._permuted, self._present


def join_labels(
    labels: Sequence[ImageLabels], numbers: Array, primary: Array, count: int, blocks: Array
) -> LabelBatch[Array]:
    """Join the labels of several images in one batch.

    Parameters
    ----------
    labels
        The labels of each image.
    numbers
        The concept numbers of the data set in ascending order. A concept's column is its index in this array.
    primary
        int64 [concepts]: the index of each concept's primary category. A label makes the primary category of its
        concept present in the image, whichever category's label map contains it.
    count
        The number of categories.
    blocks
        int64 [images]: the block of images that each image belongs to.
    """
    rows = np.array([len(image.starts) - 1 for image in labels])
    entries = np.array([0, *(len(image.numbers) for image in labels)]).cumsum()
    starts = [image.starts[:-1] + entry for image, entry in zip(labels, entries, strict=False)]
    widest = max((image.codes.dtype for image in labels), key=lambda dtype: dtype.itemsize)
    return _batch(
        np.stack([image.codes for image in labels]).astype(widest, copy=False),
        rows,
        np.concatenate([*starts, entries[-1:]]).astype(np.int64),
        np.concatenate([image.numbers for image in labels]),
        np.concatenate([np.bincount(image.codes.reshape(-1), minlength=len(image.starts) - 1) for image in labels]),
        numbers,
        primary,
        count,
        blocks,
    )


def join_packed(
    packed: PackedFile,
    images: Array,
    numbers: Array,
    primary: Array,
    count: int,
    blocks: Array,
    *,
    small: bool = False,
) -> LabelBatch[Array]:
    """Read the labels of several images from a packed copy in one batch, as `join_labels` returns it.

    Parameters
    ----------
    packed
        The packed copy.
    images
        int64 [images]: the indices of the images in the packed copy.
    numbers, primary, count, blocks
        As in `join_labels`.
    small
        Whether to use uint8 codes, instead of uint16, if no palette has more than 256 rows.

    Raises
    ------
    InputError
        If the packed copy is damaged.
    """
    packed.verify(labels=images)
    return join_words(
        packed.words, packed.spans[images], packed.layout.size[2:], numbers, primary, count, blocks, small=small
    )


def join_words(
    words: Array,
    spans: Array,
    size: tuple[int, int],
    numbers: Array,
    primary: Array,
    count: int,
    blocks: Array,
    *,
    small: bool = False,
) -> LabelBatch[Array]:
    """Join the labels of several images, given in the stored form of packed copies; see `Layout`.

    Parameters
    ----------
    words
        int32: the stored labels of at least these images, which must be possible.
    spans
        int64 [images, 4]: the position and the lengths of each image's labels in `words`.
    size
        The height and width of the labels (sh, sw).
    numbers, primary, count, blocks, small
        As in `join_packed`.
    """
    rows, entries = spans[:, 2], spans[:, 3]
    most = int(rows.max())
    dtype = np.uint32 if most > 1 << 16 else np.uint8 if small and most <= 1 << 8 else np.uint16
    codes = np.empty((len(spans), *size), dtype)
    starts, named = np.empty(rows.sum() + 1, np.int64), np.empty(entries.sum(), np.int32)
    pixels = np.zeros(rows.sum(), np.int64)
    _unpack(
        words, words.view(np.uint8), spans, rows.cumsum() - rows, entries.cumsum() - entries,
        codes.reshape(len(spans), -1), starts, named, pixels,
    )  # fmt: skip
    return _batch(codes, rows, starts, named, pixels, numbers, primary, count, blocks)


def _batch(
    codes: Array,
    rows: Array,
    starts: Array,
    named: Array,
    pixels: Array,
    numbers: Array,
    primary: Array,
    count: int,
    blocks: Array,
) -> LabelBatch[Array]:
    first_rows = (rows.cumsum() - rows).astype(np.int64)
    columns = np.searchsorted(numbers, named)
    entry_rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    categories = np.zeros((len(starts) - 1, count), np.bool_)
    categories[entry_rows, primary[columns]] = True
    present = np.logical_or.reduceat(categories, first_rows, axis=0)
    widest = np.array(rows.max(), np.int64)
    return LabelBatch(codes, first_rows, starts, columns, entry_rows, categories, present, pixels, blocks, widest)


@kernel
def _unpack(
    words: Array,
    content: Array,
    spans: Array,
    first_rows: Array,
    first_entries: Array,
    codes: Array,
    starts: Array,
    named: Array,
    pixels: Array,
) -> None:
    for i in range(len(spans)):
        first, _length, rows, entries = spans[i]
        for row in range(rows):
            starts[first_rows[i] + row] = first_entries[i] + words[first + row]
        for entry in range(entries):
            named[first_entries[i] + entry] = words[first + rows + 1 + entry]
        at = 4 * (first + rows + 1 + entries)
        for pixel in range(codes.shape[1]):
            if rows <= 256:
                code = np.uint32(content[at + pixel])
            elif rows <= 65536:
                code = content[at + 2 * pixel] | (np.uint32(content[at + 2 * pixel + 1]) << np.uint32(8))
            else:
                code = np.uint32(words[at // 4 + pixel])
            codes[i, pixel] = code
            pixels[first_rows[i] + code] += 1
    starts[len(starts) - 1] = len(named)
