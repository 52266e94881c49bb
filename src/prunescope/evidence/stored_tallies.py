"""Read the pixel counts by block of images that a study stores with each dissection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.arrays import Array
from prunescope.dissection.resampling import PairTally
from prunescope.dissection.scores import block_pairs
from prunescope.errors import InputError
from prunescope.store.dissections import PAIRS
from prunescope.store.tallies import TALLY_FILE

CHANCE = "chance_iou"
NEEDED = ("numbers", "units", "block_pairs", "block_intersect", "block_truth", "block_activation")
AXES = (1, 1, 2, 2, 2, 3)


@dataclass(frozen=True)
class StoredTally:
    """The counts by block of one dissection.

    Attributes
    ----------
    pairs
        The counts of pairs of a unit and a concept; the rows of units are those of the table of units.
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


def read_tally(folder: Path, units: pd.DataFrame, summary: Mapping[str, Any]) -> StoredTally:
    """Read the stored counts of a dissection.

    Parameters
    ----------
    folder
        The folder of the dissection.
    units, summary
        Its table of units and its summary.

    Raises
    ------
    InputError
        If a file is missing or damaged, or contradicts the table of units.
    """
    arrays = _arrays(folder / TALLY_FILE)
    category = _categories(folder / PAIRS)
    names = list(summary.get("by_category", {}))
    where = folder / TALLY_FILE
    numbers, stated = arrays["numbers"], arrays["units"]
    blocks, concepts = arrays["block_truth"].shape
    expected = {
        "numbers": (concepts,),
        "units": (len(units),),
        "block_pairs": (len(arrays["block_pairs"]), 2),
        "block_intersect": (blocks, len(arrays["block_pairs"])),
        "block_activation": (blocks, len(units), len(names)),
    }
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise InputError(f"{where}: {name} is {list(arrays[name].shape)}, expected {list(shape)}")
    if any((array < 0).any() for array in arrays.values()) or not blocks or (np.diff(numbers) <= 0).any():
        raise InputError(
            f"{where}: expected counts from 0, concept numbers in increasing order, and at least one block"
        )
    rows = {int(unit): row for row, unit in enumerate(units["unit"])}
    paired = arrays["block_pairs"]
    if stated.tolist() != list(rows) or not {*paired[:, 0].tolist()} <= set(rows):
        raise InputError(f"{where}: its units are not those of units.parquet in the same folder")
    if not np.isin(paired[:, 1], numbers).all():
        raise InputError(f"{where}: block_pairs has concepts that are not in numbers")
    of_column = np.array([names.index(category[n]) if category.get(n) in names else -1 for n in numbers.tolist()])
    if (of_column[np.searchsorted(numbers, paired[:, 1])] < 0).any():
        raise InputError(f"{folder / PAIRS}: the category of a concept is missing or unknown")
    pairs = block_pairs(arrays, rows, of_column)
    if (pairs.union < pairs.intersect).any():
        raise InputError(f"{where}: a unit and a concept have more pixels in common than in all")
    return StoredTally(
        pairs, numbers, {column: names[at] for column, at in enumerate(of_column) if at >= 0}, arrays["block_truth"]
    )


def _arrays(path: Path) -> dict[str, Array]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"{path} is missing")
    try:
        with safe_open(path, framework="numpy") as file:
            absent = [name for name in NEEDED if name not in file.keys()]  # noqa: SIM118 - not a mapping
            if absent:
                raise InputError(f"{path}: there is no array {', '.join(absent)}")
            arrays = {name: file.get_tensor(name) for name in NEEDED}
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as safetensors ({error})") from error
    for (name, array), axes in zip(arrays.items(), AXES, strict=True):
        if array.dtype.kind not in "iu" or array.ndim != axes:
            raise InputError(
                f"{path}: {name} is {array.dtype} {list(array.shape)}, expected whole numbers, {axes} axes"
            )
    return arrays


def _categories(path: Path) -> dict[int, str]:
    """Return the category of each concept number in a table of pairs."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(path, columns=["number", "category"])
        found = table.group_by(["number", "category"]).aggregate([]).to_pydict()
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a table of pairs ({error})") from error
    return dict(zip(found["number"], found["category"], strict=True))


def read_chance(folder: Path, units: int) -> Array | None:
    """Return the highest IoU of each unit with permuted labels, float64 [permutations, units], if it is stored.

    A file that is damaged counts as missing here, since `read_tally` reports it.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / TALLY_FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            if CHANCE not in file.keys():  # noqa: SIM118 - not a mapping
                return None
            found: Array = file.get_tensor(CHANCE)
    except (OSError, SafetensorError, ValueError):
        return None
    valid = found.dtype.kind == "f" and found.ndim == 2 and found.shape[1] == units and len(found) > 0
    return found if valid else None
