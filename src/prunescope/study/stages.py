"""The stages of a study, and which of them are complete."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One stage of a study: the training or the dissection of one level of one trial."""

    trial: int
    level: int
    work: str  # "train" or "dissect"
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
    return found
