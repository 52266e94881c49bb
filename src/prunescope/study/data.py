"""The data of a study: opened where they are, or drawn."""

from __future__ import annotations

import warnings
from pathlib import Path

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.concepts.miniature import make_miniature
from prunescope.concepts.packed import pack_concepts
from prunescope.progress import Progress, silent
from prunescope.study.layout import StudyDirectory
from prunescope.study.recipe import Drawn, Recipe
from prunescope.training.data import Task, open_task


def study_task(recipe: Recipe, directory: StudyDirectory, progress: Progress = silent) -> Task:
    """Open the classification task, drawing it first if the recipe says so."""
    origin, data = recipe.data.task, recipe.data
    root = Path(origin) if isinstance(origin, str) else _draw(origin, directory.data / "task", data.size, progress)
    return open_task(
        root / "classification" if isinstance(origin, Drawn) else root,
        size=data.size,
        augmentation=data.augmentation,
        mean=data.mean,
        std=data.std,
        in_memory=data.in_memory,
        workers=data.workers,
    )


def study_concepts(recipe: Recipe, directory: StudyDirectory, progress: Progress = silent) -> ConceptData:
    """Open the labelled images, drawing and packing them first if the recipe says so.

    Every level reads them again, so that a packed copy saves decoding them each time.
    """
    origin = recipe.dissection.concepts
    if isinstance(origin, Drawn):
        drawn = _draw(origin, directory.data / "concepts", recipe.data.size, progress)
        pack_concepts(drawn)
        return open_concepts(drawn)
    concepts = open_concepts(origin)
    if concepts.packed is None:
        warnings.warn(
            f"every level decodes the images and labels of {origin} anew; "
            f"`prunescope concepts pack {origin}` saves that",
            stacklevel=1,  # said once, whoever opens them
        )
    return concepts


def _draw(origin: Drawn, directory: Path, size: int, progress: Progress) -> Path:
    return make_miniature(directory, origin.miniature.images, seed=origin.miniature.seed, size=size, progress=progress)
