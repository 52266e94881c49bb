"""Count the weights that lead into each unit of a layer and that pruning has kept."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunescope.reading import read_arrays

_BESIDE = re.compile(r"downsample|shortcut|skip|identity|proj")  # a residual branch, which ends beside the last weights


def kept_into_units(masks: Sequence[Path | None], layer: str, units: int) -> NDArray[np.float32] | None:
    """Return the share of kept weights among those that lead into each unit.

    They are counted in the last weights of the layer's module that have one row per unit, without those of residual
    branches. Weights of earlier modules are not counted.

    Parameters
    ----------
    masks : sequence of Path or None
        The mask of the kept weights at each level, with tensors of the dense network's shapes. Without a mask, all
        weights are kept.
    layer : str
        The name of the layer.
    units : int
        The number of units of the dense network, which are numbered from 0.

    Returns
    -------
    float32 array [levels, units] or None
        None if there is no mask, or if the layer's module contains no such weights.

    Raises
    ------
    InputError
        If a mask cannot be read.
    """
    shares = np.ones((len(masks), units), np.float32)
    name = None
    for row, path in enumerate(masks):
        if path is None:
            continue
        if name is None:
            shapes = {of: kept.shape for of, kept in read_arrays(path).items()}
            name = last_weights((of for of, shape in shapes.items() if shape[:1] == (units,)), layer)
        if name is None:
            return None
        shares[row] = read_arrays(path, names=[name])[name].reshape(units, -1).mean(axis=1, dtype=np.float64)
    return None if name is None else shares


def last_weights(names: Iterable[str], layer: str) -> str | None:
    """Return the last of the weights in a layer's module, in the order of their names.

    >>> last_weights(["layer4.1.conv2.weight", "layer4.0.downsample.0.weight", "layer4.10.conv2.weight"], "layer4")
    'layer4.10.conv2.weight'
    """
    inside = [name for name in names if name.startswith(f"{layer}.") and not _BESIDE.search(name[len(layer) :])]
    return max(inside, key=lambda name: [(part.isdigit(), int(part) if part.isdigit() else 0, part)
                                         for part in re.split(r"(\d+)", name)], default=None)  # fmt: skip
