"""Draw a sample of a data set's images, for a quick look."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunescope.bounds import MOST_SEED, check_count
from prunescope.concepts.broden import ConceptData, Sample, as_concepts, open_concepts
from prunescope.concepts.protocol import Concepts
from prunescope.errors import InputError


def sample_concepts(data: ConceptData | str | Path, images: int | None, seed: int = 0) -> ConceptData:
    """Return a data set with a stratified random sample of the images.

    Images are grouped by the set of categories that they have labels of. The sample has images of each group in
    proportion to its size: each group gets the whole part of its share, and the images that are left over go to the
    groups with the largest remainders. Within a group, images are drawn without replacement. They stay in the order of
    the index.

    Parameters
    ----------
    data : ConceptData or path
        The data set.
    images : int or None
        The number of images of the sample, from 1 to that of the data set. If it is that of the data set, or None, the
        data set itself is returned.
    seed : int
        The seed of the draw.

    Returns
    -------
    ConceptData
        The sample, whose attribute `sample` states the seed and the number of images that it was drawn from.

    Raises
    ------
    InputError
        If there is no such data set, or if `images` is out of range.
    """
    if not isinstance(data, ConceptData):
        data = open_concepts(data)
    if images is None:
        return data
    check_count("images", images, 1, len(data), "the size of the sample")
    check_count("seed", seed, 0, MOST_SEED, "the seed of the sample")
    if images == len(data):
        return data
    if data.sample is not None:
        raise InputError(f"{data.root}: this is a sample already; draw one from the whole data set")
    strata = _strata(data)
    counts = np.bincount(strata)
    share = counts * images / len(data)
    drawn = np.floor(share).astype(np.int64)
    largest = np.argsort(-(share - drawn), kind="stable")
    drawn[largest[: images - drawn.sum()]] += 1
    generator = np.random.default_rng(seed)
    chosen = np.sort(
        np.concatenate(
            [
                generator.choice(np.flatnonzero(strata == stratum), count, replace=False)
                for stratum, count in enumerate(drawn)
            ]
        )
    )
    return dataclasses.replace(
        data,
        names=tuple(data.names[i] for i in chosen),
        splits=tuple(data.splits[i] for i in chosen),
        images_from=data.images_from[chosen],
        labels_from=data.labels_from[chosen],
        sample=Sample(len(data), seed),
    )


def as_sample(given: Concepts | str | Path, images: int | None) -> Concepts:
    """Return an open data set, or a sample of `images` of its images, drawn with seed 0, if `images` is given.

    Raises
    ------
    InputError
        If a sample of a user's own object is requested, which has no index to draw from.
    """
    data = as_concepts(given)
    if isinstance(data, ConceptData):
        return sample_concepts(data, images)
    if images is not None:
        raise InputError(
            f"images={images}: samples are drawn from data sets in Broden's format, and {data.root} is an object of "
            f"{type(data).__name__}; give an object with fewer images"
        )
    return data


def _strata(data: ConceptData) -> NDArray[np.int64]:
    """Return the group of each image, in the order in which groups first occur."""
    present = [tuple(bool(cell) for cell in data.rows[i].cells) for i in data.labels_from]
    groups = {group: number for number, group in enumerate(dict.fromkeys(present))}
    return np.array([groups[group] for group in present], np.int64)
