"""One layer's maps as they come: thresholds, the maps that may pass them, the most exciting images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.examples import Examples
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.scores import pair_scores, summarise, unit_scores
from prunescope.dissection.tally import KeptMaps, LabelBatch, Presence, Tally
from prunescope.dissection.thresholds import LargestValues
from prunescope.errors import InputError

Array = np.ndarray[Any, Any]


class LayerStream:
    """Collects what one layer's dissection needs in a single pass over the images.

    A map whose largest value is at or under its unit's running bound can never reach above the threshold; only the
    others wait until the thresholds are known.

    Parameters
    ----------
    layer
        Its name.
    images
        How many there will be.
    shape
        (units, h, w) of the layer's output for one image.
    quantile
        The fraction of positions above the threshold.
    """

    def __init__(self, layer: str, images: int, shape: tuple[int, int, int], quantile: float) -> None:
        units, h, w = shape
        self._layer, self._shape = layer, shape
        self._largest = LargestValues(units, images * h * w, quantile)
        self._examples = Examples.empty(units, h, w)
        self._kept: list[KeptMaps] = []

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
                f"layer {self._layer!r}: its output is {list(maps.shape[1:])} for image {names[0]}, and was "
                f"{list(self._shape)} for earlier ones; all images must give maps of one shape"
            )
        peaks = self._largest.add(maps.reshape(*maps.shape[:2], -1))
        if np.isnan(peaks).any():
            image, unit = np.argwhere(np.isnan(peaks))[0]
            values = maps[image, unit]
            raise InputError(
                f"layer {self._layer!r}, unit {unit}, image {names[image]}: an activation is "
                f"{values[~np.isfinite(values)][0]}; thresholds need finite values. "
                f"Look at the weights, and at mean and std"
            )
        images, units = np.nonzero(peaks > self._largest.bounds)
        self._kept.append(KeptMaps(units, images, maps[images, units]))
        self._examples.add(first_image, peaks, maps)

    def finish(
        self,
        labels: Sequence[LabelBatch],
        concepts: ConceptData,
        *,
        presence: Presence,
        iou: float,
        settings: dict[str, Any],
        thresholds: Array | None = None,
    ) -> LayerDissection:
        """Hold the kept maps against the labels, batch by batch, and score the units.

        Parameters
        ----------
        labels
            Of each batch that `add` took in, in the same order.
        concepts
            The data set.
        presence, iou, settings
            As in `dissect`; `settings` is noted in the summary.
        thresholds
            float64 [units], instead of the quantile's.
        """
        dead = self._largest.lowest == self._largest.highest
        levels = self._largest.thresholds() if thresholds is None else thresholds
        levels = np.where(dead, self._largest.highest, levels)
        tally = Tally.empty(self._shape[0], len(concepts.labels), len(concepts.categories))
        for kept, batch in zip(self._kept, labels, strict=True):
            tally.add_labels(batch)
            above = kept.maps.max(axis=(1, 2), initial=-np.inf) > levels[kept.units]
            tally.add_masks(kept[above], levels, batch, presence)
        pairs = pair_scores(tally, concepts.labels, concepts.categories)
        known = pd.DataFrame({"unit": np.arange(self._shape[0]), "threshold": levels, "dead": dead})
        units = unit_scores(pairs, known, concepts.categories)
        summary = summarise(units, concepts.categories, iou, settings)
        return LayerDissection(self._layer, units, pairs, summary, tally, self._examples)
