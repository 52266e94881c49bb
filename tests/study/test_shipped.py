"""Every recipe of the package runs, with few steps on small images."""

from __future__ import annotations

from pathlib import Path

import pytest

import prunescope
from prunescope.store import Recipe, read_recipe, shipped_recipes
from prunescope.store.layout import StudyDirectory
from prunescope.study import run_study

FEW = [
    "trials=1",
    "data.size=32",
    "data.workers=0",
    "training.length=3it",
    "training.batch_size=16",
    "training.warmup=1it",
    "training.schedule=[2it]",
    # So few images would diverge at once.
    "training.learning_rate=1e-3",
    "pruning.rewind_to=1it",
]
OF = {
    "one-shot": ["pruning.remaining=[0.5, 0.1]"],
    "fine-tuning": ["pruning.fine_tune=2it"],
    "original-ticket": ["pruning.rewind_to=0it"],
    "paper": ["data.augmentation=flip"],
}
# These take their masks from `rewinding`.
CONTROLS = ("reinitialised", "shuffled")


def few(name: str, recipe: Path) -> Recipe:
    data = read_recipe(recipe)
    given = [f"data.task={data.data.task}", f"dissection.concepts={data.dissection.concepts}"]
    levels = [] if name == "one-shot" else ["pruning.levels=2"]
    return read_recipe(name, [*given, *FEW, *levels, *OF.get(name, [])])


@pytest.mark.parametrize("name", [name for name in shipped_recipes() if name not in (*CONTROLS, "paper")])
def test_a_shipped_recipe_runs(name: str, recipe: Path, tmp_path: Path) -> None:
    together = [few(one, recipe) for one in ([name, *CONTROLS] if name == "rewinding" else [name])]
    for study in prunescope.studies(together, tmp_path, device="cpu"):
        run_study(study.recipe, study.out, branch_from=study.branch_from)
        levels = [StudyDirectory(study.out).read_measured(0, level) for level in range(3)]
        assert [round(level["weights_remaining"], 1) for level in levels] == {
            "one-shot": [1.0, 0.5, 0.1],
        }.get(name, [1.0, *(round((1 - (study.recipe.pruning.fraction or 0)) ** level, 1) for level in (1, 2))])
        assert all(stage.done for stage in study.stages())
