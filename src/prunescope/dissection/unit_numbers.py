"""Read and check the numbers that units have in another network, such as the dense one."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from prunescope.errors import InputError
from prunescope.files import read_file
from prunescope.reading import read_parquet

Array = np.ndarray[Any, Any]

_EXPECTED = (
    "expected an .npy file with one whole number for each unit, or a parquet table with the column matched_unit (as "
    "UnitMatching.save writes it) or unit (as a dissection with removed filters has it)"
)


def read_unit_numbers(path: str | Path) -> Array:
    """Read for each unit of a layer the number of the corresponding unit in another network.

    Nothing in the file is unpickled.

    Parameters
    ----------
    path
        An .npy file as `numpy.save` writes it, with an array of whole numbers [units]; `matching.parquet` as
        `UnitMatching.save` writes it, with the column matched_unit; or `units.parquet` of a network whose units have
        the numbers of the dense network, with the column unit.

    Returns
    -------
    Array
        int64 [units]: the number for each unit; -1 if no unit corresponds to it.

    Raises
    ------
    InputError
        If the file cannot be read, or does not contain distinct whole numbers from 0, or -1.
    """
    if Path(path).suffix == ".npy":
        try:
            numbers = np.load(io.BytesIO(read_file(path)), allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{path}: cannot be read ({error}); {_EXPECTED}") from error
        return check_unit_numbers(numbers, str(path))
    table = read_parquet(Path(path), _EXPECTED)
    column = next((name for name in ("matched_unit", "unit") if name in table.columns), None)
    if column is None:
        raise InputError(f"{path}: the table has no column matched_unit or unit; {_EXPECTED}")
    return check_unit_numbers(table[column].to_numpy(), str(path))


def check_unit_numbers(numbers: object, where: str) -> Array:
    """Return unit numbers as an array, int64 [units].

    Parameters
    ----------
    numbers
        The numbers of units: whole numbers from 0, each at most once, or -1 for none.
    where
        A description of the numbers, which begins the error message.

    Raises
    ------
    InputError
        If they are anything else.
    """
    try:
        found = np.asarray(numbers)
    except ValueError as error:
        raise InputError(f"{where}: is not a list of whole numbers ({error})") from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise InputError(f"{where}: is an array {found.dtype} {list(found.shape)}, expected whole numbers [units]")
    found = found.astype(np.int64)
    values, counts = np.unique(found[found != -1], return_counts=True)
    if len(values) and values[0] < 0:
        raise InputError(f"{where}: contains {values[0]}, expected numbers from 0, or -1 for none")
    if (counts > 1).any():
        raise InputError(f"{where}: contains unit {values[counts > 1][0]} more than once, expected each at most once")
    return found
