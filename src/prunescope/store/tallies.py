"""Read the pixel counts of a saved dissection, and check that they agree with its tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load

from prunescope.arrays import Array
from prunescope.errors import InputError
from prunescope.files import read_file
from prunescope.store.pairs import category_names

TALLY_FILE = "tally.safetensors"
_SHAPES = {
    "numbers": ("concepts",),
    "truth": ("concepts",),
    "intersect": ("units", "concepts"),
    "activation": ("units", "categories"),
    "area": ("units",),
    "block_pairs": ("pairs", 2),
    "block_intersect": ("blocks", "pairs"),
    "block_truth": ("blocks", "concepts"),
    "block_activation": ("blocks", "units", "categories"),
}


def read_tally(path: Path, units: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Array] | None:
    """Read the pixel counts from the file that `LayerDissection.save` writes.

    Parameters
    ----------
    path
        The file to read.
    units, pairs
        The tables beside it, which `check_units` and `check_pairs` have accepted.

    Returns
    -------
    dict of str to Array, or None
        The arrays, named as `prunescope.dissection.scores.tally_arrays` names them; None if the file does not exist.

    Raises
    ------
    InputError
        If the file cannot be read, or if its counts contradict each other or the tables. The message names the file.
    """
    if not path.exists():
        return None
    try:
        arrays = dict(load(read_file(path)))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
    rows = arrays.pop("units", units["unit"].to_numpy(np.int64))
    if problem := _problem(arrays, rows, units, pairs):
        raise InputError(f"{path}: {problem}")
    return arrays


def _problem(arrays: dict[str, Array], rows: Array, units: pd.DataFrame, pairs: pd.DataFrame) -> str | None:
    if absent := [name for name in _SHAPES if name not in arrays]:
        return f"contains no {', '.join(absent)}"
    if not np.array_equal(rows, units["unit"]):
        return "its rows are not the units of units.parquet in the same folder, in the same order"
    sizes: dict[object, int] = {"units": len(units), 2: 2}
    for name, shape in _SHAPES.items():
        array = arrays[name]
        expected = [sizes.setdefault(size, length) for size, length in zip(shape, array.shape, strict=False)]
        if array.dtype.kind != "i" or list(array.shape) != expected or array.ndim != len(shape):
            return f"{name} is {array.dtype} {list(array.shape)}, expected whole numbers {list(map(str, shape))}"
        if (array < 0).any():
            return f"{name} contains {array.min()}, expected counts from 0"
    numbers = arrays["numbers"]
    if (np.diff(numbers) <= 0).any():
        return "numbers do not ascend"
    return _sums(arrays) or _beside(arrays, units, pairs)


def _sums(arrays: dict[str, Array]) -> str | None:
    """Return why the counts of the blocks contradict those of the whole data set, or None if they do not."""
    for name in ("truth", "activation"):
        if not np.array_equal(arrays[f"block_{name}"].sum(axis=0, dtype=np.int64), arrays[name]):
            return f"{name} is not the sum of block_{name} over the blocks"
    return None


def _beside(arrays: dict[str, Array], units: pd.DataFrame, pairs: pd.DataFrame) -> str | None:
    """Return why the counts contradict the table of pairs, or None if they do not."""
    numbers, intersect = arrays["numbers"], arrays["intersect"]
    row_of = pd.Series(np.arange(len(units)), index=units["unit"].to_numpy())
    row, known = row_of.reindex(pairs["unit"]).to_numpy(np.int64), np.isin(pairs["number"], numbers)
    if not known.all():
        return f"contains no counts of concept {pairs['number'].to_numpy()[~known][0]}, which pairs.parquet lists"
    column = np.searchsorted(numbers, pairs["number"])
    if np.count_nonzero(intersect) != len(pairs):
        return f"has {np.count_nonzero(intersect)} pairs of unit and concept, but pairs.parquet has {len(pairs)}"
    categories = pd.Index(category_names(units)).get_indexer(pd.Index(pairs["category"]))
    if len(category_names(units)) != arrays["activation"].shape[1]:
        return f"activation has {arrays['activation'].shape[1]} categories, units.parquet {len(category_names(units))}"
    for name, counts in (
        ("intersect", intersect[row, column]),
        ("truth", arrays["truth"][column]),
        ("activation", arrays["activation"][row, categories]),
    ):
        if not np.array_equal(counts, pairs[name]):
            return f"{name} differs from that of pairs.parquet in the same folder"
    blocks = arrays["block_pairs"]
    if not np.isin(blocks[:, 0], units["unit"]).all() or not np.isin(blocks[:, 1], numbers).all():
        return "block_pairs names a unit or a concept that is not there"
    own = intersect[row_of[blocks[:, 0]].to_numpy(), np.searchsorted(numbers, blocks[:, 1])]
    if not np.array_equal(arrays["block_intersect"].sum(axis=0, dtype=np.int64), own):
        return "intersect is not the sum of block_intersect over the blocks"
    return None
