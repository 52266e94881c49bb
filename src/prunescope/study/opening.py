"""Open a study's data, and check that they are the data that the study began with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, cast

from prunescope.concepts.broden import ConceptData
from prunescope.hashes import Hashes
from prunescope.processes import Processes
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import TASK
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch
from prunescope.study.claiming import record_study
from prunescope.study.data import draw_data, study_concepts, study_task
from prunescope.study.identity import Fingerprinter, Identity, identify
from prunescope.study.mask_source import list_masks, masks_branch
from prunescope.study.recording import refuse_changes
from prunescope.study.reporting import ProgressReporter
from prunescope.tasks.task import Task

T = TypeVar("T")


class Opened(NamedTuple):
    """The opened data of a study, and their fingerprints."""

    task: Task
    concepts: ConceptData
    origin: Branch | None  # the study whose masks are taken
    identity: Identity  # filled on the main process only
    hashes: Hashes


def open_data(
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch],
    processes: Processes,
    progress: ProgressReporter,
) -> Opened:
    """Open a study's data; they are drawn first if the recipe asks for drawn data.

    The main process takes the fingerprints before anything is read from the files, and compares them with those that
    the study recorded when it began.

    Raises
    ------
    InputError
        If data do not exist or do not fit the recipe, or if they differ from those that the study began with.
    """
    drawing = progress.preparing("drawing the data")
    main_first(processes, lambda: draw_data(recipe, directory, branches, drawing))
    hashes = Hashes(directory.hashes)
    fingerprinter = Fingerprinter(hashes, progress.preparing)
    known = processes.on_main(lambda: _identify(recipe, directory, branches, fingerprinter))
    identity, index = known or (Identity(), None)
    index, content = processes.broadcast_object([index, identity.content(TASK)])
    task = main_first(processes, lambda: study_task(recipe, directory, branches, drawing))
    concepts = main_first(processes, lambda: study_concepts(recipe, directory, branches, drawing, pack=True))

    def identify_packed() -> Identity:
        found = fingerprinter.packed(concepts.packed)
        refuse_changes(directory, found)
        return found

    identity |= processes.on_main(identify_packed) or Identity()
    origin = None if index is None else branches[index]
    return Opened(replace(task, content=content), concepts, origin, identity, hashes)


def check_finished(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch], progress: ProgressReporter
) -> None:
    """Check that the files of a finished study have not changed, and record fingerprints that are missing.

    Files that no longer exist are not checked, unless the recipe gives a new path for them.

    Raises
    ------
    InputError
        If files differ from those that the study began with, or do not exist at a path that is newly given.
    """
    hashes, finished = Hashes(directory.hashes), read_recipe(directory.recipe)
    fingerprinter = Fingerprinter(hashes, progress.preparing)
    identity, index = _identify(recipe, directory, branches, fingerprinter, finished)
    record_study(recipe, directory, None if index is None else branches[index], identity, progress)
    hashes.save()


def main_first(processes: Processes, make: Callable[[], T]) -> T:
    """Call `make` on the main process first and then on the others, which find its files; all raise if it fails."""
    made = processes.on_main(make)
    return cast(T, made) if processes.is_main else make()


def _identify(
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch],
    fingerprinter: Fingerprinter,
    finished: Recipe | None = None,
) -> tuple[Identity, int | None]:
    """Take the fingerprints of a study's files and raise if they changed; find the index of the branch with its masks.

    The index is None if the study prunes by itself.
    """
    identity = identify(recipe, directory.data, fingerprinter, finished=finished)
    origin = masks_branch(recipe, branches, identity=identity)
    if origin is not None:
        identity |= fingerprinter.masks(list_masks(recipe, origin), str(origin.directory.root))
    refuse_changes(directory, identity)
    return identity, None if origin is None else branches.index(origin)
