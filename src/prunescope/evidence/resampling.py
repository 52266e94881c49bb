"""Resample the images of a dissection, to see how far its numbers depend on which images were labelled."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from prunescope.dissection.tally import Tally
from prunescope.errors import InputError

Array = np.ndarray[Any, Any]

CHUNK = 1 << 22  # numbers that are held at once in each of a few temporary arrays: 32 MiB in float64


@dataclass(frozen=True)
class Resampled:
    """The concepts of a layer's units over bootstrap resamples of the images.

    Attributes
    ----------
    interpretable, concepts
        int64 [resamples]: the number of interpretable units and of the distinct concepts that they detect.
    label
        int64 [units]: the column of the unit's concept in the tally, that is, of the concept with the highest IoU over
        all images; -1 for a unit that has no pixel in common with any concept.
    iou_low, iou_high
        float64 [units]: the percentile interval of the IoU of that concept, 95 %; zero without a concept.
    kept
        float64 [units]: the share of resamples in which that concept is the unit's best.
    concept_sets
        For each unit, the columns of the concepts that are its best in at least 5 % of the resamples, most frequent
        first (Yan, Oikarinen and Weng 2025).
    reliability
        The mean of `kept` over the units that are interpretable; NaN if there are none.
    """

    interpretable: Array
    concepts: Array
    label: Array
    iou_low: Array
    iou_high: Array
    kept: Array
    concept_sets: tuple[tuple[int, ...], ...]
    reliability: float


def block_weights(blocks: int, resamples: int = 1000, seed: int = 0) -> Array:
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


def resample_units(tally: Tally, primary: Array, weights: Array, iou: float = 0.05, share: float = 0.05) -> Resampled:
    """Find the units' concepts again in each bootstrap resample of the blocks of images.

    Parameters
    ----------
    tally
        The pixel counts by block.
    primary
        int64 [concepts]: the column of each concept's primary category in `tally.activation`.
    weights
        int64 [resamples, blocks]: as `block_weights` returns them.
    iou
        The bound above which a unit is interpretable.
    share
        The share of resamples in which a concept of a unit's concept set is the best at least.

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
    w v >= 0 with v = I - bD. Since w v = sum(v) + (w - 1) v, Cauchy's inequality bounds it by sum(v) + r |v|, where r
    is the largest |w - 1| of any resample. A concept with a negative bound is never the best.
    """
    blocks, units, _ = tally.intersect.shape
    if weights.ndim != 2 or weights.shape[1] != blocks or not (weights.sum(axis=1) > 0).all() or (weights < 0).any():
        raise InputError(
            f"weights: the shape is {list(weights.shape)}; expected [resamples, {blocks}], non-negative, and not all "
            "zero in any resample, for a tally of that many blocks"
        )
    counted = weights.astype(np.float64)
    best = np.full((len(weights), units), -1, np.int32)
    values = np.zeros((len(weights), units))
    label, low, high = np.full(units, -1, np.int64), np.zeros(units), np.zeros(units)
    step = max(1, CHUNK // (blocks * max(1, len(primary))))
    for first in range(0, units, step):
        some = slice(first, min(first + step, units))
        intersect, union = _by_block(tally, primary, some)
        label[some], bounds = _labels(intersect, union, counted, low[some], high[some])
        unit, concept = _contenders(intersect, union, bounds, counted)
        for part in _split(unit, max(1, CHUNK // len(weights))):
            at, columns = unit[part], concept[part]
            scores = _iou(counted @ intersect[:, at, columns], counted @ union[:, at, columns])
            starts = np.flatnonzero(np.r_[True, np.diff(at) > 0])
            for start, end in zip(starts, np.r_[starts[1:], len(at)], strict=True):
                place = scores[:, start:end].argmax(axis=1)
                highest = scores[np.arange(len(scores)), start + place]
                values[:, first + at[start]] = highest
                best[:, first + at[start]] = np.where(highest > 0, columns[start + place], -1)
    return _summary(best, values, label, low, high, _whole(tally, primary, label) > iou, iou, share)


def _by_block(tally: Tally, primary: Array, units: slice) -> tuple[Array, Array]:
    """Return intersections and unions of some units as float64 [blocks, units, concepts], which are exact."""
    intersect = tally.intersect[:, units].astype(np.float64)
    union = tally.activation[:, units][:, :, primary] + tally.truth[:, None, :] - intersect
    return intersect, union


def _iou(intersect: Array, union: Array) -> Array:
    """Return the IoUs, which are zero where nothing is labelled and masked."""
    return np.divide(intersect, union, out=np.zeros_like(intersect), where=union > 0)


def _labels(intersect: Array, union: Array, weights: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return the units' concepts and the lowest IoUs that they have in a resample, and fill in their intervals."""
    scores = _iou(intersect.sum(axis=0), union.sum(axis=0))
    label = scores.argmax(axis=1)
    units = np.arange(len(label))
    resampled = _iou(weights @ intersect[:, units, label], weights @ union[:, units, label])
    low[:], high[:] = np.quantile(resampled, [0.025, 0.975], axis=0)
    return np.where(scores[units, label] > 0, label, -1), resampled.min(axis=0)


def _contenders(intersect: Array, union: Array, bounds: Array, weights: Array) -> tuple[Array, Array]:
    """Return the pairs of unit and concept that can be the best in a resample, sorted by unit, then concept."""
    excess = intersect - bounds[:, None] * union
    total = excess.sum(axis=0)
    length = np.sqrt(np.einsum("buc,buc->uc", excess, excess))
    radius = np.sqrt(((weights - 1) ** 2).sum(axis=1).max())
    # The tolerance is far above the rounding errors of these sums and only lets more concepts through.
    reach = total + radius * length + 1e-9 * union.sum(axis=0)
    unit, concept = np.nonzero((reach >= 0) & (intersect.sum(axis=0) > 0))
    return unit, concept


def _split(unit: Array, size: int) -> Iterator[slice]:
    """Split sorted pairs into parts of about `size` pairs, without dividing those of a unit."""
    start = 0
    while start < len(unit):
        end = len(unit) if start + size >= len(unit) else int(np.searchsorted(unit, unit[start + size]))
        if end <= start:
            end = int(np.searchsorted(unit, unit[start], side="right"))
        yield slice(start, end)
        start = end


def _whole(tally: Tally, primary: Array, label: Array) -> Array:
    """Return the IoU of each unit's concept over all images."""
    units = np.arange(len(label))
    intersect = tally.intersect[:, units, label].sum(axis=0, dtype=np.int64)
    union = (tally.activation[:, units, primary[label]] + tally.truth[:, label]).sum(axis=0) - intersect
    return np.where(label >= 0, _iou(intersect.astype(np.float64), union.astype(np.float64)), 0.0)


def _summary(
    best: Array, values: Array, label: Array, low: Array, high: Array, interpretable: Array, iou: float, share: float
) -> Resampled:
    found = (values > iou) & (best >= 0)
    kept = ((best == label) & (label >= 0)).mean(axis=0)
    sets = []
    for unit in range(len(label)):
        concepts, counts = np.unique(best[best[:, unit] >= 0, unit], return_counts=True)
        frequent = np.flatnonzero(counts >= share * len(best))
        sets.append(tuple(int(concepts[place]) for place in frequent[np.argsort(-counts[frequent], kind="stable")]))
    return Resampled(
        interpretable=found.sum(axis=1),
        concepts=np.array([len(np.unique(row[mask])) for row, mask in zip(best, found, strict=True)], np.int64),
        label=label,
        iou_low=np.where(label >= 0, low, 0.0),
        iou_high=np.where(label >= 0, high, 0.0),
        kept=kept,
        concept_sets=tuple(sets),
        reliability=float(kept[interpretable].mean()) if interpretable.any() else float("nan"),
    )
