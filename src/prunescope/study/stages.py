"""The stages of a study, and which of them are complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One stage of a study: the training or the dissection of one level of one trial, or that of its reference.

    The reference is the dense network of a trial, trained again and dissected (`retrain`) if the recipe asks for it. It
    has the number of level 0, and comes after the levels of the trial, so that these are there as early as possible.
    """

    trial: int
    level: int
    work: str  # "train", "dissect" or "retrain"
    done: bool


def stages(recipe: Recipe, out: str | Path) -> list[Stage]:
    """Return all stages of a study in the order in which they run, each marked as done or not."""
    directory = StudyDirectory(Path(out))
    found = []
    for trial in range(recipe.trials):
        for level in range(recipe.pruning.levels + 1):
            trained = directory.is_trained(trial, level, recipe.pruning)
            dissected = trained and directory.is_dissected(trial, level, recipe.dissection.layers)
            found += [Stage(trial, level, "train", trained), Stage(trial, level, "dissect", dissected)]
        if recipe.retrained:
            done = directory.is_reference_dissected(trial, "retrained", recipe.dissection.layers)
            found.append(Stage(trial, 0, "retrain", done))
    return found
