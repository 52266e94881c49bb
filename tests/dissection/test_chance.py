"""Units are compared with permuted labels and with mirrored masks, as the definition says."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunescope.concepts import open_concepts, pack_concepts, sample_concepts
from prunescope.dissection import Budget, dissect, dissect_activations
from prunescope.dissection.arrangement import arrange
from prunescope.dissection.masks import stretch
from prunescope.dissection.saved import dissect_checkpoints
from prunescope.errors import InputError
from tests.concepts.small import write_concepts
from tests.dissection.test_dissection import Stripes
from tests.dissection.test_on_device import as_tensors
from tests.dissection.test_on_device import same as same_layer
from tests.dissection.test_own_objects import InMemory
from tests.dissection.worlds import GOLDEN, World, write_world
from tests.reference.dissection import compared

CONCEPTS = GOLDEN / "concepts"
FEATURES = np.load(GOLDEN / "activations.npz")["features"]


@settings(max_examples=15, deadline=None)
@given(world=World.strategy(), data=st.data())
@pytest.mark.filterwarnings("ignore:.*labels cannot be permuted")
def test_random_worlds_agree_with_the_plain_reference(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    folder = write_world(world, tmp_path_factory.mktemp("world"))
    features = world.features(data.draw(st.integers(0, 2**32 - 1)))
    presence = data.draw(st.sampled_from(["image", "overlap"]))
    thresholds = np.array(data.draw(st.lists(st.floats(-1, 1), min_size=world.units, max_size=world.units)))
    found = dissect_activations(features, concepts=folder, presence=presence, thresholds=thresholds, chance=3)
    alive = ~found.units["dead"].to_numpy()
    stacks, itself = world.stacks(), list(range(world.images))
    arguments = (world.primary(), found.units["threshold"].to_numpy(), presence)
    mirrored = compared(features, stacks, itself, *arguments, mirrored=True)
    assert found.units["iou_mirrored"].to_numpy()[alive] == pytest.approx(np.array(mirrored)[alive], rel=1e-12)
    donors = arrange(open_concepts(folder), 3).donors
    assert found.tally is not None
    for row, donor in enumerate(donors):
        expected = np.array(compared(features, stacks, list(donor), *arguments))
        assert found.tally["chance_iou"][row][alive] == pytest.approx(expected[alive], rel=1e-12)
    with as_tensors(at_once=data.draw(st.sampled_from([1, 50, 1 << 24]))):
        same_layer(
            dissect_activations(features, concepts=folder, presence=presence, thresholds=thresholds, chance=3), found
        )


def stretched(map_: np.ndarray, threshold: float, shape: tuple[int, int]) -> np.ndarray:
    """Compute a mask without exact fractions, which take a minute at the golden label size."""
    return stretch(map_, shape) > threshold


def test_the_golden_activations_on_the_cpu_and_in_tensors() -> None:
    data = open_concepts(CONCEPTS)
    expected = dissect_activations(FEATURES, concepts=data, chance=4)
    donors, stacks = arrange(data, 4).donors, []
    for i in range(len(data)):
        labels = data.image_labels(i)
        held = [labels.numbers[a:b] for a, b in zip(labels.starts[:-1], labels.starts[1:], strict=True)]
        layers = [
            np.array([row[place] if place < len(row) else 0 for row in held])[labels.codes]
            for place in range(max(map(len, held)))
        ]
        stacks.append({"all": layers or [np.zeros(data.label_size, np.int64)]})
    some = [5, 9]
    thresholds = expected.units["threshold"].to_numpy()[some]
    primary = data.labels["category"].to_dict()
    own = compared(FEATURES[:, some], stacks, list(range(48)), primary, thresholds, "image", True, stretched)
    assert expected.units["iou_mirrored"].to_numpy()[some] == pytest.approx(own, rel=1e-12)
    assert expected.tally is not None
    first = compared(FEATURES[:, some], stacks, list(donors[0]), primary, thresholds, "image", False, stretched)
    assert expected.tally["chance_iou"][0, some] == pytest.approx(first, rel=1e-12)
    with as_tensors():
        same_layer(dissect_activations(FEATURES, concepts=data, chance=4), expected)


@pytest.mark.parametrize("budget", [Budget(), Budget(memory=0, disk=0)])
def test_the_same_integers_for_any_batch_size_and_in_a_second_pass(budget: Budget) -> None:
    expected = dissect(Stripes(), layers=["early"], concepts=CONCEPTS, chance=3)["early"]
    for batch_size in (5, 48):
        chosen: dict[str, Any] = {"batch_size": batch_size, "budget": budget}
        same_layer(dissect(Stripes(), layers=["early"], concepts=CONCEPTS, chance=3, **chosen)["early"], expected)


def test_donors_are_read_alike_from_a_packed_copy_and_from_files(tmp_path: Path) -> None:
    root = shutil.copytree(CONCEPTS, tmp_path / "concepts", ignore=shutil.ignore_patterns("packed"))
    decoded = dissect_activations(FEATURES, concepts=root, chance=3)
    pack_concepts(root)
    same_layer(dissect_activations(FEATURES, concepts=root, chance=3), decoded)
    own = InMemory(open_concepts(CONCEPTS))
    found = dissect_activations(FEATURES, concepts=own, chance=3)
    assert found.summary["chance_left_out"] == 0


def test_commands_pack_a_data_set_first_where_they_can(tmp_path: Path) -> None:
    root = shutil.copytree(CONCEPTS, tmp_path / "concepts", ignore=shutil.ignore_patterns("packed"))
    chosen: dict[str, Any] = {"layers": ["stage1"], "chance": 2, "device": "cpu"}

    def dissected(name: str, **more: Any) -> pd.DataFrame:
        (found,) = dissect_checkpoints(
            "prunescope:resnet8x4", tmp_path / name, concepts=root, **chosen, **more
        ).values()
        return found.units

    (root / "packed").touch()  # is in the way
    with pytest.warns(UserWarning, match="no packed copy could be written .* the labels are decoded twice instead"):
        expected = dissected("decoded")
    (root / "packed").unlink()
    dissected("sample", images=20)
    assert not (root / "packed").exists()
    with pytest.warns(UserWarning, match="has no packed copy, .* it is written now, once"):
        pd.testing.assert_frame_equal(dissected("packed"), expected)
    assert (root / "packed" / "concepts.safetensors").is_file()
    with warnings.catch_warnings(record=True) as said:
        pd.testing.assert_frame_equal(dissected("again"), expected)
    assert not any("packed" in str(one.message) for one in said)


@pytest.mark.parametrize("packed", [False, True])
def test_donors_of_a_sample_are_images_of_the_sample(tmp_path: Path, packed: bool) -> None:
    root = shutil.copytree(CONCEPTS, tmp_path / "concepts", ignore=shutil.ignore_patterns("packed"))
    lines = (root / "index.csv").read_text().splitlines()
    films = [f"{line},film {number // 3}" for number, line in enumerate(lines[1:])]
    (root / "index.csv").write_text("\n".join([f"{lines[0]},group", *films, ""]))
    part = sample_concepts(root, 20, seed=1)
    chosen, alone = part.images_from, tmp_path / "alone"
    shutil.copytree(root, alone)
    (alone / "index.csv").write_text("\n".join([f"{lines[0]},group", *(films[i] for i in chosen), ""]))
    np.testing.assert_array_equal(part.groups, open_concepts(alone).groups)
    if packed:
        pack_concepts(root)
        part = sample_concepts(root, 20, seed=1)
    expected = dissect_activations(FEATURES[chosen], concepts=alone, chance=3)
    same_layer(dissect_activations(FEATURES[chosen], concepts=part, chance=3), expected)


def test_shrinkage_is_what_a_concept_of_one_half_loses_on_the_other() -> None:
    data = open_concepts(CONCEPTS)
    found = dissect_activations(FEATURES, concepts=data, chance=0)
    thresholds, blocks, halves = found.units["threshold"].to_numpy(), arrange(data).blocks, []
    for half in (0, 1):
        images = np.flatnonzero(blocks % 2 == half)
        part = dataclasses.replace(
            data, names=tuple(data.names[i] for i in images), images_from=images, labels_from=images
        )
        halves.append(dissect_activations(FEATURES[images], concepts=part, thresholds=thresholds, chance=0))
    lost = np.zeros((2, len(found.units)))
    for loss, here, there in zip(lost, halves, halves[::-1], strict=True):
        named = here.units.dropna(subset="label")
        other = named.merge(there.pairs, on=["unit", "number"], how="left", suffixes=("", "_there"))
        loss[other["unit"]] = other["iou"] - other["iou_there"].fillna(0)
    alive = ~found.units["dead"].to_numpy()
    assert found.units["shrinkage"].to_numpy()[alive] == pytest.approx(lost.mean(axis=0)[alive])
    assert found.units["shrinkage"].mean() > 0


def planted(folder: Path) -> tuple[Path, np.ndarray]:
    """Write images with an object on the left or not, and a scene; and maps of four units that detect, or do not.

    Unit 0 detects the object and its place, unit 1 is at the object's place in every image, unit 2 fires on all of an
    image with the scene, and the others are noise.
    """
    random = np.random.default_rng(0)
    thing = np.zeros((8, 8), np.int64)
    thing[:, :3] = 1
    drawn = random.random(120) < 0.5
    scene = random.random(120) < 0.5
    images = [
        {"object": [thing if one else np.full((8, 8), 2)], "scene": [3 if two else 4]}
        for one, two in zip(drawn, scene, strict=True)
    ]
    write_concepts(folder, images, {1: "object", 2: "object", 3: "scene", 4: "scene"}, label_size=(8, 8))
    maps = (random.random((120, 30, 8, 8)) < 0.02).astype(np.float32)
    maps[:, 0] = (thing == 1) & drawn[:, None, None]
    maps[:, 1] = thing == 1
    maps[:, 2] = scene[:, None, None]
    return folder, maps


def test_planted_detectors_pass_and_fail_the_comparisons_that_they_should(tmp_path: Path) -> None:
    root, maps = planted(tmp_path)
    found = dissect_activations(maps, concepts=root, thresholds=np.full(30, 0.5), iou=0.3)
    units = found.units
    assert (units["q"][[0, 2]] < 0.05).all()
    assert (units["q"][3:] > 0.05).all()
    # A detector of a place stays without the right images, and is lost in the mirror; of whole images, the reverse.
    assert found.tally is not None
    chance = found.tally["chance_iou"].mean(axis=0)
    assert units["iou"][1] > 0.3
    assert chance[1] > 0.3
    assert units["iou_mirrored"][1] < 0.3
    assert chance[2] < units["iou"][2] - 0.3
    assert units["iou_mirrored"][2] == units["iou"][2] == 1
    summary = found.summary
    mirrored = (units["iou"] > 0.3) & (units["iou_mirrored"] > 0.3)
    assert summary["mirrored_interpretable"] == mirrored.sum()
    assert summary["chance_permutations"] == 20
    above = found.tally["chance_iou"] > 0.3
    assert summary["chance_interpretable"] == pytest.approx(above.sum(axis=1).mean())
    distinct = [len({*row[at].tolist()}) for row, at in zip(found.tally["chance_concept"], above, strict=True)]
    assert summary["chance_concepts"] == pytest.approx(np.mean(distinct))
    named = units.dropna(subset="label")
    best = named.merge(found.pairs, on=["unit", "number"])
    assert (best["precision"] == best["intersect"] / best["activation"]).all()
    assert (best["recall"] == best["intersect"] / best["truth"]).all()


def test_no_permutations_leave_out_the_columns_and_change_nothing_else() -> None:
    without = dissect_activations(FEATURES, concepts=CONCEPTS, chance=0)
    found = dissect_activations(FEATURES, concepts=CONCEPTS, chance=2)
    pd.testing.assert_frame_equal(found.units.drop(columns=["p", "q"]), without.units)
    assert not any(name.startswith("chance") for name in (*without.summary, *(without.tally or {})))
    with pytest.raises(InputError, match="chance is -1, expected a number of permutations"):
        dissect_activations(FEATURES, concepts=CONCEPTS, chance=-1)


def test_one_image_has_no_donor(tmp_path: Path) -> None:
    write_concepts(tmp_path, [{"object": [np.ones((3, 4), np.int64)]}], {1: "object"})
    with pytest.warns(UserWarning, match="labels cannot be permuted"):
        found = dissect_activations(np.ones((1, 2, 3, 4), np.float32), concepts=tmp_path)
    assert "p" not in found.units
