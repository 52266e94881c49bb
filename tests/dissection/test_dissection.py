"""Dissection gives the numbers of its definition: on golden data, on random cases, for any batch size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.concepts import check_concepts, open_concepts
from prunescope.dissection import dissect, dissect_activations, import_netdissect
from prunescope.errors import InputError
from prunescope.evidence import consistency
from tests.concepts.small import write_concepts
from tests.dissection.worlds import GOLDEN, World, write_world
from tests.reference.dissection import dissected

KEY = ["unit", "number"]


@pytest.mark.parametrize("presence", ["image", "overlap"])
@pytest.mark.parametrize("given", [True, False])
def test_the_golden_pairs_under_both_notions_of_presence(presence: Any, given: bool) -> None:
    maps = np.load(GOLDEN / "activations.npz")
    thresholds = maps["thresholds"] if given else None
    found = dissect_activations(
        maps["features"], concepts=GOLDEN / "concepts", presence=presence, thresholds=thresholds
    )
    golden = pd.read_csv(GOLDEN / f"pairs_{presence}.csv")
    both = golden.merge(found.pairs, on=KEY, how="outer", suffixes=("", "_found"), indicator=True)
    assert (both["_merge"] == "both").all()
    assert (both["label"] == both["label_found"]).all()
    assert (both["category"] == both["category_found"]).all()
    for count in ("truth", "activation", "intersect"):
        assert (both[count] - both[f"{count}_found"]).abs().max() == 0
    assert np.allclose(both["iou"], both["iou_found"], atol=1e-9)


def test_netdissects_own_table_except_where_it_counts_a_pixel_twice(tmp_path: Path) -> None:
    maps = np.load(GOLDEN / "activations.npz")["features"]
    folder = dissect_activations(maps, concepts=GOLDEN / "concepts", presence="overlap").save(tmp_path)
    ours = pd.read_csv(folder / "netdissect.csv").set_index("unit").sort_index()
    theirs = pd.read_csv(GOLDEN / "netdissect_lite.csv").set_index("unit").sort_index()
    assert list(ours.columns) == list(theirs.columns)
    different = [
        (unit, category)
        for category in ("color", "object", "part", "material", "scene", "texture")
        for unit in ours.index
        if not np.isclose(ours.loc[unit, f"{category}-iou"], theirs.loc[unit, f"{category}-iou"], atol=1e-9)
    ]
    assert len(different) <= 7
    assert {category for _, category in different} == {"material"}
    others = ours.index.difference([unit for unit, _ in different])
    assert np.allclose(ours["score"][others], theirs["score"][others], atol=1e-9)


def test_thresholds_equal_numpys_quantile_to_the_last_digit() -> None:
    maps = np.load(GOLDEN / "activations.npz")
    found = dissect_activations(maps["features"], concepts=GOLDEN / "concepts")
    assert (found.units["threshold"] == maps["thresholds"]).all()


def test_dead_and_constant_units_have_no_mask_and_no_concept() -> None:
    found = dissect_activations(np.load(GOLDEN / "activations.npz")["features"], concepts=GOLDEN / "concepts").units
    assert list(found.query("dead")["unit"]) == [0, 1]
    assert found.query("dead")["label"].isna().all()
    assert (found.query("dead")["iou"] == 0).all()


@settings(max_examples=25, deadline=None)
@given(world=World.strategy(), data=st.data())
def test_random_worlds_agree_with_the_plain_reference(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    folder = write_world(world, tmp_path_factory.mktemp("world"))
    presence = data.draw(st.sampled_from(["image", "overlap"]))
    quantile = data.draw(st.sampled_from([0.005, 0.1, 0.3, 0.9]))
    features = world.features(data.draw(st.integers(0, 2**32 - 1)))
    found = dissect_activations(features, concepts=folder, presence=presence, quantile=quantile).pairs
    expected = dissected(features, world.stacks(), world.primary(), quantile, presence)
    assert {(unit, number) for unit, number in found[KEY].itertuples(index=False)} == set(expected)
    for row in found.itertuples():
        truth, activation, intersect, iou = expected[row.unit, row.number]
        assert (row.truth, row.activation, row.intersect) == (truth, activation, intersect)
        assert row.iou == pytest.approx(iou, rel=1e-12)


class Stripes(nn.Module):
    """Units whose arithmetic is the same for any batch: channel sums at every other pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.early = nn.AvgPool2d(8)
        self.late = nn.AvgPool2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.late(self.early(torch.cat([x, -x, x.roll(1, 1) - x], 1))).flatten(1)


@pytest.mark.parametrize("batch_size", [1, 7, 48])
def test_the_same_table_for_any_batch_size_and_several_layers_in_one_pass(batch_size: int) -> None:
    model, data = Stripes(), open_concepts(GOLDEN / "concepts")
    expected = dissect(model, layers=["early", "late"], concepts=data, batch_size=16)
    found = dissect(model, layers=["early", "late"], concepts=data, batch_size=batch_size)
    pd.testing.assert_frame_equal(found.units, expected.units)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    alone = dissect(model, layers=["late"], concepts=data)
    pd.testing.assert_frame_equal(alone.units, expected.units.query("layer == 'late'").reset_index(drop=True))


def test_a_layer_of_numbers_without_positions_is_dissected_as_one_by_one_maps() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4))
    found = dissect(model, layers=["2"], concepts=GOLDEN / "concepts", quantile=0.25)["2"]
    masks = found.pairs.query("category == 'scene'").groupby("unit")["intersect"].max()
    assert len(found.units) == 4
    assert (masks % (112 * 112) == 0).all()


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.BatchNorm2d(4)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    dissect(model, layers=["1"], concepts=GOLDEN / "concepts")
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not model[1]._forward_hooks


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_stop_it_naming_layer_unit_and_image(value: float) -> None:
    features = np.load(GOLDEN / "activations.npz")["features"].copy()
    features[30, 5, 3, 3] = value
    with pytest.raises(InputError, match=r"layer 'activations', unit 5, image made/00030\.jpg"):
        dissect_activations(features, concepts=GOLDEN / "concepts")


def test_the_files_hold_what_was_found(tmp_path: Path) -> None:
    maps = np.load(GOLDEN / "activations.npz")["features"]
    found = dissect_activations(maps, concepts=GOLDEN / "concepts")
    folder = found.save(tmp_path)
    assert folder == tmp_path / "activations"
    for name in ("units.csv", "units.parquet", "pairs.parquet", "tally.safetensors", "netdissect.csv"):
        assert (folder / name).is_file()
    units = pd.read_parquet(folder / "units.parquet")
    assert list(units.columns[:7]) == ["unit", "label", "category", "iou", "threshold", "dead", "number"]
    named = units.dropna(subset="label")
    assert len(named) < len(units)
    assert units["number"].notna().tolist() == units["label"].notna().tolist()
    labels = pd.read_csv(GOLDEN / "concepts" / "label.csv").set_index("number")["name"]
    assert labels[named["number"]].tolist() == named["label"].tolist()
    assert list(units["unit"]) == list(range(32))
    assert len(pd.read_csv(folder / "units.csv")) == 32
    summary = json.loads((folder / "summary.json").read_text())
    interpretable = units[units["iou"] > 0.05]
    assert summary["interpretable"] == len(interpretable)
    assert summary["concepts"] == interpretable["label"].nunique() == sum(summary["by_category"].values())
    assert summary["dead"] == 2
    assert (units["iou_low"] <= units["iou_high"]).all()
    assert units.query("iou_low <= iou <= iou_high")["unit"].count() > 0.9 * len(units)
    assert interpretable["concept_set"].str.split().str.len().between(1, 20).all()
    assert units[units["dead"]]["concept_set"].tolist() == ["", ""]
    assert summary["settings"]["quantile"] == 0.005
    assert not list(tmp_path.rglob("*.part*"))


def test_the_examples_are_the_images_of_highest_peak() -> None:
    maps = np.load(GOLDEN / "activations.npz")["features"]
    examples = dissect_activations(maps, concepts=GOLDEN / "concepts").examples
    assert examples is not None
    for unit in range(2, 32):
        peaks = maps[:, unit].max(axis=(1, 2))
        best = np.argsort(-peaks, kind="stable")[:4]
        assert list(examples.images[unit]) == list(best)
        assert (examples.maps[unit] == maps[best, unit]).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"quantile": 0.0}, "quantile is 0.0"),
        ({"iou": 1.0}, "iou is 1.0"),
        ({"presence": "images"}, "nearest are: image"),
        ({"thresholds": np.zeros(3)}, "expected 32 finite numbers"),
    ],
)
def test_settings_out_of_range_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dissect_activations(np.zeros((48, 32, 7, 7), np.float32), concepts=GOLDEN / "concepts", **arguments)


@pytest.mark.parametrize("shape", [(47, 32, 7, 7), (48, 32, 7), (48, 0, 7, 7)])
def test_activations_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="features"):
        dissect_activations(np.zeros(shape, np.float32), concepts=GOLDEN / "concepts")


def two_windows(root: Path) -> Path:
    """Write a data set in which number 1, an object on the left, and number 2, a part on the right, share a name."""
    left, right = np.zeros((2, 4, 4), dtype=np.int64)
    left[:, :2], right[:, 2:] = 1, 2
    write_concepts(root, [{"object": [left], "part": [right]}] * 3, {1: "object", 2: "part"}, label_size=(4, 4))
    text = (root / "label.csv").read_text()
    (root / "label.csv").write_text(text.replace("concept1", "window").replace("concept2", " window "))
    return root


def test_two_concepts_of_one_name_are_two(tmp_path: Path) -> None:
    root = two_windows(tmp_path / "data")
    maps = np.zeros((3, 2, 4, 4), np.float32)
    maps[:, 0, :, :2] = maps[:, 1, :, 2:] = 1
    found = dissect_activations(maps, concepts=root, thresholds=np.array([0.5, 0.5]))
    units, summary = found.units, found.summary
    assert units["label"].tolist() == ["window", "window"]
    assert units["number"].tolist() == [1, 2]
    assert (summary["interpretable"], summary["concepts"]) == (2, 2)
    assert summary["by_category"] == {"object": 1, "part": 1}
    assert check_concepts(root).problems == ()
    other = units.assign(number=[2, 1], category=["part", "object"])
    assert consistency(units, other) == (1.0, 0.0)
    assert consistency(units, other.drop(columns="number")) == (1.0, 0.0)
    assert consistency(units, units) == (1.0, 1.0)


def test_a_published_table_has_no_numbers_and_counts_names_within_categories(tmp_path: Path) -> None:
    root = two_windows(tmp_path / "data")
    maps = np.zeros((3, 2, 4, 4), np.float32)
    maps[:, 0, :, :2] = maps[:, 1, :, 2:] = 1
    folder = dissect_activations(maps, concepts=root, thresholds=np.array([0.5, 0.5])).save(tmp_path)
    found = import_netdissect(folder / "netdissect.csv")
    assert "number" not in found.units
    assert found.summary["concepts"] == 2
