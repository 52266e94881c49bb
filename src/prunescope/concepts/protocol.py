"""The interface of a data set of labelled images, whatever its format, for dissection and reports."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.concepts.packed_file import PackedFile
from prunescope.concepts.pixels import ImageLabels


class Concepts(Protocol):
    """A data set of images with labelled concepts.

    Any object with these members can be given wherever labelled images are expected, for example to
    `prunescope.dissect`; `ConceptData` is the one for data in Broden's format. Images and labels are read from several
    threads.
    """

    @property
    def root(self) -> Path | str:
        """The folder of the data set, or a name for it. It is used in messages, and is stored with the results."""

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of concepts, such as color and object."""

    @property
    def names(self) -> Sequence[str]:
        """A name for each image, for messages."""

    @property
    def image_size(self) -> tuple[int, int]:
        """The height and width of the images (ih, iw), in pixels."""

    @property
    def label_size(self) -> tuple[int, int]:
        """The height and width of the labels (sh, sw), in pixels."""

    @property
    def labels(self) -> pd.DataFrame:
        """The concepts, in ascending order of their numbers, which are the index.

        The columns are `name` and `category`, the concept's primary category, which is one of `categories`.
        """

    def __len__(self) -> int:
        """Return the number of images."""

    def image(self, i: int) -> NDArray[np.uint8]:
        """Return image `i` in RGB, uint8 [ih, iw, 3]."""

    def image_labels(self, i: int) -> ImageLabels:
        """Return the labels of image `i`."""


def primary_categories(labels: pd.DataFrame, categories: Sequence[str]) -> NDArray[np.int64]:
    """Return the index of each concept's primary category, int64 [concepts], in the order of the rows of `labels`.

    Parameters
    ----------
    labels
        The concepts of a data set; see `Concepts.labels`.
    categories
        Its categories.
    """
    return np.array([categories.index(name) for name in labels["category"]], np.int64)


@runtime_checkable
class GroupedConcepts(Concepts, Protocol):
    """A data set that tells which of its images are alike before their labels are read.

    Dissection uses this to divide the images into blocks that are alike, and to choose images with similar labels for
    permuted labels. For a data set without these members, any image may take the place of any other.
    """

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Whether each image has labels of each category, [images, categories]."""

    @property
    def groups(self) -> NDArray[np.int64]:
        """The group of each image, [images]. Images of one group belong together, such as frames of one film."""


@runtime_checkable
class PackedConcepts(Concepts, Protocol):
    """A data set that may have a packed copy, from which batches of images are read faster than one by one."""

    @property
    def packed(self) -> PackedFile | None:
        """The packed copy, or None if there is none."""

    @property
    def images_from(self) -> NDArray[np.int64]:
        """For each image, its index in the packed copy."""

    @property
    def labels_from(self) -> NDArray[np.int64]:
        """For each image, the index of the image in the packed copy that provides its labels."""
