"""A plan says what studies will cost: the steps they really take, each dense network once, nothing that is done."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from PIL import Image

import prunescope
from prunescope.errors import InputError
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import run_study
from prunescope.tasks.source import Files
from tests.cli.commands import refused, typed

FAST = {"images_per_second": (100.0, 1000.0), "device": "cpu"}


def test_a_plan_counts_the_steps_and_images_that_a_study_takes(recipe: Path, tmp_path: Path) -> None:
    changes = ["trials=1", "pruning.levels=1", "training.measure_every=1ep", "dissection.layers=[stage3]"]
    table = prunescope.plan([recipe], tmp_path / "out", changes=changes, **FAST).table  # type: ignore[arg-type]
    run_study(read_recipe(recipe, changes), tmp_path / "out")
    directory = StudyDirectory(tmp_path / "out")
    measured = [directory.read_measured(0, level) for level in (0, 1)]
    assert table["steps"].tolist() == [level["steps"] for level in measured] == [6, 2]
    assert table["weights remaining"].tolist() == pytest.approx([level["weights_remaining"] for level in measured])
    assert table["training images"].tolist() == [6 * 32, 2 * 32]
    assert table["dissected images"].tolist() == [2 * 64, 64]  # the untrained network is dissected with level 0
    # Twice in the dense training the 32 images for validation, once in the other, are forward passes too.
    seconds = [6 * 32 / 100 + (2 * 32 + 2 * 64) / 1000, 2 * 32 / 100 + (32 + 64) / 1000]
    assert table["hours"].tolist() == pytest.approx([second / 3600 for second in seconds])
    written = sum(path.stat().st_size for path in (tmp_path / "out" / "trial-0").rglob("*") if path.is_file())
    assert table["megabytes"].sum() * 1e6 == pytest.approx(written, rel=0.6)

    directory.measured(0, 1).unlink()
    again = prunescope.plan([recipe], tmp_path / "out", changes=changes, **FAST).table  # type: ignore[arg-type]
    assert again["steps"].tolist() == [0, 2]
    assert again["state"].tolist() == ["done", ""]
    run_study(read_recipe(recipe, changes), tmp_path / "out")
    done = prunescope.plan([recipe], tmp_path / "out", changes=changes, **FAST).table  # type: ignore[arg-type]
    assert done[["steps", "dissected images", "megabytes", "hours"]].to_numpy().sum() == 0


def test_a_dense_network_that_is_shared_is_counted_once(recipe: Path, tmp_path: Path) -> None:
    tuned = ["pruning.retraining=fine-tune", "pruning.fine_tune=5it"]
    recipes = [
        read_recipe(recipe, [f"name={name}", *changes])
        for name, changes in (("one", []), ("two", tuned), ("three", ["training.momentum=0.5"]))
    ]
    table = prunescope.plan(recipes, tmp_path, **FAST).table  # type: ignore[arg-type]
    steps = {name: rows["steps"].tolist() for name, rows in table.groupby("study")}
    assert steps == {"one": [6, 2, 2] * 2, "two": [0, 5, 5] * 2, "three": [6, 2, 2] * 2}
    assert table[table["study"] == "two"]["state"].tolist()[0] == f"of {tmp_path / 'one'}"
    # A trained network has no weights of another step any more, nor a trial the dissection of one of another number.
    run_study(read_recipe(recipe, ["name=one", "pruning.levels=0"]), tmp_path / "one")
    for changes, steps_and_images in (
        (["pruning.rewind_to=3it"], [(6, 128)] * 2),
        (["seed=6"], [(0, 128), (6, 128)]),
        ([], [(0, 0)] * 2),
    ):
        given = [read_recipe(recipe, ["pruning.levels=0", f"name={name}", *more])
                 for name, more in (("one", []), ("four", changes))]  # fmt: skip
        table = prunescope.plan(given, tmp_path, **FAST).table  # type: ignore[arg-type]
        rows = table[table["study"] == "four"]
        assert list(zip(rows["steps"], rows["dissected images"], strict=True)) == steps_and_images


def test_the_papers_study_is_planned_without_its_data() -> None:
    found = prunescope.plan(["paper"], **FAST)  # type: ignore[arg-type]
    assert len(found.table) == 3 * 21
    per_epoch = 1_281_167 // 1024
    assert found.table["steps"].tolist()[:2] == [90 * per_epoch, 84 * per_epoch]
    assert found.table["dissected images"].tolist()[:2] == [2 * 63_305, 63_305]
    assert any("data/imagenet does not exist: ImageNet's 1,281,167" in note for note in found.notes)
    fewer = prunescope.plan(["paper"], images=2048, **FAST)  # type: ignore[arg-type]
    assert fewer.table["steps"].tolist()[0] == 180


def test_a_dense_network_that_is_trained_again_is_counted(recipe: Path) -> None:
    changes = ["retrained=true", "trials=1", "pruning.levels=0"]
    table = prunescope.plan([recipe], changes=changes, **FAST).table  # type: ignore[arg-type]
    assert table["state"].tolist() == ["", "retrained"]
    assert table["steps"].tolist() == [6, 2]
    assert table["dissected images"].tolist() == [128, 64]


def test_filters_are_counted_as_the_dense_network_and_said_so(recipe: Path) -> None:
    changes = ["pruning.scope=filters"]
    found = prunescope.plan([recipe], changes=changes, **FAST)  # type: ignore[arg-type]
    assert (
        "levels with removed filters are counted at the cost of the dense network, which is an upper bound"
        in found.notes
    )


def test_filters_that_cannot_go_are_refused_in_a_plan_too(recipe: Path) -> None:
    changes = ["pruning.scope=filters", "pruning.exclude=['*']"]
    with pytest.raises(InputError, match="no filter of the network SmallResNet can be removed"):
        prunescope.plan([recipe], changes=changes, **FAST)  # type: ignore[arg-type]


def test_all_images_that_a_study_draws_are_told_of() -> None:
    changes = ["data.task.miniature.images=128", "dissection.concepts.miniature.images=64"]
    found = prunescope.plan(["demo"], changes=changes, **FAST)  # type: ignore[arg-type]
    assert "192 images that the study draws are not counted on disk" in found.notes


def test_the_command_measures_this_machine_and_adds_up(recipe: Path) -> None:
    result = typed("plan", recipe, "--device", "cpu")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["study", "trial", "level", "kept", "steps", "dissected", "MB", "hours", "state"]
    assert len(lines) == 1 + 2 * 3 + 1
    assert lines[1].split()[:6] == ["small", "0", "0", "100.0%", "6", "128"]
    assert lines[-1].startswith("in all: 6 trainings and 6 dissections, 20 steps, 640 training images")
    assert "measured on cpu, without reading any" in result.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_the_time_that_reading_takes_is_counted(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    for folder in ("train/one", "train/other", "val/one", "val/other"):
        (tmp_path / folder).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (40, 40)).save(tmp_path / folder / f"{number}.png")

    def slowly(files: Files, place: int) -> bytes:
        time.sleep(0.25)
        return read(files, place)

    read = Files.read
    monkeypatch.setattr(Files, "read", slowly)
    changes = ["data.in_memory=false", f"data.workers={workers}", "training.batch_size=4", f"data.task={tmp_path}"]
    found = prunescope.plan([recipe], changes=changes, device="cpu")
    # At least that: other work makes it more. Half of it, since workers read ahead.
    seconds = found.table["training images"].sum() * 0.25 / max(1, workers)
    assert found.table["hours"].sum() * 3600 > seconds / 2
    by = "the training process itself" if workers == 0 else "2 workers"
    assert any(f"measured on cpu, reading training images with {by}" in note for note in found.notes)


def test_what_keeps_a_study_from_running_is_said_in_its_plan(recipe: Path) -> None:
    taking = ["pruning.masks=branch", "pruning.retraining=reinitialise"]
    found = prunescope.plan([recipe], changes=taking, **FAST)  # type: ignore[arg-type]
    assert any("cannot run as it is" in note and "give --branch-from STUDY" in note for note in found.notes)
    with pytest.raises(InputError, match="would keep none of the"):
        prunescope.plan([recipe], changes=["pruning.levels=60"], **FAST)  # type: ignore[arg-type]


def test_hours_of_a_short_study_are_not_rounded_to_none(recipe: Path) -> None:
    result = typed("plan", recipe, "--images-per-second", "1000", "--device", "cpu")
    assert float(result.stdout.splitlines()[1].split()[7]) > 0


@pytest.mark.parametrize("given", ["0", "fast", "1,2,3", "-1", "nan"])
def test_a_speed_that_is_none_is_refused(recipe: Path, given: str) -> None:
    assert "--images-per-second is" in refused("plan", recipe, "--images-per-second", given)


def test_what_does_not_fit_is_refused_in_a_plan_too(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="2 recipes are called 'small'"):
        prunescope.plan([recipe, recipe], **FAST)  # type: ignore[arg-type]
    StudyDirectory(tmp_path / "other").claim(read_recipe(recipe))
    for change, out, said in (
        ("dissection.layers=[stage4]", None, "nearest are: stage3"),
        ("pruning.exclude=[nothing]", None, "nothing"),
        ("seed=1", tmp_path / "other", "contains another study"),
    ):
        with pytest.raises(InputError, match=said):
            prunescope.plan([recipe], out, changes=[change], **FAST)  # type: ignore[arg-type]


def test_a_rewinding_step_after_the_end_is_refused_in_a_plan_too(recipe: Path) -> None:
    with pytest.raises(InputError, match="after the end of training"):
        prunescope.plan([recipe], changes=["pruning.rewind_to=7it"], **FAST)  # type: ignore[arg-type]
