"""The labels of a batch of images, laid end to end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from prunescope.concepts.pixels import ImageLabels

Array = np.ndarray[Any, Any]


class LabelBatch(NamedTuple):
    """The labels of some images, their palettes laid end to end; arrays, or tensors of one device."""

    codes: Any  # unsigned (int32 on a device) [images, sh, sw]
    first_rows: Any  # int64 [images]: where an image's palette begins
    starts: Any  # int64 [rows + 1]
    columns: Any  # int64: a concept's place among the data set's concepts
    categories: Any  # bool [rows, categories]: the categories that have a label on such a pixel
    present: Any  # bool [images, categories]: the categories that have a label anywhere in the image
    pixels: Any  # int64 [rows]: how many pixels have such labels

    def on(self, device: torch.device) -> LabelBatch:
        """Bring the labels to a device."""
        arrays = (self.codes.astype(np.int32), *self[1:])
        return LabelBatch(*(torch.from_numpy(array).to(device, non_blocking=True) for array in arrays))

    def add_truth(self, blocks: Array, truth: Array) -> None:
        """Count each concept's pixels.

        Parameters
        ----------
        blocks
            int64 [images]: to which block each belongs.
        truth
            int64 [blocks, concepts], added to.
        """
        rows = np.repeat(np.arange(len(self.pixels)), np.diff(self.starts))
        images = np.searchsorted(self.first_rows, rows, side="right") - 1
        np.add.at(truth, (blocks[images], self.columns), self.pixels[rows])


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
    pixels = [np.bincount(image.codes.reshape(-1), minlength=len(image.starts) - 1) for image in labels]
    return LabelBatch(
        codes=np.stack([image.codes for image in labels]).astype(widest, copy=False),
        first_rows=first_rows[:-1],
        starts=spans,
        columns=columns,
        categories=categories,
        present=np.logical_or.reduceat(categories, first_rows[:-1], axis=0),
        pixels=np.concatenate(pixels),
    )
