"""Write the results of a level into the study's directory."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pandas as pd

from prunescope.dissection.layer_files import read_summary
from prunescope.dissection.result import Dissection
from prunescope.files import write_json, write_table
from prunescope.networks.weights import save_weights
from prunescope.study.context import StudyContext
from prunescope.study.levels import Level
from prunescope.study.references import UNTRAINED, save_reference
from prunescope.study.retraining import LevelStart


def write_trained(level: Level, start: LevelStart, rows: pd.DataFrame, study: StudyContext) -> None:
    """Write the mask, the trained weights, the training table and the measurements of a level.

    The measurements are written last, because they mark the training of the level as complete.

    Parameters
    ----------
    level
        The level.
    start
        The start of the level, whose network has been trained.
    rows
        The training table.
    study
        What all levels of the study share.
    """
    directory, trial, number = level.directory, level.trial, level.level
    mask, filters, last = start.kept.mask, start.kept.filters, rows.iloc[-1]
    if study.processes.is_main:
        mask.save(directory.mask(trial, number))
        if filters is not None:
            filters.save(directory.filters(trial, number))
        save_weights(start.model, directory.weights(trial, number))
        write_table(directory.training(trial, number), rows)
        write_json(
            directory.measured(trial, number),
            {
                "trial": trial,
                "level": number,
                "weights_remaining": mask.weights_remaining,
                "kept": mask.kept,
                "prunable": mask.prunable,
                "steps": start.steps.stop - start.steps.start,
                "top1": last["top1"],
                "top5": last["top5"],
                "loss": last["validation_loss"],
                "parameters": study.coverage.parameters,
                "never_pruned": list(study.coverage.outside),
                "empty": start.empty_layers,
            },
        )
        shutil.rmtree(directory.checkpoints(trial, number), ignore_errors=True)
    study.processes.wait()


def write_dissection(level: Level, found: Mapping[str, Dissection], study: StudyContext) -> None:
    """Write the dissections of a level, as `dissect_level` returns them, and report them."""
    if study.processes.is_main:
        # That of the level is written last, because it marks the dissection of all as complete.
        if UNTRAINED in found:
            save_reference(found[UNTRAINED], level.directory, level.trial, UNTRAINED)
        folder = level.directory.dissection(level.trial, level.level)
        # This stage is not complete, so any files left over from an earlier attempt are overwritten.
        found[""].save(folder, replace=True)
        summaries = {layer: read_summary(folder, layer) for layer in level.recipe.dissection.layers}
        study.progress.update(1.0, **shown_of(level), summaries=summaries)
    study.processes.wait()


def shown_of(level: Level) -> dict[str, float]:
    """Return the weights remaining and the accuracy of a trained level, which progress reports show."""
    measured = level.directory.read_measured(level.trial, level.level)
    return {"weights_remaining": measured["weights_remaining"], "top1": measured["top1"]}
