"""Labelled images that are given as arrays instead of files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from prunescope.concepts.pixels import ImageLabels, join_layers, palette
from prunescope.errors import InputError, nearest

MOST_NUMBER = 2**31 - 1
Item: TypeAlias = Any  # an integer array [sh, sw] of concept numbers, or one number for the whole image
Name: TypeAlias = str | tuple[str, str]


@dataclass(frozen=True, eq=False)
class ArrayConcepts:
    """Labelled images in memory, as `from_arrays` returns them; the members are those of `GroupedConcepts`."""

    root: str
    categories: tuple[str, ...]
    names: tuple[str, ...]
    image_size: tuple[int, int]
    label_size: tuple[int, int]
    labels: pd.DataFrame
    images: tuple[np.ndarray, ...]
    labels_of_images: tuple[ImageLabels, ...]
    labelled: np.ndarray

    @property
    def groups(self) -> np.ndarray:
        """A number of its own for each image, int64 [images], since no images belong together."""
        return np.arange(len(self.images))

    def __len__(self) -> int:
        return len(self.images)

    def image(self, i: int) -> np.ndarray:
        """Return image `i` in RGB, uint8 [ih, iw, 3]."""
        return self.images[i]

    def image_labels(self, i: int) -> ImageLabels:
        """Return the labels of image `i`."""
        return self.labels_of_images[i]


def from_arrays(
    pairs: Iterable[tuple[Any, Mapping[str, Any]]], *, names: Mapping[int, Name], root: str = "arrays"
) -> ArrayConcepts:
    """Make a data set of labelled images from arrays, to be dissected without writing files.

    Parameters
    ----------
    pairs
        The images, each with its labels. An image is a uint8 array [ih, iw, 3] in RGB; it is not copied. Its labels are
        a mapping from each category to an integer array [sh, sw] of concept numbers (0 where there is no concept), to
        one number for the whole image, or to a list of these. All images must have the same size, and so must all
        labels.
    names
        For each concept number, the name of the concept, or its name and primary category. By default, the primary
        category is the one in which the concept covers most pixels, and of equal ones the one that occurs first.
        Concepts that no image has are left out unless their category is given.
    root
        A name for the data set, which is used in messages and stored with results.

    Returns
    -------
    ArrayConcepts
        The data set. It gives the same results as the same images and labels in Broden's format.

    Raises
    ------
    InputError
        If there are no images, if an image or its labels have an unsupported form or another size, or if a number has
        no name.

    Examples
    --------
    >>> image, dog = np.zeros((4, 4, 3), np.uint8), np.array([[0, 1], [0, 1]])
    >>> data = from_arrays([(image, {"object": dog, "scene": 2})], names={1: "dog", 2: "park"})
    >>> data.labels["category"].tolist(), data.image_labels(0).numbers.tolist()
    (['object', 'scene'], [2, 1, 2])
    """
    _check_names(names)
    defined = np.array(sorted(names), np.int64)
    images: list[np.ndarray] = []
    read: list[dict[str, tuple[list[np.ndarray], list[int]]]] = []
    image_size: tuple[int, int] | None = None
    label_size: tuple[int, int] | None = None
    for i, pair in enumerate(pairs):
        image, given = _pair(pair, i)
        if image_size is not None and image.shape[:2] != image_size:
            raise InputError(
                f"image {i} is {list(image.shape)}, but the images before it are {[*image_size, 3]}; give images of "
                "one size"
            )
        image_size = (image.shape[0], image.shape[1])
        parts = {category: _items(items, f"image {i}, {category!r}", defined) for category, items in given.items()}
        for category, (layers, _) in parts.items():
            for layer in layers:
                label_size = label_size or (layer.shape[0], layer.shape[1])
                if layer.shape != label_size:
                    raise InputError(
                        f"image {i}, {category!r}: the labels are {list(layer.shape)}, but others are "
                        f"{list(label_size)}; give labels of one size"
                    )
        images.append(image)
        read.append(parts)
    if image_size is None:
        raise InputError("pairs is empty; give at least one image with its labels")
    size = label_size or image_size
    seen = [category for parts in read for category in parts]
    named = [name[1] for name in names.values() if not isinstance(name, str)]
    categories = tuple(dict.fromkeys([*seen, *named]))
    if not categories:
        raise InputError("no image has a category; give labels such as {'object': array} with the images")
    covered = {category: np.zeros(len(defined), np.int64) for category in categories}
    labels = []
    for parts in read:
        for category, (layers, everywhere) in parts.items():
            _count(_labels(layers, everywhere, size), defined, covered[category])
        every = [part for layers, _ in parts.values() for part in layers]
        labels.append(_labels(every, [number for _, numbers in parts.values() for number in numbers], size))
    return ArrayConcepts(
        root=root,
        categories=categories,
        names=tuple(f"image {i}" for i in range(len(images))),
        image_size=image_size,
        label_size=size,
        labels=_table(names, defined, covered),
        images=tuple(images),
        labels_of_images=tuple(labels),
        labelled=np.array([[_has(parts.get(category)) for category in categories] for parts in read], np.bool_),
    )


def _check_names(names: Mapping[int, Name]) -> None:
    for number, name in names.items():
        if isinstance(number, bool) or not isinstance(number, int | np.integer) or not 1 <= number <= MOST_NUMBER:
            raise InputError(f"names: {number!r} is not a concept's number; expected a whole number from 1")
        parts = (name,) if isinstance(name, str) else name
        fine = isinstance(parts, tuple) and len(parts) in (1, 2) and all(isinstance(p, str) and p for p in parts)
        if not fine:
            raise InputError(f"names: concept {number} is called {name!r}; expected a name, or (name, category)")


def _pair(pair: Any, i: int) -> tuple[np.ndarray, Mapping[str, Any]]:
    if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[1], Mapping):
        raise InputError(f"pair {i} is a {type(pair).__name__}; expected (image, {{category: labels}})")
    image = np.asarray(pair[0])
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"image {i} is {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3] in RGB")
    for category in pair[1]:
        if not isinstance(category, str) or not category:
            raise InputError(f"image {i}: the category is {category!r}; expected a name such as 'object'")
    return image, pair[1]


def _items(given: Any, where: str, defined: np.ndarray) -> tuple[list[np.ndarray], list[int]]:
    """Return the arrays and the image-level numbers of one category of one image."""
    layers: list[np.ndarray] = []
    everywhere: list[int] = []
    items: Sequence[Item] = given if isinstance(given, list | tuple) else [given]
    for item in items:
        array = np.asarray(item) if not isinstance(item, list | tuple) else np.empty(0)
        if array.dtype.kind not in "iu" or array.ndim not in (0, 2) or 0 in array.shape:
            raise InputError(
                f"{where}: the labels are {array.dtype} {list(array.shape)}; expected an integer array [height, "
                "width] of concept numbers, one number for the whole image, or a list of these"
            )
        distinct = np.unique(array)
        if len(unknown := distinct[(distinct != 0) & ~np.isin(distinct, defined)]):
            raise InputError(
                f"{where}: concept {unknown[0]} is not in names; {nearest(str(unknown[0]), map(str, defined))}"
            )
        if array.ndim:
            layers.append(array.astype(np.uint32))
        else:
            everywhere.append(int(array))
    return layers, everywhere


def _has(part: tuple[list[np.ndarray], list[int]] | None) -> bool:
    """Return whether an image has labels of a category; an array counts as labels even if all of it is 0."""
    return part is not None and (bool(part[0]) or any(part[1]))


def _labels(layers: Sequence[np.ndarray], everywhere: Sequence[int], size: tuple[int, int]) -> ImageLabels:
    return join_layers(*palette(layers, size), everywhere)


def _count(labels: ImageLabels, defined: np.ndarray, covered: np.ndarray) -> None:
    """Add the number of pixels of each concept to `covered`."""
    pixels = np.bincount(labels.codes.ravel(), minlength=len(labels.starts) - 1)
    np.add.at(covered, np.searchsorted(defined, labels.numbers), np.repeat(pixels, np.diff(labels.starts)))


def _table(names: Mapping[int, Name], defined: np.ndarray, covered: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Return the concepts as `Concepts.labels` describes them."""
    rows: dict[int, tuple[str, str]] = {}
    for at, number in enumerate(defined.tolist()):
        name = names[number]
        most = max(covered, key=lambda category: int(covered[category][at]))
        if not isinstance(name, str):
            rows[number] = name
        elif covered[most][at]:
            rows[number] = (name, most)
    table = pd.DataFrame(list(rows.values()), columns=["name", "category"], dtype=object)
    return table.set_index(pd.Index(list(rows), name="number", dtype="int64"))
