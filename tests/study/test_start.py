"""A study that begins with given weights measures and dissects them as level 0, and prunes on from there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import prunescope
from prunescope.errors import InputError
from prunescope.networks import build_network
from prunescope.pruning import Mask, prune
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import Event, run_study, stages
from prunescope.study.data import study_task
from prunescope.tasks.order import Plan
from prunescope.training import train
from prunescope.training.recipe import StepRange
from tests.cli.commands import refused
from tests.report.page_data import read_data

NETWORK, LENGTH, LAST_RATE = "prunescope:resnet8x4", 6, 0.05 * 0.1
COMMON = ["trials=1", "dissection.layers=[stage3]"]
TUNED = [*COMMON, "pruning.retraining=fine-tune", "pruning.fine_tune=2it"]


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with checkpoints of a network that a plain loop has trained: an early one, a dense and a sparse one."""
    root = tmp_path_factory.mktemp("made")
    given = read_recipe(recipe)
    task = study_task(given, StudyDirectory(root))
    torch.manual_seed(3)
    model = build_network(NETWORK, classes=16, seed=11)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    plan = Plan(len(task.train), 32, seed=1)
    for step, batch in enumerate(task.training_batches(plan, 0, 12, torch.device("cpu"))):
        if step == 4:
            torch.save(model.state_dict(), root / "early.pth")
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(batch.images), batch.targets).backward()
        optimiser.step()
    torch.save({"epoch": 4, "state_dict": model.state_dict()}, root / "dense.pth")
    mask = prune(model, fraction=0.6)
    mask.apply(model)
    torch.save(model.state_dict(), root / "sparse.pth")
    save_file(dict(mask), root / "masks.safetensors")
    torch.manual_seed(4)
    torch.save(build_network(NETWORK, classes=16, seed=12).state_dict(), root / "other.pth")
    return root


def run(recipe: Path, out: Path, changes: list[str], branches: tuple[Path, ...] = ()) -> tuple[StudyDirectory, str]:
    """Run a study, and return its directory and its notes."""
    events: list[Event] = []
    run_study(read_recipe(recipe, changes), out, branch_from=branches, report=events.append)
    return StudyDirectory(out), "\n".join(event.note for event in events if event.note)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def dense(tensors: dict[str, Tensor]) -> nn.Module:
    model = build_network(NETWORK, classes=16, seed=0)
    model.load_state_dict(tensors)
    return model


def test_a_given_network_is_level_0_as_it_is_and_pruning_goes_on_from_there(
    recipe: Path, made: Path, tmp_path: Path
) -> None:
    changes = [*TUNED, f"start.weights={made / 'dense.pth'}"]
    study, notes = run(recipe, tmp_path / "out", changes)
    assert "are zero" not in notes
    given = torch.load(made / "dense.pth")["state_dict"]
    stored = load_file(study.weights(0, 0))
    assert stored.keys() == given.keys()
    assert all(torch.equal(stored[name], given[name]) for name in given)
    assert not study.initial(0).exists()
    assert not study.rewind(0).exists()
    measured = study.read_measured(0, 0)
    assert (measured["weights_remaining"], measured["steps"]) == (1.0, 0)
    table = pd.read_csv(study.training(0, 0))
    assert table[["step", "top1"]].to_numpy().tolist() == [[0, measured["top1"]]]
    assert table[["learning_rate", "loss"]].isna().all(axis=None)
    model = dense(given)
    mask = prune(model, fraction=0.5)
    task = study_task(read_recipe(recipe, changes), study)
    training = read_recipe(recipe).training
    train(model, task, training, seed=5, mask=mask, course=StepRange(LENGTH, LENGTH + 2, LAST_RATE))
    level = load_file(study.weights(0, 1))
    assert all(torch.equal(level[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("form", ["zeros", "masks"])
def test_pruned_weights_of_a_sparse_start_stay_pruned(recipe: Path, made: Path, tmp_path: Path, form: str) -> None:
    weights, masks = (
        ("sparse.pth", []) if form == "zeros" else ("dense.pth", ["start.masks=" + str(made / "masks.safetensors")])
    )
    changes = [*TUNED, f"start.weights={made / weights}", *masks]
    study, notes = run(recipe, tmp_path / "out", changes)
    assert "; they stay pruned, so that level 0 has 40.0% of its weights" in notes
    given = load_file(made / "masks.safetensors")
    kept = Mask.load(study.mask(0, 0))
    assert all(torch.equal(kept[name], given[name]) for name in given)
    for level in (1, 2):
        mask, tensors = Mask.load(study.mask(0, level)), load_file(study.weights(0, level))
        assert not any((mask[name] & ~given[name]).any() for name in given)
        assert not any((tensors[name][~mask[name]] != 0).any() for name in given)
    found = prunescope.curves(study.root)
    assert found["weights_remaining"].round(2).tolist() == [0.4, 0.2, 0.1]


def test_levels_rewind_to_the_weights_that_are_given_for_it(recipe: Path, made: Path, tmp_path: Path) -> None:
    changes = [*COMMON, f"start.weights={made / 'dense.pth'}", f"start.rewind_weights={made / 'early.pth'}"]
    study, _ = run(recipe, tmp_path / "out", changes)
    early, task = torch.load(made / "early.pth"), study_task(read_recipe(recipe), study)
    for level in (1, 2):
        model = dense(early)
        train(model, task, read_recipe(recipe).training, seed=5, mask=Mask.load(study.mask(0, level)),
              course=StepRange(4, LENGTH))  # fmt: skip
        stored = load_file(study.weights(0, level))
        assert all(torch.equal(stored[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    "way", [["retraining=learning-rate"], ["retraining=reinitialise"], ["retraining=learning-rate", "scope=filters"]]
)
def test_the_other_ways_to_retrain_work_from_given_weights(
    recipe: Path, made: Path, tmp_path: Path, way: list[str]
) -> None:
    changes = [*COMMON, f"start.weights={made / 'dense.pth'}", *(f"pruning.{change}" for change in way)]
    study, _ = run(recipe, tmp_path / "out", changes)
    assert study.read_measured(0, 2)["weights_remaining"] <= 0.25
    assert study.read_measured(0, 2)["steps"] == (LENGTH if "reinitialise" in way[0] else LENGTH - 4)


def test_each_trial_begins_with_its_own_file_and_may_only_be_measured(recipe: Path, made: Path, tmp_path: Path) -> None:
    files = f"[{made / 'dense.pth'}, {made / 'other.pth'}]"
    study, _ = run(recipe, tmp_path / "out", ["pruning.levels=0", f"start.weights={files}"])
    assert torch.equal(load_file(study.weights(1, 0))["fc.weight"], torch.load(made / "other.pth")["fc.weight"])
    assert all(stage.done for stage in stages(read_recipe(study.recipe), study.root))


def test_a_study_that_was_stopped_goes_on_to_the_same_bytes_and_files_may_be_moved(
    recipe: Path, made: Path, tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pth"
    shutil.copy(made / "sparse.pth", weights)
    study, _ = run(recipe, tmp_path / "out", [*TUNED, f"start.weights={weights}"])
    before = contents(study.root / "trial-0")
    shutil.rmtree(study.level(0, 2))
    study.measured(0, 0).unlink()
    moved = weights.rename(tmp_path / "moved.pth")
    run(recipe, study.root, [*TUNED, f"start.weights={moved}"])
    assert contents(study.root / "trial-0") == before
    assert read_recipe(study.recipe).start.weights == (str(moved),)  # type: ignore[union-attr]
    # A finished study does not need the file any more.
    moved.unlink()
    run(recipe, study.root, [*TUNED, f"start.weights={moved}"])


def test_a_file_with_other_content_is_refused_on_resumption(recipe: Path, made: Path, tmp_path: Path) -> None:
    weights, early = tmp_path / "weights.pth", tmp_path / "early.pth"
    shutil.copy(made / "sparse.pth", weights)
    shutil.copy(made / "early.pth", early)
    changes = [*COMMON, "pruning.levels=1", f"start.weights={weights}", f"start.rewind_weights={early}"]
    study, _ = run(recipe, tmp_path / "out", changes)
    shutil.rmtree(study.level(0, 1))
    before = contents(study.root / "trial-0")
    for file, part in ((weights, "starting weights"), (early, "rewinding weights")):
        original = file.read_bytes()
        shutil.copy(made / "other.pth", file)
        with pytest.raises(InputError, match=rf"{part} \({file}\): 1 file changed"):
            run(recipe, study.root, changes)
        file.write_bytes(original)
    assert contents(study.root / "trial-0") == before


def test_masks_are_taken_from_a_study_with_the_same_start_only(recipe: Path, made: Path, tmp_path: Path) -> None:
    weights = f"start.weights={made / 'dense.pth'}"
    first, _ = run(recipe, tmp_path / "first", [*TUNED, weights])
    control = [*COMMON, "name=control", "pruning.masks=branch", "pruning.retraining=reinitialise"]
    second, notes = run(recipe, tmp_path / "second", [*control, weights], (first.root,))
    assert first.mask(0, 2).read_bytes() == second.mask(0, 2).read_bytes()
    assert "no dense network" not in notes
    for changes in (control, [*control, f"start.weights={made / 'other.pth'}"]):
        with pytest.raises(InputError, match=r"it differs in start"):
            run(recipe, tmp_path / "third", changes, (first.root,))
    trained = [*COMMON, "name=trained", "pruning.levels=0"]
    _, notes = run(recipe, tmp_path / "trained", trained, (first.root,))
    assert "no dense network is reused" in notes
    assert "differs in start" in notes


def test_a_plan_counts_no_training_of_level_0(recipe: Path, made: Path) -> None:
    changes = [*TUNED, f"start.weights={made / 'sparse.pth'}", "training.measure_every=1it"]
    found = prunescope.plan([recipe], changes=changes, images_per_second=(100.0, 100.0), device="cpu")
    assert found.table["steps"].tolist() == [0, 2, 2]
    assert found.table["weights remaining"].round(2).tolist() == [0.4, 0.2, 0.1]
    assert found.table["hours"][0] == pytest.approx((32 + 2 * 64) / 100 / 3600)  # with the untrained network
    assert any("stay pruned" in note for note in found.notes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["start.weights=dense.pth"], "pruning.retraining is 'rewind': levels rewind to the weights of an early step"),
        (["start.weights=[dense.pth, other.pth]"], "the study has one trial; expected one file"),
        (["trials=2", "start.weights=dense.pth"], "expected a list with as many files"),
        (["trials=2", "start.weights=[dense.pth, dense.pth]"], "a file is listed twice"),
        (["start.key=model"], "start.weights is missing"),
        (["start.weights=3"], "start.weights is 3: expected a list"),
        (["start.weight=dense.pth"], "start.weight is not a field of a recipe; the nearest are: weights"),
        (["start=dense.pth"], "start is 'dense.pth': expected fields"),
        (["start.weights=dense.pth", "network=torchvision:resnet18@DEFAULT"], "give torchvision:resnet18"),
        (
            [*TUNED, "start.weights=dense.pth", "start.rewind_weights=early.pth"],
            "start.rewind_weights is 'early.pth': no level rewinds with `retraining: fine-tune`",
        ),
        ([*TUNED, "pruning.scope=filters", "start.weights=a", "start.masks=b"], "start.masks is 'b': `scope: filters`"),
    ],
)
def test_a_start_that_makes_no_sense_is_refused(recipe: Path, changes: list[str], said: str) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(recipe, ["trials=1", *changes])
    assert said in str(error.value)


def test_files_that_do_not_fit_are_refused_before_anything_is_written(recipe: Path, made: Path, tmp_path: Path) -> None:
    def message(*changes: str) -> str:
        with pytest.raises(InputError) as error:
            run(recipe, tmp_path / "out", [*TUNED, *changes])
        assert not (tmp_path / "out").exists()
        return str(error.value)

    save_file(build_network(NETWORK, classes=7, seed=0).state_dict(), tmp_path / "seven.safetensors")
    spoilt = torch.load(made / "other.pth")
    torch.save(spoilt | {"fc.weight": spoilt["fc.weight"] * float("nan")}, tmp_path / "nan.pth")
    torch.save({name: tensor * 0 for name, tensor in spoilt.items()}, tmp_path / "zero.pth")
    (tmp_path / "damaged.pth").write_bytes(b"no weights")
    assert f"start.weights: {tmp_path / 'missing.pth'} does not exist" in message(
        f"start.weights={tmp_path / 'missing.pth'}"
    )
    assert "start.weights: the weights in" in message(f"start.weights={tmp_path / 'seven.safetensors'}")
    assert "contains nan or infinity in fc.weight" in message(f"start.weights={tmp_path / 'nan.pth'}")
    assert "all prunable weights in" in message(f"start.weights={tmp_path / 'zero.pth'}")
    assert "cannot be read" in message(f"start.weights={tmp_path / 'damaged.pth'}")
    assert "start.weights with start.masks: the masks in" in message(
        f"start.weights={made / 'dense.pth'}", f"start.masks={made / 'other.pth'}"
    )
    assert "pruning.remaining begins with 0.5, but" in message(
        f"start.weights={made / 'sparse.pth'}", "pruning.remaining=[0.5, 0.1]"
    )
    words = [word for change in [*TUNED, f"start.weights={tmp_path}"] for word in ("--set", change)]
    shown = refused("study", recipe, "--out", tmp_path / "out", "--device", "cpu", *words)
    assert "it is a folder without" in shown


def test_masks_that_lack_weights_of_a_trained_level_0_are_refused(recipe: Path, made: Path, tmp_path: Path) -> None:
    study, _ = run(recipe, tmp_path / "out", [*TUNED, "pruning.levels=1", f"start.weights={made / 'sparse.pth'}"])
    shutil.rmtree(study.level(0, 1))
    mask = Mask.load(study.mask(0, 0))
    Mask({name: torch.ones_like(tensor) for name, tensor in mask.items()}).save(study.mask(0, 0))
    with pytest.raises(InputError, match=r"but measured\.json states"):
        run(recipe, study.root, [*TUNED, "pruning.levels=1", f"start.weights={made / 'sparse.pth'}"])


def test_a_sparse_start_has_its_evidence_and_report(recipe: Path, made: Path, tmp_path: Path) -> None:
    changes = [*TUNED, "pruning.levels=1", f"start.weights={made / 'sparse.pth'}"]
    table = prunescope.Study(recipe, tmp_path / "out", changes=changes, device="cpu").run()
    assert table["weights_remaining"].round(2).tolist() == [0.4, 0.2]
    facts = dict(read_data(tmp_path / "out", "study")["facts"])
    assert facts["Levels"] == "2, from the given network to 50 % of its weights"
