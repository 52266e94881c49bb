"""A recipe is read over what it extends, its combinations make sense, and what is wrong is named by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from prunescope.errors import InputError
from prunescope.store import Recipe, read_recipe, recipe_text, shipped_recipes
from tests.study.small import write_recipe


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "small.yaml", "task", "concepts")


def extending(small: Path, text: str, name: str = "mine.yaml", base: str = "small.yaml") -> Path:
    file = small.with_name(name)
    file.write_text(f"extends: {base}\n{text}")
    return file


def test_fields_within_fields_are_merged_and_lists_replaced(small: Path) -> None:
    mine = read_recipe(extending(small, "name: mine\npruning: {fraction: 0.3}\ndissection: {layers: [stage2]}\n"))
    base = read_recipe(small)
    assert (mine.name, mine.pruning.fraction, mine.dissection.layers) == ("mine", 0.3, ("stage2",))
    assert mine.pruning.levels == base.pruning.levels
    assert mine.training == base.training
    assert mine.dissection.concepts == base.dissection.concepts


def test_a_recipe_may_extend_one_of_the_package_and_one_that_extends(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("extends: miniature\nname: one\nseed: 7\n")
    (tmp_path / "two.yaml").write_text("extends: one.yaml\nname: two\ntrials: 1\n")
    expected = read_recipe("miniature").model_dump() | {"name": "two", "seed": 7, "trials": 1}
    assert read_recipe(tmp_path / "two.yaml").model_dump() == expected


def test_data_of_another_form_are_taken_over_whole_and_of_the_same_form_merged(small: Path) -> None:
    drawn = read_recipe(extending(small, "data: {task: {miniature: {images: 128}}}\n", "drawn.yaml"))
    assert drawn.data.task.miniature.images == 128  # type: ignore[union-attr]
    more = read_recipe(
        extending(small, "data: {task: {miniature: {seed: 9}}}\n", "more.yaml", "drawn.yaml"),
        ["data.task.miniature.images=256"],
    )
    assert more.model_dump()["data"]["task"] == {"miniature": {"images": 256, "seed": 9}}
    assert read_recipe(extending(small, "data: {task: here}\n", "back.yaml", "more.yaml")).data.task == "here"


def test_of_two_ways_to_say_how_much_is_pruned_the_one_said_last_counts(small: Path) -> None:
    given = read_recipe(extending(small, "pruning: {remaining: [0.5, 0.2, 0.1]}\n"))
    assert (given.pruning.remaining, given.pruning.levels, given.pruning.fraction) == ((0.5, 0.2, 0.1), 3, None)
    back = read_recipe(small.with_name("mine.yaml"), ["pruning.levels=4", "pruning.fraction=0.1"])
    assert (back.pruning.remaining, back.pruning.levels, back.pruning.fraction) == (None, 4, 0.1)


def test_null_is_a_fields_default(small: Path) -> None:
    assert read_recipe(extending(small, "training: {warmup: 5it, measure_every: 1ep}\n")).training.measure_every
    again = read_recipe(extending(small, "training: {measure_every: null}\n", "again.yaml", "mine.yaml"))
    assert again.training.measure_every is None
    assert str(again.training.warmup) == "5it"
    lower = read_recipe(extending(small, "training: {momentum: 0.5}\n", "lower.yaml"), ["training.momentum=null"])
    assert lower.training.momentum == 0.9
    same = read_recipe(extending(small, "pruning: {remaining: null}\n", "same.yaml"))
    assert same.pruning == read_recipe(small).pruning
    with pytest.raises(InputError, match=r"bare\.yaml, line 2: training is missing"):
        read_recipe(extending(small, "training:\n", "bare.yaml"))


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_resolved_recipe_says_the_same_again(name: str, tmp_path: Path) -> None:
    recipe = read_recipe(name)
    (tmp_path / "study.yaml").write_text(recipe.to_yaml())
    assert read_recipe(tmp_path / "study.yaml") == recipe


def test_recipes_of_before_mean_what_they_meant() -> None:
    for name in ("demo", "miniature", "paper"):
        given = yaml.safe_load(recipe_text(name)[1])
        pruning = read_recipe(name).pruning
        assert (pruning.schedule, pruning.retraining, pruning.masks) == ("iterative", "rewind", "own")
        assert (pruning.levels, pruning.fraction) == (given["pruning"]["levels"], given["pruning"]["fraction"])


@pytest.mark.parametrize(
    ("pruning", "said"),
    [
        ("levels: 2, remaining: [0.5]", "pruning.levels is 2: `remaining` has 1 entries; omit `levels`"),
        ("fraction: 0.2, remaining: [0.5]", "pruning.fraction is 0.2: `remaining` determines"),
        ("remaining: [0.5, 0.5]", "pruning.remaining is (0.5, 0.5): expected fractions that fall"),
        ("remaining: [0.5, 0.6]", "expected fractions that fall from level to level"),
        ("remaining: [0.5, 0]", "pruning.remaining.1 is 0"),
        ("remaining: [1]", "pruning.remaining.0 is 1"),
        ("remaining: []", "pruning.remaining is []"),
        ("fraction: 0.2", "pruning.levels is missing"),
        ("levels: 1, criterion: shuffled", "pruning.criterion is 'shuffled': it permutes the masks of another study"),
        ("levels: 1, criterion: shuffled, masks: branch, scope: filters", "pruning.criterion is 'shuffled': a mask"),
        ("levels: 1, criterion: random, masks: branch", "pruning.criterion is 'random': `masks: branch`"),
        ("levels: 1, retraining: fine-tune", "pruning.fine_tune is None: expected how long"),
        ("levels: 1, retraining: fine-tune, fine_tune: 0it", "expected how long"),
        ("levels: 1, fine_tune: 1ep", "pruning.fine_tune is '1ep': `retraining: rewind` does not"),
        ("levels: 1, retraining: finetune", "pruning.retraining is 'finetune'"),
    ],
)
def test_pruning_that_makes_no_sense_is_refused_naming_line_and_field(small: Path, pruning: str, said: str) -> None:
    text = small.read_text().replace("  levels: 2\n  fraction: 0.5\n  rewind_to: 1ep1it\n", "")
    small.write_text(text.replace("pruning:\n", f"pruning: {{{pruning}}}\n"))
    with pytest.raises(InputError) as error:
        read_recipe(small)
    assert said in str(error.value)
    assert str(error.value).startswith(f"{small}, line 16: ")


def test_published_weights_cannot_be_drawn_anew(small: Path) -> None:
    changes = ["network=torchvision:resnet18@IMAGENET1K_V1", "pruning.retraining=reinitialise"]
    with pytest.raises(InputError, match="the published weights of torchvision:resnet18@IMAGENET1K_V1 would be"):
        read_recipe(small, changes)


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("banana", "line 1: extends: there is no recipe called 'banana'; there are: "),
        ("nowhere.yaml", "line 1: extends: {folder}/nowhere.yaml: the recipe cannot be read (No such file"),
        ("mine.yaml", "line 1: extends: mine.yaml extends this recipe itself"),
        ("[small.yaml]", "line 1: extends is ['small.yaml'], expected a recipe's name"),
    ],
)
def test_a_base_that_cannot_be_is_refused_with_its_line(small: Path, base: str, said: str) -> None:
    mine = extending(small, "name: mine\n", base=base)
    with pytest.raises(InputError) as error:
        read_recipe(mine)
    assert str(error.value).startswith(f"{mine}, {said.format(folder=small.parent)}")


def test_a_value_that_holds_itself_is_refused(small: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.yaml: a value contains itself"):
        read_recipe(extending(small, "name: &name [*name]\n"))


def test_a_circle_of_three_is_refused_where_it_closes(small: Path) -> None:
    for name, base in (("a.yaml", "b.yaml"), ("b.yaml", "c.yaml"), ("c.yaml", "./a.yaml")):
        extending(small, "", name, base)
    with pytest.raises(InputError, match=r"c\.yaml, line 1: extends: \./a\.yaml extends this recipe itself"):
        read_recipe(small.with_name("a.yaml"))


def test_an_error_names_the_file_in_which_the_field_stands(small: Path) -> None:
    mine = extending(small, "\ntraining: {momentum: 2}\n")
    small.write_text(small.read_text().replace("trials: 2", "trials: none"))
    with pytest.raises(InputError) as error:
        read_recipe(mine, ["seed=x"])
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{small}, line 3", f"{mine}, --set seed=x", f"{mine}, line 3"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("prunning.levels=3", "prunning is not a field of a recipe; the nearest are: pruning, training"),
        ("pruning.exclude=stem", "pruning.exclude is 'stem': expected a list, such as [a, b]"),
        ("training=3", "training is 3: expected fields, each with its value"),
        ("pruning.exclude=[0]", "pruning.exclude is 0: expected text; put text that looks like a number in quotes"),
        (
            "dissection.layers=[0]",
            "dissection.layers is 0: expected text; put text that looks like a number in quotes",
        ),
        ("training.schedule=3", "training.schedule is 3: expected a list, such as [a, b]"),
        ("dissection.layers=[]", "dissection.layers is []: expected a list with at least one item"),
    ],
)
def test_a_change_that_cannot_be_is_named_in_the_words_of_a_recipe(small: Path, change: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        read_recipe(small, [change])
    assert str(error.value) == f"{small}, --set {change}: {said}"


def test_every_wrong_item_of_a_list_is_named(small: Path) -> None:
    with pytest.raises(InputError, match=r"trackers is 'x': .*\n.*trackers is 'y': "):
        read_recipe(small, ["training.trackers=[x, y]"])


def test_a_study_of_before_that_lacks_new_fields_is_the_same_study(small: Path) -> None:
    def without_new(content: dict[str, Any]) -> dict[str, Any]:
        new = ("remaining", "schedule", "retraining", "fine_tune", "masks")
        pruning = {name: value for name, value in content["pruning"].items() if name not in new}
        dissection = {k: v for k, v in content["dissection"].items() if k not in ("align", "precision", "units_axis")}
        return content | {"pruning": pruning, "dissection": dissection}

    recipe = read_recipe(small)
    assert Recipe.model_validate(without_new(yaml.safe_load(recipe.to_yaml()))) == recipe
