"""Blocks are small samples of the whole data set, and donors are like the images that get their labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.concepts import check_concepts, open_concepts
from prunescope.dissection import dissect_activations
from prunescope.dissection.arrangement import arrange
from prunescope.dissection.resampling import block_weights
from prunescope.errors import InputError
from tests.concepts.small import change, two_images
from tests.dissection.test_own_objects import InMemory
from tests.dissection.worlds import GOLDEN

FEATURES = np.load(GOLDEN / "activations.npz")["features"]


@dataclass
class Listed:
    """As much of a data set as its arrangement depends on."""

    labelled: np.ndarray  # bool [images, categories]
    groups: np.ndarray  # int64 [images]

    def __post_init__(self) -> None:
        self.categories = tuple(map(str, range(self.labelled.shape[1])))
        self.root = self.names = self.image_size = self.label_size = self.labels = None
        self.image = self.image_labels = lambda i: i

    def __len__(self) -> int:
        return len(self.labelled)


@pytest.mark.parametrize("order", ["sorted by source", "cyclic"])
def test_the_bootstrap_shows_how_much_a_count_varies_between_data_sets(order: str) -> None:
    random, images, sets = np.random.default_rng(0), 960, 300
    kinds = np.repeat(np.arange(32), images // 32)
    if order == "sorted by source":
        # Sources differ in their categories. A redrawn data set has as many images of each source.
        sources = kinds // 4
        drawn = redrawn = random.exponential(10.0 * sources, (sets, images))
    else:
        # Every 32nd image shows the same scene, which its categories do not tell. A redrawn data set has other scenes.
        sources = np.zeros(images, np.int64)
        drawn = random.poisson(np.tile(10 * np.arange(32), (sets, images // 32)))
        redrawn = random.poisson(10 * random.integers(0, 32, (sets, images)))
    data: Any = Listed(sources[:, None] >> np.arange(3) & 1 > 0, np.arange(images))
    blocks = arrange(data).blocks
    by_block = np.stack([np.bincount(blocks, counts, 32) for counts in drawn])
    bootstrap = np.sqrt(np.mean((by_block @ block_weights(32).T).var(axis=1)))
    assert 1 / 1.3 < bootstrap / redrawn.sum(axis=1).std() < 1.3


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_blocks_and_donors_follow_their_definition(data: st.DataObject) -> None:
    images = data.draw(st.integers(1, 70))
    kinds = np.array(data.draw(st.lists(st.integers(0, 3), min_size=images, max_size=images)))
    groups = np.arange(images)
    if data.draw(st.booleans()):
        groups = np.array(data.draw(st.lists(st.integers(0, images), min_size=images, max_size=images)))
    listed: Any = Listed(kinds[:, None] >> np.arange(2) & 1 > 0, groups)
    permutations = data.draw(st.integers(0, 8))
    found = arrange(listed, permutations)
    assert (found.blocks == arrange(listed).blocks).all()
    distinct = len(np.unique(groups))
    assert found.count == min(32, distinct) == len(np.unique(found.blocks))
    for group in np.unique(groups):
        assert len(np.unique(found.blocks[groups == group])) == 1
    first_of_groups = found.blocks[np.unique(groups, return_index=True)[1]]
    assert np.ptp(np.bincount(first_of_groups)) <= 1
    sets = {group: tuple(sorted(set(kinds[groups == group]))) for group in groups}
    union = {group: np.bitwise_or.reduce(kinds[groups == group]) for group in sets}
    for row in found.donors:
        given_to = np.flatnonzero(row >= 0)
        assert len(given_to)
        assert len(np.unique(row[given_to])) == len(given_to)
        for image in given_to:
            assert groups[row[image]] != groups[image]
            assert union[groups[row[image]]] == union[groups[image]]
    for image in range(images):
        own = found.donors[:, image]
        assert len(np.unique(own[own >= 0])) == (own >= 0).sum()
        alike = sum(union[group] == union[groups[image]] for group in groups)
        if distinct == images:
            assert (own >= 0).sum() == min(permutations, alike - 1)


def test_films_with_enough_others_lose_no_donor() -> None:
    groups = np.repeat(np.arange(12), 10)
    listed: Any = Listed(np.ones((120, 1), np.bool_), groups)
    donors = arrange(listed, 20).donors
    assert donors.shape == (20, 120)
    assert (donors >= 0).all()


def test_the_group_column_keeps_images_in_one_block_and_apart_as_donors(tmp_path: Path) -> None:
    root = two_images(tmp_path)
    plain = arrange(open_concepts(root), 5)
    assert plain.count == 2
    text = (root / "index.csv").read_text().splitlines()
    (root / "index.csv").write_text("\n".join([f"{text[0]},group", *(f"{line}, film 1" for line in text[1:])]) + "\n")
    assert check_concepts(root).problems == ()
    found = arrange(open_concepts(root), 5)
    assert found.count == 1
    assert found.donors.shape == (0, 2)
    change(root / "index.csv", ",group\n", ",groups\n")
    with pytest.raises(InputError, match=r"'groups' is not in category\.csv"):
        open_concepts(root)


def test_a_category_may_still_be_called_group(tmp_path: Path) -> None:
    root = two_images(tmp_path)
    for name in ("index.csv", "category.csv", "label.csv"):
        change(root / name, "scene", "group")
    data = open_concepts(root)
    assert "group" in data.categories
    assert arrange(data).count == 2


def test_blocks_change_no_total_and_a_data_set_of_ones_own_is_one_group() -> None:
    data = open_concepts(GOLDEN / "concepts")
    found = [dissect_activations(FEATURES, concepts=one) for one in (data, InMemory(data))]
    tallies = [one.tally for one in found]
    pd.testing.assert_frame_equal(found[0].pairs, found[1].pairs)
    assert tallies[0] is not None
    assert tallies[1] is not None
    for name in ("truth", "activation"):
        assert tallies[0][f"block_{name}"].shape[0] == 32
        for tally in tallies:
            assert (tally[f"block_{name}"].sum(axis=0) == tally[name]).all()
        assert (tallies[0][f"block_{name}"] != tallies[1][f"block_{name}"]).any()
