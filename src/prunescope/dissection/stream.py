"""One layer's maps as they come: thresholds, the maps that may pass them, the most exciting images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.examples import Examples
from prunescope.dissection.masks import Stretch, anchored_axis, stretch_axis
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import pair_scores, summarise, tally_arrays, unit_scores
from prunescope.dissection.share import Share
from prunescope.dissection.spool import Record, Spill
from prunescope.dissection.tally import BLOCKS, KeptMaps, LabelBatch, Presence, Tally
from prunescope.dissection.thresholds import LargestValues
from prunescope.errors import InputError
from prunescope.networks.geometry import Geometry

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Holding:
    """How maps are held against labels: see `dissect`."""

    concepts: ConceptData
    quantile: float
    presence: Presence
    iou: float

    def blocks(self, first_image: int, count: int) -> Array:
        """Say to which block of consecutive images each of `count` images belongs, int64 [count]."""
        return (first_image + np.arange(count)) * BLOCKS // len(self.concepts)

    @property
    def block_pixels(self) -> int:
        """Label pixels of a block's images, at most."""
        sh, sw = self.concepts.label_size
        return -(-len(self.concepts) // BLOCKS) * sh * sw


class LayerStream:
    """Collects what one layer's dissection needs in a single pass over the images.

    A map whose largest value is at or under its unit's running bound can never reach above the threshold; only the
    others wait until the thresholds are known.

    Parameters
    ----------
    layer
        Its name.
    shape
        (units, h, w) of the layer's output for one image.
    holding
        The data set and the settings.
    spill
        Where maps wait.
    geometry
        Where the units look, for maps anchored at receptive fields; half-pixel centres without it.
    thresholds
        float64 [units], instead of the quantile's.
    """

    def __init__(
        self,
        layer: str,
        shape: tuple[int, int, int],
        holding: Holding,
        spill: Spill,
        geometry: Geometry | None = None,
        thresholds: Array | None = None,
    ) -> None:
        units, h, w = shape
        self.layer, self._shape, self._holding, self._given = layer, shape, holding, thresholds
        self._largest = LargestValues(units, len(holding.concepts) * h * w, holding.quantile)
        self._examples = Examples.empty(units, h, w)
        self._kept = spill.spool(self._still_possible)
        self._axes = _axes(holding.concepts, (h, w), geometry)
        self._levels = np.empty(0)
        concepts = holding.concepts
        self._tally = Tally.empty(units, len(concepts.labels), len(concepts.categories), holding.block_pixels)

    @property
    def overflowed(self) -> bool:
        """Whether the maps did not fit the budget, so that the network has to run for this layer once more."""
        return self._kept.overflowed

    def add(self, first_image: int, maps: Array, names: Sequence[str]) -> None:
        """Take in the maps of the next images.

        Parameters
        ----------
        first_image
            The first one's place in the data set.
        maps
            float32 [images, units, h, w].
        names
            Of the images, for errors.

        Raises
        ------
        InputError
            A map is of another shape than the first, or holds a value that is not finite; layer, unit and image named.
        """
        if maps.shape[1:] != self._shape:
            raise InputError(
                f"layer {self.layer!r}: its output is {list(maps.shape[1:])} for image {names[0]}, and was "
                f"{list(self._shape)} for earlier ones; all images must give maps of one shape"
            )
        peaks = self._largest.add(maps.reshape(*maps.shape[:2], -1))
        if np.isnan(peaks).any():
            image, unit = np.argwhere(np.isnan(peaks))[0]
            values = maps[image, unit]
            raise InputError(
                f"layer {self.layer!r}, unit {unit}, image {names[image]}: an activation is "
                f"{values[~np.isfinite(values)][0]}; thresholds need finite values. "
                f"Look at the weights, and at mean and std"
            )
        self._examples.add(first_image, peaks, maps)
        if not self.overflowed:
            images, units = np.nonzero(peaks > self._bounds())
            self._kept.append((units, images, peaks[images, units], maps[images, units]))

    def settle(self, share: Share) -> None:
        """Fix the thresholds, once all images of all processes were taken in."""
        self._largest.reduce(share)
        self._examples.reduce(share)
        self._dead = self._largest.lowest == self._largest.highest
        levels = self._largest.thresholds() if self._given is None else self._given
        self._levels = np.where(self._dead, self._largest.highest, levels)

    def kept(self) -> Iterator[KeptMaps]:
        """Give back the maps that wait, batch by batch as `add` took them in."""
        for units, images, _, maps in self._kept:
            yield KeptMaps(units, images, maps)

    def count(self, kept: KeptMaps, first_image: int, labels: LabelBatch) -> None:
        """Hold the maps of some images against their labels.

        Parameters
        ----------
        kept
            Maps; `images` counts from the batch's first.
        first_image
            The first one's place in the data set.
        labels
            Of the batch's images.
        """
        above = kept.maps.max(axis=(1, 2), initial=-np.inf) > self._levels[kept.units]
        blocks = self._holding.blocks(first_image, len(labels.codes))
        self._tally.add_labels(labels, blocks)
        self._tally.add_masks(kept[above], self._levels, labels, blocks, self._holding.presence, self._axes)

    def finish(self, share: Share, settings: dict[str, Any]) -> LayerDissection:
        """Score the units.

        Parameters
        ----------
        share
            The processes to add up.
        settings
            What to note in the summary.
        """
        self._tally.reduce(share)
        concepts = self._holding.concepts
        pairs = pair_scores(self._tally.total(), concepts.labels, concepts.categories)
        known = pd.DataFrame({"unit": np.arange(self._shape[0]), "threshold": self._levels, "dead": self._dead})
        units = unit_scores(pairs, known, concepts.categories)
        summary = summarise(units, concepts.categories, self._holding.iou, {"layer": self.layer} | settings)
        arrays = tally_arrays(self._tally, concepts.labels, pairs)
        return LayerDissection(self.layer, units, pairs, summary, arrays, self._examples)

    def _bounds(self) -> Array:
        return self._largest.bounds if self._given is None else self._given

    def _still_possible(self, record: Record) -> Record:
        units, _, peaks, _ = record
        stays = peaks > self._bounds()[units]
        return tuple(array[stays] for array in record)


def _axes(data: ConceptData, cells: tuple[int, int], geometry: Geometry | None) -> tuple[Stretch, Stretch]:
    if geometry is None:
        return stretch_axis(cells[0], data.label_size[0]), stretch_axis(cells[1], data.label_size[1])
    down, along = (
        anchored_axis(count, pixels, image, stride, offset)
        for count, pixels, image, stride, offset in zip(
            cells, data.label_size, data.image_size, geometry.stride, geometry.offset, strict=True
        )
    )
    return down, along
