"""The labels of a batch of images, with the palettes of all images in one array."""

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
    """The labels of some images, with their palettes one after the other; arrays, or tensors of one device."""

    codes: Any  # unsigned (uint8 or int32 on a device) [images, sh, sw]
    first_rows: Any  # int64 [images]: where an image's palette begins
    starts: Any  # int64 [rows + 1]: which entries a row has
    columns: Any  # int64 [entries]: a concept's position among the data set's concepts
    entry_rows: Any  # int64 [entries]: the row of each entry
    categories: Any  # bool [rows, categories]: the categories that have a label on such a pixel
    present: Any  # bool [images, categories]: the categories that have a label anywhere in the image
    pixels: Any  # int64 [rows]: how many pixels have such labels
    widest: Any  # int64 []: the most rows that a palette has; an array wherever the rest is

    def on(self, device: torch.device) -> LabelBatch:
        """Copy the labels to a device, unless they are there."""
        if isinstance(self.codes, Tensor):
            return self
        # torch has few operations for 16-bit unsigned integers.
        codes = self.codes if self.codes.dtype == np.uint8 else self.codes.astype(np.int32)
        arrays = self._replace(codes=codes)._asdict()
        del arrays["widest"]
        return self._replace(
            **{name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in arrays.items()}
        )

    def add_truth(self, blocks: Array, truth: Array) -> None:
        """Count each concept's pixels; the labels must be arrays.

        Parameters
        ----------
        blocks
            int64 [images]: to which block each belongs.
        truth
            int64 [blocks, concepts], added to.
        """
        rows = np.diff(self.first_rows, append=len(self.pixels))
        places = np.repeat(blocks, rows)[self.entry_rows] * truth.shape[1] + self.columns
        # Sums of integers below 2 ** 53 are exact in float64.
        counts = np.bincount(places, self.pixels[self.entry_rows], truth.size)
        truth += counts.astype(np.int64).reshape(truth.shape)


def join_labels(labels: Sequence[ImageLabels], numbers: Array, primary: Array, count: int) -> LabelBatch:
    """Put the palettes of several images one after the other.

    Parameters
    ----------
    labels
        Of each image.
    numbers
        The data set's concept numbers, ascending; a concept's column is its position here.
    primary
        int64 [concepts]: the position of each concept's primary category. A label makes its primary category present,
        whichever layer names it.
    count
        Number of categories.
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
    """Read the labels of several images from a packed copy, as `join_labels` puts them together.

    Parameters
    ----------
    packed
        The packed copy.
    images
        int64 [images]: whose labels.
    numbers, primary, count
        As in `join_labels`.
    small
        Whether codes are uint8 where that is enough, instead of uint16.

    Raises
    ------
    InputError
        The packed copy is damaged.
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
