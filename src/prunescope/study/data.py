"""The data of a study: opened from the given folders, or drawn by the study itself."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.concepts.contents import refuse_missing
from prunescope.concepts.packed import pack_concepts, with_packed_copy
from prunescope.concepts.sample import sample_concepts
from prunescope.hashes import Hashes
from prunescope.miniature import make_miniature
from prunescope.progress import Progress, silent
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import concepts_place, task_place
from prunescope.store.recipe import Drawn, Recipe
from prunescope.study.branching import Branch
from prunescope.study.identity import Fingerprinter
from prunescope.study.linking import link
from prunescope.tasks.task import Task, open_task


def draw_data(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch] = (), progress: Progress = silent
) -> None:
    """Draw the task and the labelled images if the recipe asks for drawn data.

    Data that exist already are kept. Data that a branch has drawn with the same settings are linked instead.
    """
    _draw(recipe.data.task, "task", recipe, directory, branches, progress)
    _draw(recipe.dissection.concepts, "concepts", recipe, directory, branches, progress)


def study_task(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch] = (), progress: Progress = silent
) -> Task:
    """Open the classification task; it is drawn first, or linked from a branch, if the recipe asks for drawn data."""
    data = recipe.data
    _draw(data.task, "task", recipe, directory, branches, progress)
    return open_task(
        task_place(recipe, directory.data),
        size=data.size,
        augmentation=data.augmentation,
        mean=data.mean,
        std=data.std,
        in_memory=data.in_memory,
        workers=data.workers,
        progress=progress,
    )


def study_concepts(
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch] = (),
    progress: Progress = silent,
    *,
    pack: bool = False,
) -> ConceptData:
    """Open the labelled images; they are drawn and packed first if the recipe asks for drawn data.

    Every level reads the labelled images again, and a packed copy saves decoding them each time. If a given data set
    has none, it is written if `pack` is true and labels are permuted. A warning is issued if it is written, and if
    there is still none.

    Raises
    ------
    InputError
        If the data set cannot be opened or lacks files.
    """
    origin = recipe.dissection.concepts
    if isinstance(origin, Drawn):
        _draw(origin, "concepts", recipe, directory, branches, progress)
        drawn = concepts_place(recipe, directory.data)
        pack_concepts(drawn, progress=False)
        return sample_concepts(drawn, recipe.dissection.images, recipe.seed)
    concepts = open_concepts(origin)
    if concepts.packed is None:
        # Missing files are reported now, not after the dense network has been trained for days.
        refuse_missing(concepts.root, concepts.rows)
        if pack and recipe.dissection.chance and recipe.dissection.images is None:
            concepts = with_packed_copy(concepts)
    if concepts.packed is None:
        warnings.warn(
            f"every level decodes the images and labels of {origin} anew; "
            f"`prunescope concepts pack {origin}` avoids that",
            stacklevel=1,  # this line's location, so that the warning appears only once, whatever the caller
        )
    return sample_concepts(concepts, recipe.dissection.images, recipe.seed)


def _draw(
    origin: object,
    name: str,
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch],
    progress: Progress,
) -> None:
    if not isinstance(origin, Drawn):
        return
    folder = directory.data / name
    for branch in branches:
        theirs = branch.recipe.data.task if name == "task" else branch.recipe.dissection.concepts
        drawn = branch.directory.data / name
        if theirs != origin or branch.recipe.data.size != recipe.data.size or not drawn.is_dir() or folder.exists():
            continue
        # Images that were changed after they were drawn are not shared.
        fingerprinter = Fingerprinter(Hashes(branch.directory.hashes))
        if name == "task":
            found = fingerprinter.task(task_place(branch.recipe, branch.directory.data), recipe.data.size)
        else:
            found = fingerprinter.concepts(drawn)
        if not found.differences(branch.fingerprints):
            _link_folder(drawn, folder)
    # This draws missing data, and raises if the folder holds other data, such as images of another size.
    size = recipe.data.size
    make_miniature(folder, origin.miniature.images, seed=origin.miniature.seed, size=size, progress=progress)


def _link_folder(drawn: Path, folder: Path) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(drawn, part, copy_function=link, ignore=shutil.ignore_patterns(".*"))
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
