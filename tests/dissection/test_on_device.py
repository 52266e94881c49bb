"""Tensor work on a device gives the integers of the compiled kernels; the device here is the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from prunescope.dissection import Budget, dissect, dissect_activations
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.on_device import DeviceTensors, LargestOnDevice
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.thresholds import LargestValues
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.processes import Processes
from tests.dissection.worlds import GOLDEN, World, write_world

CONCEPTS = GOLDEN / "concepts"


@contextmanager
def as_tensors(at_once: int = 1 << 24) -> Iterator[None]:
    """Hold maps as tensors, in pieces of `at_once` elements."""
    where = "prunescope.dissection"
    with (
        mock.patch(f"{where}.run.choose_backend", return_value=DeviceTensors(torch.device("cpu"))),
        mock.patch(f"{where}.on_device.AT_ONCE", at_once),
        mock.patch(f"{where}.tally_on_device.AT_ONCE", at_once),
    ):
        yield


def same(found: LayerDissection, expected: LayerDissection) -> None:
    pd.testing.assert_frame_equal(found.units, expected.units)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    assert found.tally is not None
    assert expected.tally is not None
    for name, array in expected.tally.items():
        assert np.array_equal(found.tally[name], array), name
    for name, array in vars(expected.examples).items():
        assert np.array_equal(getattr(found.examples, name), array), name


@settings(max_examples=40, deadline=None)
@given(world=World.strategy(), data=st.data())
def test_random_worlds_with_ties_and_dead_units(
    tmp_path_factory: pytest.TempPathFactory, world: World, data: st.DataObject
) -> None:
    folder = write_world(world, tmp_path_factory.mktemp("world"))
    features = world.features(data.draw(st.integers(0, 2**32 - 1)))
    chosen: dict[str, Any] = {
        "presence": data.draw(st.sampled_from(["image", "overlap"])),
        "quantile": data.draw(st.sampled_from([0.005, 0.1, 0.3, 0.9])),
    }
    if data.draw(st.booleans()):
        chosen["thresholds"] = np.array(
            data.draw(st.lists(st.floats(-1, 1), min_size=world.units, max_size=world.units))
        )
    expected = dissect_activations(features, concepts=folder, **chosen)
    with as_tensors(at_once=data.draw(st.sampled_from([1, 50, 1 << 24]))):
        same(dissect_activations(features, concepts=folder, **chosen), expected)


@pytest.mark.parametrize("presence", ["image", "overlap"])
def test_the_golden_activations(presence: Any) -> None:
    features = np.load(GOLDEN / "activations.npz")["features"]
    expected = dissect_activations(features, concepts=CONCEPTS, presence=presence)
    with as_tensors():
        same(dissect_activations(features, concepts=CONCEPTS, presence=presence), expected)


@pytest.mark.parametrize("align", ["half-pixel", "receptive-field"])
@pytest.mark.parametrize(("memory", "disk"), [(1 << 30, 0), (1 << 22, 1 << 30), (0, 1 << 30), (1 << 23, 0), (0, 0)])
def test_a_networks_layers_within_any_budget_in_both_alignments(
    tmp_path: Path, align: Any, memory: int, disk: int
) -> None:
    model = build_network("prunescope:resnet8x4", classes=3, seed=0)
    chosen: dict[str, Any] = {"layers": ["stem.0", "stage1", "stage3"], "concepts": CONCEPTS, "align": align}
    expected = dissect(model, **chosen)
    with as_tensors():
        found = dissect(model, **chosen, budget=Budget(memory, disk, tmp_path))
    for layer in chosen["layers"]:
        same(found[layer], expected[layer])


def test_units_without_positions_and_channels_last_outputs() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    chosen: dict[str, Any] = {"layers": ["0", "3"], "concepts": CONCEPTS, "quantile": 0.25, "batch_size": 5}
    expected = dissect(model, **chosen)
    with as_tensors():
        found = dissect(model, **chosen)
    for layer in chosen["layers"]:
        same(found[layer], expected[layer])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_stop_it_naming_layer_unit_and_image(value: float) -> None:
    features = np.load(GOLDEN / "activations.npz")["features"].copy()
    features[30, 5, 3, 3] = value
    with as_tensors(), pytest.raises(InputError, match=rf"unit 5, image made/00030\.jpg: an activation is {value}"):
        dissect_activations(features, concepts=CONCEPTS)


@pytest.mark.parametrize("spread", [1, 7, 1000])
def test_bounds_only_rise_and_never_pass_the_threshold(spread: int) -> None:
    random = np.random.default_rng(spread)
    values = random.integers(-spread, spread + 1, (200, 3, 40)).astype(np.float32)
    largest = LargestOnDevice(LargestValues(3, 200 * 40, 0.05), torch.device("cpu"))
    truth = np.quantile(values.transpose(1, 0, 2).reshape(3, -1).astype(np.float64), 0.95, axis=1)
    before = largest.bounds
    for first in range(0, 200, 9):
        batch = torch.from_numpy(values[first : first + 9].transpose(1, 0, 2).copy())
        units = torch.arange(3).repeat_interleave(batch.shape[1])
        images = torch.arange(batch.shape[1]).repeat(3)
        largest.add(KeptMaps(units, images, batch.amax(2).flatten(), batch.reshape(-1, 5, 8)))
        assert (largest.bounds >= before).all()
        assert (largest.bounds.numpy() <= truth).all()
        before = largest.bounds
    assert (before > -np.inf).all()
    largest.reduce(Processes())
    assert (largest.result() == truth).all()
