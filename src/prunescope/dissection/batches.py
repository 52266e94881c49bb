"""Read the images and labels of a data set in batches, decoded in the background while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prunescope.arrays import Array
from prunescope.concepts.packed_file import PackedFile
from prunescope.concepts.pixels import ImageLabels
from prunescope.concepts.protocol import Concepts, PackedConcepts, primary_categories
from prunescope.dissection.labels import LabelBatch, join_labels, join_packed
from prunescope.errors import InputError

_Read = tuple[NDArray[np.uint8] | None, ImageLabels]


class Batch(NamedTuple):
    """A batch of consecutive images of the data set, with their labels."""

    first: int  # index of the batch's first image in the data set
    names: tuple[str, ...]
    images: Tensor | None  # uint8 [images, ih, iw, 3]
    labels: LabelBatch[Array]


def batches(
    concepts: Concepts,
    size: int,
    indices: range,
    blocks: Array | None = None,
    *,
    with_images: bool = True,
    pinned: bool = False,
) -> Iterator[Batch]:
    """Iterate over a data set in batches, which are read in the background before they are needed.

    Parameters
    ----------
    concepts
        The data set.
    size
        The number of images in a batch. The last batch may be smaller.
    indices
        The indices of the images to read; they must be consecutive.
    blocks
        int64 [images of the data set]: the block of images that each image belongs to; by default, all belong to one.
    with_images
        If False, only the labels are read.
    pinned
        Whether the batches will be copied to a GPU. If True, the images are in page-locked memory and the codes of a
        packed data set have the smallest sufficient type.

    Yields
    ------
    Batch
        The next images and their labels, in index order.
    """
    coming: deque[Future[Batch]] = deque()
    with _Reader(concepts, blocks, with_images, pinned) as reader:
        for first in range(indices.start, indices.stop, size):
            coming.append(reader.read(range(first, min(first + size, indices.stop))))
            if len(coming) > reader.ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class _Reader(AbstractContextManager["_Reader"]):
    """Reads batches in threads: whole batches from a packed copy, or single images from files."""

    def __init__(self, concepts: Concepts, blocks: Array | None, with_images: bool, pinned: bool) -> None:
        self._concepts, self._with_images, self._pinned = concepts, with_images, pinned
        self._blocks = np.zeros(len(concepts), np.int64) if blocks is None else blocks
        self._numbers = concepts.labels.index.to_numpy()
        self._primary = primary_categories(concepts.labels, concepts.categories)
        threads = os.cpu_count() or 1
        self._packed: PackedFile | None = None
        if isinstance(concepts, PackedConcepts):
            self._packed = concepts.packed
            self._images_from, self._labels_from = concepts.images_from, concepts.labels_from
        self.ahead = 1 if self._packed is None else min(threads, 4)
        self._readers = ThreadPoolExecutor(threads)
        self._last = ThreadPoolExecutor(self.ahead)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._last.shutdown(cancel_futures=True)

    def read(self, indices: range) -> Future[Batch]:
        """Start to read the images at these consecutive indices."""
        if self._packed is not None:
            return self._last.submit(self._from_packed, self._packed, indices)
        reading = [self._readers.submit(self._one, i) for i in indices]
        return self._last.submit(self._from_files, indices, reading)

    def _one(self, i: int) -> _Read:
        labels = self._concepts.image_labels(i)
        if not isinstance(self._concepts, PackedConcepts):
            check_labels(self._concepts, i, labels)
        return (self._concepts.image(i) if self._with_images else None), labels

    def _from_files(self, indices: range, reading: list[Future[_Read]]) -> Batch:
        found = [one.result() for one in reading]
        labels = join_labels(
            [label for _, label in found],
            self._numbers,
            self._primary,
            len(self._concepts.categories),
            self._blocks[indices.start : indices.stop],
        )
        images = [image for image, _ in found if image is not None]
        return self._batch(indices, labels, lambda out: np.stack(images, out=out))

    def _from_packed(self, packed: PackedFile, indices: range) -> Batch:
        labels = join_packed(
            packed,
            self._labels_from[indices.start : indices.stop],
            self._numbers,
            self._primary,
            len(self._concepts.categories),
            self._blocks[indices.start : indices.stop],
            small=self._pinned,
        )

        def fill(out: NDArray[np.uint8]) -> None:
            rows = self._images_from[indices.start : indices.stop]
            packed.verify(images=rows)
            if rows[-1] - rows[0] == len(rows) - 1:
                np.copyto(out, packed.images[rows[0] : rows[-1] + 1])
            else:
                np.take(packed.images, rows, axis=0, out=out)

        return self._batch(indices, labels, fill)

    def _batch(self, indices: range, labels: LabelBatch[Array], fill: Callable[[NDArray[np.uint8]], object]) -> Batch:
        images = None
        if self._with_images:
            shape = (len(indices), *self._concepts.image_size, 3)
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
            fill(images.numpy())
        return Batch(indices.start, tuple(self._concepts.names[indices.start : indices.stop]), images, labels)


def check_labels(concepts: Concepts, i: int, labels: ImageLabels) -> None:
    """Check the labels of image `i`, since compiled code uses them as indices without checks.

    Raises
    ------
    InputError
        If the labels are impossible.
    """
    codes, starts, numbers = labels.codes, labels.starts, labels.numbers
    size, rows = concepts.label_size, len(starts) - 1
    ascend = len(starts) > 0 and starts[0] == 0 and starts[-1] == len(numbers) and bool((np.diff(starts) >= 0).all())
    for fine, expected in (
        (codes.shape == size and codes.dtype.kind == "u", f"codes must be unsigned integers {list(size)}"),
        (rows > 0 and int(codes.max(initial=0)) < rows, f"codes must be below the number of rows, {rows}"),
        (ascend, f"starts must ascend from 0 to the number of concepts listed, {len(numbers)}"),
        (
            bool(np.isin(numbers, concepts.labels.index).all()),
            "numbers must be in the index of the data set's `labels`",
        ),
    ):
        if not fine:
            raise InputError(f"{concepts.root}: the labels of image {concepts.names[i]} are not possible: {expected}")
