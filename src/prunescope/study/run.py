"""The study: train, then level by level prune, rewind, retrain; dissect every level."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunescope.concepts.broden import ConceptData
from prunescope.dissection.result import read_summary
from prunescope.dissection.run import dissect
from prunescope.errors import InputError
from prunescope.files import write_json, write_table
from prunescope.networks.layers import evaluating, observe
from prunescope.networks.source import build_network
from prunescope.networks.weights import load_weights, save_weights
from prunescope.pruning import Mask, prune
from prunescope.study.data import study_concepts, study_task
from prunescope.study.layout import StudyDirectory
from prunescope.study.recipe import Recipe
from prunescope.training.data import Task
from prunescope.training.loop import train
from prunescope.training.plan import Plan
from prunescope.training.recipe import Course


@dataclass(frozen=True)
class Stage:
    """One piece of work of a study."""

    trial: int
    level: int
    work: str  # "train" or "dissect"
    done: bool


@dataclass(frozen=True)
class Event:
    """How far a study is."""

    trial: int
    level: int
    work: str  # "data", "train" or "dissect"
    fraction: float  # of this stage, 0 to 1
    overall: float  # of what this run has to do, 0 to 1
    remaining: float | None  # seconds, estimated
    weights_remaining: float | None = None
    top1: float | None = None
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a finished level, by layer


Report = Callable[[Event], None]


def unreported(_event: Event) -> None:
    """Say nothing of an event."""


def stages(recipe: Recipe, out: str | Path) -> list[Stage]:
    """List a study's stages in order, and which of them are complete."""
    directory = StudyDirectory(Path(out))
    found = []
    for trial in range(recipe.trials):
        for level in range(recipe.pruning.levels + 1):
            trained = directory.is_trained(trial, level)
            dissected = trained and directory.is_dissected(trial, level, recipe.dissection.layers)
            found += [Stage(trial, level, "train", trained), Stage(trial, level, "dissect", dissected)]
    return found


def run_study(recipe: Recipe, out: str | Path, *, device: str = "cpu", report: Report = unreported) -> None:
    """Run what is missing of a study (Frankle and Bau 2019, section 2).

    Parameters
    ----------
    recipe
        What to do.
    out
        The study's directory; a stage whose files are complete is not run again.
    device
        Where networks run.
    report
        Called now and then with an `Event`.

    Raises
    ------
    InputError
        The directory holds another study, data or layers do not fit the recipe, training diverges.
    """
    directory = StudyDirectory(Path(out))
    with directory.locked():
        directory.refuse_others(recipe)
        clock = _Clock(stages(recipe, out), report)
        if not clock.left:
            return
        task = study_task(recipe, directory, clock.drawing)
        concepts = study_concepts(recipe, directory, clock.drawing)
        recipe.check_steps(Plan(len(task.train), recipe.training.batch_size, recipe.seed).steps_per_epoch)
        _check_network(recipe, task, concepts)
        directory.claim(recipe)
        for stage in clock.each():
            at = _Level(recipe, directory, stage.trial, stage.level, device, clock)
            if stage.work == "train":
                _train_level(at, task)
            else:
                _dissect_level(at, len(task.classes), concepts)


@dataclass(frozen=True)
class _Level:
    recipe: Recipe
    directory: StudyDirectory
    trial: int
    level: int
    device: str
    clock: _Clock

    @property
    def seed(self) -> int:
        return self.recipe.seed + self.trial

    def network(self, classes: int) -> nn.Module:
        return build_network(self.recipe.network, classes=classes, seed=self.seed)


def _train_level(at: _Level, task: Task) -> None:
    recipe, directory, trial, level = at.recipe, at.directory, at.trial, at.level
    plan = Plan(len(task.train), recipe.training.batch_size, at.seed)
    rewind_step = recipe.pruning.rewind_to.iterations(plan.steps_per_epoch)
    model = at.network(len(task.classes))
    snapshots: dict[int, Callable[[], None]] = {}
    if level == 0:
        save_weights(model, directory.initial(trial))
        mask, start = Mask.dense(model, recipe.pruning.exclude), 0
        snapshots[rewind_step] = lambda: save_weights(model, directory.rewind(trial))
    else:
        load_weights(model, directory.weights(trial, level - 1))
        mask = prune(
            model,
            Mask.load(directory.mask(trial, level - 1)),
            fraction=recipe.pruning.fraction,
            criterion=recipe.pruning.criterion,  # type: ignore[arg-type]
            scope=recipe.pruning.scope,  # type: ignore[arg-type]
            seed=at.seed * 1000 + level,
        )
        load_weights(model, directory.rewind(trial))
        start = rewind_step
    remaining = mask.weights_remaining
    rows = train(
        model,
        task,
        recipe.training,
        seed=at.seed,
        mask=mask,
        course=Course(start, recipe.training.length.iterations(plan.steps_per_epoch)),
        device=at.device,
        at_step=snapshots,
        progress=lambda done, total: at.clock.tick(done / total, weights_remaining=remaining),
    )
    last = rows.iloc[-1]
    mask.save(directory.mask(trial, level))
    save_weights(model, directory.weights(trial, level))
    write_table(directory.training(trial, level), rows)
    steps = recipe.training.length.iterations(plan.steps_per_epoch) - start
    counts = {"weights_remaining": remaining, "kept": mask.kept, "prunable": mask.prunable, "steps": steps}
    accuracy = {"top1": last["top1"], "top5": last["top5"], "loss": last["validation_loss"]}
    write_json(directory.measured(trial, level), {"trial": trial, "level": level} | counts | accuracy)


def _dissect_level(at: _Level, classes: int, concepts: ConceptData) -> None:
    recipe, directory, trial, level = at.recipe, at.directory, at.trial, at.level
    model = at.network(classes)
    load_weights(model, directory.weights(trial, level))
    measured = directory.read_measured(trial, level)
    known = {"weights_remaining": measured["weights_remaining"], "top1": measured["top1"]}
    threads = torch.get_num_threads()
    found = dissect(
        model,
        layers=recipe.dissection.layers,
        concepts=concepts,
        quantile=recipe.dissection.quantile,
        iou=recipe.dissection.iou,
        presence=recipe.dissection.presence,
        align=recipe.dissection.align,
        precision=recipe.dissection.precision,
        batch_size=recipe.dissection.batch_size,
        device=at.device,
        mean=recipe.data.mean,
        std=recipe.data.std,
        settings={"network": recipe.network, "trial": trial, "level": level},
        progress=lambda done, total: at.clock.tick(done / total * 0.99, **known),
    )
    # The kernels' threads become torch's, and sums by other threads differ in their last digits.
    torch.set_num_threads(threads)
    found.save(directory.dissection(trial, level))
    summaries = {layer: read_summary(directory.dissection(trial, level), layer) for layer in recipe.dissection.layers}
    at.clock.tick(1.0, **known, summaries=summaries)


def _check_network(recipe: Recipe, task: Task, concepts: ConceptData) -> None:
    """Refuse what does not fit the network before anything is trained: layers, exclusions, the number of classes."""
    model = build_network(recipe.network, classes=len(task.classes), seed=recipe.seed)
    Mask.dense(model, recipe.pruning.exclude)
    # Two images, since batch normalisation of one value would fail in training mode.
    images = torch.zeros(2, 3, *concepts.image_size)
    with evaluating(model), torch.inference_mode(), observe(model, recipe.dissection.layers):
        scores = model(images)
    if scores.shape != (2, len(task.classes)):
        raise InputError(
            f"network {recipe.network} puts out {list(scores.shape)} for 2 images, expected [2, {len(task.classes)}]: "
            f"a score for each class of {task.root}"
        )


# Training takes most of a level; the share only shapes the estimate.
SHARE: Mapping[str, float] = {"train": 0.9, "dissect": 0.1}


class _Clock:
    """Knows what is left to do and estimates how long it takes, from what this run has done so far."""

    def __init__(self, all_stages: list[Stage], report: Report) -> None:
        self.left = [stage for stage in all_stages if not stage.done]
        self._report = report
        self._total = sum(SHARE[stage.work] for stage in self.left) or 1.0
        self._done = 0.0
        self._began = time.monotonic()
        self._event = Event(0, 0, "data", 0.0, 0.0, None)

    def drawing(self, done: int, total: int) -> None:
        self._report(replace(self._event, fraction=done / total))

    def each(self) -> Iterator[Stage]:
        self._began = time.monotonic()
        for stage in self.left:
            self._event = Event(stage.trial, stage.level, stage.work, 0.0, self._done / self._total, None)
            yield stage
            self._done += SHARE[stage.work]

    def tick(self, fraction: float, **known: Any) -> None:
        overall = (self._done + fraction * SHARE[self._event.work]) / self._total
        elapsed = time.monotonic() - self._began
        remaining = elapsed * (1 / overall - 1) if overall > 0 and elapsed > 1 else None
        self._report(replace(self._event, fraction=fraction, overall=overall, remaining=remaining, **known))
