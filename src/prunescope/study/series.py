"""Run a series: dissect checkpoints that exist already as the levels of a study, without training."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.concepts.broden import ConceptData, open_concepts
from prunescope.dissection.result import Dissection, read_summary
from prunescope.dissection.run import dissect_networks
from prunescope.dissection.settings import Normalisation, check_precision
from prunescope.dissection.storage import Budget
from prunescope.dissection.labels import BLOCKS
from prunescope.errors import InputError
from prunescope.files import write_json, write_text
from prunescope.hashes import Hashes
from prunescope.networks.checks import explain_failures
from prunescope.networks.layers import units_axes
from prunescope.networks.observing import evaluating, observe
from prunescope.networks.source import build_network
from prunescope.networks.statistics import estimate_statistics
from prunescope.pruning import Coverage, Mask, prune, prune_filters, shrink, unit_numbers
from prunescope.randomness import seed_of
from prunescope.store.layout import StudyDirectory
from prunescope.store.reading import read_series
from prunescope.store.series import Checkpoint, SeriesRecipe
from prunescope.study.identity import Fingerprinter
from prunescope.study.recording import record, refuse_changes
from prunescope.study.reporting import ProgressReporter, Report, unreported
from prunescope.study.stages import Stage
from prunescope.tasks.task import Task, open_task
from prunescope.training.validation import measure

Build = Callable[[SeriesRecipe, int, int], nn.Module]

# The statistics of normalisation layers are estimated on at most this many images, in batches of this size.
CALIBRATED, CALIBRATION_BATCH = 2048, 64
_CALIBRATION = 102  # a purpose in the keys of random seeds


def build_checkpoint(recipe: SeriesRecipe, trial: int, level: int) -> nn.Module:
    """Build the network of a trial's checkpoint with its weights, before it is pruned."""
    checkpoint = recipe.trials[trial][level]
    return build_network(checkpoint.network or recipe.network, classes=recipe.classes, weights=checkpoint.weights)


def run_series(
    recipe: SeriesRecipe,
    out: str | Path,
    *,
    device: str = "cpu",
    budget: Budget = Budget(),  # noqa: B008 - frozen
    build: Build = build_checkpoint,
    report: Report = unreported,
) -> None:
    """Dissect the checkpoints of a series that are not dissected yet, and measure their accuracy.

    As many checkpoints as fit into the memory of `budget` are dissected in one pass over the labelled images.

    Parameters
    ----------
    recipe
        The series.
    out
        The directory, which is laid out like a study's. Checkpoints that are complete there are not run again, and
        further checkpoints may be added to the end of a trial, or further trials.
    device
        The device to run networks on.
    budget
        The memory and disk space for activation maps until the thresholds are known, of one pass.
    build
        A function that returns the network of the checkpoint of a trial and level, with its weights. It is called with
        the series and both numbers, and the network is modified.
    report
        Called with an `Event` whenever there is progress to report.

    Raises
    ------
    InputError
        If the directory holds something else, if a checkpoint or the data differ from those that the series began with,
        or if a network does not fit its weights, the layers or the data.
    """
    directory = StudyDirectory(Path(out))
    check_precision(recipe.dissection.precision, device)
    progress = ProgressReporter(report)
    with directory.locked():
        refuse_other_series(directory, recipe)
        concepts = open_concepts(str(recipe.dissection.concepts))
        hashes = Hashes(directory.hashes)
        fingerprinter = Fingerprinter(hashes, progress.preparing)
        identity = fingerprinter.concepts(concepts.root) | fingerprinter.packed(concepts.packed)
        task = _open_task(recipe, concepts)
        if task is not None and recipe.data is not None:
            identity |= fingerprinter.task(recipe.data.task, task.size)
        refuse_changes(directory, identity)
        run = _Run(recipe, directory, concepts, task, device, build, progress)
        run.check_finished()
        if note := record(directory, identity):
            progress.note(note)
        directory.recipe.parent.mkdir(parents=True, exist_ok=True)
        write_text(directory.recipe, recipe.to_yaml())
        hashes.save()
        missing = [level for level in run.levels() if not run.is_finished(level)]
        for group in run.groups(missing, budget):
            run.dissect(group, budget)


@dataclass(frozen=True)
class _Level:
    """One checkpoint of the series and its numbers."""

    trial: int
    level: int
    checkpoint: Checkpoint


@dataclass(frozen=True)
class _Prepared:
    """A network that is ready to be dissected, and what is known of it."""

    level: _Level
    model: nn.Module
    numbers: dict[str, np.ndarray[Any, Any]] | None  # of the units, by layer, if filters were removed
    facts: dict[str, Any]
    mask: Mask | None


@dataclass(frozen=True)
class _Run:
    recipe: SeriesRecipe
    directory: StudyDirectory
    concepts: ConceptData
    task: Task | None
    device: str
    build: Build
    progress: ProgressReporter

    def levels(self) -> Iterator[_Level]:
        for trial, checkpoints in enumerate(self.recipe.trials):
            for level, checkpoint in enumerate(checkpoints):
                yield _Level(trial, level, checkpoint)

    def is_finished(self, level: _Level) -> bool:
        measured = self.directory.measured(level.trial, level.level)
        layers = self.recipe.dissection.layers
        return measured.is_file() and self.directory.is_dissected(level.trial, level.level, layers)

    def check_finished(self) -> None:
        """Raise if the weights of a finished checkpoint have changed. Files that no longer exist are not checked."""
        for level in self.levels():
            file = level.checkpoint.weights
            if not self.is_finished(level) or (file is not None and not Path(file).exists()):
                continue
            known = self.directory.read_measured(level.trial, level.level).get("weights_digest")
            if known is not None and known != digest_of(self._build(level)):
                raise InputError(
                    f"{_named(level)} has other weights now than when it was dissected; nothing was changed. Give the "
                    f"weights that it had, or another --out, or remove "
                    f"{self.directory.level(level.trial, level.level)} to dissect it again"
                )

    def groups(self, levels: Sequence[_Level], budget: Budget) -> Iterator[list[_Level]]:
        """Divide levels into groups whose counts fit into memory together, each of which shares one pass."""
        if not levels:
            return
        size = self._bytes_of(levels[0])
        memory = budget.on(torch.device(self.device)).memory
        most = len(levels) if memory is None else max(1, memory // max(1, size))
        for first in range(0, len(levels), most):
            yield list(levels[first : first + most])

    def dissect(self, group: Sequence[_Level], budget: Budget) -> None:
        """Prepare the networks of a group, measure them, dissect them in one pass and write the results."""
        settings = self.recipe.dissection
        stages = [Stage(level.trial, level.level, "dissect", False) for level in group]
        prepared = {f"of trial {level.trial}, level {level.level}": self._prepare(level) for level in group}
        for _ in self.progress.follow(stages[:1]):
            found = dissect_networks(
                {name: one.model for name, one in prepared.items()},
                layers=settings.layers,
                concepts=self.concepts,
                settings=settings,
                normalisation=Normalisation(mean=self.recipe.mean, std=self.recipe.std),
                units_axis=settings.units_axis,
                device=self.device,
                budget=budget,
                progress=lambda done, total: self.progress.update(done / total * 0.99),
            )
        for name, one in prepared.items():
            self._write(one, found[name])

    def _build(self, level: _Level) -> nn.Module:
        with _naming(level):
            return self.build(self.recipe, level.trial, level.level)

    def _prepare(self, level: _Level) -> _Prepared:
        checkpoint, pruning = level.checkpoint, self.recipe.pruning
        model = self._build(level).to(self.device)
        with _naming(level):
            facts: dict[str, Any] = {"trial": level.trial, "level": level.level, "weights_digest": digest_of(model)}
            mask = Mask.dense(model, pruning.exclude if pruning.scope != "filters" else ())
            coverage = Coverage.of(model, mask)
            kept = sum(int((weight != 0).sum()) for weight in mask.parameters(model).values())
            prunable, numbers, made = mask.prunable, None, None
            if checkpoint.prune_to is not None and checkpoint.prune_to < 1:
                model, made, numbers = self._prune(model, checkpoint.prune_to)
                kept = made.kept
                if pruning.recalibrate:
                    facts["recalibrated"] = self._recalibrate(model)
            first = self._first(level)
            prunable = first or prunable
            if kept > prunable and checkpoint.remaining is None:
                raise InputError(
                    f"has {kept} weights that are not zero, more than the {prunable} prunable weights of the first "
                    "checkpoint; give its weights remaining (`remaining`) or a position on an axis of your own (`at`)"
                )
            if checkpoint.remaining is None:
                facts |= {"weights_remaining": kept / prunable, "kept": kept, "prunable": prunable}
            else:
                facts |= {"weights_remaining": checkpoint.remaining}
            if self.recipe.axis is not None:
                facts |= {"at": checkpoint.at}
            facts |= {"parameters": coverage.parameters, "never_pruned": list(coverage.outside)}
            if self.task is not None and self.recipe.data is not None:
                found = measure(model, self.task, self.recipe.data.batch_size, self.device)
                facts |= found._asdict()
        return _Prepared(level, model, numbers, facts, made)

    def _prune(
        self, model: nn.Module, remaining: float
    ) -> tuple[nn.Module, Mask, dict[str, np.ndarray[Any, Any]] | None]:
        pruning, size = self.recipe.pruning, self.concepts.image_size
        if pruning.scope != "filters":
            mask = prune(
                model, remaining=remaining, criterion=pruning.criterion, scope=pruning.scope, exclude=pruning.exclude,
                image_size=size, seed=pruning.seed,
            )  # fmt: skip
            mask.apply(model)
            return model, mask, None
        from copy import deepcopy

        dense = deepcopy(model)
        filters = prune_filters(
            model, remaining=remaining, criterion=pruning.criterion, exclude=pruning.exclude, image_size=size,
            seed=pruning.seed,
        )  # fmt: skip
        shrink(model, filters, size)
        numbers = unit_numbers(
            dense, model, filters, self.recipe.dissection.layers, size, units_axis=self.recipe.dissection.units_axis
        )
        return model, filters.mask(dense), numbers

    def _recalibrate(self, model: nn.Module) -> int:
        """Estimate the statistics of the normalisation layers; return the number of images used."""
        chosen = calibration_images(len(self.concepts), self.recipe.pruning.seed)
        mean, std = (
            torch.tensor(color, device=self.device).view(1, -1, 1, 1) for color in (self.recipe.mean, self.recipe.std)
        )

        def batches() -> Iterator[Tensor]:
            for part in np.array_split(chosen, max(1, round(len(chosen) / CALIBRATION_BATCH))):
                pixels = torch.from_numpy(np.stack([self.concepts.image(int(i)) for i in part])).to(self.device)
                yield (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std

        return len(chosen) if estimate_statistics(model, batches()) else 0

    def _first(self, level: _Level) -> int | None:
        """Return the prunable weights of the trial's first checkpoint; None for the first itself."""
        if level.level == 0:
            return None
        measured = self.directory.measured(level.trial, 0)
        if measured.is_file():
            return self.directory.read_measured(level.trial, 0).get("prunable")
        first = self._build(_Level(level.trial, 0, self.recipe.trials[level.trial][0]))
        return Mask.dense(first, self.recipe.pruning.exclude if self.recipe.pruning.scope != "filters" else ()).prunable

    def _bytes_of(self, level: _Level) -> int:
        """Estimate the memory that the counts of one network take during a pass."""
        units = self._units(self._build(level))
        return BLOCKS * units * (4 * len(self.concepts.labels) + 8 * len(self.concepts.categories) + 8)

    def _units(self, model: nn.Module) -> int:
        """Count the units of all dissected layers by running the network on one blank image."""
        layers, size, counts = self.recipe.dissection.layers, self.concepts.image_size, []
        axes = units_axes(model, layers, size, self.recipe.dissection.units_axis)
        image = torch.zeros(1, 3, *size)

        def count(_layer: str, output: Tensor) -> None:
            counts.append(output.shape[1])

        with (
            evaluating(model),
            torch.inference_mode(),
            observe(model, layers, axes, count),
            explain_failures(model, image),
        ):
            model(image)
        return sum(counts)

    def _write(self, one: _Prepared, found: Dissection) -> None:
        trial, level = one.level.trial, one.level.level
        if one.numbers is not None:
            found = found.numbered(one.numbers)
        named = {"network": one.level.checkpoint.network or self.recipe.network, "trial": trial, "level": level}
        layers = {
            name: replace(part, summary=part.summary | {"settings": _settings(part.summary["settings"], named)})
            for name, part in found.items()
        }
        folder = self.directory.dissection(trial, level)
        if one.mask is not None:
            one.mask.save(self.directory.mask(trial, level))
        Dissection(layers).save(folder, replace=True)
        write_json(self.directory.measured(trial, level), one.facts)
        summaries = {layer: read_summary(folder, layer) for layer in layers}
        known = {name: one.facts.get(name) for name in ("weights_remaining", "top1")}
        self.progress.finish_level(trial, level, summaries=summaries, **known)


def _settings(settings: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "name"} | named


def calibration_images(count: int, seed: int) -> np.ndarray[Any, Any]:
    """Return the indices of the images on which statistics are estimated, in a random order that the seed fixes."""
    generator = np.random.default_rng(seed_of(seed, _CALIBRATION))
    return generator.permutation(count)[:CALIBRATED]


def digest_of(model: nn.Module) -> str:
    """Return a hash of the parameters and buffers of a network, as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()


def _open_task(recipe: SeriesRecipe, concepts: ConceptData) -> Task | None:
    if recipe.data is None:
        return None
    height, width = concepts.image_size
    size = recipe.data.size
    if size is None and height != width:
        raise InputError(
            f"the labelled images are {height} x {width} pixels, and images to classify are square; give `data.size`"
        )
    return open_task(
        recipe.data.task, size=size or height, augmentation="none", mean=recipe.mean, std=recipe.std,
        workers=recipe.data.workers, training=False,
    )  # fmt: skip


def _named(level: _Level) -> str:
    file = f" ({level.checkpoint.weights})" if level.checkpoint.weights else ""
    return f"trial {level.trial}, level {level.level}{file}"


@contextmanager
def _naming(level: _Level) -> Iterator[None]:
    """Add the trial, the level and the file to the message of any `InputError` raised in the block."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{_named(level)}: {error}") from error


def refuse_other_series(directory: StudyDirectory, recipe: SeriesRecipe) -> None:
    """Raise if a directory holds something else than an earlier state of this series.

    A series may have been shorter: checkpoints at the end of a trial and further trials may have been added since.

    Raises
    ------
    InputError
        If the directory holds a study, another series (the message shows how they differ) or other files.
    """
    if not directory.recipe.is_file():
        there = directory.root.iterdir() if directory.root.is_dir() else ()
        others = [path.name for path in there if not path.match(".*.part.*") and path != directory.fingerprints]
        if others or (directory.root.exists() and not directory.root.is_dir()):
            raise InputError(
                f"{directory.root} exists and does not contain a series; give a new or an empty directory as --out"
            )
        return
    try:
        before = read_series(directory.recipe)
    except InputError as error:
        raise InputError(f"{directory.root} does not contain a series; give another --out. {error}") from error
    if _decisive(before, recipe) != _decisive(recipe, before):
        lines = difflib.unified_diff(
            before.to_yaml().splitlines(), recipe.to_yaml().splitlines(), "study.yaml there", "series given", "", "", 0,
            "",
        )  # fmt: skip
        raise InputError(
            f"{directory.root} contains another series; nothing was changed. The difference:\n" + "\n".join(lines)
            + "\nGive another --out. Checkpoints can only be added at the end of a trial"
        )  # fmt: skip


def _decisive(recipe: SeriesRecipe, other: SeriesRecipe) -> dict[str, Any]:
    """Return what must be equal in both descriptions: all but locations, and checkpoints that one of them lacks."""
    content = recipe.model_dump(mode="json", exclude={"trials", "name", "dissection"})
    settings = recipe.dissection.model_dump(mode="json", exclude={"batch_size", "concepts"})
    if content["data"] is not None:
        content["data"] = {"size": content["data"]["size"]}
    shared = [
        [
            one.model_dump(exclude={"weights", "masks", "units"}) | {"given": one.weights is not None}
            for one, _ in zip(mine, theirs, strict=False)
        ]
        for mine, theirs in zip(recipe.trials, other.trials, strict=False)
    ]
    return content | {"dissection": settings, "trials": shared}
