"""Correlation of units and linear CKA written out from their definitions, slowly and obviously."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def stretched(map_: Array, size: tuple[int, int]) -> Array:
    """One map [h, w], bilinearly stretched with half-pixel centres."""
    (h, w), (sh, sw) = map_.shape, size
    result = np.zeros(size)
    for row in range(sh):
        y = max((row + 0.5) * h / sh - 0.5, 0.0)
        for column in range(sw):
            x = max((column + 0.5) * w / sw - 0.5, 0.0)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, h - 1), min(left + 1, w - 1)
            above = map_[top, left] * (1 - (x - left)) + map_[top, right] * (x - left)
            below = map_[bottom, left] * (1 - (x - left)) + map_[bottom, right] * (x - left)
            result[row, column] = above * (1 - (y - top)) + below * (y - top)
    return result


def examples(maps: Array, size: tuple[int, int]) -> Array:
    """Maps [images, units, h, w] as a matrix [images x positions, units]: each position of each image is an example."""
    rows = []
    for image in np.asarray(maps, np.float64):
        stack = [stretched(unit, size) for unit in image]
        rows += [[unit[y, x] for unit in stack] for y in range(size[0]) for x in range(size[1])]
    return np.array(rows)


def as_examples(a: Array, b: Array) -> tuple[Array, Array]:
    """The matrices of two layers' maps, both stretched to the larger height and the larger width."""
    size = (max(a.shape[2], b.shape[2]), max(a.shape[3], b.shape[3]))
    return examples(a, size), examples(b, size)


def correlations(a: Array, b: Array) -> Array:
    """Pearson's correlation of each unit of A with each of B, [units_a, units_b]; 0 where one is constant."""
    rows_a, rows_b = as_examples(a, b)
    result = np.zeros((a.shape[1], b.shape[1]))
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            if np.ptp(a[:, i]) and np.ptp(b[:, j]):
                result[i, j] = np.corrcoef(rows_a[:, i], rows_b[:, j])[0, 1]
    return result


def linear_cka(a: Array, b: Array) -> float:
    """Kornblith et al. 2019, equation 3 with linear kernels: HSIC of the two kernel matrices of all examples."""
    kernels = []
    for rows in as_examples(a, b):
        centred = rows - rows.mean(axis=0)
        kernels.append(centred @ centred.T)
    k, m = kernels
    return float(np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m)))


def largest_sum(correlation: Array) -> float:
    """The largest sum of correlations over all one-to-one matchings that leave no unit of the smaller layer out."""
    if correlation.shape[0] < correlation.shape[1]:
        correlation = correlation.T
    count = correlation.shape[1]
    return max(
        sum(correlation[chosen, range(count)]) for chosen in map(list, permutations(range(len(correlation)), count))
    )
