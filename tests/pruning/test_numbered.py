"""What the units of a shrunk network detect is told under their numbers in the dense one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from prunescope.concepts import ConceptData, open_concepts
from prunescope.dissection import dissect_activations
from prunescope.dissection.layer_files import read_units
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.errors import InputError
from tests.dissection.worlds import World, write_world

LEFT = [1, 2, 4]
WORLD = World(images=5, units=6, seed=3, shape=(4, 4), label_size=(8, 8))


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> ConceptData:
    return open_concepts(write_world(WORLD, tmp_path_factory.mktemp("concepts")))


@pytest.fixture(scope="module")
def dense(concepts: ConceptData) -> LayerDissection:
    return dissect_activations(
        WORLD.features(1), concepts=concepts, quantile=0.1, chance=0
    )  # p and q depend on all units


@pytest.fixture(scope="module")
def left(concepts: ConceptData) -> LayerDissection:
    return dissect_activations(
        WORLD.features(1)[:, LEFT], concepts=concepts, quantile=0.1, chance=0
    )  # p and q depend on all units


def test_tables_equal_the_dense_networks_rows_of_the_units_left(dense: LayerDissection, left: LayerDissection) -> None:
    numbered = left.numbered(np.array(LEFT))
    for ours, whole in ((numbered.units, dense.units), (numbered.pairs, dense.pairs)):
        rows = whole[whole["unit"].isin(LEFT)].reset_index(drop=True)
        assert len(rows)
        pd.testing.assert_frame_equal(ours, rows)
    assert numbered.summary == left.summary
    assert left.units["unit"].tolist() == [0, 1, 2]


def test_stored_counts_and_examples_say_which_unit_each_row_is(
    dense: LayerDissection, left: LayerDissection, tmp_path: Path
) -> None:
    whole, part = dense.save(tmp_path / "dense"), left.numbered(np.array(LEFT)).save(tmp_path / "left")
    for file, name in (("tally", "intersect"), ("tally", "activation"), ("examples", "images"), ("examples", "maps")):
        all_rows, rows = (load_file(folder / f"{file}.safetensors") for folder in (whole, part))
        assert all_rows["units"].tolist() == list(range(6))
        assert rows["units"].tolist() == LEFT
        np.testing.assert_array_equal(rows[name], all_rows[name][LEFT])
    tally, all_pairs = (load_file(folder / "tally.safetensors") for folder in (part, whole))
    kept = np.isin(all_pairs["block_pairs"][:, 0], LEFT)
    np.testing.assert_array_equal(tally["block_pairs"], all_pairs["block_pairs"][kept])
    np.testing.assert_array_equal(tally["block_intersect"], all_pairs["block_intersect"][:, kept])
    table = pd.read_csv(part / "netdissect.csv")
    assert sorted(table["unit"]) == [2, 3, 5]  # which counts from 1
    assert read_units(part.parent, part.name)["unit"].tolist() == LEFT


def test_all_layers_are_numbered_at_once(left: LayerDissection) -> None:
    found = Dissection({"a": left, "b": left}).numbered({"a": np.array(LEFT), "b": np.array([0, 2, 3])})
    assert found["a"].units["unit"].tolist() == LEFT
    assert found["b"].units["unit"].tolist() == [0, 2, 3]


def test_numbers_that_do_not_fit_are_refused(left: LayerDissection) -> None:
    with pytest.raises(InputError, match="has 3 units, but 2 numbers are given"):
        left.numbered(np.array([1, 2]))
    with pytest.raises(InputError, match="no unit numbers are given for layer 'a'"):
        Dissection({"a": left}).numbered({"b": np.array(LEFT)})
