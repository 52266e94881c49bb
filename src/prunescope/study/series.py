"""Run a series: dissect checkpoints that exist already as the levels of a study, without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from prunescope.arrays import Array
from prunescope.concepts.broden import ConceptData
from prunescope.concepts.packed import with_packed_copy
from prunescope.concepts.sample import sample_concepts
from prunescope.dissection.arrangement import BLOCKS
from prunescope.dissection.calibration import calibrate
from prunescope.dissection.layer_files import layer_folder, read_summary, read_units
from prunescope.dissection.match_networks import match_units
from prunescope.dissection.matching import UnitMatching
from prunescope.dissection.result import Dissection
from prunescope.dissection.run import dissect_networks
from prunescope.dissection.settings import check_precision
from prunescope.dissection.storage import Budget
from prunescope.errors import InputError
from prunescope.files import write_json, write_table, write_text
from prunescope.hashes import Hashes
from prunescope.networks.checks import explain_failures
from prunescope.networks.chosen_preprocessing import choose_preprocessing
from prunescope.networks.layers import units_axes
from prunescope.networks.observing import observe
from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.published_preprocessing import preprocessing_of, remember_preprocessing
from prunescope.networks.running import blank_images, evaluating
from prunescope.networks.source import build_untrained
from prunescope.store.layout import StudyDirectory
from prunescope.store.series import SeriesRecipe
from prunescope.study.checkpoints import (
    Build,
    Prepared,
    SeriesLevel,
    build_checkpoint,
    digest_of,
    prepare_checkpoint,
    prunable_mask,
)
from prunescope.study.identity import Fingerprinter
from prunescope.study.recording import record, refuse_changes
from prunescope.study.references import UNTRAINED, save_reference
from prunescope.study.reporting import ProgressReporter, Report, unreported
from prunescope.study.series_directory import refuse_other_series
from prunescope.study.stages import Stage
from prunescope.tasks.task import Task, open_task

EachPreprocessing: TypeAlias = dict[tuple[int, int], Preprocessing]  # by trial and level


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
        The memory and disk space that one pass may use for activation maps until the thresholds are known.
    build
        A function that returns the network of a trial's checkpoint with its weights. It is called with the series and
        the numbers of the trial and the level, and the network is modified.
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
        concepts = series_concepts(recipe)
        hashes = Hashes(directory.hashes)
        fingerprinter = Fingerprinter(hashes, progress.preparing)
        identity = fingerprinter.concepts(concepts.root) | fingerprinter.packed(concepts.packed)
        if recipe.data is not None:
            identity |= fingerprinter.task(recipe.data.task, _task_size(recipe, concepts), training=False)
        refuse_changes(directory, identity)
        run = _Run(recipe, directory, concepts, device, build, progress)
        run.check_finished()
        missing = [level for level in run.levels() if not run.is_finished(level)]
        preprocessing = run.check_missing(missing)
        tasks = {own.numbers: _open_task(recipe, concepts, own) for own in preprocessing.values()}
        # This runs the networks once, so that nothing is written for one that cannot be dissected.
        groups = run.groups(missing, preprocessing[missing[0].key].channels, budget) if missing else []
        if note := record(directory, identity):
            progress.note(note)
        write_text(directory.recipe, recipe.to_yaml())
        hashes.save()
        if not missing:
            return
        if recipe.dissection.chance:
            run = replace(run, concepts=with_packed_copy(concepts))
        stages = [Stage(group[0].trial, group[0].level, "dissect", False) for group in groups]
        for _, group in zip(progress.follow(stages), groups, strict=True):
            run.dissect(group, preprocessing, tasks, budget)


def series_concepts(recipe: SeriesRecipe) -> ConceptData:
    """Open the labelled images of a series, or the sample of them that it asks for."""
    return sample_concepts(str(recipe.dissection.concepts), recipe.dissection.images, recipe.pruning.seed)


@dataclass(frozen=True)
class _Run:
    recipe: SeriesRecipe
    directory: StudyDirectory
    concepts: ConceptData
    device: str
    build: Build
    progress: ProgressReporter

    def levels(self) -> Iterator[SeriesLevel]:
        for trial, checkpoints in enumerate(self.recipe.trials):
            for level, checkpoint in enumerate(checkpoints):
                yield SeriesLevel(trial, level, checkpoint)

    def is_finished(self, level: SeriesLevel) -> bool:
        measured = self.directory.measured(level.trial, level.level)
        layers = self.recipe.dissection.layers
        complete = measured.is_file() and self.directory.is_dissected(level.trial, level.level, layers)
        # The untrained network is dissected in the same pass as the first checkpoint.
        if self._needs_untrained(level):
            return complete and self.directory.is_reference_dissected(level.trial, UNTRAINED, layers)
        return complete

    def check_finished(self) -> None:
        """Raise if the weights of a finished checkpoint have changed. Files that no longer exist are not checked."""
        for level in self.levels():
            file = level.checkpoint.weights
            if not self.is_finished(level) or (file is not None and not Path(file).exists()):
                continue
            known = self.directory.read_measured(level.trial, level.level).get("weights_digest")
            if known is not None and known != digest_of(self._build(level)):
                raise InputError(
                    f"{level} has other weights now than when it was dissected; nothing was changed. Give the weights "
                    f"that it had, or another --out, or remove {self.directory.level(level.trial, level.level)} to "
                    "dissect it again"
                )

    def check_missing(self, missing: Sequence[SeriesLevel]) -> EachPreprocessing:
        """Raise if a checkpoint cannot be built, before any work that would be lost.

        Returns
        -------
        dict of (trial, level) to Preprocessing
            The preprocessing of each of these checkpoints.
        """
        found: EachPreprocessing = {}
        firsts: dict[int, Preprocessing | None] = {}
        for level in missing:
            model = self._build(level)
            if preprocessing_of(model) is None and level.trial not in firsts:
                firsts[level.trial] = self._stated_at_first(level.trial)
            found[level.key] = self._choose_preprocessing(level, model, firsts.get(level.trial))
        return found

    def _choose_preprocessing(self, level: SeriesLevel, model: nn.Module, first: Preprocessing | None) -> Preprocessing:
        """Return what the series gives, or else the network states, or else `first`, that of the first checkpoint."""
        recipe = self.recipe
        if preprocessing_of(model) is None:
            remember_preprocessing(model, first)
        with level.naming():
            return choose_preprocessing({"": model}, self.concepts.image_size, recipe.mean, recipe.std, recipe.channels)

    def _stated_at_first(self, trial: int) -> Preprocessing | None:
        """Return what the first checkpoint of a trial states, or else that of the first trial; None if neither does."""
        return next((own for one in (trial, 0) if (own := preprocessing_of(self._build_first(one)))), None)

    def groups(self, levels: Sequence[SeriesLevel], channels: int, budget: Budget) -> list[list[SeriesLevel]]:
        """Divide levels into groups whose counts fit into memory together, each of which shares one pass."""
        memory = budget.on(torch.device(self.device)).memory
        most = len(levels)
        if memory is not None:
            most = max(1, memory // max(1, self._bytes_of(levels[0], channels)))
        return [list(levels[first : first + most]) for first in range(0, len(levels), most)]

    def dissect(
        self,
        group: Sequence[SeriesLevel],
        preprocessing: EachPreprocessing,
        tasks: Mapping[Any, Task | None],
        budget: Budget,
    ) -> None:
        """Prepare the networks of a group, measure them, dissect them in one pass and write the results."""
        settings = self.recipe.dissection
        prepared: dict[str, Prepared] = {}
        prunable: dict[int, int] = {}  # by trial: the prunable weights of its first checkpoint
        for level in group:
            if level.level > 0 and level.trial not in prunable:
                prunable[level.trial] = self._prunable_at_first(level.trial)
            one = prepare_checkpoint(
                level,
                self._build(level),
                self.recipe,
                concepts=self.concepts,
                preprocessing=preprocessing[level.key],
                task=tasks[preprocessing[level.key].numbers],
                first=prunable.get(level.trial),
                device=self.device,
            )
            prunable.setdefault(level.trial, one.prunable)
            prepared[f"of trial {level.trial}, level {level.level}"] = one
        models = {name: one.model for name, one in prepared.items()}
        given = {name: preprocessing[one.level.key] for name, one in prepared.items()}
        untrained = {f"untrained, of trial {one.trial}": one for one in group if self._needs_untrained(one)}
        for name, level in untrained.items():
            models[name], given[name] = self._untrained(level, preprocessing[level.key]), preprocessing[level.key]
        found = dissect_networks(
            models,
            layers=settings.layers,
            concepts=self.concepts,
            settings=settings,
            preprocessing=given,
            units_axis=settings.units_axis,
            device=self.device,
            budget=budget,
            progress=lambda done, total: self.progress.update(done / total * 0.99),
        )
        for name, level in untrained.items():
            stated = found[name].stating(network=level.checkpoint.network or self.recipe.network)
            save_reference(stated, self.directory, level.trial, UNTRAINED)
        for name, one in prepared.items():
            self._write(one, found[name], preprocessing[one.level.key])

    def _needs_untrained(self, level: SeriesLevel) -> bool:
        return level.level == 0 and self.recipe.untrained

    def _untrained(self, level: SeriesLevel, preprocessing: Preprocessing) -> nn.Module:
        """Build the network of a trial's first checkpoint with random weights and estimated statistics."""
        recipe, seed = self.recipe, self.recipe.pruning.seed + level.trial
        with level.naming():
            network = level.checkpoint.network or recipe.network
            model = build_untrained(network, classes=recipe.classes, seed=seed).to(self.device)
            calibrate(model, self.concepts, preprocessing, self.device, seed)
        return model

    def _build(self, level: SeriesLevel) -> nn.Module:
        with level.naming():
            return self.build(self.recipe, level.trial, level.level)

    def _build_first(self, trial: int) -> nn.Module:
        return self._build(SeriesLevel(trial, 0, self.recipe.trials[trial][0]))

    def _prunable_at_first(self, trial: int) -> int:
        """Return the number of prunable weights of a trial's first checkpoint."""
        measured = self.directory.measured(trial, 0)
        known = self.directory.read_measured(trial, 0).get("prunable") if measured.is_file() else None
        return known or prunable_mask(self._build_first(trial), self.recipe).prunable

    def _bytes_of(self, level: SeriesLevel, channels: int) -> int:
        """Estimate the memory that the counts of one network take during a pass."""
        units = self._units(self._build(level), channels)
        tallies = BLOCKS + 1 + self.recipe.dissection.chance
        return tallies * units * (4 * len(self.concepts.labels) + 8 * len(self.concepts.categories) + 8)

    def _units(self, model: nn.Module, channels: int) -> int:
        """Count the units of all dissected layers by running the network on one blank image."""
        layers, size, counts = self.recipe.dissection.layers, self.concepts.image_size, []
        axes = units_axes(model, layers, size, self.recipe.dissection.units_axis, channels=channels)
        image = blank_images(model, 1, size, channels)

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

    def _write(self, one: Prepared, found: Dissection, preprocessing: Preprocessing) -> None:
        trial, level = one.level.trial, one.level.level
        folder = self.directory.dissection(trial, level)
        numbers, matched = one.numbers, {}
        if self.recipe.match and level > 0 and numbers is None:
            matched = self._match(one, preprocessing)
            numbers = {layer: matching.units for layer, matching in matched.items()}
        if numbers is not None:
            numbers = {layer: _filled(own, self._highest(one.level, layer)) for layer, own in numbers.items()}
        named: dict[str, Any] = {"network": one.level.checkpoint.network or self.recipe.network}
        named |= {"trial": trial, "level": level}
        parts = {}
        for layer, part in found.items():
            known = named | self._known_numbers(layer, part.units.shape[0], one, numbers is not None)
            settings = {name: value for name, value in part.summary["settings"].items() if name != "name"} | known
            parts[layer] = replace(part, summary=part.summary | {"settings": settings})
        bases = {name: basis.stating(name=None, **named) for name, basis in found.bases.items()}
        found = Dissection(parts, bases)
        found = found if numbers is None else found.numbered(numbers)
        if one.mask is not None:
            one.mask.save(self.directory.mask(trial, level))
        for layer, matching in matched.items():
            matching.save(layer_folder(folder, layer))
        found.save(folder, replace=True)
        if one.predictions is not None:
            write_table(self.directory.predictions(trial, level), one.predictions)
        write_json(self.directory.measured(trial, level), one.measured)
        summaries = {layer: read_summary(folder, layer) for layer in parts}
        known = {name: one.measured.get(name) for name in ("weights_remaining", "top1")}
        self.progress.finish_level(trial, level, summaries=summaries, **known)

    def _highest(self, level: SeriesLevel, layer: str) -> int:
        """Return the highest number of a unit of a layer in the first checkpoint; -1 for that checkpoint itself."""
        if level.level == 0:
            return -1
        return int(read_units(self.directory.dissection(level.trial, 0), layer)["unit"].max())

    def _known_numbers(self, layer: str, units: int, one: Prepared, numbered: bool) -> dict[str, Any]:
        """Return a note for the summary on where the units' numbers come from, unless they are the network's own."""
        if numbered:
            origin = "matched" if one.numbers is None else "given" if one.level.checkpoint.units else "kept filters"
            return {"unit_numbers": origin}
        if one.level.level == 0:
            return {}
        first = len(read_units(self.directory.dissection(one.level.trial, 0), layer))
        if units == first:
            return {}
        self.progress.note(
            f"{one.level}: layer {layer!r} has {units} units and the first checkpoint {first}, so it is unknown which "
            "units correspond, and consistency by unit is left out; measures by concept are computed. Give `units` or "
            "`match` (--match) to compare units"
        )
        return {"unit_numbers": "unknown"}

    def _match(self, one: Prepared, preprocessing: Preprocessing) -> dict[str, UnitMatching]:
        """Match the units of a checkpoint to those of the first one by their activations."""
        settings, channels = self.recipe.dissection, self.recipe.channels
        trial = one.level.trial
        first = self._build_first(trial)
        level = SeriesLevel(trial, 0, self.recipe.trials[trial][0])
        of_first = self._choose_preprocessing(level, first, self._stated_at_first(trial))
        remember_preprocessing(first, of_first)
        remember_preprocessing(one.model, preprocessing)
        return match_units(
            first,
            one.model,
            layers=settings.layers,
            concepts=self.concepts,
            units_axis=settings.units_axis,
            batch_size=settings.batch_size,
            device=self.device,
            precision=settings.precision,
            channels=channels,
            progress=False,
        )


def _filled(numbers: Array, highest: int) -> Array:
    """Replace -1, for units that correspond to none of the first checkpoint, by numbers above `highest` and the others.

    The first checkpoint has no units of these numbers, so that such units are compared with none.
    """
    filled = numbers.copy()
    free = filled < 0
    filled[free] = max(highest, filled.max(initial=-1)) + 1 + np.arange(int(free.sum()))
    return filled


def _task_size(recipe: SeriesRecipe, concepts: ConceptData) -> int:
    """Return the height and width of the images to classify, in pixels."""
    height, width = concepts.image_size
    if recipe.data is not None and recipe.data.size is not None:
        return recipe.data.size
    if height != width:
        raise InputError(
            f"the labelled images are {height} x {width} pixels, and images to classify are square; give `data.size`"
        )
    return height


def _open_task(recipe: SeriesRecipe, concepts: ConceptData, preprocessing: Preprocessing) -> Task | None:
    if recipe.data is None:
        return None
    if preprocessing.channels != 3 or preprocessing.order != "RGB":
        raise InputError(
            "accuracy can only be measured for networks that take RGB images, in this order; leave out `data` (--data)"
        )
    return open_task(
        recipe.data.task, size=_task_size(recipe, concepts), augmentation="none", mean=preprocessing.mean,
        std=preprocessing.std, workers=recipe.data.workers, training=False,
    )  # fmt: skip
