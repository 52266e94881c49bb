"""Read the pixel counts of a saved dissection, and check that they agree with its tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import PairTally
from prunescope.dissection.scores import block_pairs
from prunescope.errors import InputError
from prunescope.reading import read_arrays, read_parquet
from prunescope.store.pairs import category_names

TALLY_FILE, PAIRS = "tally.safetensors", "pairs.parquet"
_TOTALS = {
    "truth": ("concepts",),
    "intersect": ("units", "concepts"),
    "activation": ("units", "categories"),
    "area": ("units",),
}
_BY_BLOCK = {
    "numbers": ("concepts",),
    "block_pairs": ("pairs", 2),
    "block_intersect": ("blocks", "pairs"),
    "block_truth": ("blocks", "concepts"),
    "block_activation": ("blocks", "units", "categories"),
}
_ROWS = "units"
_CHANCE = {"chance_iou": "f", "chance_concept": "i"}  # the kinds of their values
_KINDS = {"chance_iou": "real numbers", "chance_concept": "whole numbers"}


@dataclass(frozen=True)
class BlockCounts:
    """The counts by block of images of one dissection.

    Attributes
    ----------
    pairs
        The counts of the pairs of a unit and a concept that are stored by block. The rows of units are those of the
        table of units.
    numbers
        int64 [concepts]: the number of each concept in the order of the columns.
    category
        The category of each concept that occurs in a pair, by its column.
    truth
        [blocks, concepts]: the pixels of each concept, which show which images the blocks consist of.
    """

    pairs: PairTally
    numbers: Array
    category: Mapping[int, str]
    truth: Array


def read_tally(path: Path, units: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, Array] | None:
    """Read all pixel counts from the file that `LayerDissection.save` writes.

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
    arrays = _checked(path, units, _BY_BLOCK | _TOTALS)
    if problem := _sums(arrays) or _beside(arrays, units, pairs):
        raise InputError(f"{path}: {problem}")
    return arrays


def read_block_counts(folder: Path, units: pd.DataFrame) -> BlockCounts:
    """Read only what is needed to resample the images of a dissection: the counts by block.

    Parameters
    ----------
    folder
        The folder of the dissection.
    units
        Its table of units, which `check_units` has accepted.

    Returns
    -------
    BlockCounts

    Raises
    ------
    InputError
        If a file is missing or damaged, or contradicts the table of units. The message names the file.
    """
    path = folder / TALLY_FILE
    arrays = _checked(path, units, _BY_BLOCK)
    numbers, paired = arrays["numbers"], arrays["block_pairs"]
    category, names = _categories(folder / PAIRS), category_names(units)
    of_column = np.array([names.index(category[n]) if category.get(n) in names else -1 for n in numbers.tolist()])
    if (of_column[np.searchsorted(numbers, paired[:, 1])] < 0).any():
        raise InputError(f"{folder / PAIRS}: the category of a concept is missing or unknown")
    pairs = block_pairs(arrays, {int(unit): row for row, unit in enumerate(units["unit"])}, of_column)
    if (pairs.union < pairs.intersect).any():
        raise InputError(f"{path}: a unit and a concept have more pixels in common than in all")
    known = {column: names[at] for column, at in enumerate(of_column) if at >= 0}
    return BlockCounts(pairs, numbers, known, arrays["block_truth"])


def read_chance(folder: Path, units: pd.DataFrame) -> dict[str, Array]:
    """Read the best concepts of the units with permuted labels, as far as they are stored.

    Nothing is read from a file that is missing or damaged, which `read_block_counts` reports.

    Parameters
    ----------
    folder
        The folder of the dissection.
    units
        Its table of units.

    Returns
    -------
    dict
        chance_iou, float64 [permutations, units], the highest IoU of each unit; and chance_concept, int32
        [permutations, units], the number of the concept that has it, which dissections of earlier versions lack. Empty
        if labels were not permuted.

    Raises
    ------
    InputError
        If an array does not fit the table of units or the other array, or contains an impossible value.
    """
    try:
        found = _arrays(folder / TALLY_FILE, tuple(_CHANCE))
    except InputError:
        return {}
    iou = found.get("chance_iou")
    if iou is None:
        return {}
    for name, array in sorted(found.items(), key=lambda item: item[0] != "chance_iou"):
        if array.dtype.kind != _CHANCE[name] or array.ndim != 2 or not len(array) or array.shape[1] != len(units):
            problem = f"{array.dtype} {list(array.shape)}, expected {_KINDS[name]} [permutations, {len(units)} units]"
        elif array.shape != iou.shape:
            problem = f"{list(array.shape)}, and chance_iou {list(iou.shape)}, expected the same"
        elif not np.isfinite(array).all() or (name != "chance_iou" and (array < 0).any()):
            problem = f"not everywhere a {'finite number' if name == 'chance_iou' else 'number of a concept'}"
        else:
            continue
        raise InputError(f"{folder / TALLY_FILE}: {name} is {problem}")
    return found


def _arrays(path: Path, names: tuple[str, ...] | None = None) -> dict[str, Array]:
    """Read the arrays of a file or, if `names` are given, those of them that it has."""
    if not path.is_file():
        raise InputError(f"{path} is missing or not a file")
    return read_arrays(path, names=names)


def _checked(path: Path, units: pd.DataFrame, shapes: Mapping[str, tuple[str | int, ...]]) -> dict[str, Array]:
    """Read the arrays with these shapes (all arrays, if they include totals), and compare them with the units."""
    arrays = _arrays(path, None if shapes.keys() > _BY_BLOCK.keys() else (*shapes, _ROWS))
    rows = arrays.pop(_ROWS, units["unit"].to_numpy(np.int64))
    if problem := _problem(arrays, rows, units, shapes):
        raise InputError(f"{path}: {problem}")
    return arrays


def _problem(
    arrays: Mapping[str, Array], rows: Array, units: pd.DataFrame, shapes: Mapping[str, tuple[str | int, ...]]
) -> str | None:
    if absent := [name for name in shapes if name not in arrays]:
        return f"contains no {', '.join(absent)}"
    if not np.array_equal(rows, units["unit"]):
        return "its rows are not the units of units.parquet in the same folder, in the same order"
    sizes: dict[object, int] = {"units": len(units), "categories": len(category_names(units)), 2: 2}
    for name, shape in shapes.items():
        array = arrays[name]
        lengths = (*array.shape, *(0,) * len(shape))
        expected = [sizes.setdefault(axis, length) for axis, length in zip(shape, lengths, strict=False)]
        if array.dtype.kind != "i" or list(array.shape) != expected or array.ndim != len(shape):
            axes = ", ".join(f"{sizes[axis]} {axis}" if isinstance(axis, str) else str(axis) for axis in shape)
            return f"{name} is {array.dtype} {list(array.shape)}, expected whole numbers [{axes}]"
        if (array < 0).any():
            return f"{name} contains {array.min()}, expected counts from 0"
    if not sizes["blocks"]:
        return "there are no blocks of images"
    if (np.diff(arrays["numbers"]) <= 0).any():
        return "numbers do not ascend"
    paired = arrays["block_pairs"]
    if not np.isin(paired[:, 0], units["unit"]).all() or not np.isin(paired[:, 1], arrays["numbers"]).all():
        return "block_pairs names a unit or a concept that is not there"
    return None


def _categories(path: Path) -> dict[int, str]:
    """Return the category of each concept number in a table of pairs."""
    if not path.is_file():
        raise InputError(f"{path} is missing or not a file")
    table = read_parquet(path, columns=("number", "category"))
    if not pd.api.types.is_integer_dtype(table["number"]):
        raise InputError(f"{path}: number is {table['number'].dtype}, expected whole numbers")
    table = table.drop_duplicates("number").astype({"category": "str"})
    return dict(zip(table["number"].tolist(), table["category"].tolist(), strict=True))


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
    for name, counts in (
        ("intersect", intersect[row, column]),
        ("truth", arrays["truth"][column]),
        ("activation", arrays["activation"][row, categories]),
    ):
        if not np.array_equal(counts, pairs[name]):
            return f"{name} differs from that of pairs.parquet in the same folder"
    blocks = arrays["block_pairs"]
    own = intersect[row_of[blocks[:, 0]].to_numpy(), np.searchsorted(numbers, blocks[:, 1])]
    if not np.array_equal(arrays["block_intersect"].sum(axis=0, dtype=np.int64), own):
        return "intersect is not the sum of block_intersect over the blocks"
    return None
