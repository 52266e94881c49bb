"""Opening a study's data, and seeing that they are those that it began with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar, cast

from prunescope.concepts.broden import ConceptData
from prunescope.fingerprints import Hashes
from prunescope.study.branching import Branch, list_masks, masks_branch, note_masks, refuse_other_masks
from prunescope.study.clock import Clock
from prunescope.study.data import draw_data, study_concepts, study_task
from prunescope.study.identity import Fingerprinter, Identity, identify, record, refuse_changes
from prunescope.study.layout import StudyDirectory
from prunescope.study.places import TASK
from prunescope.study.reading import read_recipe
from prunescope.study.recipe import Recipe
from prunescope.training.data import Task
from prunescope.training.processes import Processes

T = TypeVar("T")


class Opened(NamedTuple):
    """What a study works with."""

    task: Task
    concepts: ConceptData
    origin: Branch | None  # whose masks it takes
    identity: Identity  # of the main process alone
    hashes: Hashes


def open_data(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch], processes: Processes, clock: Clock
) -> Opened:
    """Draw a study's data if they are to be drawn, refuse others than it began with, and open them.

    The main process takes the fingerprints, before anything is read from the files.

    Raises
    ------
    InputError
        Data are not there or do not fit the recipe, or they are not those that the study began with.
    """
    drawing = clock.preparing("drawing the data")
    main_first(processes, lambda: draw_data(recipe, directory, branches, drawing))
    hashes = Hashes(directory.hashes)
    fingerprinter = Fingerprinter(hashes, clock.preparing)
    known = processes.on_main(lambda: _identify(recipe, directory, branches, fingerprinter))
    identity, place = known or (Identity(), None)
    place, content = processes.agree([place, identity.content(TASK)])
    task = main_first(processes, lambda: study_task(recipe, directory, branches, drawing))
    concepts = main_first(processes, lambda: study_concepts(recipe, directory, branches, drawing))

    def identify_packed() -> Identity:
        found = fingerprinter.packed(concepts.packed)
        refuse_changes(directory, found)
        return found

    identity |= processes.on_main(identify_packed) or Identity()
    origin = None if place is None else branches[place]
    return Opened(replace(task, content=content), concepts, origin, identity, hashes)


def check_finished(recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch], clock: Clock) -> None:
    """Refuse a finished study of other files; record what is not recorded yet, as far as the files are still there.

    Raises
    ------
    InputError
        The files are not those that the study began with, or they are not at the place that is newly given.
    """
    hashes, finished = Hashes(directory.hashes), read_recipe(directory.recipe)
    fingerprinter = Fingerprinter(hashes, clock.preparing)
    identity, place = _identify(recipe, directory, branches, fingerprinter, finished)
    settle(recipe, directory, None if place is None else branches[place], identity, clock)
    hashes.save()


def settle(recipe: Recipe, directory: StudyDirectory, origin: Branch | None, identity: Identity, clock: Clock) -> None:
    """Write down which study a directory is of, and where its files are.

    Raises
    ------
    InputError
        It has begun with the masks of another study.
    """
    if origin is not None:
        refuse_other_masks(directory, origin)
    if note := record(directory, identity):
        clock.note(note)
    directory.claim(recipe)
    if origin is not None:
        note_masks(directory, origin)


def main_first(processes: Processes, make: Callable[[], T]) -> T:
    """Let the main process make something on disk, then the others, who find it there; all fail if it fails."""
    made = processes.on_main(make)
    return cast(T, made) if processes.is_main else make()


def _identify(
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch],
    fingerprinter: Fingerprinter,
    finished: Recipe | None = None,
) -> tuple[Identity, int | None]:
    """Take the fingerprints of a study's files, refuse changes, and find the branch whose masks it takes, by number."""
    identity = identify(recipe, directory.data, fingerprinter, finished=finished)
    origin = masks_branch(recipe, branches, identity=identity)
    if origin is not None:
        identity |= fingerprinter.masks(list_masks(recipe, origin), str(origin.directory.root))
    refuse_changes(directory, identity)
    return identity, None if origin is None else branches.index(origin)
