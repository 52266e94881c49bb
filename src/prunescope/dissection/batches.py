"""Images and labels of a data set, decoded while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.labels import LabelBatch, join_labels


class Batch(NamedTuple):
    """Some images in index order, with their labels."""

    first: int
    names: tuple[str, ...]
    images: Tensor | None  # uint8 [images, ih, iw, 3]
    labels: LabelBatch


def batches(
    concepts: ConceptData, size: int, places: range, *, with_images: bool = True, pinned: bool = False
) -> Iterator[Batch]:
    """Read a data set batch by batch, a batch ahead.

    Parameters
    ----------
    concepts
        The data set.
    size
        Images in a batch; the last may have fewer.
    places
        Which images: consecutive ones.
    with_images
        False reads the labels only.
    pinned
        Whether images lie in memory from which a GPU takes them while the program goes on.
    """
    numbers = concepts.labels.index.to_numpy()
    primary = np.array([concepts.categories.index(name) for name in concepts.labels["category"]], np.int64)

    def read(i: int) -> tuple[Any, Any]:
        return (concepts.image(i) if with_images else None), concepts.image_labels(i)

    def put_together(first: int, reading: list[Future[tuple[Any, Any]]]) -> Batch:
        found = [one.result() for one in reading]
        images = None
        if with_images:
            images = torch.empty((len(found), *concepts.image_size, 3), dtype=torch.uint8, pin_memory=pinned)
            np.stack([image for image, _ in found], out=images.numpy())
        labels = join_labels([label for _, label in found], numbers, primary, len(concepts.categories))
        return Batch(first, concepts.names[first : first + len(found)], images, labels)

    coming: deque[Future[Batch]] = deque()
    with ThreadPoolExecutor(os.cpu_count() or 1) as readers, ThreadPoolExecutor(1) as last:
        try:
            for first in range(places.start, places.stop, size):
                reading = [readers.submit(read, i) for i in range(first, min(first + size, places.stop))]
                coming.append(last.submit(put_together, first, reading))
                if len(coming) > 1:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            readers.shutdown(cancel_futures=True)
            last.shutdown(cancel_futures=True)
