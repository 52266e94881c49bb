"""Train one level of a study."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pandas as pd
from torch import nn

from prunescope.files import write_table
from prunescope.networks.weights import save_weights
from prunescope.study.context import StudyContext
from prunescope.study.given import given_rewinding_point
from prunescope.study.levels import Level
from prunescope.study.retraining import LevelStart
from prunescope.study.schedule import level_steps
from prunescope.training.loop import train


def train_level(level: Level, start: LevelStart, study: StudyContext) -> pd.DataFrame:
    """Train the network of a level, continuing from its last checkpoint if there is one.

    At level 0, the initial weights and the network at each step that levels rewind to are saved as well. Given
    weights are not trained; only their accuracy is measured. The predictions for the validation images are written at
    the end.

    Parameters
    ----------
    level
        The level.
    start
        The state before its first training step. The network is trained in place.
    study
        What all levels of the study share.

    Returns
    -------
    pd.DataFrame
        The training table (see `train`).

    Raises
    ------
    InputError
        If training diverges, or if the input files have changed meanwhile.
    """
    directory, trial, number = level.directory, level.trial, level.level
    if empty := start.empty_layers:
        study.progress.note(
            f"trial {trial}, level {number}: no weights are left in {', '.join(empty)}; the output of such a layer is "
            "the same for every image"
        )
    given = level.recipe.start
    at_step = _rewinding_points(level, start.model, study) if number == 0 and given is None else {}
    if number == 0 and study.processes.is_main:
        if given is None:
            save_weights(start.model, directory.initial(trial))
        elif given.rewind_weights is not None:
            save_weights(given_rewinding_point(level.recipe, trial, level.classes), directory.rewind(trial))
    remaining = start.kept.mask.weights_remaining
    rows = train(
        start.model,
        study.task,
        level.recipe.training,
        seed=level.seed,
        mask=start.mask,
        course=start.steps,
        device=study.device,
        at_step=at_step,
        at_end=partial(write_table, directory.predictions(trial, number)),
        checkpoints=directory.checkpoints(trial, number),
        tracking=directory.tracking(trial, number),
        progress=lambda done, total: study.progress.update(done / total, weights_remaining=remaining),
    )
    study.refuse_changes(directory.checkpoints(trial, number))
    return rows


def _rewinding_points(level: Level, model: nn.Module, study: StudyContext) -> dict[int, Callable[[], None]]:
    """Return the actions that save the dense network at each step that this study or its branches rewind to."""
    end = level_steps(level.recipe, 0, study.steps_per_epoch).stop
    others = {step.iterations(study.steps_per_epoch) for step in study.snapshots}
    files = {step: level.directory.snapshot(level.trial, step) for step in others if 0 < step <= end}
    own = level.recipe.pruning.rewind_to.iterations(study.steps_per_epoch)
    files[own] = level.directory.rewind(level.trial)
    return {step: partial(save_weights, model, file) for step, file in files.items()}
