"""Units that respond alike are matched, whatever their numbers, the batches or the processes are."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ortho_group
from torch import nn

import prunescope
from prunescope.dissection import UnitMatcher, UnitMatching, match_units
from prunescope.errors import InputError
from prunescope.networks import build_network
from tests.concepts.small import write_concepts
from tests.reference.matching import correlations, largest_sum, linear_cka

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def concepts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("concepts")
    return write_concepts(root, [{"scene": [1]}] * 12, {1: "scene"}, image_size=(16, 12), label_size=(4, 3))


def matched(a: Array, b: Array, batch: int | None = None) -> UnitMatching:
    """Match the units of maps [images, units, h, w], given batch by batch."""
    matcher, step = UnitMatcher(), batch or len(a)
    for first in range(0, len(a), step):
        matcher.add(torch.from_numpy(a[first : first + step]), torch.from_numpy(b[first : first + step]))
    return matcher.result()


def random_maps(seed: int, images: int, units: int, h: int, w: int, constant: int = 0) -> Array:
    random = np.random.default_rng([seed, units, h, w])
    maps = random.normal(random.normal(0, 5, (1, units, 1, 1)), 1, (images, units, h, w)).astype(np.float32)
    maps[:, random.permutation(units)[:constant]] = 0.1
    return maps


@st.composite
def layers(draw: st.DrawFn) -> tuple[Array, Array]:
    seed, images = draw(st.integers(0, 10**6)), draw(st.integers(1, 4))
    side, units, constant = st.integers(1, 4), st.integers(1, 4), st.integers(0, 2)
    return tuple(random_maps(seed, images, draw(units), draw(side), draw(side), draw(constant)) for _ in "ab")  # type: ignore[return-value]


@given(layers(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_matching_and_cka_equal_their_definitions(maps: tuple[Array, Array], batch: int) -> None:
    a, b = maps
    found, expected = matched(a, b, batch), correlations(a, b)
    pairs = [(unit, own) for own, unit in enumerate(found.units) if unit >= 0]
    assert len(pairs) == len({unit for unit, _ in pairs}) == min(a.shape[1], b.shape[1])
    np.testing.assert_allclose(
        found.correlation[[own for _, own in pairs]], [expected[pair] for pair in pairs], atol=1e-9
    )
    assert np.isnan(found.correlation[found.units < 0]).all()
    living = [expected[unit, own] for unit, own in pairs if np.ptp(a[:, unit]) and np.ptp(b[:, own])]
    alive = expected[np.ix_(np.ptp(a, axis=(0, 2, 3)) > 0, np.ptp(b, axis=(0, 2, 3)) > 0)]
    assert len(living) == min(alive.shape)  # dead units come last
    assert sum(living) == pytest.approx(largest_sum(alive) if alive.size else 0, abs=1e-8)
    if alive.size:
        assert found.cka == pytest.approx(linear_cka(a, b), abs=1e-9)
    else:
        assert np.isnan(found.cka)


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 12), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_units_in_another_order_are_matched_to_themselves(seed: int, images: int, units: int, constant: int) -> None:
    maps = random_maps(seed, images, units, 5, 3, min(constant, units - 1))
    order = np.random.default_rng(seed).permutation(units)
    found = matched(maps, maps[:, order])
    alive = np.ptp(maps, axis=(0, 2, 3))[order] > 0
    assert found.units[alive].tolist() == order[alive].tolist()
    np.testing.assert_allclose(found.correlation, alive, atol=1e-12)
    assert sorted(found.units) == list(range(units))
    assert found.cka == pytest.approx(1, abs=1e-12)


def test_a_rotation_of_the_units_keeps_the_cka_and_breaks_their_correlation() -> None:
    maps = np.random.default_rng(0).normal(size=(20, 8, 4, 4))
    turned = np.einsum("nuhw,uv->nvhw", maps, ortho_group.rvs(8, random_state=1))
    found = matched(maps.astype(np.float32), turned.astype(np.float32))
    assert found.cka == pytest.approx(1, abs=1e-6)
    assert (found.correlation < 0.95).all()
    scaled = matched(maps.astype(np.float32), (3 * maps + 7).astype(np.float32))
    assert scaled.cka == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(scaled.correlation, 1, atol=1e-6)


def test_a_living_unit_is_matched_before_a_dead_one_even_if_it_correlates_negatively() -> None:
    line = np.arange(6, dtype=np.float32).reshape(6, 1, 1, 1)
    dead = np.full_like(line, 0.1)
    a, b = np.concatenate([dead, line], 1), np.concatenate([dead, -line, dead], 1)
    found = matched(a, b)
    assert found.units.tolist() == [0, 1, -1]
    np.testing.assert_array_equal(found.correlation, [0, -1, np.nan])


def test_copies_of_a_unit_are_matched_by_their_numbers() -> None:
    maps = random_maps(0, 4, 1, 6, 6).repeat(40, axis=1)
    assert matched(maps, maps).units.tolist() == list(range(40))


def test_a_large_mean_and_a_first_batch_unlike_the_others_cost_no_digits() -> None:
    random = np.random.default_rng(0)
    a, b = (1e4 + random.normal(size=(64, 3, 2, 2)).astype(np.float32) for _ in "ab")
    a[:1], b[:1] = -1e4, 1e-3
    expected = correlations(a, b)
    for batch in (1, 7, 64):
        found = matched(a, b, batch)
        np.testing.assert_allclose(found.correlation, expected[found.units, range(3)], atol=1e-12)


def test_maps_that_need_much_memory_are_added_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = random_maps(0, 9, 3, 4, 4), random_maps(1, 9, 4, 2, 2)
    whole = matched(a, b)
    monkeypatch.setattr("prunescope.dissection.matching._VALUES", 250)
    parts = matched(a, b)
    assert parts.units.tolist() == whole.units.tolist()
    np.testing.assert_allclose(parts.correlation, whole.correlation, atol=1e-12)


def test_one_example_leaves_all_units_dead() -> None:
    found = matched(np.ones((1, 2, 1, 1), np.float32), np.ones((1, 3, 1, 1), np.float32))
    assert found.units.tolist() == [0, 1, -1]
    assert found.correlation[:2].tolist() == [0, 0]
    assert np.isnan(found.cka)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            torch.ones(2, 3, 4),
            torch.ones(2, 3),
            r"have the shapes \[2, 3, 4\] and \[2, 3\]; expected \[n, units, h, w\]",
        ),
        (torch.ones(2, 3), torch.ones(1, 3), "for the same n images"),
        (torch.ones(2, 4), torch.ones(2, 3), "have 4 and 3 units, but had 3 and 3 for earlier images"),
        (
            torch.ones(2, 3),
            torch.tensor([[1, 2, 3], [1, torch.inf, 1]]),
            "layer 'B', unit 1, image 1: an activation is inf",
        ),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    matcher = UnitMatcher()
    matcher.add(torch.ones(2, 3), torch.ones(2, 3))
    with pytest.raises(InputError, match=message):
        matcher.add(a, b)


def test_a_matcher_without_images_is_refused() -> None:
    with pytest.raises(InputError, match="no activation maps have been added"):
        UnitMatcher().result()


def test_a_matching_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = UnitMatching(np.array([2, -1, 0]), np.array([0.5, np.nan, -0.25]), 0.75)
    path = found.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["matching.parquet"]
    for given_path in (path, tmp_path):
        read = UnitMatching.read(given_path)
        np.testing.assert_array_equal(read.units, found.units)
        np.testing.assert_array_equal(read.correlation, found.correlation)
        assert read.cka == 0.75
    assert np.isnan(UnitMatching.read(UnitMatching(found.units, found.correlation, np.nan).save(tmp_path)).cka)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unit": [1, 2]}, "unit does not count from 0"),
        ({"matched_unit": [1, 1]}, "matched_unit contains a unit twice"),
        ({"matched_unit": [0.5, 1]}, "matched_unit is float64, expected whole numbers"),
        ({"matched_unit": [-1, 1]}, "in row 0 correlation is not from -1 to 1, or NaN"),
        ({"correlation": [0, 2.0]}, "in row 1 correlation"),
        ({"cka": [0.5, 0.6]}, "cka does not contain one number"),
    ],
)
def test_a_table_that_is_no_matching_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = UnitMatching(np.array([1, 0]), np.array([0.5, 0.25]), 0.75).save(tmp_path)
    pd.read_parquet(path).assign(**change).to_parquet(path)
    with pytest.raises(InputError, match=message):
        UnitMatching.read(path)


def test_a_damaged_or_missing_matching_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"matching.parquet: cannot be read as parquet"):
        UnitMatching.read(tmp_path)
    (tmp_path / "matching.parquet").write_text("PAR1")
    with pytest.raises(InputError, match=r"matching.parquet: cannot be read as parquet"):
        UnitMatching.read(tmp_path)


def plain_network(width: int = 6, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 5, 3),
            nn.ReLU(inplace=True),
        )


def test_a_network_and_its_permuted_copy_are_matched_by_the_permutation(concepts: Path) -> None:
    model, order = plain_network(), [3, 0, 5, 1, 4, 2]
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.copy_(model[0].weight[order])
        other[0].bias.copy_(model[0].bias[order])
        other[3].weight.copy_(model[3].weight[:, order])
    found = match_units(model, other, layers=["0", "4"], concepts=concepts, batch_size=7)
    assert found["0"].units.tolist() == order
    assert found["4"].units.tolist() == list(range(5))
    for layer in found.values():
        assert layer.cka == pytest.approx(1, abs=1e-9)
    assert model.training
    assert not model[0]._forward_hooks


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_network_is_matched_to_itself_whatever_the_batches(concepts: Path, precision: Any) -> None:
    model = plain_network()
    found = [
        match_units(model, model, layers=["4"], concepts=concepts, batch_size=size, precision=precision)["4"]
        for size in (3, 64)
    ]
    for one in found:
        assert one.units.tolist() == list(range(5))
        assert one.cka == pytest.approx(1, abs=1e-9)
        np.testing.assert_allclose(one.correlation, 1, atol=1e-9)


def test_networks_of_other_layers_widths_and_map_sizes_are_matched(concepts: Path) -> None:
    small, large = plain_network(width=4, seed=1), plain_network(width=6)
    seen: dict[str, list[Array]] = {"small": [], "large": []}
    hooks = [
        small[3].register_forward_hook(lambda _m, _i, output: seen["small"].append(output.detach().numpy().copy())),
        large[0].register_forward_hook(lambda _m, _i, output: seen["large"].append(output.detach().numpy().copy())),
    ]
    found = match_units(large, small, layers={"0": "3"}, concepts=concepts, batch_size=500, units_axis=1)["0"]
    for hook in hooks:
        hook.remove()
    # The last call is that on the images; those before check the networks.
    a, b = seen["large"][-1], seen["small"][-1]
    assert a.shape == (12, 6, 14, 10)
    assert b.shape == (12, 5, 5, 3)
    expected = correlations(a, b)
    assert len(set(found.units)) == 5
    np.testing.assert_allclose(found.correlation, expected[found.units, range(5)], atol=1e-6)
    assert found.correlation.sum() == pytest.approx(largest_sum(expected), abs=1e-6)
    assert found.cka == pytest.approx(linear_cka(a, b), abs=1e-6)


def test_one_layer_may_be_compared_with_several(concepts: Path) -> None:
    model = plain_network()
    found = match_units(model, model, layers={"1": "4", "4": "4"}, concepts=concepts)
    assert found["4"].units.tolist() == list(range(5))
    assert found["1"].cka < 1


def test_layers_that_cannot_be_matched_are_refused(concepts: Path) -> None:
    model = plain_network()
    with pytest.raises(InputError, match=r"no layer 'nowhere'"):
        match_units(model, model, layers={"0": "nowhere"}, concepts=concepts)
    with pytest.raises(InputError, match=r"layers: give a list, \['0'\]"):
        match_units(model, model, layers="0", concepts=concepts)
    with pytest.raises(InputError, match=r"units_axis names '1', which is not one of the layers"):
        match_units(model, model, layers=["0"], concepts=concepts, units_axis={"1": 1})
    broken = plain_network()
    with torch.no_grad():
        broken[3].bias.fill_(torch.nan)
    with pytest.raises(InputError, match=r"layer '3 of network B', unit 0, image .*0.png: an activation is nan"):
        match_units(model, broken, layers=["3"], concepts=concepts)


def test_random_weights_are_told_of(concepts: Path) -> None:
    model = build_network("prunescope:resnet8x4", classes=3, seed=0)
    with pytest.warns(UserWarning, match="network A has random weights of seed 0"):
        prunescope.match_units(model, plain_network(), layers={"stage1": "0"}, concepts=concepts)


SCRIPT = """
import sys
from prunescope.dissection import match_units
from prunescope.networks import build_network
from prunescope.processes import join_processes
a, b = (build_network("prunescope:resnet8x4", classes=3, seed=seed) for seed in (0, 1))
with join_processes("cpu") as processes:
    found = match_units(a, b, layers={"stage3": "stage2"}, concepts=sys.argv[1], batch_size=5)["stage3"]
    found.save(f"{sys.argv[2]}/{processes.rank}")
"""


@pytest.mark.filterwarnings("ignore:network")
def test_two_processes_find_what_one_finds(concepts: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(tmp_path / "run.py"), str(concepts), str(tmp_path)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    a, b = (build_network("prunescope:resnet8x4", classes=3, seed=seed) for seed in (0, 1))
    one = match_units(a, b, layers={"stage3": "stage2"}, concepts=concepts)["stage3"]
    for rank in "01":
        two = UnitMatching.read(tmp_path / rank)
        assert two.units.tolist() == one.units.tolist()
        np.testing.assert_allclose(two.correlation, one.correlation, atol=1e-6)
        assert two.cka == pytest.approx(one.cka, abs=1e-6)
