"""Network dissection written out from its definition, slowly and obviously."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def above(map_: Array, threshold: float, shape: tuple[int, int]) -> Array:
    """Where one map, bilinearly stretched with half-pixel centres, lies above the threshold; in exact fractions."""
    (h, w), (sh, sw) = map_.shape, shape
    exact = [[Fraction(float(value)) for value in row] for row in map_]
    result = np.zeros(shape, bool)
    for row in range(sh):
        y = max(Fraction(2 * row + 1, 2) * Fraction(h, sh) - Fraction(1, 2), Fraction(0))
        for column in range(sw):
            x = max(Fraction(2 * column + 1, 2) * Fraction(w, sw) - Fraction(1, 2), Fraction(0))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            down, along = y - top, x - left
            value = (
                exact[top][left] * (1 - down) * (1 - along)
                + exact[top][right] * (1 - down) * along
                + exact[bottom][left] * down * (1 - along)
                + exact[bottom][right] * down * along
            )
            result[row, column] = value > Fraction(threshold)
    return result


def dissected(
    features: Array,
    stacks: list[dict[str, list[Array]]],
    primary: dict[int, str],
    quantile: float,
    presence: str,
    thresholds: Array | None = None,
) -> dict[tuple[int, int], tuple[int, int, int, float]]:
    """(unit, concept number) -> (truth, activation, intersect, iou) for all that meet.

    `features` [images, units, h, w]; `stacks[image][category]` is a list of label layers [sh, sw], 0 where nothing is
    labelled (an image-level label is a layer full of its number). A category is present where a label has it as its
    primary category.
    """
    found = {}
    for unit in range(features.shape[1]):
        values = features[:, unit].astype(np.float64)
        threshold = np.quantile(values, 1 - quantile) if thresholds is None else thresholds[unit]
        dead = values.min() == values.max()
        masks = []
        for image, stack in enumerate(stacks):
            shape = next(layer.shape for layers in stack.values() for layer in layers)
            masks.append(np.zeros(shape, bool) if dead else above(features[image, unit], float(threshold), shape))
        for concept, category in primary.items():
            truth = activation = intersect = 0
            for mask, stack in zip(masks, stacks, strict=True):
                stands = np.zeros(mask.shape, bool)
                for layers in stack.values():
                    for layer in layers:
                        stands |= layer == concept
                labelled = np.zeros(mask.shape, bool)
                for layer in [layer for layers in stack.values() for layer in layers]:
                    labelled |= np.isin(layer, [number for number in primary if primary[number] == category])
                if presence == "overlap":
                    labelled &= mask
                truth += int(stands.sum())
                intersect += int((mask & stands).sum())
                if labelled.any():
                    activation += int(mask.sum())
            if intersect:
                found[unit, concept] = (truth, activation, intersect, intersect / (truth + activation - intersect))
    return found


def compared(
    features: Array,
    stacks: list[dict[str, list[Array]]],
    donors: list[int],
    primary: dict[int, str],
    thresholds: Array,
    presence: str,
    mirrored: bool = False,
    mask_of: Callable[[Array, float, tuple[int, int]], Array] = above,
) -> list[float]:
    """Return each unit's best IoU when image i has the labels of image donors[i], or is left out if that is -1."""
    best = []
    for unit, threshold in enumerate(thresholds):
        masks = []
        for image, stack in enumerate(stacks):
            shape = next(layer.shape for layers in stack.values() for layer in layers)
            mask = mask_of(features[image, unit], float(threshold), shape)
            masks.append(mask[:, ::-1] if mirrored else mask)
        ious = [0.0]
        for concept, category in primary.items():
            truth = activation = intersect = 0
            for mask, donor in zip(masks, donors, strict=True):
                if donor < 0:
                    continue
                layers = [layer for own in stacks[donor].values() for layer in own]
                stands = np.logical_or.reduce([layer == concept for layer in layers])
                numbers = [number for number in primary if primary[number] == category]
                labelled = np.logical_or.reduce([np.isin(layer, numbers) for layer in layers])
                if presence == "overlap":
                    labelled &= mask
                truth += int(stands.sum())
                intersect += int((mask & stands).sum())
                activation += int(mask.sum()) if labelled.any() else 0
            if intersect:
                ious.append(intersect / (truth + activation - intersect))
        best.append(max(ious))
    return best


def rotated(features: Array, matrix: Array) -> Array:
    """Return the maps of directions: a direction's map is the sum of the units' maps, weighted by its row."""
    images, units = features.shape[:2]
    maps = np.zeros((images, len(matrix), *features.shape[2:]))
    for image in range(images):
        for direction, weights in enumerate(matrix):
            for unit in range(units):
                maps[image, direction] += float(weights[unit]) * features[image, unit].astype(np.float64)
    return maps.astype(np.float32)
