"""Several processes train what one would: real ones, as torchrun starts them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from prunescope.errors import InputError
from prunescope.processes import Processes, join_processes
from prunescope.pruning import prune
from prunescope.training import Training, train
from tests.training.small import half_mask, network, opened, plain_network, recipe
from tests.training.together import COURSE, train_plain


@pytest.fixture(scope="module")
def two(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "tests.training.together", str(root), str(out)], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def one(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("one")
    train_plain(root, out)
    return out


@pytest.mark.parametrize("way", ["whole", "pieces", "resumed"])
def test_two_processes_give_one_processs_losses_and_masks(one: Path, two: Path, way: str) -> None:
    alone, together = pd.read_csv(one / "rows.csv"), pd.read_csv(two / way / "rows.csv")
    pd.testing.assert_frame_equal(alone, together, check_exact=False, rtol=1e-5, atol=1e-6)
    masks = []
    for folder in (one, two / way):
        model = plain_network()
        model.load_state_dict(load_file(folder / "weights.safetensors"))
        masks.append(prune(model, half_mask(plain_network()), fraction=0.3))
    assert all(torch.equal(masks[0][name], masks[1][name]) for name in masks[0])


def test_two_processes_go_on_from_the_checkpoint_that_one_of_them_reads(two: Path) -> None:
    whole, resumed = (load_file(two / way / "weights.safetensors") for way in ("whole", "resumed"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    told = [json.loads((two / way / "told.json").read_text())["told"] for way in ("whole", "resumed")]
    assert told == [[1, 2, 3, 4, 5, 6, 0], [4, 5, 6, 0]]


@pytest.fixture(scope="module")
def told(two: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((two / "told.json").read_text())
    return content


def test_every_process_ends_with_the_same_network_and_statistics(told: dict[str, Any]) -> None:
    assert told["processes"] == 2
    assert told["same"]


def test_sharing_the_validation_images_does_not_change_what_is_measured(told: dict[str, Any]) -> None:
    assert told["shared"] == pytest.approx(told["alone"], rel=1e-6)


def test_every_process_has_the_predictions_of_all_images_in_their_order(two: Path, told: dict[str, Any]) -> None:
    tables = [pd.read_parquet(two / f"{name}-{rank}.parquet") for name in ("alone", "shared") for rank in range(2)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], rtol=1e-5)
    assert tables[0]["image"].tolist() == list(range(len(tables[0])))
    assert (tables[0]["class"] == tables[0]["predicted"]).mean() == told["alone"][0] == told["shared"][0]


def test_what_stops_the_main_process_stops_all_with_the_same_message(two: Path) -> None:
    main, other = (json.loads((two / f"errors-{rank}.json").read_text())["errors"] for rank in range(2))
    assert main == other
    assert "is a checkpoint of another training, which differs in momentum;" in main[0]
    assert main[1] == "no space left"


def test_what_stops_one_process_stops_the_main_one_without_a_traceback(two: Path) -> None:
    assert (two / "ended-1.txt").read_text() == "this process alone has found what it cannot read"
    assert (two / "ended-0.txt").read_text().startswith("another process of this run has ended")


def test_a_batch_smaller_than_the_number_of_processes_is_refused(told: dict[str, Any]) -> None:
    assert told["errors"][0].startswith("a batch of 1 images cannot be shared by 2 processes; start fewer")


def test_statistics_cannot_be_synchronised_between_cpus(told: dict[str, Any]) -> None:
    assert "SyncBatchNorm works on GPUs only, but the device is cpu" in told["errors"][1]


def test_alone_synchronised_statistics_are_the_batchs_own(root: Path) -> None:
    rows = [
        train(model, opened(root), training, seed=0, mask=half_mask(model), course=COURSE)["loss"].tolist()
        for training in (recipe(), recipe(synchronise_statistics=True))
        for model in [network()]
    ]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("count", [0, 1, 7, 50_000])
@pytest.mark.parametrize("processes", [1, 2, 8])
def test_shares_cover_everything_once(count: int, processes: int) -> None:
    shares = [Processes(rank, processes).share_of(count) for rank in range(processes)]
    assert [place for share in shares for place in share] == list(range(count))


def test_one_process_that_torchrun_started_is_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"LOCAL_RANK": "0", "RANK": "0", "WORLD_SIZE": "1", "PMI_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    model = plain_network()
    train(model, opened(root), recipe(), seed=0, mask=half_mask(model), course=COURSE)
    assert not torch.distributed.is_initialized()


def test_a_number_of_processes_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 2, .* RANK expected.*unset WORLD_SIZE"), join_processes("cpu"):
        pass


def test_a_launch_that_would_split_the_network_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    model, training = plain_network(), recipe()
    with pytest.raises(InputError, match=r"launched with FSDP \(ACCELERATE_USE_FSDP\)"):
        train(model, opened(root), training, seed=0, mask=half_mask(model), course=COURSE)


def test_the_recipe_says_the_precision_whatever_the_launch_says(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for said in ("no", "bf16"):
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", said)
        model = plain_network()
        training: Training = recipe()
        found.append(train(model, opened(root), training, seed=0, mask=half_mask(model), course=COURSE)["loss"])
    assert found[0].equals(found[1])
