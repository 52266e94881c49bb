"""Read the predictions of a level's network for the validation images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from prunescope.errors import InputError
from prunescope.reading import read_parquet
from prunescope.store.tables import check_fractions, refuse_rows

WHOLE = ("image", "class", "predicted")
PROBABILITY = "probability"


def read_predictions(path: Path, top1: float | None) -> pd.DataFrame:
    """Read a level's ``predictions.parquet`` and check it.

    Parameters
    ----------
    path
        The file.
    top1
        The accuracy that the level's ``measured.json`` states, as a fraction; None if it states none.

    Returns
    -------
    DataFrame
        A row per validation image, in order: ``image``, ``class`` and ``predicted`` (int32), and ``probability``
        (float32), the softmax probability of the image's class.

    Raises
    ------
    InputError
        If the file cannot be read, if a column is missing, if a value is impossible, or if the share of correct
        predictions is not `top1`. The message names the file.
    """
    try:
        table = read_parquet(path)
        _check(table, top1, str(path))
    except InputError as error:
        raise InputError(
            f"{error}; restore the original file, or remove it to leave out what is computed from predictions"
        ) from error
    return table[[*WHOLE, PROBABILITY]].astype(dict.fromkeys(WHOLE, np.int32) | {PROBABILITY: np.float32})


def _check(table: pd.DataFrame, top1: float | None, where: str) -> None:
    for column in (*WHOLE, PROBABILITY):
        if column not in table.columns:
            raise InputError(f"{where}: there is no column {column}")
    for column in WHOLE:
        if not pd.api.types.is_integer_dtype(table[column]) or table[column].isna().any():
            raise InputError(f"{where}: {column} is {table[column].dtype}, expected whole numbers")
        limits = table[column].between(0, np.iinfo(np.int32).max)
        refuse_rows(table, ~limits, column, "a number from 0 to 2,147,483,647", where)
    check_fractions(table, PROBABILITY, where)
    if table.empty:
        raise InputError(f"{where}: there are no rows, expected one for each validation image")
    places = pd.Series(np.arange(len(table)), index=table.index)
    refuse_rows(table, table["image"] != places, "image", "the number of the row", where)
    accuracy = float((table["class"] == table["predicted"]).mean())
    # The tolerance admits another order of summation, but not one image more or less.
    if top1 is None or abs(accuracy - top1) > 0.01 / len(table):
        stated = "states no accuracy" if top1 is None else f"states the accuracy {top1}"
        raise InputError(f"{where}: the accuracy of the predictions is {accuracy}, but measured.json {stated}")
