"""Training and pruning on a GPU: pruned weights stay zero, killed studies go on, two GPUs train as one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from prunescope.pruning import Mask, prune
from prunescope.tasks import Task
from prunescope.training import StepRange, train
from tests.training.small import folder_task, half_mask, network, opened, recipe

pytestmark = pytest.mark.gpu

COURSE = StepRange(0, 9)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return opened(folder_task(tmp_path_factory.mktemp("task")), augmentation="flip")


@pytest.mark.parametrize(
    "changes",
    [{}, {"precision": "bf16"}, {"compile": True}, {"precision": "bf16", "compile": True, "device_batch_size": 3}],
)
def test_pruned_weights_stay_zero_and_the_loss_is_the_cpus(task: Task, changes: dict[str, object]) -> None:
    models = [network(), network()]
    mask = half_mask(models[0])
    rows = [
        train(model, task, recipe(**given), seed=1, mask=mask, course=COURSE, device=device)
        for model, device, given in zip(models, ("cpu", "cuda"), ({}, changes), strict=True)
    ]
    for name, weight in mask.parameters(models[1]).items():
        assert not weight[~mask[name].to(weight.device)].any(), name
        assert weight.device.type == "cuda"
    assert models[1].stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    tolerance = 0.1 if "precision" in changes else 0.02
    assert rows[1]["loss"].to_numpy() == pytest.approx(rows[0]["loss"].to_numpy(), abs=tolerance)


@pytest.mark.parametrize("criterion", ["magnitude", "random"])
def test_masks_are_the_cpus(criterion: str) -> None:
    model = network()
    on_cpu = prune(model, fraction=0.7, criterion=criterion, seed=4)
    on_gpu = prune(model.cuda(), fraction=0.7, criterion=criterion, seed=4)
    for name, kept in on_cpu.items():
        assert torch.equal(on_gpu[name].cpu(), kept), name


def test_a_study_that_is_killed_goes_on(tmp_path: Path) -> None:
    changes = ["network=prunescope:resnet8x4", "data.task={miniature: {images: 128, seed: 5}}"]
    changes += ["dissection.concepts={miniature: {images: 64, seed: 9}}", "pruning.levels=1", "pruning.fraction=0.2"]
    changes += ["training.length=800it", "training.warmup=10it", "training.checkpoint_every=20it"]
    changes += ["pruning.rewind_to=10it"]
    command = [sys.executable, "-m", "prunescope", "study", "demo", "--out", str(tmp_path / "out"), "--device", "cuda"]
    command += [part for change in changes for part in ("--set", change)]
    running = subprocess.Popen(command)
    checkpoints = tmp_path / "out" / "trial-0" / "level-00" / "checkpoints"
    ends = time.monotonic() + 120
    while not list(checkpoints.glob("step*")) and running.poll() is None and time.monotonic() < ends:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "out" / "trial-0" / "level-00" / "measured.json").exists(), "it was not killed in time"
    subprocess.run(command, check=True)
    evidence = pd.read_csv(tmp_path / "out" / "evidence.csv")
    assert evidence["level"].tolist() == [0, 1]
    mask = Mask.load(tmp_path / "out" / "trial-0" / "level-01" / "mask.safetensors")
    assert mask.weights_remaining == pytest.approx(0.8, abs=1e-3)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_train_as_one(tmp_path: Path) -> None:
    folder_task(tmp_path / "task")
    script = Path(__file__).with_name("two_gpus.py")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), os.environ.get("PYTHONPATH", "")])}
    subprocess.run([*torchrun, str(script), str(tmp_path / "task"), str(tmp_path)], check=True, env=environment)
    model = network()
    rows = train(
        model,
        opened(tmp_path / "task"),
        recipe(batch_size=8),
        seed=3,
        mask=half_mask(model),
        course=COURSE,
        device="cuda",
    )
    assert pd.read_csv(tmp_path / "rows.csv")["loss"].to_numpy() == pytest.approx(rows["loss"].to_numpy(), abs=0.05)
