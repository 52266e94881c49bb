"""Read the images and labels of a data set in batches, decoded in the background while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.labels import LabelBatch, join_labels, join_packed


class Batch(NamedTuple):
    """A batch of consecutive images of the data set, with their labels."""

    first: int  # index of the batch's first image in the data set
    names: tuple[str, ...]
    images: Tensor | None  # uint8 [images, ih, iw, 3]
    labels: LabelBatch


def batches(
    concepts: ConceptData, size: int, places: range, *, with_images: bool = True, pinned: bool = False
) -> Iterator[Batch]:
    """Iterate over a data set in batches, which are read in the background before they are needed.

    Parameters
    ----------
    concepts
        The data set.
    size
        The number of images in a batch. The last batch may be smaller.
    places
        The indices of the images to read; they must be consecutive.
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
    with _Reader(concepts, with_images, pinned) as reader:
        for first in range(places.start, places.stop, size):
            coming.append(reader.read(range(first, min(first + size, places.stop))))
            if len(coming) > reader.ahead:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


class _Reader(AbstractContextManager["_Reader"]):
    """Reads batches in threads: whole batches from a packed copy, or single images from files."""

    def __init__(self, concepts: ConceptData, with_images: bool, pinned: bool) -> None:
        self._concepts, self._with_images, self._pinned = concepts, with_images, pinned
        self._numbers = concepts.labels.index.to_numpy()
        self._primary = np.array([concepts.categories.index(name) for name in concepts.labels["category"]], np.int64)
        threads = os.cpu_count() or 1
        self.ahead = 1 if concepts.packed is None else min(threads, 4)
        self._readers = ThreadPoolExecutor(threads)
        self._last = ThreadPoolExecutor(self.ahead)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._readers.shutdown(cancel_futures=True)
        self._last.shutdown(cancel_futures=True)

    def read(self, places: range) -> Future[Batch]:
        """Start to read the images at these consecutive indices."""
        if self._concepts.packed is not None:
            return self._last.submit(self._from_packed, places)
        reading = [self._readers.submit(self._one, i) for i in places]
        return self._last.submit(self._from_files, places, reading)

    def _one(self, i: int) -> tuple[Any, Any]:
        return (self._concepts.image(i) if self._with_images else None), self._concepts.image_labels(i)

    def _from_files(self, places: range, reading: list[Future[tuple[Any, Any]]]) -> Batch:
        found = [one.result() for one in reading]
        labels = join_labels(
            [label for _, label in found], self._numbers, self._primary, len(self._concepts.categories)
        )
        return self._batch(places, labels, lambda out: np.stack([image for image, _ in found], out=out))

    def _from_packed(self, places: range) -> Batch:
        packed = self._concepts.packed
        assert packed is not None
        labels = join_packed(
            packed,
            self._concepts.labels_from[places.start : places.stop],
            self._numbers,
            self._primary,
            len(self._concepts.categories),
            small=self._pinned,
        )

        def fill(out: np.ndarray) -> None:
            packed.verify(images=places)
            np.copyto(out, packed.images[places.start : places.stop])

        return self._batch(places, labels, fill)

    def _batch(self, places: range, labels: LabelBatch, fill: Callable[[np.ndarray], object]) -> Batch:
        images = None
        if self._with_images:
            shape = (len(places), *self._concepts.image_size, 3)
            images = torch.empty(shape, dtype=torch.uint8, pin_memory=self._pinned)
            fill(images.numpy())
        return Batch(places.start, self._concepts.names[places.start : places.stop], images, labels)
