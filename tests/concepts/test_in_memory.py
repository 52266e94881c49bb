"""Images and labels in memory give the same results as the same data in Broden's format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prunescope import InputError, dissect_activations, open_concepts
from prunescope.concepts import from_arrays
from tests.concepts.small import write_concepts

IMAGE = np.zeros((6, 8, 3), np.uint8)
THING = np.array([[1, 1, 0, 0], [1, 2, 2, 0], [0, 0, 300, 300]])


def test_arrays_give_the_same_integers_as_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    labels: list[dict[str, list[Any]]] = [
        {"object": [THING, 2 * (THING > 0)], "scene": [7]},
        *({"object": [rng.choice([0, 1, 2, 300], (3, 4))], "material": [300 * (THING == 1)]} for _ in range(7)),
        {"scene": [7]},
        {},
    ]
    cells = {1: "object(8)", 2: "object(8)", 7: "scene(2)", 300: "object(7);material(8)"}
    files = open_concepts(write_concepts(tmp_path, labels, cells))
    pairs = [(files.image(i), one) for i, one in enumerate(labels)]
    arrays = from_arrays(pairs, names={number: f"concept{number}" for number in cells})
    maps = rng.normal(size=(len(labels), 5, 2, 3)).astype(np.float32)
    found, expected = (dissect_activations(maps, concepts=data, quantile=0.2) for data in (arrays, files))
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    assert found.tally is not None
    assert expected.tally is not None
    np.testing.assert_array_equal(found.tally["block_intersect"], expected.tally["block_intersect"])
    np.testing.assert_array_equal(found.tally["truth"], expected.tally["truth"])


def test_the_primary_category_is_where_a_concept_covers_most_unless_it_is_given() -> None:
    pairs = [(IMAGE, {"object": 5 * (THING == 2), "material": 5 * (THING == 1)})]
    assert from_arrays(pairs, names={5: "wood"}).labels["category"].tolist() == ["material"]
    assert from_arrays(pairs, names={5: ("wood", "object")}).labels["category"].tolist() == ["object"]


def test_concepts_that_no_image_has_are_left_out() -> None:
    assert from_arrays([(IMAGE, {"scene": 1})], names={1: "sea", 2: "park"}).labels.index.tolist() == [1]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "pairs is empty"),
        ([(IMAGE / 255, {"scene": 1})], r"image 0 is float64 \[6, 8, 3\], expected uint8"),
        ([(IMAGE, {"scene": 9})], "image 0, 'scene': concept 9 is not in names"),
        ([(IMAGE, {"scene": -1})], "concept -1 is not in names"),
        ([(IMAGE, {"object": THING == 1})], "the labels are bool"),
        ([(IMAGE, {"object": [[0, 1], [1, 0]]})], "expected an integer array"),
        ([(IMAGE, {"object": THING}), (IMAGE, {"object": THING.T})], r"image 1, 'object': the labels are \[4, 3\]"),
        ([(IMAGE, {"scene": 1}), (IMAGE[1:], {"scene": 1})], r"image 1 is \[5, 8, 3\]"),
        ([IMAGE], "pair 0 is a ndarray"),
        ([(IMAGE, {})], "no image has a category"),
    ],
)
def test_data_that_cannot_be_used_are_refused_naming_the_image(pairs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_arrays(pairs, names={1: "one", 2: "two", 300: "three hundred"})
