"""A sample of the images of a data set: in proportion, of the seed, and the same images as those of the whole."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import prunescope
from prunescope.concepts import ConceptData, open_concepts, pack_concepts, sample_concepts
from prunescope.errors import InputError
from tests.concepts.small import write_concepts


def data_of(root: Path, kinds: dict[str, int]) -> ConceptData:
    """Write images with labels of the categories that each kind names, so many of each kind, kind by kind."""
    number = {"object": 1, "part": 2}
    images = [
        {name: [np.full((3, 4), number[name])] for name in kind.split()} for kind in kinds for _ in range(kinds[kind])
    ]
    return open_concepts(write_concepts(root, images, {1: "object", 2: "part"}))


def drawn(data: ConceptData) -> Counter[tuple[bool, ...]]:
    return Counter(tuple(map(bool, data.rows[i].cells)) for i in data.images_from)


def test_each_set_of_categories_is_drawn_in_proportion(tmp_path: Path) -> None:
    data = data_of(tmp_path, {"object": 30, "object part": 12, "": 3})
    assert drawn(sample_concepts(data, 15)) == {(True, False): 10, (True, True): 4, (False, False): 1}
    # 5 of 45: 3.33, 1.33 and 0.33; the one that is left over goes to the first of equal remainders.
    assert sum(drawn(sample_concepts(data, 5)).values()) == 5


def test_a_seed_draws_the_same_images_and_another_seed_others(tmp_path: Path) -> None:
    data = data_of(tmp_path, {"object": 40})
    one, again, other = (sample_concepts(data, 10, seed) for seed in (1, 1, 2))
    assert one.names == again.names
    assert one.names != other.names
    assert list(one.images_from) == sorted(one.images_from)
    assert one.sample == (40, 1)


@pytest.mark.parametrize("packed", [False, True])
def test_images_and_labels_of_a_sample_are_those_of_the_whole(tmp_path: Path, packed: bool) -> None:
    data = data_of(tmp_path, {"object": 9, "object part": 9})
    if packed:
        pack_concepts(tmp_path)
        data = open_concepts(tmp_path)
    part = sample_concepts(data, 7, seed=3)
    assert len(part) == len(part.names) == 7
    for i, row in enumerate(part.images_from):
        assert part.names[i] == data.names[row]
        np.testing.assert_array_equal(part.image(i), data.image(row))
        np.testing.assert_array_equal(part.image_labels(i).codes, data.image_labels(row).codes)


@pytest.mark.parametrize("packed", [False, True])
def test_a_sample_is_dissected_like_a_data_set_of_these_images_alone(tmp_path: Path, packed: bool) -> None:
    root = prunescope.make_miniature(tmp_path / "data", 64, seed=0, size=32)
    if packed:
        pack_concepts(root)
    part = sample_concepts(root, 20, seed=1)
    lines = (root / "index.csv").read_text().splitlines()
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("category.csv", "label.csv"):
        (alone / name).write_text((root / name).read_text())
    shutil.copytree(root / "images", alone / "images")
    (alone / "index.csv").write_text("\n".join([lines[0], *(lines[1 + i] for i in part.images_from)]) + "\n")
    model = prunescope.build_network("prunescope:resnet8x4", seed=0)
    found, expected = (
        prunescope.dissect(model, layers=["stage3"], concepts=data, device="cpu")["stage3"]
        for data in (part, open_concepts(alone))
    )
    np.testing.assert_array_equal(found.units["threshold"], expected.units["threshold"])
    assert found.pairs[["unit", "number", "intersect"]].equals(expected.pairs[["unit", "number", "intersect"]])
    assert found.summary["settings"]["sample"] == {"of": 64, "seed": 1}
    assert "sample" not in expected.summary["settings"]


@pytest.mark.parametrize("images", [0, -1, 41, 2.5, True])
def test_a_sample_of_another_size_is_refused(tmp_path: Path, images: int) -> None:
    data = data_of(tmp_path, {"object": 40})
    with pytest.raises(InputError, match="images is"):
        sample_concepts(data, images)
    assert sample_concepts(data, 40) is data
