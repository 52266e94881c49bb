"""Networks that the levels of a trial are compared with: an untrained one, and a dense one that is trained again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from prunescope.dissection.calibration import CALIBRATED, CALIBRATION_BATCH
from prunescope.dissection.result import Dissection
from prunescope.dissection.run import dissect_networks
from prunescope.files import write_json, write_table
from prunescope.networks.source import build_untrained
from prunescope.networks.statistics import estimate_statistics
from prunescope.networks.weights import fit_weights, load_weights, read_tensors, save_weights
from prunescope.randomness import seed_of
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Recipe
from prunescope.study.context import StudyContext
from prunescope.study.levels import Level
from prunescope.study.schedule import dense_mask
from prunescope.tasks.order import Plan
from prunescope.training.loop import train
from prunescope.training.recipe import StepRange

UNTRAINED, RETRAINED = "untrained", "retrained"
_UNTRAINED, _RETRAINED = 103, 104  # purposes in the keys of random seeds


def untrained_network(level: Level, study: StudyContext) -> nn.Module:
    """Build the untrained network of a trial, with normalisation statistics estimated on training images.

    Its weights are those that the trial's training begins with. If the recipe names published weights, or gives the
    weights of level 0, they are random weights of the trial's seed instead.
    """
    model = build_untrained(level.recipe.network, classes=level.classes, seed=level.seed).to(study.device)
    images = len(study.task.train)
    plan = Plan(images, min(CALIBRATION_BATCH, images), seed_of(level.seed, _UNTRAINED))
    steps = min(plan.steps_per_epoch, CALIBRATED // CALIBRATION_BATCH)

    def batches() -> Iterator[Tensor]:
        for batch in study.task.training_batches(plan, 0, steps, torch.device(study.device)):
            yield batch.images

    estimate_statistics(model, batches())
    return model


def retrain(level: Level, study: StudyContext) -> None:
    """Train the dense network of a trial again from the rewinding point, dissect it and write the results.

    Nothing is pruned, and the images come in another order than in the training of the dense network and of the levels.
    Training continues from its last checkpoint if there is one.

    Parameters
    ----------
    level
        Level 0 of the trial.
    study
        What all levels of the study share.

    Raises
    ------
    InputError
        If training diverges, if the rewinding point cannot be read, or if the input files have changed meanwhile.
    """
    folder = level.directory.reference(level.trial, RETRAINED)
    if not (folder / "measured.json").is_file():
        model = level.dense()
        load_weights(model, level.directory.rewind(level.trial))
        rows = _train_again(level, model, study)
        if study.processes.is_main:
            _write_trained(level, model, rows)
        study.processes.wait()
    model = level.dense()
    weights = folder / "weights.safetensors"
    fit_weights(model, read_tensors(weights), weights)
    recipe, settings = level.recipe, level.recipe.dissection
    (found,) = dissect_networks(
        {"": model},
        layers=settings.layers,
        concepts=study.concepts,
        settings=settings,
        preprocessing=recipe.data.preprocessing(),
        units_axis=settings.units_axis,
        device=study.device,
        metadata={"network": recipe.network, "trial": level.trial},
        progress=lambda done, total: study.progress.update(0.9 + done / total * 0.09),
    ).values()
    study.refuse_changes()
    if study.processes.is_main:
        save_reference(found, level.directory, level.trial, RETRAINED)
    study.processes.wait()


def save_reference(found: Dissection, directory: StudyDirectory, trial: int, kind: str) -> None:
    """Write the dissection of a network that the levels of a trial are compared with.

    Its summaries state which one it is, instead of the number of a level.
    """
    stated = found.stating(name=None, level=None, trial=trial, reference=kind)
    stated.save(directory.reference_dissection(trial, kind), replace=True)


def _train_again(level: Level, model: nn.Module, study: StudyContext) -> pd.DataFrame:
    recipe, steps_per_epoch = level.recipe, study.steps_per_epoch
    checkpoints = level.directory.reference_checkpoints(level.trial)
    rows = train(
        model,
        study.task,
        recipe.training,
        seed=seed_of(level.seed, _RETRAINED),
        mask=dense_mask(model, recipe.pruning),
        course=retrained_steps(recipe, steps_per_epoch),
        device=study.device,
        checkpoints=checkpoints,
        tracking=level.directory.root / "tracking" / f"trial-{level.trial}" / RETRAINED,
        progress=lambda done, total: study.progress.update(done / total * 0.9, weights_remaining=1.0),
    )
    study.refuse_changes(checkpoints)
    return rows


def retrained_steps(recipe: Recipe, steps_per_epoch: int) -> StepRange:
    """Return the steps for which the dense network is trained again: from the rewinding point to the end."""
    rewind, length = recipe.pruning.rewind_to, recipe.training.length
    return StepRange(rewind.iterations(steps_per_epoch), length.iterations(steps_per_epoch))


def _write_trained(level: Level, model: nn.Module, rows: pd.DataFrame) -> None:
    """Write the weights and the measurements; the latter last, because they mark the training as complete."""
    folder, last = level.directory.reference(level.trial, RETRAINED), rows.iloc[-1]
    save_weights(model, folder / "weights.safetensors")
    write_table(folder / "training.csv", rows)
    write_json(
        folder / "measured.json",
        {"trial": level.trial, "top1": last["top1"], "top5": last["top5"], "loss": last["validation_loss"]},
    )
    shutil.rmtree(level.directory.reference_checkpoints(level.trial), ignore_errors=True)
