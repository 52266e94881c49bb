"""The data of a study: opened where they are, or drawn."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.concepts.fingerprint import refuse_missing
from prunescope.concepts.miniature import make_miniature
from prunescope.concepts.packed import pack_concepts
from prunescope.progress import Progress, silent
from prunescope.study.branching import Branch, link
from prunescope.study.layout import StudyDirectory
from prunescope.study.recipe import Drawn, Recipe
from prunescope.training.data import Task, open_task


def study_task(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch] = (), progress: Progress = silent
) -> Task:
    """Open the classification task, drawing it first if the recipe says so and no branch has drawn it."""
    data = recipe.data
    origin = data.task
    if isinstance(origin, Drawn):
        alike = [b for b in branches if b.recipe.data.task == origin and b.recipe.data.size == data.size]
        there = [branch.directory.data / "task" for branch in alike]
        origin = str(_draw(origin, directory.data / "task", data.size, there, progress) / "classification")
    return open_task(
        origin,
        size=data.size,
        augmentation=data.augmentation,
        mean=data.mean,
        std=data.std,
        in_memory=data.in_memory,
        workers=data.workers,
        progress=progress,
    )


def study_concepts(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch] = (), progress: Progress = silent
) -> ConceptData:
    """Open the labelled images, drawing and packing them first if the recipe says so.

    Every level reads them again, so that a packed copy saves decoding them each time.
    """
    origin = recipe.dissection.concepts
    if isinstance(origin, Drawn):
        size = recipe.data.size
        alike = [b for b in branches if b.recipe.dissection.concepts == origin and b.recipe.data.size == size]
        there = [branch.directory.data / "concepts" for branch in alike]
        drawn = _draw(origin, directory.data / "concepts", size, there, progress)
        pack_concepts(drawn)
        return open_concepts(drawn)
    concepts = open_concepts(origin)
    if concepts.packed is None:
        # Now, not after the dense network has been trained for days.
        refuse_missing(concepts.root, concepts.rows)
        warnings.warn(
            f"every level decodes the images and labels of {origin} anew; "
            f"`prunescope concepts pack {origin}` saves that",
            stacklevel=1,  # said once, whoever opens them
        )
    return concepts


def _draw(origin: Drawn, folder: Path, size: int, there: Sequence[Path], progress: Progress) -> Path:
    for drawn in there:
        if drawn.is_dir() and not folder.exists():
            _link_folder(drawn, folder)
    # Draws what is not there, and refuses what is something else, such as images of another size.
    return make_miniature(folder, origin.miniature.images, seed=origin.miniature.seed, size=size, progress=progress)


def _link_folder(drawn: Path, folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(drawn, part, copy_function=link, ignore=shutil.ignore_patterns(".*"))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
