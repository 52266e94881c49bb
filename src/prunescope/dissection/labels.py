"""Labels of a batch of images, with the palettes of all images concatenated in one array.

An image's palette lists the sets of concepts that its pixels have, one set per row. The entries of a row are its
concepts, and a pixel's code is the index of its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunescope.concepts.packed_file import PackedFile
from prunescope.concepts.pixels import ImageLabels
from prunescope.dissection.kernels import kernel

Array = np.ndarray[Any, Any]


class LabelBatch(NamedTuple):
    """Labels of some images, with concatenated palettes, as NumPy arrays or as tensors on one device."""

    codes: Any  # unsigned integers (on a device uint8 or int32) [images, sh, sw]: row in the image's palette
    first_rows: Any  # int64 [images]: index of the first row of each image's palette
    starts: Any  # int64 [rows + 1]: row r has the entries starts[r] to starts[r + 1] - 1
    columns: Any  # int64 [entries]: index of the entry's concept among the data set's concepts
    entry_rows: Any  # int64 [entries]: the row of each entry
    categories: Any  # bool [rows, categories]: the primary categories of the row's concepts
    present: Any  # bool [images, categories]: the categories that have a label anywhere in the image
    pixels: Any  # int64 [rows]: number of pixels that have the row's code
    widest: Any  # int64 []: number of rows of the largest palette; always a NumPy array

    def on(self, device: torch.device) -> LabelBatch:
        """Return the labels as tensors on a device; return them unchanged if they are tensors already."""
        if isinstance(self.codes, Tensor):
            return self
        # PyTorch supports few operations on 16-bit unsigned integers.
        codes = self.codes if self.codes.dtype == np.uint8 else self.codes.astype(np.int32)
        arrays = self._replace(codes=codes)._asdict()
        del arrays["widest"]
        return self._replace(
            **{name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
        )

    def add_truth(self, blocks: Array, truth: Array) -> None:
        """Add the number of labelled pixels of each concept to `truth`, in place.

        The labels must be NumPy arrays.

        Parameters
        ----------
        blocks
            int64 [images]: the block that each image belongs to.
        truth
            int64 [blocks, concepts]: the pixel counts to add to.
        """
        rows = np.diff(self.first_rows, append=len(self.pixels))
        places = np.repeat(blocks, rows)[self.entry_rows] * truth.shape[1] + self.columns
        # bincount adds float64 weights, which is exact for integer sums below 2 ** 53.
        counts = np.bincount(places, self.pixels[self.entry_rows], truth.size)
        truth += counts.astype(np.int64).reshape(truth.shape)


def join_labels(labels: Sequence[ImageLabels], numbers: Array, primary: Array, count: int) -> LabelBatch:
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
    )


def join_packed(
    packed: PackedFile, images: Array, numbers: Array, primary: Array, count: int, *, small: bool = False
) -> LabelBatch:
    """Read the labels of several images from a packed copy in one batch, as `join_labels` returns it.

    Parameters
    ----------
    packed
        The packed copy.
    images
        int64 [images]: the indices of the images in the packed copy.
    numbers, primary, count
        As in `join_labels`.
    small
        Whether to use uint8 codes, instead of uint16, if no palette has more than 256 rows.

    Raises
    ------
    InputError
        If the packed copy is damaged.
    """
    packed.verify(labels=images)
    spans = packed.spans[images]
    rows, entries = spans[:, 2], spans[:, 3]
    most = int(rows.max())
    dtype = np.uint32 if most > 1 << 16 else np.uint8 if small and most <= 1 << 8 else np.uint16
    sh, sw = packed.layout.size.sh, packed.layout.size.sw
    codes = np.empty((len(images), sh, sw), dtype)
    starts, named = np.empty(rows.sum() + 1, np.int64), np.empty(entries.sum(), np.int32)
    pixels = np.zeros(rows.sum(), np.int64)
    _unpack(
        packed.words, packed.words.view(np.uint8), spans, rows.cumsum() - rows, entries.cumsum() - entries,
        codes.reshape(len(images), -1), starts, named, pixels,
    )  # fmt: skip
    return _batch(codes, rows, starts, named, pixels, numbers, primary, count)


def _batch(
    codes: Array, rows: Array, starts: Array, named: Array, pixels: Array, numbers: Array, primary: Array, count: int
) -> LabelBatch:
    first_rows = (rows.cumsum() - rows).astype(np.int64)
    columns = np.searchsorted(numbers, named)
    entry_rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    categories = np.zeros((len(starts) - 1, count), np.bool_)
    categories[entry_rows, primary[columns]] = True
    present = np.logical_or.reduceat(categories, first_rows, axis=0)
    widest = np.array(rows.max(), np.int64)
    return LabelBatch(codes, first_rows, starts, columns, entry_rows, categories, present, pixels, widest)


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
        for place in range(codes.shape[1]):
            if rows <= 256:
                code = np.uint32(content[at + place])
            elif rows <= 65536:
                code = content[at + 2 * place] | (np.uint32(content[at + 2 * place + 1]) << np.uint32(8))
            else:
                code = np.uint32(words[at // 4 + place])
            codes[i, place] = code
            pixels[first_rows[i] + code] += 1
    starts[len(starts) - 1] = len(named)
