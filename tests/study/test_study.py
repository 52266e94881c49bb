"""A study does what the paper's method says, stops and goes on anywhere, and keeps what it has done."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import prunescope
from prunescope.errors import InputError
from prunescope.networks import build_network, load_weights
from prunescope.pruning import Mask, prune
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.store.stored import open_study
from prunescope.study import Event, run_study, stages
from prunescope.study.data import study_task
from prunescope.training import StepRange, train
from tests.report.page_data import read_data
from tests.training.test_training import folder_task


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[prunescope.Study, pd.DataFrame]:
    study = prunescope.Study(recipe, tmp_path_factory.mktemp("out") / "small", device="cpu")
    return study, study.run()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_of_the_layout_is_there(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    study, evidence = finished
    for trial in range(2):
        for level in range(3):
            folder = study.out / f"trial-{trial}" / f"level-{level:02d}"
            for name in (
                "mask.safetensors",
                "weights.safetensors",
                "training.csv",
                "predictions.parquet",
                "measured.json",
            ):
                assert (folder / name).is_file()
            for layer in ("stage1", "stage3"):
                for name in ("units.parquet", "tally.safetensors", "summary.json"):
                    assert (folder / "dissection" / layer / name).is_file()
    assert len(evidence) == 2 * 3 * 2
    assert json.loads((study.out / "evidence.json").read_text())["name"] == "small"
    assert len(pd.read_csv(study.out / "evidence.csv")) == 12
    for ending in ("svg", "pdf", "png"):
        assert (study.out / "figures" / f"figure1-accuracy.{ending}").is_file()
    assert "small" in (study.out / "report" / "index.html").read_text()
    assert not list(study.out.rglob("*.part*"))


def test_the_accuracy_of_a_level_is_that_of_its_predictions(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    study, evidence = finished
    accuracies = evidence.drop_duplicates(["trial", "level"]).set_index(["trial", "level"])["accuracy"]
    for (trial, level), accuracy in accuracies.items():
        table = open_study(study.out).predictions(trial, level)
        assert (table["class"] == table["predicted"]).mean() == accuracy


def test_evidence_agrees_with_the_units_tables(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    study, evidence = finished
    for row in evidence.itertuples():
        units = study.units(row.trial, row.level, row.layer)
        interpretable = units[units["iou"] > 0.05]
        assert row.units == len(units)
        assert row.interpretable == len(interpretable)
        assert row.concepts == interpretable["label"].nunique()
    assert sorted(evidence["weights_remaining"].round(2).unique()) == [0.25, 0.5, 1.0]


def test_the_network_of_a_level_is_dissected_as_the_study_did(
    finished: tuple[prunescope.Study, pd.DataFrame], tmp_path: Path
) -> None:
    study = finished[0]
    model = study.network(1, level=2)
    expected = load_file(StudyDirectory(study.out).weights(1, 2))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items() if name in expected)
    found = prunescope.dissect(model, layers=["stage3"], concepts=str(study.recipe.dissection.concepts), device="cpu")
    pd.testing.assert_frame_equal(found["stage3"].units, study.units(1, 2, "stage3"))
    with pytest.raises(InputError, match="trial 0, level 0 is not trained yet; run the study"):
        prunescope.Study(study.recipe, tmp_path, device="cpu").network(0)


def test_two_trials_are_compared_as_the_documentation_shows(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    study = finished[0]
    page = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"## Two trials of a study\n.*?```python\n(.*?)```", page, re.DOTALL)
    assert code.count("out/study") == code.count("data/labelled") == 1
    code = code.replace("out/study", str(study.out)).replace("data/labelled", str(study.recipe.dissection.concepts))
    names: dict[str, Any] = {}
    exec(code, names)
    assert sorted(names["matching"].units) == list(range(16))
    assert all(0 <= share <= 1 for share in names["shares"] if share == share)


def test_masks_only_lose_weights_and_pruned_weights_are_zero(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    directory = StudyDirectory(finished[0].out)
    for trial in range(2):
        masks = [Mask.load(directory.mask(trial, level)) for level in range(3)]
        assert masks[0].weights_remaining == 1.0
        for before, after in pairwise(masks):
            assert after.kept == before.kept - -(-before.kept // 2)
            assert all(not (after[name] & ~before[name]).any() for name in after)
        for level, mask in enumerate(masks):
            weights = load_file(directory.weights(trial, level))
            assert all((weights[name][~mask[name]] == 0).all() for name in mask)


def test_a_level_is_prune_rewind_retrain_written_out(finished: tuple[prunescope.Study, pd.DataFrame]) -> None:
    study = finished[0]
    directory, trial = StudyDirectory(study.out), 1
    task = study_task(study.recipe, directory)
    model = build_network("prunescope:resnet8x4", classes=16)
    load_weights(model, directory.weights(trial, 0))
    mask = prune(model, fraction=0.5)
    rewound = load_file(directory.rewind(trial))
    model.load_state_dict(rewound, strict=False)
    mask.apply(model)
    for name in mask:
        assert torch.equal(model.get_parameter(name)[mask[name]], rewound[name][mask[name]])
    train(model, task, study.recipe.training, seed=5 + trial, mask=mask, course=StepRange(4, 6))
    expected = load_file(directory.weights(trial, 1))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items() if name in expected)


def test_trials_differ_and_the_same_seed_gives_the_same_study_to_the_bit(
    finished: tuple[prunescope.Study, pd.DataFrame], recipe: Path, tmp_path: Path
) -> None:
    study = finished[0]
    first, second = (load_file(StudyDirectory(study.out).initial(trial))["fc.weight"] for trial in range(2))
    assert not torch.equal(first, second)
    run_study(read_recipe(recipe, ["trials=1"]), tmp_path / "again")
    ours, theirs = contents(tmp_path / "again" / "trial-0"), contents(study.out / "trial-0")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


@pytest.mark.parametrize(("at_level", "at_work"), [(0, "train"), (1, "train"), (1, "dissect")])
def test_an_interrupted_study_goes_on_and_ends_as_if_it_had_not_been(
    finished: tuple[prunescope.Study, pd.DataFrame], recipe: Path, tmp_path: Path, at_level: int, at_work: str
) -> None:
    def interrupt(event: Event) -> None:
        if (event.level, event.work) == (at_level, at_work) and event.fraction > 0.4:
            raise KeyboardInterrupt

    one_trial, out = read_recipe(recipe, ["trials=1"]), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run_study(one_trial, out, report=interrupt)
    assert sum(stage.done for stage in stages(one_trial, out)) == 2 * at_level + (at_work == "dissect")
    run_study(one_trial, out)
    assert contents(out / "trial-0") == contents(finished[0].out / "trial-0")


def test_what_is_complete_is_not_run_again(recipe: Path, tmp_path: Path) -> None:
    short, out = read_recipe(recipe, ["trials=1", "pruning.levels=1"]), tmp_path / "out"
    run_study(short, out)
    times = {path: path.stat().st_mtime_ns for path in (out / "trial-0").rglob("*") if path.is_file()}
    (out / "trial-0/level-01/dissection/stage1/summary.json").unlink()
    events: list[Event] = []
    run_study(short, out, report=events.append)
    assert {(event.level, event.work) for event in events if event.work != "data"} == {(1, "dissect")}
    changed = {path.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time}
    assert changed <= {"stage1", "stage3"}


def test_a_damaged_file_is_named_with_what_to_do_and_doing_it_helps(recipe: Path, tmp_path: Path) -> None:
    short = prunescope.Study(recipe, tmp_path / "out", changes=["trials=1", "pruning.levels=0"], device="cpu")
    short.run()
    level = short.out / "trial-0" / "level-00"
    table = level / "dissection" / "stage1" / "units.parquet"
    table.write_bytes(b"no table")
    with pytest.raises(InputError, match=r"units\.parquet: .*; remove it and run the study again"):
        short.run()
    table.unlink()
    events: list[Event] = []
    assert len(short.run(events.append)) == 2
    assert (events[-1].doing, events[-1].fraction) == ("resampling images", 1.0)
    (level / "measured.json").write_text("{")
    shutil.rmtree(level / "dissection")
    with pytest.raises(InputError, match=r"measured\.json: .*; remove it and run the study again"):
        short.run()


def test_progress_tells_level_weights_accuracy_and_the_time_that_is_left(recipe: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    run_study(read_recipe(recipe, ["trials=1", "pruning.levels=1"]), tmp_path / "out", report=events.append)
    finals = [event for event in events if event.summaries]
    assert [(event.trial, event.level) for event in finals] == [(0, 0), (0, 1)]
    assert finals[1].weights_remaining == pytest.approx(0.5, abs=1e-3)
    assert finals[1].top1 is not None
    overall = [event.overall for event in events if event.work != "data"]
    assert overall == sorted(overall)
    assert overall[-1] == pytest.approx(1.0)


def test_another_recipe_in_the_same_directory_is_refused_showing_the_difference(
    finished: tuple[prunescope.Study, pd.DataFrame], recipe: Path
) -> None:
    before = contents(finished[0].out)
    with pytest.raises(InputError, match=r"contains another study(.|\n)*-  fraction: 0\.5\n\+  fraction: 0\.3"):
        prunescope.Study(recipe, finished[0].out, changes=["pruning.fraction=0.3"], device="cpu").run()
    assert contents(finished[0].out) == before


def test_a_directory_of_something_else_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not a study"):
        prunescope.Study(recipe, tmp_path, device="cpu").run()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("dissection.layers=[stage4]", "nearest are: stage3"),
        ("dissection.layers=[stage2.0.relu]", "no layer"),
        ("pruning.rewind_to=7it", "after the end of training.length"),
        ("dissection.concepts=/nowhere", "/nowhere"),
        ("data.task=/nowhere", "/nowhere/train"),
        ("network=prunescope:resnet9x4", "6 *n"),
        ("pruning.exclude=[conv.weight]", "exclude"),
        ("data.std=[1,0,1]", r"data\.std is 0: .* greater than 0"),
        ("dissection.precision=tf32", "tf32 is for NVIDIA GPUs"),
        ("pruning={remaining: [0.5, 0.0001], scope: filters}", "at most 0 were requested"),
        ("pruning.levels=60", r"level 13 of 60 would keep none of the 5,324 prunable weights"),
        ("pruning={remaining: [0.5, 0.0000001]}", r"level 2 of 2 would keep none"),
        ("pruning={levels: 60, fraction: 0.5, scope: layer}", r"would keep none"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_trained(
    recipe: Path, tmp_path: Path, change: str, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        prunescope.Study(recipe, tmp_path / "out", changes=[change], device="cpu").run()
    assert not list(tmp_path.rglob("*"))


def test_the_papers_recipe_runs_on_data_in_imagenets_layout(recipe: Path, tmp_path: Path) -> None:
    folder_task(tmp_path / "imagenet", images=2, side=300)
    concepts = read_recipe(recipe).dissection.concepts
    few = ["trials=1", "pruning.levels=1", "training.length=2it", "pruning.rewind_to=1it", "data.workers=1"]
    # With two images a class, the paper's learning rate would diverge at once.
    few += ["training.learning_rate=1e-4"]
    given = [f"data.task={tmp_path / 'imagenet'}", f"dissection.concepts={concepts}"]
    study = prunescope.Study("paper", tmp_path / "out", changes=few + given, device="cpu")
    run_study(study.recipe, study.out)
    assert list(study.evidence()["weights_remaining"].round(2)) == [1.0, 0.8]
    assert list(study.evidence()["units"]) == [2048, 2048]


def test_the_folder_that_one_is_in_can_be_a_study(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_study(read_recipe(recipe, ["trials=1", "pruning.levels=0"]), ".")
    assert {path.name for path in tmp_path.iterdir()} - {"fingerprints.cache"} == {
        "study.yaml",
        "fingerprints.parquet",
        "trial-0",
    }
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.lock"))


def test_units_of_a_level_that_is_not_there_yet_are_an_error(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="level 1 is not dissected"):
        prunescope.Study(recipe, tmp_path / "out", device="cpu").units(0, 1)


def test_a_damaged_training_image_stops_the_study_naming_it(recipe: Path, tmp_path: Path) -> None:
    folder_task(tmp_path / "task", side=32)
    damaged = tmp_path / "task" / "train" / "dark" / "002.png"
    damaged.write_bytes(damaged.read_bytes()[:50])
    study = prunescope.Study(recipe, tmp_path / "out", changes=[f"data.task={tmp_path / 'task'}"], device="cpu")
    with pytest.raises(InputError, match=r"dark/002\.png"):
        study.run()


def test_a_concept_called_like_a_script_is_text_in_the_page(recipe: Path, tmp_path: Path) -> None:
    from prunescope.miniature import make_miniature

    concepts = make_miniature(tmp_path / "concepts", 64, seed=2, size=32)
    table, evil = pd.read_csv(concepts / "label.csv"), "<script>alert(1)</script>"
    table["name"] = evil
    table.to_csv(concepts / "label.csv", index=False)
    changes = ["trials=1", "pruning.levels=0", f"dissection.concepts={concepts}", "dissection.iou=0.001"]
    prunescope.Study(recipe, tmp_path / "out", changes=changes, device="cpu").run()
    assert any(name.startswith(evil) for name in read_data(tmp_path / "out", "study")["names"])
    assert evil not in (tmp_path / "out" / "report" / "index.html").read_text()
