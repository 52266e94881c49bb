"""The predictions of a level for the validation images are read with checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prunescope.errors import InputError
from prunescope.store.predictions import read_predictions

TABLE = pd.DataFrame(
    {
        "image": np.arange(4, dtype=np.int32),
        "class": np.array([0, 0, 1, 2], np.int32),
        "predicted": np.array([0, 1, 1, 2], np.int32),
        "probability": np.array([0.5, 0.2, 0.9, 1], np.float32),
    }
)


def test_a_sound_table_is_returned_as_it_is(tmp_path: Path) -> None:
    TABLE.to_parquet(tmp_path / "predictions.parquet")
    pd.testing.assert_frame_equal(read_predictions(tmp_path / "predictions.parquet", 0.75), TABLE)


@pytest.mark.parametrize(
    ("change", "top1", "said"),
    [
        (lambda table: table.drop(columns="predicted"), 0.75, "there is no column predicted"),
        (lambda table: table.assign(predicted=[0.0, 1, 1, 2]), 0.75, "predicted is float64, expected whole numbers"),
        (lambda table: table.assign(predicted=[0, -1, 1, 2]), 0.75, "in row 1 predicted is"),
        (lambda table: table.assign(probability=[0.5, np.nan, 0.9, 1]), 0.75, "in row 1 probability is"),
        (lambda table: table.assign(probability=["a"] * 4), 0.75, "expected numbers from 0 to 1"),
        (lambda table: table.iloc[::-1], 0.75, "in row 0 image is"),
        (lambda table: table.iloc[:0], 0.75, "there are no rows"),
        (
            lambda table: table,
            1.0,
            "the accuracy of the predictions is 0.75, but measured.json states the accuracy 1.0",
        ),
        (lambda table: table, None, "measured.json states no accuracy"),
    ],
)
def test_a_table_that_cannot_be_is_refused_by_name(
    change: Callable[[pd.DataFrame], pd.DataFrame], top1: float | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "predictions.parquet"
    change(TABLE).to_parquet(path)
    with pytest.raises(InputError) as error:
        read_predictions(path, top1)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_a_cut_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "predictions.parquet"
    TABLE.to_parquet(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"predictions\.parquet: cannot be read as parquet .*restore the original"):
        read_predictions(path, 0.75)
