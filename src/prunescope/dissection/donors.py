"""Read the labels of donors, the images whose labels are given to other images (permuted labels)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from prunescope.arrays import Array, Values
from prunescope.concepts.packed_file import pack_labels
from prunescope.concepts.protocol import Concepts, PackedConcepts, primary_categories
from prunescope.dissection.backend import Backend
from prunescope.dissection.batches import check_labels
from prunescope.dissection.labels import DonorBatch, LabelBatch, join_packed, join_words

_PIXELS = 1 << 22  # The label pixels of donors that are held at once, which take a few bytes each.
_AHEAD = 256


class DonorLabels:
    """Reads the labels of donors in the order in which they are needed, from a packed copy if there is one.

    Without a packed copy, the labels of all images are decoded when the first donor is needed, and are stored in a
    temporary file.

    Parameters
    ----------
    concepts
        The data set.
    donors
        int64 [permutations, images]: the donors; see `arrange`.
    """

    def __init__(self, concepts: Concepts, donors: Array) -> None:
        self._concepts, self._donors = concepts, donors
        self._numbers = concepts.labels.index.to_numpy()
        self._primary = primary_categories(concepts.labels, concepts.categories)
        self._decoded: tuple[Array, Array] | None = None

    def parts(
        self, first: int, count: int, backend: Backend[Values]
    ) -> Iterator[tuple[slice | None, DonorBatch[Values] | None]]:
        """Divide a batch of consecutive images, and yield the donors of each part.

        Parameters
        ----------
        first, count
            The index of the batch's first image in the data set, and the number of its images.
        backend
            Converts the labels.

        Yields
        ------
        images : slice or None
            The images of a part, as indices in the batch; None for all of them.
        donors : DonorBatch or None
            The donors of these images; None if there are no permutations.
        """
        if not len(self._donors):
            yield None, None
            return
        sh, sw = self._concepts.label_size
        size = max(1, _PIXELS // (len(self._donors) * sh * sw))
        for start in range(0, count, size):
            images = slice(start, min(start + size, count))
            own = self._donors[:, first + images.start : first + images.stop]
            rows, columns = np.nonzero(own >= 0)
            if not len(rows):
                yield images, None
                continue
            at = np.full((len(own), count), -1)
            at[rows, images.start + columns] = np.arange(len(rows))
            labels = backend.labels(self._read(own[rows, columns]))
            yield images, DonorBatch(labels, backend.array(at))

    def _read(self, images: Array) -> LabelBatch[Array]:
        categories, block = len(self._concepts.categories), np.zeros(len(images), np.int64)
        if isinstance(self._concepts, PackedConcepts) and self._concepts.packed is not None:
            rows = self._concepts.labels_from[images]
            return join_packed(self._concepts.packed, rows, self._numbers, self._primary, categories, block)
        if self._decoded is None:
            self._decoded = self._decode()
        words, spans = self._decoded
        size = self._concepts.label_size
        return join_words(words, spans[images], size, self._numbers, self._primary, categories, block)

    def _decode(self) -> tuple[Array, Array]:
        """Decode the labels of all images, and return them as in a packed copy: the words and the spans."""
        spans, words = np.empty((len(self._concepts), 4), np.int64), 0
        with tempfile.TemporaryFile() as file, ThreadPoolExecutor(os.cpu_count()) as pool:
            for first in range(0, len(spans), _AHEAD):
                images = range(first, min(first + _AHEAD, len(spans)))
                for i, (record, lengths) in zip(images, pool.map(self._pack, images), strict=True):
                    file.write(record)
                    spans[i] = (words, *lengths)
                    words += lengths[0]
            file.flush()
            # The memory map keeps the content of the file after it is closed.
            return np.asarray(np.memmap(file, "<i4", "r")), spans

    def _pack(self, i: int) -> tuple[bytes, tuple[int, int, int]]:
        labels = self._concepts.image_labels(i)
        check_labels(self._concepts, i, labels)
        return pack_labels(labels)
