"""Resample the images of a dissection, to see how far its numbers depend on which images were labelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from prunescope.arrays import Array
from prunescope.errors import InputError

RESAMPLES = 1000
SET_SHARE = 0.05
NONE = -1
CHUNK = 1 << 22  # numbers that are held at once in each of a few temporary arrays: 32 MiB in float64


@dataclass(frozen=True)
class PairTally:
    """Pixel counts by block of images for pairs of a unit and a concept, sorted by unit, then concept.

    Attributes
    ----------
    units
        The number of units.
    unit
        int64 [pairs]: the row of each pair's unit.
    concept
        int64 [pairs]: the column of each pair's concept in the tally.
    intersect, union
        [blocks, pairs]: the pixels in both the unit's masks and the concept, I, and in either of them, A + G - I.
    """

    units: int
    unit: Array
    concept: Array
    intersect: Array
    union: Array


@dataclass(frozen=True)
class Resampled:
    """The concepts of a layer's units over bootstrap resamples of the images.

    Attributes
    ----------
    label
        int64 [units]: the column of the unit's concept, that is, of the concept with the highest IoU over all images;
        -1 for a unit without any pair.
    iou_low, iou_high
        float64 [units]: the percentile interval of the IoU of that concept, 95 %; zero without a concept.
    best
        int32 [resamples, units]: the column of the concept with the highest IoU in each resample; -1 if no IoU is
        above zero.
    detected
        int32 [resamples, units]: the same for the units that are interpretable in the resample; -1 for the others.
    """

    label: Array
    iou_low: Array
    iou_high: Array
    best: Array
    detected: Array

    @property
    def interpretable(self) -> Array:
        """int64 [resamples]: the number of interpretable units."""
        count: Array = (self.detected != NONE).sum(axis=1)
        return count

    @property
    def concepts(self) -> Array:
        """int64 [resamples]: the number of distinct concepts that the interpretable units detect."""
        return np.array([len(np.unique(row[row != NONE])) for row in self.detected], np.int64)

    @property
    def kept(self) -> Array:
        """float64 [units]: the share of resamples in which the unit's concept is its best."""
        share: Array = ((self.best == self.label) & (self.label != NONE)).mean(axis=0)
        return share

    def concept_sets(self, share: float = SET_SHARE) -> list[tuple[int, ...]]:
        """Return, for each unit, the columns of the concepts that are its best in at least `share` of the resamples.

        The most frequent concept comes first (Yan, Oikarinen and Weng 2025).
        """
        sets = []
        for column in self.best.T:
            concepts, counts = np.unique(column[column != NONE], return_counts=True)
            frequent = np.flatnonzero(counts >= share * len(column))
            sets.append(tuple(int(concepts[place]) for place in frequent[np.argsort(-counts[frequent], kind="stable")]))
        return sets


def block_weights(blocks: int, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Return how often each block of images occurs in each bootstrap resample.

    The same weights must be used for all trials and levels, so that errors that they share cancel in differences.

    Returns
    -------
    ndarray
        int64 [resamples, blocks]; every row has the sum `blocks`.

    Examples
    --------
    >>> block_weights(4, resamples=3).sum(axis=1).tolist()
    [4, 4, 4]
    """
    return np.random.default_rng(seed).multinomial(blocks, np.full(blocks, 1 / blocks), size=resamples)


def resample_units(pairs: PairTally, weights: Array, iou: float = 0.05) -> Resampled:
    """Find the units' concepts again in each bootstrap resample of the blocks of images.

    Parameters
    ----------
    pairs
        The pixel counts by block. Pairs that are not among them are taken to have no pixel in common.
    weights
        int64 [resamples, blocks]: as `block_weights` returns them.
    iou
        The bound above which a unit is interpretable.

    Returns
    -------
    Resampled

    Raises
    ------
    InputError
        If the weights are for another number of blocks, or a row of them is zero.

    Notes
    -----
    Only concepts that can be the best of a unit are resampled. Let I be the intersections and D = A + G - I the unions
    of a unit and a concept by block, and w the weights of a resample, so that the concept's IoU is wI / wD. Let b be
    the lowest IoU that the unit's concept has in any resample. Another concept reaches b in a resample only if
    wv >= 0 with v = I - bD. With the means m(v) and m(w) over the blocks, wv = sum(w) m(v) + (w - m(w)) (v - m(v)), so
    that by Cauchy's inequality wv / sum(w) is at most m(v) + r |v - m(v)|, where r is the largest |w - m(w)| / sum(w)
    of any resample. A concept for which this is negative is never the best.
    """
    blocks = len(pairs.intersect)
    if weights.ndim != 2 or weights.shape[1] != blocks or not (weights.sum(axis=1) > 0).all() or (weights < 0).any():
        raise InputError(
            f"weights: the shape is {list(weights.shape)}; expected [resamples, {blocks}], non-negative, and not all "
            "zero in any resample, for a tally of that many blocks"
        )
    counted = weights.astype(np.float64)
    best = np.full((len(weights), pairs.units), NONE, np.int32)
    detected = best.copy()
    label, low, high = np.full(pairs.units, NONE, np.int64), np.zeros(pairs.units), np.zeros(pairs.units)
    for part in _split(pairs.unit, max(1, CHUNK // blocks)):
        unit, concept = pairs.unit[part], pairs.concept[part]
        # Counts are far below 2**53, so that float64 holds them and their weighted sums exactly.
        intersect, union = (counts[:, part].astype(np.float64) for counts in (pairs.intersect, pairs.union))
        own, bounds = _labels(unit, intersect, union, counted, low, high)
        label[unit[own]] = concept[own]
        among = _contenders(intersect, union, bounds, counted)
        unit, concept = unit[among], concept[among]
        for few in _split(unit, max(1, CHUNK // len(weights))):
            chosen = among[few]
            scores = _iou(counted @ intersect[:, chosen], counted @ union[:, chosen])
            for start, end in _segments(unit[few]):
                at = unit[few][start]
                place = scores[:, start:end].argmax(axis=1)
                highest = scores[np.arange(len(scores)), start + place]
                best[:, at] = np.where(highest > 0, concept[few][start + place], NONE)
                detected[:, at] = np.where(highest > iou, best[:, at], NONE)
    return Resampled(label, low, high, best, detected)


def _split(unit: Array, size: int) -> Iterator[slice]:
    """Split pairs that are sorted by unit into parts of about `size` pairs, without dividing those of a unit."""
    start = 0
    while start < len(unit):
        end = len(unit) if start + size >= len(unit) else int(np.searchsorted(unit, unit[start + size]))
        if end <= start:
            end = int(np.searchsorted(unit, unit[start], side="right"))
        yield slice(start, end)
        start = end


def _segments(unit: Array) -> list[tuple[int, int]]:
    """Return the first and the last pair, exclusive, of each unit in sorted pairs."""
    starts = np.flatnonzero(np.r_[True, np.diff(unit) > 0]) if len(unit) else np.zeros(0, np.int64)
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(unit)], strict=True)) if len(unit) else []


def _iou(intersect: Array, union: Array) -> Array:
    """Return the IoUs, which are zero where nothing is labelled and masked."""
    return np.divide(intersect, union, out=np.zeros_like(intersect), where=union > 0)


def _labels(
    unit: Array, intersect: Array, union: Array, weights: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Return the pairs of the units' own concepts, and for each pair the lowest IoU that its unit's concept has.

    The intervals of the units' concepts are filled in.
    """
    scores = _iou(intersect.sum(axis=0), union.sum(axis=0))
    segments = _segments(unit)
    own = np.array([start + int(scores[start:end].argmax()) for start, end in segments], np.int64)
    own = own[scores[own] > 0]
    resampled = _iou(weights @ intersect[:, own], weights @ union[:, own])
    lowest = np.zeros(int(unit[-1]) + 1)
    if len(own):
        low[unit[own]], high[unit[own]] = np.quantile(resampled, [0.025, 0.975], axis=0)
        lowest[unit[own]] = resampled.min(axis=0)
    return own, lowest[unit]


def _contenders(intersect: Array, union: Array, bounds: Array, weights: Array) -> Array:
    """Return the pairs whose concept can be the best of its unit in a resample."""
    excess = intersect - bounds * union
    mean = excess.mean(axis=0)
    excess -= mean
    length = np.sqrt(np.einsum("bp,bp->p", excess, excess))
    radius = (np.sqrt(((weights - weights.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)) / weights.sum(axis=1)).max()
    # The tolerance is far above the rounding errors of these sums and only lets more concepts through.
    reach = mean + radius * length + 1e-9 * union.mean(axis=0)
    return np.flatnonzero((reach >= 0) & (intersect.sum(axis=0) > 0))
