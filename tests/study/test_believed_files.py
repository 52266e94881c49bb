"""Files of a study that were changed, or are another level's, are named instead of being believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from prunescope.errors import InputError
from prunescope.store import Recipe, read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study import run_study
from prunescope.study.levels import Level
from prunescope.study.retraining import prune_level

CHANGES = ["trials=1", "dissection.layers=[stage3]"]


def studied(recipe: Path, out: Path, *changes: str) -> tuple[Recipe, Path]:
    read = read_recipe(recipe, [*CHANGES, *changes])
    run_study(read, out)
    return read, out


@pytest.fixture(scope="module")
def weights_study(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    return studied(recipe, tmp_path_factory.mktemp("weights") / "out")


@pytest.fixture(scope="module")
def filters_study(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    return studied(recipe, tmp_path_factory.mktemp("filters") / "out", "pruning.scope=filters", "pruning.levels=1")


def rewritten(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change({name: tensor.clone() for name, tensor in load_file(path).items()}), path)


def measured_as(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def prune_next(recipe: Recipe, out: Path, level: int) -> None:
    prune_level(Level(recipe, StudyDirectory(out), 0, level, 16))


def lacking_one(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    del tensors["fc.weight"]
    return tensors


def cut(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return tensors | {"stem.0.weight": tensors["stem.0.weight"][:1].clone()}


def with_one_more_kept(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    flat = tensors["fc.weight"].view(-1)
    flat[(~flat).nonzero()[0]] = True
    return tensors


def with_others_kept(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    flat = tensors["fc.weight"].view(-1)
    lost, kept = (~flat).nonzero()[0].clone(), flat.nonzero()[0].clone()
    flat[lost], flat[kept] = True, False
    return tensors


def test_the_level_that_is_pruned_next_needs_no_more_than_sound_files(weights_study: tuple[Recipe, Path]) -> None:
    prune_next(*weights_study, 1)
    prune_next(*weights_study, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lacking_one, "lacks the weight 'fc.weight', which the network has"),
        (
            lambda tensors: tensors | {"more.weight": torch.ones(2, dtype=torch.bool)},
            "contains the weight 'more.weight'",
        ),
        (cut, "contains 'stem.0.weight' of shape"),
        (
            lambda tensors: {name: torch.ones_like(tensor) for name, tensor in tensors.items()},
            "but measured.json states",
        ),
        (with_one_more_kept, "but measured.json states"),
        (with_others_kept, "weights in 'fc.weight' that are not zero although mask.safetensors prunes them"),
    ],
)
def test_a_mask_that_is_not_the_levels_is_refused_when_the_next_is_pruned(
    weights_study: tuple[Recipe, Path], tmp_path: Path, change: Callable[[Any], Any], said: str
) -> None:
    recipe, whole = weights_study
    out = shutil.copytree(whole, tmp_path / "out")
    level = out / "trial-0" / "level-01"
    rewritten(level / "mask.safetensors", change)
    with pytest.raises(
        InputError, match=rf"level-01/\w+\.safetensors .*{said}.*remove {level} and run the study again"
    ):
        prune_next(recipe, out, 2)


def test_a_mask_that_keeps_what_an_earlier_level_pruned_is_refused(
    weights_study: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, whole = weights_study
    out = shutil.copytree(whole, tmp_path / "out")
    rewritten(out / "trial-0" / "level-02" / "mask.safetensors", with_others_kept)
    with pytest.raises(InputError, match=r"keeps weights of 'fc\.weight' that level 1 had pruned"):
        Level(recipe, StudyDirectory(out), 0, 2, 16).kept()


def test_the_files_of_another_level_are_refused(weights_study: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, whole = weights_study
    for name in ("weights.safetensors", "mask.safetensors", "measured.json"):
        out = shutil.copytree(whole, tmp_path / name)
        shutil.copy(out / "trial-0" / "level-00" / name, out / "trial-0" / "level-01" / name)
        with pytest.raises(InputError, match="run the study again"):
            prune_next(recipe, out, 2)


def test_a_study_says_at_which_level_it_stopped_and_leaves_all_as_it_was(
    weights_study: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, whole = weights_study
    out = shutil.copytree(whole, tmp_path / "out")
    shutil.rmtree(out / "trial-0" / "level-02")
    mask = out / "trial-0" / "level-01" / "mask.safetensors"
    rewritten(mask, lacking_one)
    with pytest.raises(InputError, match=r"^trial 0, level 2: .*level-01/mask\.safetensors lacks the weight"):
        run_study(recipe, out)
    assert not (out / "trial-0" / "level-02").exists()
    shutil.rmtree(mask.parent)
    run_study(recipe, out)
    again, first = (load_file(root / "trial-0/level-02/mask.safetensors") for root in (out, whole))
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_record_of_filters_that_the_mask_contradicts_is_refused(
    filters_study: tuple[Recipe, Path], tmp_path: Path
) -> None:
    recipe, whole = filters_study
    prune_next(recipe, whole, 2)

    def other_filters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        name, kept = next((name, kept) for name, kept in tensors.items() if not kept.all() and kept.any())
        return tensors | {name: kept.roll(1) if not torch.equal(kept.roll(1), kept) else ~kept}

    out = shutil.copytree(whole, tmp_path / "out")
    rewritten(out / "trial-0" / "level-01" / "filters.safetensors", other_filters)
    with pytest.raises(InputError, match=r"filters\.safetensors keeps other weights than mask\.safetensors"):
        prune_next(recipe, out, 2)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"weights_remaining": 0.4}, "weights_remaining is 0.4, but kept / prunable is"),
        ({"weights_remaining": 1.5}, "weights_remaining is 1.5: "),
        ({"weights_remaining": "0.5"}, "weights_remaining is '0.5': "),
        ({"weights_remaining": None}, "weights_remaining is None: "),
        ({"kept": -1}, "kept is -1: "),
        ({"kept": 10**9}, "kept is 1000000000 and prunable"),
        ({"kept": 1.5}, "kept is 1.5: "),
        ({"top1": 1.01}, "top1 is 1.01: "),
        ({"top1": True}, "top1 is True: "),
        ({"top1": float("nan")}, "top1 is nan: "),
        ({"top5": -0.1}, "top5 is -0.1: "),
        ({"top1": 0.9, "top5": 0.1}, "top5 is 0.1, below top1, 0.9"),
        ({"loss": float("inf")}, "loss is inf: "),
        ({"level": 2}, "level is 2, but it is in the folder of level 1"),
        ({"trial": 1}, "trial is 1, but it is in the folder of trial 0"),
        ({"trial": "0"}, "trial is '0': "),
    ],
)
def test_measurements_that_cannot_be_are_refused_by_name(
    weights_study: tuple[Recipe, Path], tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    directory = StudyDirectory(tmp_path)
    path = directory.measured(0, 1)
    path.parent.mkdir(parents=True)
    shutil.copy(StudyDirectory(weights_study[1]).measured(0, 1), path)
    directory.read_measured(0, 1)
    measured_as(path, **changes)
    with pytest.raises(InputError) as error:
        directory.read_measured(0, 1)
    assert str(error.value).startswith(f"{path}: {said}")
    assert "run the study again" in str(error.value)
