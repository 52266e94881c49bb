"""Prepare a study: lock its directory, open and check its data, check its network, and claim the directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace

from prunescope.dissection.settings import check_precision
from prunescope.processes import Processes
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch
from prunescope.study.checks import check_recipe
from prunescope.study.claiming import claim
from prunescope.study.context import StudyContext
from prunescope.study.opening import main_first, open_data
from prunescope.study.reporting import ProgressReporter
from prunescope.tasks.order import Plan
from prunescope.training.steps import Step


@contextmanager
def locked(directory: StudyDirectory, processes: Processes) -> Iterator[None]:
    """Prevent other runs of a study while the block runs; the main process holds the lock.

    Raises
    ------
    InputError
        If another run has locked the directory.
    """
    with ExitStack() as during:
        main_first(processes, lambda: during.enter_context(directory.locked() if processes.is_main else nullcontext()))
        yield


def prepare(
    recipe: Recipe,
    directory: StudyDirectory,
    branches: Sequence[Branch],
    *,
    device: str,
    processes: Processes,
    progress: ProgressReporter,
    snapshots: Sequence[Step],
) -> StudyContext:
    """Open a study's data, check that the study can run to its end, and claim its directory.

    Parameters
    ----------
    recipe
        The study's recipe.
    directory
        The study's directory, which has to be locked.
    branches
        The studies to reuse results from.
    device, processes, progress, snapshots
        As in `StudyContext`.

    Returns
    -------
    StudyContext
        What all levels of the study share.

    Raises
    ------
    InputError
        If the data do not fit the recipe or differ from those that the study began with, or if the network cannot be
        trained, pruned and dissected as the recipe says.
    """
    opened = open_data(recipe, directory, branches, processes, progress)
    task, concepts = opened.task, opened.concepts
    steps_per_epoch = Plan(len(task.train), recipe.training.batch_size, recipe.seed).steps_per_epoch
    recipe.check_steps(steps_per_epoch)
    checked = check_recipe(recipe, len(task.classes), concepts.image_size)
    check_precision(recipe.dissection.precision, device)
    study = StudyContext(
        recipe,
        directory,
        device,
        processes,
        progress,
        snapshots,
        task,
        concepts,
        opened.origin,
        opened.identity,
        steps_per_epoch,
        checked.coverage,
    )
    processes.on_main(lambda: claim(study, branches))
    processes.on_main(opened.hashes.save)
    # All file names have been compared and recorded. There may be a million of them, so they are released here.
    study = replace(study, identity=opened.identity.without_parts())
    study.refuse_changes()
    for note in checked.notes:
        progress.note(note)
    return study
