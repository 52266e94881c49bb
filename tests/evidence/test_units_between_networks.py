"""Units are only compared one by one if it is known which correspond; concepts can be compared without."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

import prunescope
from prunescope.dissection import Dissection, LayerDissection, UnitMatching
from prunescope.dissection.unit_numbers import read_unit_numbers
from prunescope.errors import InputError
from prunescope.evidence import concepts_still_detected, consistency, curves, matched_by_concept
from tests.evidence.fake_study import GONE, Row, units_table, write_study

DENSE: list[Row] = [("dog", "object", 0.3), ("sky", "object", 0.2), ("red", "color", 0.4), None]
PRUNED: list[Row] = [("sky", "object", 0.2), ("dog", "object", 0.3)]  # units 1 and 0 of the dense network


def test_fewer_units_that_are_counted_from_0_are_refused_with_what_to_do_instead() -> None:
    dense, pruned = units_table(DENSE), units_table(PRUNED)
    with pytest.raises(InputError) as caught:
        consistency(dense, pruned)
    for said in (
        *["level 0 has 4 units and that of level l 2", "Give `units`", "prunescope.match_units", "units=range(2)"],
        *["prunescope.concepts_still_detected", "prunescope.matched_by_concept"],
    ):
        assert said in str(caught.value)
    with pytest.raises(InputError, match=r"prunescope.matched_by_concept` compare the two"):
        consistency(pruned, dense)
    assert consistency(dense, pruned, units=range(2)) == (2 / 3, 0.0)
    assert consistency(dense, pruned, units=[1, 0]) == (2 / 3, 1.0)
    assert consistency(dense, dense.iloc[:0]) == pytest.approx((0.0, math.nan), nan_ok=True)


def test_a_study_whose_last_filters_were_removed_is_compared_by_its_numbers(tmp_path: Path) -> None:
    after = [DENSE[0], PRUNED[1], GONE, GONE]
    table = curves(write_study(tmp_path, {(0, 0): DENSE, (0, 1): after}, trials=1, levels=1))
    assert table[["still_interpretable", "same_concept"]].to_numpy().tolist() == [[1, 1], [2 / 3, 0.5]]


def test_units_are_mapped_by_their_number_whatever_the_order_of_the_rows() -> None:
    dense, pruned = units_table(DENSE), units_table(PRUNED)
    assert consistency(dense.iloc[::-1], pruned.iloc[::-1], units=np.array([1, 0])) == (2 / 3, 1.0)
    assert consistency(dense, pruned, units=[-1, 0]) == (1 / 3, 1.0)
    assert consistency(dense, pruned, units=[2, -1]) == (1 / 3, 0.0)


def test_units_are_read_from_the_files_that_hold_them(tmp_path: Path) -> None:
    dense, pruned = units_table(DENSE), units_table(PRUNED)
    np.save(tmp_path / "units.npy", np.array([1, 0], np.int32))
    matching = UnitMatching(np.array([1, 0]), np.array([0.5, 0.5]), 0.5).save(tmp_path)
    pruned.assign(unit=[1, 0]).to_parquet(tmp_path / "units.parquet")
    for path in (tmp_path / "units.npy", str(matching), tmp_path / "units.parquet"):
        assert consistency(dense, pruned, units=path) == (2 / 3, 1.0)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([0], "units has 1 elements, and the table of level l has 2 units; expected one"),
        ([0, 0], "units: contains unit 0 more than once"),
        ([0, 4], "units contains 4, which is not among the 4 units of level 0"),
        ([0, -2], "units: contains -2, expected numbers from 0, or -1 for none"),
        ([0.5, 1], r"units: is an array float64 \[2\], expected whole numbers"),
        ([[0, 1]], r"units: is an array int64 \[1, 2\]"),
        ([[0], [0, 1]], "units: is not a list of whole numbers"),
        ("nowhere.npy", "nowhere.npy: cannot be read"),
    ],
)
def test_units_that_do_not_fit_are_refused(units: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        consistency(units_table(DENSE), units_table(PRUNED), units=units)


def test_units_for_a_table_that_has_its_numbers_already_are_refused() -> None:
    dense = units_table(DENSE)
    with pytest.raises(InputError, match=r"not numbered from 0; expected one .* Leave out units"):
        consistency(dense, dense.iloc[[1, 2]], units=[1, 2])


def pickled(path: Path) -> None:
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("units.npy", pickled, "cannot be read"),
        ("units.npy", lambda path: path.write_bytes(b"\x93NUMPY"), "cannot be read"),
        ("units.npy", lambda path: path.write_bytes(b""), "cannot be read"),
        ("units.parquet", lambda path: path.write_text("PAR1"), "cannot be read"),
        ("units.parquet", lambda path: pd.DataFrame({"a": [1]}).to_parquet(path), "has no column matched_unit or unit"),
        ("units.npy", lambda path: np.save(path, np.zeros(2)), r"is an array float64 \[2\]"),
    ],
)
def test_files_without_unit_numbers_are_refused(
    tmp_path: Path, name: str, write: Callable[[Path], object], message: str
) -> None:
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_unit_numbers(tmp_path / name)


def layer(name: str, rows: list[Row]) -> LayerDissection:
    return LayerDissection(name, units_table(rows), pd.DataFrame(), {})


def test_dissections_are_compared_like_their_tables() -> None:
    one, other = layer("layer4", DENSE), layer("layer4", DENSE[::-1])
    expected = consistency(one.units, other.units)
    assert consistency(one, other) == expected
    assert consistency(Dissection({"layer4": one}), other) == expected
    assert consistency(one.units, Dissection({"layer4": other})) == expected
    assert matched_by_concept(one, Dissection({"layer4": other})) == concepts_still_detected(one, other) == 1
    with pytest.raises(InputError, match="the table of level l: contains the layers layer3, layer4"):
        consistency(one, Dissection({"layer3": one, "layer4": one}))
    with pytest.raises(InputError, match="the tables are of the layers layer3, layer4"):
        consistency(one, layer("layer3", DENSE))
    # Layers of other networks may have other names, if it is known which units correspond.
    assert consistency(one, layer("stage4", DENSE), units=range(4)) == (1.0, 1.0)
    assert matched_by_concept(one, layer("stage4", PRUNED)) == 2 / 3
    with pytest.raises(InputError, match="the table of level 0: a str is given, expected a DataFrame or a dissection"):
        consistency("units.parquet", one)  # type: ignore[arg-type]


row = st.none() | st.tuples(st.sampled_from("abc"), st.just("object"), st.sampled_from([0.0, 0.05, 0.06, 0.5]))


@given(st.lists(row, min_size=1, max_size=8), st.lists(row, min_size=1, max_size=8), st.booleans())
def test_measures_by_concept_equal_their_definitions(dense: list[Row], pruned: list[Row], numbered: bool) -> None:
    before, after = ([unit[0] for unit in rows if unit and unit[2] > 0.05] for rows in (dense, pruned))
    tables = [units_table(rows) for rows in (dense, pruned)]
    if numbered:
        tables = [table.assign(number=table["label"].map({"a": 1, "b": 2, "c": 3}).astype("Int64")) for table in tables]
    pairs = np.array([[one == other for other in after] for one in before]).reshape(len(before), len(after))
    most = pairs[linear_sum_assignment(pairs, maximize=True)].sum()
    expected = most / len(before) if before else math.nan
    assert matched_by_concept(*tables) == pytest.approx(expected, nan_ok=True)
    kept = len({*before} & {*after}) / len({*before}) if before else math.nan
    assert concepts_still_detected(*tables) == pytest.approx(kept, nan_ok=True)


def test_measures_by_concept_tell_of_tables_that_number_their_concepts_differently() -> None:
    dense = units_table(DENSE[:2]).assign(number=[1, 2])
    for measure in (prunescope.matched_by_concept, prunescope.concepts_still_detected):
        with pytest.warns(UserWarning, match=r"concept number 1 has several names"):
            assert measure(dense, dense.assign(number=[2, 1])) == 0
        with pytest.raises(InputError, match="the table of the pruned network: there is no column dead"):
            measure(dense, dense.drop(columns="dead"))
