"""The bootstrap over images gives what its definition says, whichever concepts it can do without."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope import InputError
from prunescope.dissection.tally import Tally
from prunescope.evidence import PairTally, block_weights, resample_units
from tests.reference.resampling import resampled


def random_tally(seed: int, blocks: int, units: int, concepts: int, categories: int, sparse: float) -> Tally:
    """Counts that could be those of a dissection: nothing exceeds the area that it is part of."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 60, (blocks, concepts)) * (random.random((blocks, concepts)) > sparse)
    activation = random.integers(0, 60, (blocks, units, categories))
    activation *= random.random((blocks, units, categories)) > sparse
    primary = np.arange(concepts) % categories
    most = np.minimum(truth[:, None, :], activation[:, :, primary])
    intersect = (most * random.random((1, units, concepts)) ** 3 * random.random(most.shape)).astype(np.int32)
    return Tally(truth, intersect, activation, activation.max(axis=2))


def pair_tally(tally: Tally, primary: np.ndarray) -> PairTally:
    """The counts of all pairs that have pixels in common; a concept's number is its place."""
    unit, concept = np.nonzero(tally.intersect.sum(axis=0))
    intersect = tally.intersect[:, unit, concept]
    union = tally.activation[:, unit, primary[concept]] + tally.truth[:, concept] - intersect
    return PairTally(tally.intersect.shape[1], unit, concept, intersect, union)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 4), st.integers(1, 7), st.integers(1, 3),
    st.floats(0, 0.9), st.floats(0, 0.3),
)  # fmt: skip
def test_resampled_units_are_those_of_the_definition(
    seed: int, blocks: int, units: int, concepts: int, categories: int, sparse: float, iou: float
) -> None:
    tally = random_tally(seed, blocks, units, concepts, categories, sparse)
    primary = np.arange(concepts) % categories
    weights = block_weights(blocks, resamples=25, seed=seed)
    found = resample_units(pair_tally(tally, primary), weights, iou)
    expected = resampled(tally, primary, weights, iou)
    assert found.label.tolist() == expected.label
    assert found.interpretable.tolist() == expected.interpretable
    assert found.concepts.tolist() == expected.concepts
    assert found.kept.tolist() == expected.kept
    assert found.concept_sets() == expected.sets
    ious = np.array([[float(value) for value in row] for row in expected.ious])
    low, high = np.quantile(ious, [0.025, 0.975], axis=1)
    np.testing.assert_array_equal(found.iou_low, low)
    np.testing.assert_array_equal(found.iou_high, high)


def test_many_units_are_resampled_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = pair_tally(random_tally(1, 8, 40, 30, 3, 0.3), np.arange(30) % 3)
    weights = block_weights(8, resamples=100)
    whole = resample_units(pairs, weights)
    monkeypatch.setattr("prunescope.dissection.resampling.CHUNK", 2000)
    parts = resample_units(pairs, weights)
    for name, value in vars(whole).items():
        np.testing.assert_equal(getattr(parts, name), value)


def test_a_unit_that_two_concepts_fit_equally_has_both_in_its_set() -> None:
    truth = np.full((10, 2), 100)
    intersect = np.where(np.arange(10)[:, None, None] % 2 == np.arange(2), 60, 20).astype(np.int32)
    tally = Tally(truth, intersect, np.full((10, 1, 1), 80), np.full((10, 1), 80))
    found = resample_units(pair_tally(tally, np.zeros(2, np.int64)), block_weights(10))
    assert sorted(found.concept_sets()[0]) == [0, 1]
    assert 0.3 < found.kept[0] < 0.8
    assert found.iou_low[0] < 40 / 140 < found.iou_high[0]
    assert found.interpretable.tolist() == [1] * 1000


def test_weights_of_other_blocks_are_refused() -> None:
    pairs = pair_tally(random_tally(0, 4, 2, 3, 1, 0.0), np.zeros(3, np.int64))
    with pytest.raises(InputError, match=r"weights: the shape is \[1000, 5\]; expected \[resamples, 4\]"):
        resample_units(pairs, block_weights(5))


def test_the_same_seed_gives_the_same_resamples() -> None:
    np.testing.assert_array_equal(block_weights(32, seed=3), block_weights(32, seed=3))
    assert (block_weights(32, seed=3) != block_weights(32, seed=4)).any()
