"""Run a study: train the dense network, then prune, rewind and retrain it level by level, and dissect every level."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import NamedTuple

from torch import nn

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.result import read_summary
from prunescope.dissection.run import dissect
from prunescope.dissection.settings import check_precision
from prunescope.errors import InputError
from prunescope.files import write_json, write_table
from prunescope.networks.layers import UnitsAxis, units_axes
from prunescope.networks.weights import save_weights
from prunescope.processes import Processes, join_processes
from prunescope.pruning import Coverage, unit_numbers
from prunescope.pruning.mask import layer_of
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch, masks_branch, share_dense, trial_of
from prunescope.study.checks import check_recipe
from prunescope.study.identity import Identity, refuse_changes_meanwhile
from prunescope.study.levels import Level
from prunescope.study.opening import check_finished, main_first, open_data, settle
from prunescope.study.retraining import LevelStart, begin_dense, begin_retraining, prune_level
from prunescope.study.stages import Clock, Report, stages, unreported
from prunescope.tasks.order import Plan
from prunescope.tasks.task import Task
from prunescope.training.loop import train
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
    with join_processes(device) as processes, ExitStack() as during:
        main_first(processes, lambda: during.enter_context(directory.locked() if processes.is_main else nullcontext()))
        directory.refuse_others(recipe)
        masks_branch(recipe, branches)
        clock = Clock(report if processes.is_main else unreported)
        if all(stage.done for stage in stages(recipe, out)):
            processes.on_main(lambda: check_finished(recipe, directory, branches, clock))
            return
        task, concepts, origin, identity, hashes = open_data(recipe, directory, branches, processes, clock)
        steps_per_epoch = Plan(len(task.train), recipe.training.batch_size, recipe.seed).steps_per_epoch
        recipe.check_steps(steps_per_epoch)
        fit = check_recipe(recipe, len(task.classes), concepts.image_size)
        check_precision(recipe.dissection.precision, device)
        work = _Work(
            task, concepts, steps_per_epoch, device, processes, clock, snapshots, directory, identity, fit.coverage
        )
        processes.on_main(lambda: _claim(recipe, directory, branches, origin, work))
        processes.on_main(hashes.save)
        # All file names have been compared and recorded. There may be a million of them, so they are released here.
        identity = identity.without_parts()
        work = work._replace(identity=identity)
        work.refuse_changes()
        for note in fit.notes:
            clock.note(note)
        for stage in clock.each([stage for stage in stages(recipe, out) if not stage.done]):
            level = Level(recipe, directory, stage.trial, stage.level, len(task.classes))
            with _naming(level):
                if stage.work == "dissect":
                    _dissect_level(level, work)
                elif stage.level == 0:
                    _train_level(level, begin_dense(level, steps_per_epoch), work)
                else:
                    kept = prune_level(level, _same_level(level, origin))
                    _train_level(level, begin_retraining(level, kept, steps_per_epoch), work)


class _Work(NamedTuple):
    """The inputs that all levels of a study share."""

    task: Task
    concepts: ConceptData
    steps_per_epoch: int
    device: str
    processes: Processes
    clock: Clock
    snapshots: Sequence[Step]
    directory: StudyDirectory
    identity: Identity  # filled on the main process only
    coverage: Coverage

    def refuse_changes(self, checkpoints: Path | None = None) -> None:
        """Raise if input files have changed since the study was opened; of many files only a sample is checked."""
        self.processes.on_main(lambda: refuse_changes_meanwhile(self.directory, self.identity, checkpoints))


def _train_level(level: Level, beginning: LevelStart, work: _Work) -> None:
    directory, trial, number = level.directory, level.trial, level.level
    model, mask, kept, course = beginning
    remaining = kept.mask.weights_remaining
    empty = [layer_of(name) for name, _ in model.named_parameters(remove_duplicate=False) if name in kept.mask.empty]
    if empty:
        work.clock.note(
            f"trial {trial}, level {number}: no weights are left in {', '.join(empty)}; what such a layer puts out is "
            "the same for every image"
        )
    at_step = _rewinding_points(level, model, work) if number == 0 else {}
    if number == 0 and work.processes.is_main:
        save_weights(model, directory.initial(trial))
    rows = train(
        model,
        work.task,
        level.recipe.training,
        seed=level.seed,
        mask=mask,
        course=course,
        device=work.device,
        at_step=at_step,
        checkpoints=directory.checkpoints(trial, number),
        tracking=directory.tracking(trial, number),
        progress=lambda done, total: work.clock.tick(done / total, weights_remaining=remaining),
    )
    work.refuse_changes(directory.checkpoints(trial, number))
    if work.processes.is_main:
        last = rows.iloc[-1]
        kept.mask.save(directory.mask(trial, number))
        if kept.filters is not None:
            kept.filters.save(directory.filters(trial, number))
        save_weights(model, directory.weights(trial, number))
        write_table(directory.training(trial, number), rows)
        counts = {"weights_remaining": remaining, "kept": kept.mask.kept, "prunable": kept.mask.prunable}
        whole = {"parameters": work.coverage.parameters, "never_pruned": list(work.coverage.outside)}
        accuracy = {"top1": last["top1"], "top5": last["top5"], "loss": last["validation_loss"]}
        which = {"trial": trial, "level": number}
        steps = {"steps": course.stop - course.start}
        write_json(directory.measured(trial, number), which | counts | steps | accuracy | whole | {"empty": empty})
        shutil.rmtree(directory.checkpoints(trial, number), ignore_errors=True)
    work.processes.wait()


def _rewinding_points(level: Level, model: nn.Module, work: _Work) -> dict[int, Callable[[], None]]:
    """Return the actions that save the dense network at each step that this study or its branches rewind to."""
    own = level.recipe.pruning.rewind_to.iterations(work.steps_per_epoch)
    end = level.recipe.training.length.iterations(work.steps_per_epoch)
    others = {step.iterations(work.steps_per_epoch) for step in work.snapshots}
    files = {step: level.directory.snapshot(level.trial, step) for step in others if 0 < step <= end}
    files[own] = level.directory.rewind(level.trial)
    return {step: partial(save_weights, model, file) for step, file in files.items()}


def _dissect_level(level: Level, work: _Work) -> None:
    recipe, directory, trial, number = level.recipe, level.directory, level.trial, level.level
    settings, model = recipe.dissection, level.trained()
    measured = directory.read_measured(trial, number)
    known = {"weights_remaining": measured["weights_remaining"], "top1": measured["top1"]}
    found = dissect(
        model,
        layers=settings.layers,
        concepts=work.concepts,
        units_axis=_units_axis(level, work),
        quantile=settings.quantile,
        iou=settings.iou,
        presence=settings.presence,
        align=settings.align,
        precision=settings.precision,
        batch_size=settings.batch_size,
        device=work.device,
        mean=recipe.data.mean,
        std=recipe.data.std,
        settings={"network": recipe.network, "trial": trial, "level": number},
        progress=lambda done, total: work.clock.tick(done / total * 0.99, **known),
    )
    work.refuse_changes()
    if level.removes_filters and number:
        dense = level.dense()
        filters = level.kept(dense).filters
        assert filters is not None
        numbers = unit_numbers(
            dense, model.cpu(), filters, settings.layers, recipe.data.size, units_axis=settings.units_axis
        )
        found = found.numbered(numbers)
    if work.processes.is_main:
        # This stage is not complete, so any files left over from an earlier attempt are overwritten.
        found.save(directory.dissection(trial, number), replace=True)
        summaries = {layer: read_summary(directory.dissection(trial, number), layer) for layer in settings.layers}
        work.clock.tick(1.0, **known, summaries=summaries)
    work.processes.wait()


def _units_axis(level: Level, work: _Work) -> UnitsAxis | None:
    """Return the axes that hold the units; for a shrunk network they are measured on the dense network."""
    settings = level.recipe.dissection
    if level.kept().filters is None:
        return settings.units_axis
    return units_axes(level.dense(), settings.layers, work.concepts.image_size, settings.units_axis)


def _claim(
    recipe: Recipe, directory: StudyDirectory, branches: Sequence[Branch], origin: Branch | None, work: _Work
) -> None:
    """Record in the directory which study it holds, and take over results that its branches have already."""
    settle(recipe, directory, origin, work.identity, work.clock)
    # Remove half-written files of processes that were killed. The lock excludes that another process is writing.
    for pattern in (".*.part.*", "trial-*/**/.*.part.*"):
        for part in directory.root.glob(pattern):
            part.unlink(missing_ok=True)
    if origin is not None:
        work.clock.note(f"the masks are those of {origin.directory.root}")
    for trial in range(recipe.trials):
        level = Level(recipe, directory, trial, 0, len(work.task.classes))
        if note := share_dense(level, branches, work.steps_per_epoch, work.identity):
            work.clock.note(note)
    for stage in stages(recipe, directory.root):
        if stage.done:
            # Checkpoints of a complete stage are left over when a process is killed after writing its last file.
            shutil.rmtree(directory.checkpoints(stage.trial, stage.level), ignore_errors=True)


@contextmanager
def _naming(level: Level) -> Iterator[None]:
    """Add the trial and level to the message of any `InputError` raised in the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"trial {level.trial}, level {level.level}: {error}") from error


def _same_level(level: Level, origin: Branch | None) -> Level | None:
    if origin is None:
        return None
    trial = trial_of(level.recipe, level.trial, origin.recipe)
    assert trial is not None
    return Level(origin.recipe, origin.directory, trial, level.level, level.classes)
