"""Compare what a network detects on the miniature with what would be detected by chance.

    prunescope study miniature --out out/miniature
    python benchmarks/miniature.py out/miniature

For every trial of a finished study, three dissections are made: of the dense network; of the same network before
training, with normalisation statistics fitted to the training images; and of the dense network with the labels of other
images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from prunescope.concepts import permute_labels
from prunescope.dissection import dissect
from prunescope.networks import build_network, load_weights
from prunescope.store import Recipe, read_recipe
from prunescope.store.layout import StudyDirectory
from prunescope.study.data import study_concepts, study_task
from prunescope.tasks import Task
from prunescope.tasks.order import Plan


def main() -> None:
    """Run the dissections and print a row per trial, network and layer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="a finished study's directory")
    directory = StudyDirectory(parser.parse_args().study)
    recipe = read_recipe(directory.recipe)
    task, concepts = study_task(recipe, directory), study_concepts(recipe, directory)
    rows = []
    for trial in range(recipe.trials):
        trained = build_network(recipe.network, classes=len(task.classes), seed=recipe.seed + trial)
        load_weights(trained, directory.weights(trial, 0))
        untrained = build_network(recipe.network, classes=len(task.classes), seed=recipe.seed + trial)
        fit_statistics(untrained, task)
        for what, model, data in (
            ("dense", trained, concepts),
            ("untrained", untrained, concepts),
            ("dense, other images' labels", trained, permute_labels(concepts, seed=trial)),
        ):
            found = dissect(
                model, layers=recipe.dissection.layers, concepts=data, mean=recipe.data.mean, std=recipe.data.std,
                quantile=recipe.dissection.quantile, iou=recipe.dissection.iou, presence=recipe.dissection.presence,
            )  # fmt: skip
            rows += [{"trial": trial, "network": what} | row for row in described(recipe, found.summary)]
    print(pd.DataFrame(rows).to_string(index=False))


def fit_statistics(model: nn.Module, task: Task) -> None:
    """Set the normalisation statistics to their mean over the training batches of one epoch."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    model.train()
    plan = Plan(len(task.train), 32, seed=0)
    with torch.no_grad():
        for batch in task.training_batches(plan, 0, plan.steps_per_epoch, torch.device("cpu")):
            model(batch.images)


def described(recipe: Recipe, summary: pd.DataFrame) -> list[dict[str, object]]:
    """Return for each layer its counts and the number of detected concepts by category."""
    rows = []
    for row in summary.to_dict("records"):
        categories = [name for name in row if name not in ("layer", "units", "interpretable", "concepts", "dead")]
        found = ", ".join(f"{row[name]} {name}" for name in categories if row[name])
        counts = {name: row[name] for name in ("layer", "units", "interpretable", "concepts")}
        rows.append(counts | {"by category": found or "-"})
    assert len(rows) == len(recipe.dissection.layers)
    return rows


if __name__ == "__main__":
    main()
