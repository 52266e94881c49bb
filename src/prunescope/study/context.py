"""What all levels of a running study share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prunescope.concepts.broden import ConceptData
from prunescope.errors import InputError
from prunescope.processes import Processes
from prunescope.pruning import Coverage
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch, trial_of
from prunescope.study.identity import Identity
from prunescope.study.levels import Level
from prunescope.study.recording import refuse_changes_meanwhile
from prunescope.study.reporting import ProgressReporter
from prunescope.study.stages import Stage, stages
from prunescope.tasks.task import Task
from prunescope.training.steps import Step


@dataclass(frozen=True)
class StudyContext:
    """What all levels of a running study share.

    Attributes
    ----------
    recipe
        The study's recipe.
    directory
        The study's directory.
    device
        The device to run networks on.
    processes
        The processes that run the study together.
    progress
        Reports the progress.
    snapshots
        Further steps of the dense training at which to save the network, for studies that branch from this one.
    task
        The classification task.
    concepts
        The labelled images.
    origin
        The study from which the masks are taken, or None if this study prunes by itself.
    identity
        The fingerprints of the study's files. They are filled on the main process only.
    steps_per_epoch
        The number of training steps per epoch of the task.
    coverage
        The parts of the network that are prunable, and those that are not.
    """

    recipe: Recipe
    directory: StudyDirectory
    device: str
    processes: Processes
    progress: ProgressReporter
    snapshots: Sequence[Step]
    task: Task
    concepts: ConceptData
    origin: Branch | None
    identity: Identity
    steps_per_epoch: int
    coverage: Coverage

    def unfinished(self) -> Iterator[tuple[Stage, Level]]:
        """Yield the stages that are not complete, each with its level, one after the other."""
        for stage in self.progress.follow(
            [stage for stage in stages(self.recipe, self.directory.root) if not stage.done]
        ):
            yield stage, self.level(stage.trial, stage.level)

    def level(self, trial: int, level: int) -> Level:
        """Return a level of this study."""
        return Level(self.recipe, self.directory, trial, level, len(self.task.classes))

    def in_origin(self, level: Level) -> Level | None:
        """Return the same level of the study from which the masks are taken; None if this study prunes by itself."""
        if self.origin is None:
            return None
        trial = trial_of(self.recipe, level.trial, self.origin.recipe)
        assert trial is not None
        return Level(self.origin.recipe, self.origin.directory, trial, level.level, level.classes)

    def refuse_changes(self, checkpoints: Path | None = None) -> None:
        """Raise if input files have changed since the study was opened; of many files only a sample is checked."""
        self.processes.on_main(lambda: refuse_changes_meanwhile(self.directory, self.identity, checkpoints))


@contextmanager
def naming(level: Level) -> Iterator[None]:
    """Add the trial and level to the message of any `InputError` raised in the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"trial {level.trial}, level {level.level}: {error}") from error
