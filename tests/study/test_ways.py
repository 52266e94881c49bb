"""Every way to prune and retrain does what its definition says, and all share one dense network."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import prunescope
from prunescope.errors import InputError
from prunescope.files import write_json
from prunescope.networks import build_network
from prunescope.pruning import Filters, Mask, prune, prune_filters, shrink
from prunescope.store import read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import Event, run_study
from prunescope.study.data import study_task
from prunescope.training import train
from prunescope.training.recipe import StepRange, Training

NETWORK, SEED, LENGTH, LAST_RATE = "prunescope:resnet8x4", 5, 6, 0.05 * 0.1

# name -> what it changes of the small recipe, whose levels keep a half of the weights each
WAYS = {
    "rewinding": [],
    "fine-tuning": ["retraining=fine-tune", "fine_tune=2it"],
    "learning-rate": ["retraining=learning-rate"],
    "original": ["rewind_to=0it"],
    "later": ["rewind_to=5it"],
    "shuffled": ["masks=branch", "criterion=shuffled"],
    "reinitialised": ["masks=branch", "retraining=reinitialise"],
    "random": ["criterion=random"],
    "layerwise": ["scope=layer", "exclude=[fc.weight]"],
    "one-shot": ["schedule=one-shot"],
    "given": ["schedule=one-shot", "remaining=[0.4, 0.1]", "retraining=fine-tune", "fine_tune=1it"],
    "filters": ["scope=filters"],
    "filters, tuned": ["scope=filters", "retraining=fine-tune", "fine_tune=2it"],
}


class Ways:
    """The studies, run by one call."""

    def __init__(self, recipe: Path, out: Path) -> None:
        common = ["trials=1", "dissection.layers=[stage3]"]
        recipes = [
            read_recipe(recipe, [*common, f"name={name}", *(f"pruning.{change}" for change in changes)])
            for name, changes in WAYS.items()
        ]
        self.events: dict[str, list[Event]] = {name: [] for name in WAYS}
        self.out = out
        self.studies = {}
        for study in prunescope.studies(recipes, out, device="cpu"):
            self.studies[study.recipe.name] = study
            run_study(
                study.recipe, study.out, branch_from=study.branch_from, snapshots=study.snapshots,
                report=self.events[study.recipe.name].append,
            )  # fmt: skip
        self.task = study_task(recipes[0], self["rewinding"])

    def __getitem__(self, name: str) -> StudyDirectory:
        return StudyDirectory(self.out / name)

    def mask(self, name: str, level: int) -> Mask:
        return Mask.load(self[name].mask(0, level))

    def weights(self, name: str, level: int) -> dict[str, Tensor]:
        return load_file(self[name].weights(0, level))

    def training(self) -> Training:
        return self.studies["rewinding"].recipe.training


@pytest.fixture(scope="module")
def ways(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Ways:
    return Ways(recipe, tmp_path_factory.mktemp("ways"))


def same(model: nn.Module, expected: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == expected.keys() and all(torch.equal(own[name], expected[name]) for name in own)


def dense(tensors: dict[str, Tensor] | None = None) -> nn.Module:
    model = build_network(NETWORK, classes=16, seed=SEED)
    if tensors is not None:
        model.load_state_dict(tensors)
    return model


def test_the_dense_network_is_trained_and_dissected_once(ways: Ways) -> None:
    first = ways["rewinding"]
    for name in [name for name in WAYS if name != "rewinding"]:
        for theirs, ours in (
            (first.initial(0), ways[name].initial(0)),
            (first.weights(0, 0), ways[name].weights(0, 0)),
        ):
            assert theirs.samefile(ours), name
        table = Path("stage3") / "units.parquet"
        assert (first.dissection(0, 0) / table).samefile(ways[name].dissection(0, 0) / table)
        notes = [event.note for event in ways.events[name] if event.note]
        assert notes[-1] == f"trial 0: the dense network is that of {first.root}, and its dissection"
        assert {event.level for event in ways.events[name] if event.work != "data"} == {1, 2}
    assert not [event.note for event in ways.events["rewinding"] if event.note]


def test_what_is_shared_is_what_a_study_alone_makes(ways: Ways, tmp_path: Path) -> None:
    study = ways.studies["original"]
    run_study(study.recipe, tmp_path / "alone")
    alone, shared = ({p.relative_to(root): p.read_bytes() for p in (root / "trial-0").rglob("*") if p.is_file()}
                     for root in (tmp_path / "alone", study.out))  # fmt: skip
    assert alone == shared


def test_every_way_rewinds_to_its_own_step_of_the_one_dense_training(ways: Ways) -> None:
    model, mask = dense(), Mask.dense(dense())
    train(model, ways.task, ways.training(), seed=SEED, mask=mask, course=StepRange(0, 5))
    assert same(model, load_file(ways["later"].rewind(0)))
    assert ways["later"].rewind(0).samefile(ways["rewinding"].snapshot(0, 5))
    assert ways["original"].rewind(0).samefile(ways["rewinding"].initial(0))


@pytest.mark.parametrize("name", ["rewinding", "random", "layerwise", "one-shot", "later", "original"])
def test_weights_begin_at_the_rewinding_point(ways: Ways, name: str) -> None:
    step = {"later": 5, "original": 0}.get(name, 4)
    for level in (1, 2):
        model = dense(load_file(ways[name].rewind(0)))
        train(model, ways.task, ways.training(), seed=SEED, mask=ways.mask(name, level), course=StepRange(step, LENGTH))
        assert same(model, ways.weights(name, level))


@pytest.mark.parametrize(
    ("name", "course"),
    [
        ("fine-tuning", StepRange(LENGTH, LENGTH + 2, LAST_RATE)),
        ("learning-rate", StepRange(4, LENGTH)),
        ("given", StepRange(LENGTH, LENGTH + 1, LAST_RATE)),
    ],
)
def test_trained_weights_are_kept_and_trained_on(ways: Ways, name: str, course: StepRange) -> None:
    for level in (1, 2):
        model = dense(ways.weights(name, 0 if name == "given" else level - 1))
        train(model, ways.task, ways.training(), seed=SEED, mask=ways.mask(name, level), course=course)
        assert same(model, ways.weights(name, level))
        assert ways[name].read_measured(0, level)["steps"] == course.stop - course.start


def test_iterative_masks_are_pruned_from_the_level_before(ways: Ways) -> None:
    for name, options in (("rewinding", {}), ("fine-tuning", {}), ("layerwise", {"scope": "layer"})):
        for level in (1, 2):
            before = dense(ways.weights(name, level - 1))
            expected = prune(before, ways.mask(name, level - 1), fraction=0.5, **options)  # type: ignore[arg-type]
            assert dict_equal(expected, ways.mask(name, level))
    assert "fc.weight" not in ways.mask("layerwise", 1)


def test_one_shot_masks_are_pruned_from_the_dense_network(ways: Ways) -> None:
    model = dense(ways.weights("one-shot", 0))
    once = prune(model, fraction=0.5)
    assert dict_equal(once, ways.mask("one-shot", 1))
    assert dict_equal(prune(model, once, fraction=0.5), ways.mask("one-shot", 2))
    for level, remaining in ((1, 0.4), (2, 0.1)):
        assert dict_equal(prune(model, remaining=remaining), ways.mask("given", level))
        assert ways["given"].read_measured(0, level)["weights_remaining"] == pytest.approx(remaining, abs=1e-3)


def test_random_masks_keep_as_many_weights_and_others(ways: Ways) -> None:
    for level in (1, 2):
        random, magnitude = ways.mask("random", level), ways.mask("rewinding", level)
        assert random.kept == magnitude.kept
        assert not dict_equal(random, magnitude)


def test_shuffled_masks_keep_each_layers_count_and_other_weights(ways: Ways) -> None:
    for level in (1, 2):
        shuffled, trained = ways.mask("shuffled", level), ways.mask("rewinding", level)
        assert {name: int(tensor.sum()) for name, tensor in shuffled.items()} == {
            name: int(tensor.sum()) for name, tensor in trained.items()
        }
        assert not dict_equal(shuffled, trained)


def test_reinitialised_networks_have_the_branchs_masks_over_new_weights(ways: Ways) -> None:
    for level in (1, 2):
        assert dict_equal(ways.mask("reinitialised", level), ways.mask("rewinding", level))
        assert ways["reinitialised"].read_measured(0, level)["steps"] == LENGTH
    first, second = (ways.weights("reinitialised", level)["stem.0.weight"] for level in (1, 2))
    ticket = ways.weights("original", 1)["stem.0.weight"]
    kept = ways.mask("reinitialised", 2)["stem.0.weight"] & ways.mask("original", 1)["stem.0.weight"]

    def alike(one: Tensor, other: Tensor) -> float:
        return float(torch.corrcoef(torch.stack([one[kept], other[kept]]))[0, 1])

    # Six steps hardly move a weight: networks from the same initial weights are still alike.
    assert alike(ticket, load_file(ways["original"].initial(0))["stem.0.weight"]) > 0.9
    assert abs(alike(first, ticket)) < 0.5
    assert abs(alike(first, second)) < 0.5


@pytest.mark.parametrize("name", ["filters", "filters, tuned"])
def test_filters_are_really_removed_and_the_rest_retrained(ways: Ways, name: str) -> None:
    before, left = dense(ways.weights(name, 0)), None
    for level in (1, 2):
        expected = prune_filters(before, left, fraction=0.5, image_size=32)
        left = Filters.load(ways[name].filters(0, level))
        assert all(torch.equal(left.outputs[module], expected.outputs[module]) for module in expected)
        assert dict_equal(left.mask(dense()), ways.mask(name, level))
        if name == "filters":
            model = dense(load_file(ways[name].rewind(0)))
            shrink(model, left, 32)
            course = StepRange(4, LENGTH)
        else:
            model, course = dense(ways.weights(name, 0)), StepRange(LENGTH, LENGTH + 2, LAST_RATE)
            if level == 2:
                model = narrowed(before, Filters.load(ways[name].filters(0, 1)), left)
            else:
                shrink(model, left, 32)
        train(model, ways.task, ways.training(), seed=SEED, mask=Mask.dense(model), course=course)
        assert same(model, ways.weights(name, level))
        assert same(ways.studies[name].network(0, level), ways.weights(name, level))
        weights = sum(tensor.numel() for tensor in ways.weights(name, level).values() if tensor.ndim > 1)
        dense_weights = sum(tensor.numel() for tensor in ways.weights(name, 0).values() if tensor.ndim > 1)
        measured = ways[name].read_measured(0, level)
        assert measured["weights_remaining"] == weights / dense_weights <= 0.5**level
        assert (measured["kept"], measured["prunable"]) == (weights, dense_weights)
        before = model


def narrowed(shrunk: nn.Module, filters: Filters, left: Filters) -> nn.Module:
    """Take from a shrunk network what later filters leave, tensor by tensor, by hand."""
    model = dense()
    shrink(model, left, 32)
    tensors = {}
    for name, tensor in shrunk.state_dict().items():
        module = name.rpartition(".")[0]
        if tensor.ndim:
            tensor = tensor[left.outputs[module][filters.outputs[module]]]
        if tensor.ndim > 1:
            tensor = tensor[:, left.inputs[module][filters.inputs[module]]]
        tensors[name] = tensor
    model.load_state_dict(tensors)
    return model


def test_units_of_smaller_networks_keep_their_numbers(ways: Ways) -> None:
    study = ways.studies["filters"]
    tables = [study.units(0, level)["unit"].tolist() for level in range(3)]
    assert tables[0] == list(range(16))
    for before, after in pairwise(tables):
        assert set(after) < set(before)
    last = Filters.load(ways["filters"].filters(0, 2))
    assert tables[2] == last["stage3.0.bn2"].tolist()


def test_smaller_networks_have_their_evidence_and_report(ways: Ways) -> None:
    table = ways.studies["filters"].run()
    assert list(table["level"]) == [0, 1, 2]
    assert table["weights_remaining"].round(1).tolist() == [1.0, 0.5, 0.2]
    assert (ways["filters"].root / "report" / "index.html").is_file()


def dict_equal(one: Mask, other: Mask) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_masks_are_looked_for_before_anything_runs(ways: Ways, recipe: Path, tmp_path: Path) -> None:
    control = ["trials=1", "name=control", "pruning.masks=branch", "pruning.retraining=reinitialise"]

    def refused(changes: list[str], *branches: Path) -> str:
        with pytest.raises(InputError) as error:
            prunescope.Study(
                recipe, tmp_path / "out", changes=[*control, *changes], device="cpu", branch_from=branches
            ).run()
        assert not (tmp_path / "out").exists()
        return str(error.value)

    there = ways["rewinding"].root
    assert "but no study is given; give --branch-from STUDY, or list" in refused([])
    assert f"{there}: it differs in pruning.fraction" in refused(["pruning.fraction=0.4"], there)
    assert "it differs in training.learning_rate" in refused(["training.learning_rate=0.1"], there)
    assert "it has 2 levels, but 3 are needed" in refused(["pruning.levels=3"], there)
    assert "it has no trial with seed 6" in refused(["trials=2"], there)
    assert "it takes its own masks from another study" in refused([], ways["shuffled"].root)
    assert "contains no study to branch from" in refused([], tmp_path / "nowhere")
    half = prunescope.Study(recipe, tmp_path / "half", changes=["trials=1", "pruning.levels=2"], device="cpu")
    StudyDirectory(half.out).claim(half.recipe)
    assert "level 0 of its trial 0 is not finished" in refused([], half.out)


def test_recipes_of_one_run_need_names_of_their_own_and_masks_before_controls(recipe: Path, tmp_path: Path) -> None:
    control = read_recipe(recipe, ["name=control", "pruning.masks=branch"])
    for recipes, said in (
        ([recipe, recipe], "2 recipes are called 'small'"),
        ([control, recipe], "no study is given"),
        ([read_recipe(recipe, ["name=../up"]), recipe], "each name is also the name of a folder"),
    ):
        with pytest.raises(InputError, match=said):
            prunescope.studies(recipes, tmp_path / "out", device="cpu")  # type: ignore[arg-type]
    StudyDirectory(tmp_path / "one").claim(control)
    with pytest.raises(InputError, match=f"{tmp_path / 'one'} is itself a study"):
        prunescope.studies([recipe, control], tmp_path / "one", device="cpu")
    assert [study.out.name for study in prunescope.studies([recipe, control], tmp_path / "out", device="cpu")] == [
        "small",
        "control",
    ]


def test_a_study_elsewhere_is_branched_from_as_far_as_both_agree(
    ways: Ways, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    events: list[Event] = []
    # Trial 0 of seed 4 is new, trial 1 is the branch's trial 0; a dissection by another quantile is its own.
    changes = ["seed=4", "pruning.levels=0", "dissection.layers=[stage3]", "dissection.quantile=0.01"]
    out = StudyDirectory(tmp_path / "out")
    run_study(read_recipe(recipe, changes), out.root, branch_from=[ways["rewinding"].root], report=events.append)
    there = ways["rewinding"]
    assert [event.note for event in events if event.note] == [
        f"trial 0: no dense network is reused: {there.root} has no trial with seed 4",
        f"trial 1: the dense network is that of {there.root}",
    ]
    for theirs, ours in ((there.weights(0, 0), out.weights(1, 0)), (there.rewind(0), out.rewind(1))):
        assert theirs.read_bytes() == ours.read_bytes()
        assert not theirs.samefile(ours)
    assert out.read_measured(1, 0) == there.read_measured(0, 0) | {"trial": 1}
    trained = {(event.trial, event.work) for event in events if event.work != "data"}
    assert trained == {(0, "train"), (0, "dissect"), (1, "dissect")}


def test_another_rewinding_step_than_the_branch_has_is_trained_for(ways: Ways, recipe: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    changed = read_recipe(recipe, ["trials=1", "pruning.levels=0", "pruning.rewind_to=3it"])
    other, there = read_recipe(recipe, ["training.momentum=0.8"]), ways["rewinding"].root
    StudyDirectory(tmp_path / "other").claim(other)
    StudyDirectory(tmp_path / "begun").claim(changed)
    branches = [there, tmp_path / "other", tmp_path / "begun"]
    run_study(changed, tmp_path / "out", branch_from=branches, report=events.append)
    assert {event.work for event in events} >= {"train", "dissect"}
    assert [event.note for event in events if event.note] == [
        f"trial 0: no dense network is reused: {there} has not saved the weights of step 3it; {branches[1]} differs in "
        f"training.momentum; {branches[2]} has not finished level 0 of its trial 0"
    ]


def test_masks_of_another_study_are_not_mixed_in_later(ways: Ways, recipe: Path, tmp_path: Path) -> None:
    changes = ["trials=1", "pruning.levels=2", "pruning.masks=branch", "dissection.layers=[stage3]"]
    control, first = read_recipe(recipe, changes), ways["rewinding"].root
    run_study(control, tmp_path / "out", branch_from=[first])
    (tmp_path / "out" / "trial-0" / "level-02" / "measured.json").unlink()
    second = ways["original"].root
    with pytest.raises(InputError, match=rf"masks \({second}\): 1 file changed \(trial-0/level-02/mask.safetensors\)"):
        run_study(control, tmp_path / "out", branch_from=[second])
    # A study that has not recorded what its masks are knows them by their place.
    StudyDirectory(tmp_path / "out").fingerprints.unlink()
    with pytest.raises(InputError, match=f"takes its masks from {first}, not from {second}; branch from that"):
        run_study(control, tmp_path / "out", branch_from=[second])
    noted = StudyDirectory(tmp_path / "out").masks_of
    noted.write_text('{"study": ')
    with pytest.raises(InputError, match=r'masks\.json: cannot be read as JSON .*; expected {"study": DIRECTORY}'):
        run_study(control, tmp_path / "out", branch_from=[first])
    # A study may be in any place.
    moved = tmp_path / 'a "place"'
    moved.symlink_to(first)
    write_json(noted, {"study": str(moved)})
    run_study(control, tmp_path / "out", branch_from=[moved])


def test_drawn_images_are_shared_too(recipe: Path, tmp_path: Path) -> None:
    drawn = "{miniature: {images: 64, seed: 3}}"
    changes = [f"data.task={drawn}", f"dissection.concepts={drawn}", "trials=1", "dissection.layers=[stage3]"]
    recipes = [read_recipe(recipe, [*changes, f"name={name}", "pruning.levels=0"]) for name in ("one", "two")]
    for study in prunescope.studies(recipes, tmp_path, device="cpu"):
        run_study(study.recipe, study.out, branch_from=study.branch_from)
    for part in ("task/classification/train", "concepts/images", "concepts/packed"):
        one, two = (
            sorted(path for path in (tmp_path / name / "data" / part).rglob("[!.]*.*") if path.is_file())
            for name in ("one", "two")
        )
        assert len(one) == len(two) > 0
        assert [first for first, second in zip(one, two, strict=True) if not first.samefile(second)] == []
