"""One pass gives the same integers whatever waits where, however many networks, layers or processes there are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn

from prunescope.concepts import open_concepts
from prunescope.dissection import dissect
from prunescope.dissection.maps import KeptMaps
from prunescope.dissection.masks import anchored_axis, stretch
from prunescope.dissection.run import dissect_networks
from prunescope.dissection.storage import Budget, Storage
from prunescope.dissection.thresholds import LargestOnCpu, LargestValues
from prunescope.dissection.workers import Workers
from prunescope.errors import InputError
from prunescope.networks import build_network, receptive_fields
from tests.dissection.worlds import GOLDEN

CONCEPTS = GOLDEN / "concepts"
LAYERS = ["stem.0", "stage1", "stage3"]


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return build_network("prunescope:resnet8x4", classes=3, seed=0)


@pytest.fixture(scope="module")
def expected(model: nn.Module) -> Any:
    return dissect(model, layers=LAYERS, concepts=CONCEPTS)


def same(found: Any, expected: Any) -> None:
    pd.testing.assert_frame_equal(found.units, expected.units)
    pd.testing.assert_frame_equal(found.pairs, expected.pairs)
    for layer, part in expected.items():
        for name, array in part.tally.items():
            assert np.array_equal(found[layer].tally[name], array), name
        for name, array in vars(part.examples).items():
            assert np.array_equal(getattr(found[layer].examples, name), array), name


@pytest.mark.parametrize(
    ("memory", "disk"), [(1 << 30, 0), (200_000, 1 << 30), (0, 1 << 30), (200_000, 300_000), (0, 0)]
)
def test_any_budget_gives_the_same_integers(
    model: nn.Module, expected: Any, tmp_path: Path, memory: int, disk: int
) -> None:
    budget = Budget(memory=memory, disk=disk, folder=tmp_path)
    same(dissect(model, layers=LAYERS, concepts=CONCEPTS, budget=budget), expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("memory", "twice"),
    [(1 << 30, []), (1 << 23, ["stem"]), (0, ["stem", "stage1", "stage2", "stage3"])],
)
def test_a_second_forward_pass_is_for_layers_that_do_not_fit_and_runs_no_further(
    model: nn.Module, memory: int, twice: list[str]
) -> None:
    calls: Counter[str] = Counter()
    handles = [
        part.register_forward_pre_hook(lambda *_, name=name: calls.update([name]))
        for name, part in model.named_children()
    ]
    layers, budget = ["stem.0", "stage3"], Budget(memory=memory, disk=0)
    # Given, the axis is not measured, which takes forward passes too.
    dissect(model, layers=layers, concepts=CONCEPTS, units_axis=1, batch_size=24, budget=budget)
    for handle in handles:
        handle.remove()
    # One more than the batches of a pass, as the network is first checked on two images.
    expected = {name: 5 if name in twice else 3 for name, _ in model.named_children()}
    # The check of the preprocessing also runs the network, but stops at its first module with weights.
    assert calls == expected | {"stem": expected["stem"] + 1}


@pytest.mark.parametrize(("memory", "looks"), [(1 << 30, 1), (0, 2)])
def test_progress_counts_the_images_of_a_second_forward_pass_too(model: nn.Module, memory: int, looks: int) -> None:
    told: list[tuple[int, int]] = []
    dissect(
        model, layers=["stem.0"], concepts=CONCEPTS, batch_size=24, budget=Budget(memory=memory, disk=0),
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    images = len(open_concepts(CONCEPTS))
    assert told[-1] == (looks * images, looks * images)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


def test_what_waits_leaves_nothing_behind_when_dissection_fails(tmp_path: Path) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(16)
            self.calls = 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.pool(x) * (float("nan") if self.calls == 42 else 1)

    model = nn.Sequential(Late())
    budget = Budget(memory=0, folder=tmp_path)
    with pytest.raises(InputError, match=r"image made/00039\.jpg"):
        dissect(model, layers=["0"], concepts=CONCEPTS, units_axis=1, batch_size=1, budget=budget)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_room_is_named(tmp_path: Path) -> None:
    with Storage(Budget(memory=0, folder=tmp_path / "absent")) as storage, pytest.raises(OSError, match="absent"):
        storage.buffer().add((np.zeros(10),))


def test_several_networks_at_once_give_what_each_gives_alone(model: nn.Module, expected: Any) -> None:
    other = build_network("prunescope:resnet8x4", classes=3, seed=1)
    found = dissect_networks({"a": model, "b": other}, layers=LAYERS, concepts=CONCEPTS)
    same(found["a"], expected)
    same(found["b"], dissect(other, layers=LAYERS, concepts=CONCEPTS))
    assert found["b"]["stage3"].summary["settings"]["name"] == "b"


def test_blocks_add_up_to_the_whole(expected: Any) -> None:
    for part in expected.values():
        tally = part.tally
        place = np.searchsorted(tally["numbers"], tally["block_pairs"][:, 1])
        assert (tally["block_intersect"].sum(0) == tally["intersect"][tally["block_pairs"][:, 0], place]).all()
        assert (tally["block_truth"].sum(0) == tally["truth"]).all()
        assert (tally["block_activation"].sum(0) == tally["activation"]).all()
        best = part.units.dropna(subset="label").set_index("unit")["label"]
        numbers = part.pairs.sort_values("iou", ascending=False).drop_duplicates("unit").set_index("unit")["number"]
        stored = {(unit, number) for unit, number in tally["block_pairs"].tolist()}
        assert {(unit, numbers[unit]) for unit in best.index} <= stored


def test_receptive_field_alignment_moves_the_masks_to_where_units_look(model: nn.Module) -> None:
    data = open_concepts(CONCEPTS)
    found = dissect(model, layers=["stage3"], concepts=data, align="receptive-field")["stage3"]
    field = receptive_fields(model, ["stage3"], data.image_size)["stage3"]
    assert found.summary["settings"]["stride"] == [str(value) for value in field.stride]
    assert found.examples is not None
    assert found.tally is not None
    features = [maps_of(model, data.image(i)) for i in range(len(data))]
    cells = features[0].shape[1]
    axes = [anchored_axis(cells, 112, 224, field.stride[axis], field.offset[axis]) for axis in range(2)]
    thresholds = found.units["threshold"].to_numpy()
    areas = sum(
        (stretch(maps, (112, 112), (axes[0], axes[1])) > thresholds[:, None, None]).sum((1, 2)) for maps in features
    )
    assert np.abs(areas - found.tally["area"]).max() <= 2
    plain = dissect(model, layers=["stage3"], concepts=data)["stage3"]
    assert (plain.tally["area"] != found.tally["area"]).any()  # type: ignore[index]


def maps_of(model: nn.Module, image: np.ndarray) -> np.ndarray:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image.copy()).float() / 255 - mean) / std).permute(2, 0, 1)[None]
    model.eval()
    with torch.inference_mode():
        return model.stage3(model.stage2(model.stage1(model.stem(pixels))))[0].numpy()  # type: ignore[operator]


def test_lower_precision_changes_little_and_is_noted(model: nn.Module, expected: Any) -> None:
    found = dissect(model, layers=["stage3"], concepts=CONCEPTS, precision="bf16")["stage3"]
    assert found.summary["settings"]["precision"] == "bf16"
    ours, theirs = found.units["threshold"], expected["stage3"].units["threshold"]
    assert not ours.equals(theirs)
    assert np.allclose(ours, theirs, rtol=0.05, atol=0.05)


def test_tf32_is_refused_where_it_would_change_nothing(model: nn.Module) -> None:
    with pytest.raises(InputError, match="tf32 is for NVIDIA GPUs, and the device is cpu"):
        dissect(model, layers=["stage3"], concepts=CONCEPTS, precision="tf32")


@pytest.mark.parametrize(("option", "value"), [("align", "receptive"), ("precision", "fp16"), ("presence", "images")])
def test_unknown_choices_are_refused_naming_the_nearest(model: nn.Module, option: str, value: str) -> None:
    with pytest.raises(InputError, match=f"{option} is '{value}'; the nearest are"):
        dissect(model, layers=["stage3"], concepts=CONCEPTS, **{option: value})


@pytest.mark.parametrize("spread", [1, 7, 1000])
def test_bounds_only_rise_and_never_pass_the_threshold(spread: int) -> None:
    random = np.random.default_rng(spread)
    values = random.integers(-spread, spread + 1, (200, 3, 40)).astype(np.float32)
    truth = np.quantile(values.transpose(1, 0, 2).reshape(3, -1).astype(np.float64), 0.95, axis=1)
    with Workers(2) as workers:
        largest = LargestOnCpu(LargestValues(3, 200 * 40, 0.05), workers)
        before = largest.bounds.copy()
        for first in range(0, 200, 9):
            batch = values[first : first + 9]
            units, images = np.tile(np.arange(3), len(batch)), np.repeat(np.arange(len(batch)), 3)
            largest.add(KeptMaps(units, images, batch.max(axis=2).reshape(-1), batch.reshape(-1, 5, 8)))
            assert (largest.bounds >= before).all()
            assert (largest.bounds <= truth).all()
            before = largest.bounds.copy()
        assert (largest.result() == truth).all()


SCRIPT = """
import sys
from torch import distributed
from prunescope.dissection import dissect
from prunescope.processes import join_processes
from prunescope.networks import build_network
if len(sys.argv) > 3:
    distributed.init_process_group(sys.argv[3])
model = build_network("prunescope:resnet8x4", classes=3, seed=0)
with join_processes('cpu') as processes:
    found = dissect(
        model, layers=["stage1", "stage3"], concepts=sys.argv[1], batch_size=1, basis=["rotate:1"]
    )
    if processes.rank == 0:
        found.save(sys.argv[2])
if distributed.is_initialized():
    distributed.destroy_process_group()
"""

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def run_script(folder: Path, out: str, start: list[str], *arguments: str) -> None:
    script = folder / "run.py"
    script.write_text(SCRIPT)
    command = [sys.executable, *start, str(script), str(CONCEPTS), str(folder / out), *arguments]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_two_processes_give_the_integers_of_one_whoever_connected_them(tmp_path: Path) -> None:
    run_script(tmp_path, "one", [])
    run_script(tmp_path, "two", TORCHRUN)
    # A group that carries what is on GPUs alone, as another program's may.
    run_script(tmp_path, "connected", TORCHRUN, "cuda:gloo")
    for layer in ("stage1", "stage3", "basis/rotate-1/stage1"):
        one = tmp_path / "one" / layer
        for other in (tmp_path / "two" / layer, tmp_path / "connected" / layer):
            for name in ("tally", "examples"):
                ours, theirs = (load_file(folder / f"{name}.safetensors") for folder in (one, other))
                assert all(np.array_equal(ours[key], theirs[key]) for key in ours)
            ours, theirs = (pd.read_parquet(folder / "units.parquet") for folder in (one, other))
            pd.testing.assert_frame_equal(ours, theirs)
