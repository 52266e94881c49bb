"""Images and labels of a data set, decoded while the network computes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.tally import LabelBatch, join_labels

Array = np.ndarray[Any, Any]


class Batch(NamedTuple):
    """Some images in index order, with their labels."""

    first: int
    names: tuple[str, ...]
    images: Array | None  # uint8 [images, ih, iw, 3]
    labels: LabelBatch


def batches(concepts: ConceptData, size: int, places: range, *, with_images: bool = True) -> Iterator[Batch]:
    """Read a data set batch by batch, a few images ahead.

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
    """
    numbers = concepts.labels.index.to_numpy()
    primary = np.array([concepts.categories.index(name) for name in concepts.labels["category"]], np.int64)
    workers = os.cpu_count() or 1

    def read(i: int) -> tuple[Array | None, Any]:
        return (concepts.image(i) if with_images else None), concepts.image_labels(i)

    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[tuple[Array | None, Any]]] = deque()
        asked = places.start
        try:
            for first in range(places.start, places.stop, size):
                last = min(first + size, places.stop)
                while asked < min(last + size, places.stop):
                    pending.append(pool.submit(read, asked))
                    asked += 1
                read_ones = [pending.popleft().result() for _ in range(first, last)]
                images = np.stack([image for image, _ in read_ones if image is not None]) if with_images else None
                labels = join_labels([found for _, found in read_ones], numbers, primary, len(concepts.categories))
                yield Batch(first, concepts.names[first:last], images, labels)
        finally:
            pool.shutdown(cancel_futures=True)
