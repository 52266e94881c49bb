"""Layers are dissected in other bases beside that of their units: random rotations, and directions from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from torch import nn

import prunescope
from prunescope.concepts import open_concepts
from prunescope.dissection import Budget, dissect, dissect_activations
from prunescope.dissection.arrangement import arrange
from prunescope.dissection.backend import choose_backend
from prunescope.dissection.basis import parse_bases, rotation
from prunescope.dissection.counting import count_pixels
from prunescope.dissection.layer_pass import Resources
from prunescope.dissection.settings import Settings
from prunescope.dissection.sources import ArrayMaps, MapsInBases
from prunescope.dissection.storage import Storage
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.processes import Processes
from prunescope.progress import silent
from tests.cli.commands import refused, typed
from tests.dissection.test_on_device import same
from tests.dissection.worlds import GOLDEN, World, write_world
from tests.reference.dissection import dissected, rotated

CONCEPTS = GOLDEN / "concepts"
CHOSEN: dict[str, Any] = {"layers": ["stage1"], "concepts": CONCEPTS, "chance": 2, "device": "cpu"}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_network("prunescope:resnet8x4", classes=3, seed=0)


@pytest.fixture(scope="module")
def maps(model: nn.Module) -> np.ndarray[Any, Any]:
    """The activation maps of the layer for all images, [images, units, h, w]."""
    data, found = open_concepts(CONCEPTS), []
    handle = model.stage1.register_forward_hook(lambda _module, _inputs, output: found.append(output.numpy()))
    pixels = torch.from_numpy(np.stack([data.image(i) for i in range(len(data))])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        model.eval()((pixels - mean) / std)
    handle.remove()
    return np.concatenate(found)


def test_the_identity_finds_what_the_units_find(model: nn.Module) -> None:
    found = dissect(model, basis=["rotate:3:0"], **CHOSEN)
    same(found.bases["rotate-3-0"]["stage1"], found["stage1"])


def test_a_rotation_and_a_file_agree_with_the_plain_reference(
    model: nn.Module, maps: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    directions = np.array([[1, 0, 0, 0], [0.5, -0.5, 2, 0], [-1, 0, 0, 1]], np.float32)
    save_file({"components": directions}, tmp_path / "pca.safetensors")
    found = dissect(model, basis=["rotate:7", "rotate:7:0.5", str(tmp_path / "pca.safetensors")], **CHOSEN)
    whole = rotation(4, 7)
    for name, matrix in (("rotate-7", whole), ("rotate-7-0.5", rotation(4, 7, 0.5)), ("pca", directions)):
        expected = dissect_activations(rotated(maps, matrix), concepts=CONCEPTS, chance=2)
        units, plain = found.bases[name]["stage1"].units, expected.units
        assert len(units) == len(matrix)
        # The network runs in other batches here, so that the last digits of its activations may differ.
        assert np.allclose(units["threshold"], plain["threshold"], rtol=1e-4, atol=1e-6)
        assert np.allclose(units["iou"], plain["iou"], atol=2e-3)


@settings(max_examples=10, deadline=None)
@given(world=World.strategy(), data=st.data())
def test_counts_in_a_basis_are_those_of_the_plain_reference(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    folder = write_world(world, tmp_path_factory.mktemp("world"))
    features = np.round(4 * world.features(data.draw(st.integers(0, 2**32 - 1)))).astype(np.float32) / 4
    weight = st.sampled_from([-1.0, 0.0, 0.5, 2.0])
    rows = data.draw(st.lists(st.lists(weight, min_size=world.units, max_size=world.units), min_size=1, max_size=4))
    matrix = np.array(rows, np.float32)
    save_file({"any": matrix}, folder / "own.safetensors")
    (basis,) = parse_bases([str(folder / "own.safetensors")])
    concepts, chosen = open_concepts(folder), Settings(quantile=0.2, chance=0)
    arrangement = arrange(concepts, 0)
    plain, other = ("", "layer"), ("", "layer in a basis")
    with Storage(Budget()) as storage, Workers(1) as workers:
        resources = Resources(concepts, arrangement, chosen, choose_backend(torch.device("cpu"), workers), storage)
        source = MapsInBases(ArrayMaps(plain, features, concepts, arrangement.blocks, 2), {plain: ("", {other: basis})})
        masks = count_pixels(source, resources, Processes(), progress=silent).layers[other].masks
    intersect = masks.intersect.sum(0)
    found = {
        (unit, int(concepts.labels.index[column])): intersect[unit, column]
        for unit, column in np.argwhere(intersect).tolist()
    }
    expected = dissected(rotated(features, matrix), world.stacks(), world.primary(), 0.2, "image")
    assert found == {pair: counts[2] for pair, counts in expected.items()}


def test_the_same_integers_for_any_batch_size_and_in_a_second_pass() -> None:
    class Exact(nn.Module):
        """Its activations do not depend on the batch, unlike those of convolutions."""

        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(8)
            self.unused = nn.Conv2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.pool(x)

    chosen = CHOSEN | {"layers": ["pool"], "basis": ["rotate:1"]}
    expected = dissect(Exact(), **chosen).bases["rotate-1"]["pool"]
    for batch_size, memory in ((5, 1 << 30), (48, 0)):
        found = dissect(Exact(), batch_size=batch_size, budget=Budget(memory=memory, disk=0), **chosen)
        same(found.bases["rotate-1"]["pool"], expected)


@pytest.mark.parametrize("units", [1, 2, 5, 16])
def test_a_rotation_is_one_and_its_powers_lead_to_it(units: int) -> None:
    whole = rotation(units, 11)
    assert np.allclose(whole @ whole.T, np.eye(units))
    assert np.linalg.det(whole) == pytest.approx(1)
    half, third = rotation(units, 11, 0.5), rotation(units, 11, 1 / 3)
    assert np.allclose(half @ half, whole)
    assert np.allclose(third @ third @ third, whole)
    assert np.array_equal(rotation(units, 11, 0), np.eye(units))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["rotate:x"], "basis rotate:x: expected rotate:SEED"),
        (["rotate:1:2"], "basis rotate:1:2: expected rotate:SEED"),
        (["pca.npy"], "basis pca.npy: expected rotate:SEED"),
        (["rotate:1", "rotate:1"], "in the same folder as those of rotate:1, basis/rotate-1"),
        (["missing.safetensors"], "basis missing.safetensors: cannot be read as safetensors"),
    ],
)
def test_a_basis_that_is_none_is_refused(model: nn.Module, given: list[str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        dissect(model, basis=given, **CHOSEN)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"a": np.ones((2, 3), np.float32)}, r"float32 \[2, 3\], expected real numbers \[directions, 4\]"),
        ({"a": np.ones((2, 4)), "b": np.ones((2, 4))}, "contains 2 tensors, none of which is called stage1"),
        ({"stage1": np.full((2, 4), np.nan), "b": np.ones((2, 4))}, "'stage1' has values that are not finite"),
        ({"a": np.ones((2, 4), np.int64)}, "int64"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    model: nn.Module, tmp_path: Path, tensors: dict[str, np.ndarray[Any, Any]], said: str
) -> None:
    save_file(tensors, tmp_path / "own.safetensors")
    with pytest.raises(InputError, match=said):
        dissect(model, basis=[str(tmp_path / "own.safetensors")], **CHOSEN)


def test_the_command_saves_what_it_finds_in_each_basis(tmp_path: Path) -> None:
    words = ("dissect", "prunescope:resnet8x4", "--layer", "stage1", "--concepts", CONCEPTS, "--chance", "0")
    out = ("--device", "cpu", "--out", tmp_path / "out")
    assert typed(*words, *out).exit_code == 0
    assert typed(*words, *out, "--basis", "rotate:2").exit_code == 0  # a basis can be added later
    found = prunescope.load(tmp_path / "out")
    assert found.bases["rotate-2"]["stage1"].summary["settings"]["basis"] == "rotate:2"
    assert "expected rotate:SEED" in refused(*words, *out, "--basis", "turn")
