"""Record in a study's directory which study it holds, and prepare the directory for running the study."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch
from prunescope.study.context import StudyContext
from prunescope.study.identity import Identity
from prunescope.study.mask_source import note_masks, refuse_other_masks
from prunescope.study.recording import record
from prunescope.study.reporting import ProgressReporter
from prunescope.study.sharing import share_dense
from prunescope.study.stages import stages


def claim(study: StudyContext, branches: Sequence[Branch]) -> None:
    """Record which study the directory holds, and take over results that the study's branches have already."""
    recipe, directory = study.recipe, study.directory
    record_study(recipe, directory, study.origin, study.identity, study.progress)
    # Remove half-written files of processes that were killed. The lock ensures that no other process is writing.
    for pattern in (".*.part.*", "trial-*/**/.*.part.*"):
        for part in directory.root.glob(pattern):
            part.unlink(missing_ok=True)
    if study.origin is not None:
        study.progress.note(f"the masks are those of {study.origin.directory.root}")
    for trial in range(recipe.trials):
        if note := share_dense(study.level(trial, 0), branches, study.steps_per_epoch, study.identity):
            study.progress.note(note)
    for stage in stages(recipe, directory.root):
        if stage.done:
            # Checkpoints of a complete stage are left over if a process was killed after writing its last file.
            again = stage.work == "retrain"
            left = (
                directory.reference_checkpoints(stage.trial)
                if again
                else directory.checkpoints(stage.trial, stage.level)
            )
            shutil.rmtree(left, ignore_errors=True)


def record_study(
    recipe: Recipe, directory: StudyDirectory, origin: Branch | None, identity: Identity, progress: ProgressReporter
) -> None:
    """Write a study's recipe, its fingerprints and the source of its masks into its directory.

    Raises
    ------
    InputError
        If the study began with the masks of another study than `origin`.
    """
    if origin is not None:
        refuse_other_masks(directory, origin)
    if note := record(directory, identity):
        progress.note(note)
    directory.claim(recipe)
    if origin is not None:
        note_masks(directory, origin)
