"""A study that is killed goes on from the checkpoint; several processes make one study; a divergence ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from prunescope.errors import InputError
from prunescope.evidence import read_evidence
from prunescope.processes import Processes
from prunescope.pruning import Mask
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import Event, run_study, stages
from prunescope.study.opening import main_first
from tests.cli.commands import COMMAND, PLAIN, refused
from tests.contents import contents

PLAIN_NETWORK = """
import torch

def net(classes):
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, classes),
    )
"""


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As many as the commands in other processes have: the last digits of sums depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("level", [0, 1])
def test_a_study_killed_in_a_level_goes_on_from_its_checkpoint_to_the_same_bytes(
    recipe: Path, tmp_path: Path, level: int
) -> None:
    # Steps long enough to be killed in; a checkpoint after each.
    changes = ["trials=1", "pruning.levels=1", "training.length=40it", "training.schedule=[20it]"]
    changes += ["training.checkpoint_every=1it", "dissection.layers=[stage3]"]
    out, given = tmp_path / "out", read_recipe(recipe, changes)
    words = [*COMMAND, "study", str(recipe), "--out", str(out), "--device", "cpu"]
    words += [word for change in changes for word in ("--set", change)]
    directory = StudyDirectory(out)
    folder = directory.checkpoints(0, level)
    running = subprocess.Popen(words, env=PLAIN, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while not any(int(path.name[5:14]) >= 8 for path in folder.glob("step-*.safetensors")):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < until
            time.sleep(0.002)
        os.kill(running.pid, signal.SIGKILL)
    finally:
        running.kill()
        running.communicate()
    assert next((stage.level, stage.work) for stage in stages(given, out) if not stage.done) == (level, "train")
    reached = max(int(path.name[5:14]) for path in folder.glob("step-*.safetensors"))
    assert 8 <= reached < 40
    events: list[Event] = []
    run_study(given, out, report=events.append)
    told = (event.fraction for event in events if (event.level, event.work) == (level, "train") and event.fraction)
    assert next(told) > (reached - 5) / 40
    assert not list(out.rglob("checkpoints"))
    run_study(given, tmp_path / "whole")
    assert contents(out / "trial-0") == contents(tmp_path / "whole" / "trial-0")


def test_what_a_killed_process_left_half_written_goes(recipe: Path, tmp_path: Path) -> None:
    given = read_recipe(recipe, ["trials=1", "pruning.levels=0"])
    run_study(given, tmp_path / "out")
    level = tmp_path / "out" / "trial-0" / "level-00"
    left = [level / ".weights.123.part.safetensors", level / "dissection" / "stage3" / ".units.123.part.parquet"]
    left.append(tmp_path / "out" / ".study.123.part.yaml")
    for part in left:
        part.write_bytes(b"half")
    (level / "measured.json").unlink()
    run_study(given, tmp_path / "out")
    assert not any(part.exists() for part in left)
    begun = tmp_path / "begun" / ".study.123.part.yaml"
    begun.parent.mkdir()
    begun.write_bytes(b"half")
    run_study(given, tmp_path / "begun")
    assert not begun.exists()


@pytest.mark.parametrize("damaged", ["weights", "mask", "filters"])
def test_a_damaged_file_of_a_study_is_made_anew_once_it_is_removed(recipe: Path, tmp_path: Path, damaged: str) -> None:
    given = read_recipe(recipe, ["trials=1", "pruning.levels=2", "pruning.scope=filters"])
    run_study(given, tmp_path)
    before = contents(tmp_path / "trial-0")
    trial = tmp_path / "trial-0"
    (trial / "level-02" / "weights.safetensors").unlink()
    file = trial / "level-01" / f"{damaged}.safetensors"
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(InputError, match=rf"{file.name} .*remove it and run the study again"):
        run_study(given, tmp_path)
    file.unlink()
    run_study(given, tmp_path)
    assert contents(tmp_path / "trial-0") == before


def test_two_processes_make_the_study_of_one(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.py").write_text(PLAIN_NETWORK)
    changes = [f"network={tmp_path}/plain.py:net", "trials=1", "pruning.levels=1", "dissection.layers=['3']"]
    words = ["-m", "prunescope", "study", str(recipe), "--device", "cpu"]
    words += [word for change in changes for word in ("--set", change)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, *words, "--out", str(tmp_path / "two")], env=PLAIN, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    # One of them speaks.
    assert [line.split(":")[0] for line in done.stderr.splitlines() if line.startswith("trial ")] == [
        "trial 0, level  0",
        "trial 0, level  1",
    ]
    assert done.stdout.count("The report is") == 1
    run_study(read_recipe(recipe, changes), tmp_path / "one")
    one, two = (StudyDirectory(tmp_path / name) for name in ("one", "two"))
    assert contents(one.trial(0)).keys() == contents(two.trial(0)).keys()
    for level in (0, 1):
        masks = [Mask.load(study.mask(0, level)) for study in (one, two)]
        assert all((masks[0][name] == masks[1][name]).all() for name in masks[0])
        weights = [load_file(study.weights(0, level)) for study in (one, two)]
        assert all((weights[0][name] - weights[1][name]).abs().max() < 1e-5 for name in weights[0])
        tables = [pd.read_csv(study.training(0, level)) for study in (one, two)]
        pd.testing.assert_frame_equal(*tables, rtol=1e-5)
        units = [pd.read_parquet(study.dissection(0, level) / "3" / "units.parquet") for study in (one, two)]
        pd.testing.assert_frame_equal(*units, rtol=1e-3)


def test_what_the_disk_refuses_one_process_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def refused() -> None:
        raise NotADirectoryError(20, "Not a directory", "out/data")

    monkeypatch.setattr(Processes, "broadcast_object", lambda _, value: told.append(value) or value)
    with pytest.raises(NotADirectoryError):
        main_first(Processes(0, 2), refused)
    monkeypatch.setattr(Processes, "broadcast_object", lambda *_: told[0])
    with pytest.raises(InputError, match="Not a directory: 'out/data'"):
        main_first(Processes(1, 2), refused)


def test_a_training_that_diverges_ends_the_study_and_keeps_what_is_complete(recipe: Path, tmp_path: Path) -> None:
    # With such decay every step makes the weights nine times as large: one step is harmless, many are not.
    changes = ["trials=2", "training.schedule=[]", "training.warmup=0it", "training.learning_rate=100"]
    changes += ["training.weight_decay=0.1", "training.length=1it", "pruning.rewind_to=0it", "pruning.levels=2"]
    changes += ["pruning.retraining=fine-tune", "pruning.fine_tune=60it", "dissection.layers=[stage3]"]
    given = read_recipe(recipe, changes)
    with pytest.raises(InputError, match=r"trial 0, level 1: training diverged: .* learning rate 100; try a lower"):
        run_study(given, tmp_path / "out")
    done = [(stage.trial, stage.level, stage.work) for stage in stages(given, tmp_path / "out") if stage.done]
    assert done == [(0, 0, "train"), (0, 0, "dissect")]
    assert not (tmp_path / "out" / "trial-1").exists()
    options = [word for change in changes for word in ("--set", change)]
    said = refused("study", recipe, "--out", tmp_path / "out", "--device", "cpu", *options)
    assert said.startswith("error: trial 0, level 1: training diverged")


def test_trackers_write_into_the_studys_folder(recipe: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    changes = ["trials=1", "pruning.levels=1", "training.trackers=[tensorboard]", "dissection.layers=[stage3]"]
    run_study(read_recipe(recipe, changes), tmp_path / "out")
    for level in (0, 1):
        assert list(StudyDirectory(tmp_path / "out").tracking(0, level).rglob("events.out.*"))


def test_a_study_of_before_is_gone_on_with(recipe: Path, tmp_path: Path) -> None:
    given, directory = read_recipe(recipe, ["trials=1", "pruning.levels=0"]), StudyDirectory(tmp_path / "out")
    run_study(given, directory.root)
    lines = directory.recipe.read_text().splitlines(keepends=True)
    new = ("align", "precision", "schedule: iterative", "retraining", "remaining", "fine_tune", "masks", "checkpoint")
    directory.recipe.write_text("".join(line for line in lines if not line.strip().startswith(new)))
    directory.predictions(0, 0).unlink()
    before = directory.recipe.read_text()
    assert before.count("\n") < len(lines) - 6
    run_study(given, directory.root)
    # Fields that only say how the work is done may change.
    run_study(read_recipe(recipe, ["trials=1", "pruning.levels=0", "dissection.batch_size=7"]), directory.root)
    assert directory.recipe.read_text() == before
    assert json.loads(directory.measured(0, 0).read_text())["level"] == 0
    assert not directory.predictions(0, 0).exists()
    assert read_evidence(directory.root).classes is None
