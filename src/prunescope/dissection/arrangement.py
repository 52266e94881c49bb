"""Assign the images of a data set to blocks, and choose the images whose labels serve as permuted labels.

Both need images that are alike: images are grouped by the set of categories that have labels in them, and each group is
shuffled. Images that belong together, such as frames of one film, stay together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunescope.arrays import Array
from prunescope.concepts.protocol import Concepts, GroupedConcepts

BLOCKS = 32


@dataclass(frozen=True)
class Arrangement:
    """The blocks and the donors of the images of a data set."""

    blocks: Array  # int64 [images]: the block that each image belongs to
    donors: Array  # int64 [permutations, images]: the image whose labels each image gets, or -1 if there is none

    @property
    def left_out(self) -> Array:
        """The number of images without a donor in each permutation, int64 [permutations]."""
        missing: Array = (self.donors < 0).sum(axis=1)
        return missing

    @property
    def lent(self) -> Array:
        """Whether each image is a donor, bool [permutations, images]."""
        lent = np.zeros(self.donors.shape, np.bool_)
        rows, images = np.nonzero(self.donors >= 0)
        lent[rows, self.donors[rows, images]] = True
        return lent

    @property
    def count(self) -> int:
        """The number of blocks."""
        return int(self.blocks.max()) + 1


def arrange(concepts: Concepts, permutations: int = 0, seed: int = 0) -> Arrangement:
    """Assign images to blocks, and choose donors for permuted labels.

    Images are grouped by the set of categories that have labels in them. Each group is shuffled and assigned to the
    blocks in rotation, and the next group continues where the last one stopped, so that every block is a small sample
    of the whole data set. Images that belong together (the column `group` of index.csv) are assigned to one block, and
    their categories are those that any of them has.

    In permutation r, the donor of an image is the image that follows s_r places later in the image's shuffled group,
    cyclically, with different random s_r. Images that belong together are not donors of each other.

    Parameters
    ----------
    concepts
        The data set. If it does not tell the categories of its images in advance, as `GroupedConcepts` does, all images
        are in one group.
    permutations
        The number of permutations. If even the largest group has too few images for so many different donors, there
        are fewer.
    seed
        The seed of the shuffles. The default is used for all dissections, so that the blocks of a data set are always
        the same and the dissections of several networks can be resampled together.

    Returns
    -------
    Arrangement
        The blocks, at most 32, and the donors.
    """
    count = len(concepts)
    random = np.random.default_rng(seed)
    categories, together = np.zeros(count, np.int64), np.arange(count)
    if isinstance(concepts, GroupedConcepts):
        _, together = np.unique(concepts.groups, return_inverse=True)
        sets = np.zeros((int(together.max()) + 1, len(concepts.categories)), np.bool_)
        np.logical_or.at(sets, together, concepts.labelled)
        categories = np.unique(sets, axis=0, return_inverse=True)[1].reshape(-1)[together]
    blocks, donors = np.empty(count, np.int64), np.full((permutations, count), -1)
    number = min(BLOCKS, len(np.unique(together)))
    first = 0
    for kind in np.unique(categories):
        images = np.flatnonzero(categories == kind)
        _, own = np.unique(together[images], return_inverse=True)
        place = random.permutation(int(own.max()) + 1)[own]
        order = np.argsort(place, kind="stable")
        images, place = images[order], place[order]
        blocks[images] = (first + place) % number
        first += int(place[-1]) + 1
        shifts = _shifts(np.bincount(place), permutations, random)
        for row, shift in enumerate(shifts):
            donors[row, images] = np.where(np.roll(place, -shift) == place, -1, np.roll(images, -shift))
    return Arrangement(blocks, donors[(donors >= 0).any(axis=1)])


def _shifts(sizes: Array, permutations: int, random: np.random.Generator) -> Array:
    """Draw different shifts of a shuffled group, first those that leave the fewest images without a donor.

    Parameters
    ----------
    sizes
        int64 [sets]: the sizes of the sets of images that belong together, which follow each other in the group.
    permutations
        The number of shifts to draw at most.
    random
        The generator to draw with.
    """
    count = int(sizes.sum())
    shifts = 1 + random.permutation(count - 1)
    # Of a set of m images, m - s have a donor in the same set for a shift s < m, in either direction of the cycle.
    larger = (np.bincount(sizes, minlength=count + 1)[::-1].cumsum()[::-1])[1:]
    inside = np.append(larger[::-1].cumsum()[::-1], 0)
    lost = inside[shifts] + inside[count - shifts]
    return shifts[np.argsort(lost, kind="stable")][:permutations]
