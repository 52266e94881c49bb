"""Run a study: train the dense network, then prune, rewind and retrain it level by level, and dissect every level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prunescope.processes import join_processes
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch
from prunescope.study.context import naming
from prunescope.study.dissecting import dissect_level
from prunescope.study.mask_source import masks_branch
from prunescope.study.opening import check_finished
from prunescope.study.preparation import locked, prepare
from prunescope.study.references import retrain
from prunescope.study.reporting import ProgressReporter, Report, unreported
from prunescope.study.retraining import begin_dense, prune_level, rewind_level
from prunescope.study.stages import stages
from prunescope.study.training import train_level
from prunescope.study.writing import write_dissection, write_trained
from prunescope.training.steps import Step


def run_study(
    recipe: Recipe,
    out: str | Path,
    *,
    device: str = "cpu",
    branch_from: Sequence[str | Path] = (),
    snapshots: Sequence[Step] = (),
    report: Report = unreported,
) -> None:
    """Run the stages of a study that are not complete yet (Frankle and Bau 2019, section 2).

    For distributed training, every process started by `accelerate launch` or `torchrun` makes this call. Only the main
    process writes files.

    Parameters
    ----------
    recipe
        The study's recipe.
    out
        The study's directory. Stages that are complete there are not run again.
    device
        The device to run networks on.
    branch_from
        Directories of other studies to reuse results from. A trial takes its dense network from the first of them that
        has the same one. The masks are taken as well if the recipe sets `pruning.masks` to `branch`.
    snapshots
        Further steps of the dense training at which to save the network, so that other studies can branch from this one
        and rewind to these steps.
    report
        Called with an `Event` whenever there is progress to report.

    Raises
    ------
    InputError
        If the directory holds another study, if the data, labels or network files differ from those that the study
        began with or change while it runs, if the data or the layers do not fit the recipe, or if training diverges.
    """
    directory = StudyDirectory(Path(out))
    branches = [Branch.open(path) for path in branch_from]
    with join_processes(device) as processes, locked(directory, processes):
        directory.refuse_others(recipe)
        masks_branch(recipe, branches)
        progress = ProgressReporter(report if processes.is_main else unreported)
        if all(stage.done for stage in stages(recipe, out)):
            processes.on_main(lambda: check_finished(recipe, directory, branches, progress))
            return
        study = prepare(
            recipe,
            directory,
            branches,
            device=device,
            processes=processes,
            progress=progress,
            snapshots=snapshots,
        )
        for stage, level in study.unfinished():
            with naming(level):
                if stage.work == "train":
                    if level.level == 0:
                        start = begin_dense(level, study.steps_per_epoch)
                    else:
                        kept = prune_level(level, study.in_origin(level))
                        start = rewind_level(level, kept, study.steps_per_epoch)
                    rows = train_level(level, start, study)
                    write_trained(level, start, rows, study)
                elif stage.work == "retrain":
                    retrain(level, study)
                else:
                    found = dissect_level(level, study)
                    write_dissection(level, found, study)
