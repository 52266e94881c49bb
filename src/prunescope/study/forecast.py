"""Forecasts of what studies will cost before they run: steps, images, disk space and hours by trial and level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from prunescope.concepts.broden import open_concepts
from prunescope.dissection.arrangement import BLOCKS
from prunescope.errors import InputError
from prunescope.files import expanded
from prunescope.networks.layers import list_layers, units_axes
from prunescope.store.layout import StudyDirectory
from prunescope.store.recipe import Drawn, Recipe
from prunescope.study.branching import Branch
from prunescope.study.checks import CheckedNetwork, check_recipe
from prunescope.study.mask_source import masks_branch
from prunescope.study.references import retrained_steps
from prunescope.study.schedule import kept_together, level_steps, pruned_together, weights_kept
from prunescope.study.sharing import dense_elsewhere, same_dissection
from prunescope.study.speed import Speed, measure_speed
from prunescope.tasks.order import Plan
from prunescope.tasks.source import Source
from prunescope.tasks.sources import Cifar, HuggingFace, open_sources

IMAGENET = (1_281_167, 50_000, 1000)
BRODEN, BRODEN_CATEGORIES = (63_305, 1197), 6  # the miniature has the same categories
PREDICTION_BYTES = 16  # for each validation image
MINIATURE_CLASSES, MINIATURE_CONCEPTS = 16, 160
COLUMNS = [
    "study", "trial", "level", "weights remaining", "steps", "training images", "dissected images", "megabytes",
    "hours", "state",
]  # fmt: skip


class DataSizes(NamedTuple):
    """The sizes of a study's data sets."""

    training: int
    validation: int
    classes: int
    labelled: int
    concepts: int
    categories: int
    read: Source | None  # the training images if they are available and not held in memory
    classes_known: bool  # whether `classes` is read from the data, not assumed
    image_size: tuple[int, int]  # height and width of the labelled images


@dataclass(frozen=True)
class Forecast:
    """The forecast costs of studies.

    Attributes
    ----------
    table
        A table with one row per study, trial and level, and one more of level 0 for each dense network that is trained
        again as a reference; its `state` begins with "retrained". `hours` and `megabytes` are 0 where nothing is left
        to do.
    notes
        Messages on what was measured and what was assumed.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def forecast(
    recipes: Sequence[Recipe],
    folders: Sequence[Path | None],
    *,
    device: str,
    speed: Speed | None = None,
    images: int | None = None,
    branches: Sequence[Branch] = (),
) -> Forecast:
    """Forecast what studies that run one after the other will cost.

    Levels from which filters are removed are counted at the cost of the dense network, which is an upper bound. The
    time to read training images is included if they are available; the time to read labelled images is not.

    Parameters
    ----------
    recipes
        The recipes in the order in which the studies run. Dense networks that later studies share are counted once.
    folders
        The directory of each study, or None. Stages that are complete there are not counted.
    device
        The device that networks will run on.
    speed
        The images per second of training and dissection. They are measured if they are not given.
    images
        The number of training images. By default it is counted in the data, or assumed if the data are not available.
    branches
        Finished studies to branch from.

    Returns
    -------
    Forecast
        The table of costs, and notes on what was measured and assumed.

    Raises
    ------
    InputError
        If a recipe does not fit its network or its data, if a folder holds another study, or if the number of training
        images is less than one.
    """
    rows: list[dict[str, object]] = []
    notes: dict[str, None] = {}
    measured: dict[tuple[object, ...], Speed] = {}
    studies = list(zip(recipes, folders, strict=True))
    for index, (recipe, folder) in enumerate(studies):
        if folder is not None:
            StudyDirectory(folder).refuse_others(recipe)
        sizes = _sizes(recipe, images, notes)
        plan = Plan(sizes.training, recipe.training.batch_size, recipe.seed)
        recipe.check_steps(plan.steps_per_epoch)
        fit = check_recipe(recipe, sizes.classes, sizes.image_size, classes_known=sizes.classes_known)
        notes |= dict.fromkeys(fit.notes)
        how_trained = recipe.training.model_dump(include={"batch_size", "device_batch_size", "precision", "compile"})
        key = (recipe.network, recipe.data, sizes.classes, recipe.dissection.layers, *how_trained.values())
        if key not in measured:
            measured[key] = speed or measure_speed(recipe, sizes.classes, device, sizes.read)
            read = "without reading any" if sizes.read is None else f"reading training images with {_workers(recipe)}"
            how = "as given" if speed else f"measured on {device}, {read}"
            notes[f"{measured[key].training:,.1f} images a second in training and "
                  f"{measured[key].dissection:,.1f} in dissection, {how}"] = None  # fmt: skip
        if recipe.pruning.scope == "filters":
            notes[
                "levels with removed filters are counted at the cost of the dense network, which is an upper bound"
            ] = None
        before = [Branch(StudyDirectory(at or Path(one.name)), one) for one, at in studies[:index]]
        try:
            masks_branch(recipe, branches, before)
        except InputError as error:
            notes[f"the study cannot run as it is: {error}"] = None
        rows += _rows(recipe, folder, fit, sizes, plan.steps_per_epoch, measured[key], branches, before)
    return Forecast(pd.DataFrame(rows, columns=COLUMNS), tuple(notes))


def _rows(
    recipe: Recipe,
    folder: Path | None,
    fit: CheckedNetwork,
    sizes: DataSizes,
    steps_per_epoch: int,
    speed: Speed,
    branches: Sequence[Branch],
    before: Sequence[Branch],
) -> list[dict[str, object]]:
    directory = None if folder is None else StudyDirectory(folder)
    pruning = recipe.pruning
    network, mask, dissection = _bytes(recipe, fit, sizes)
    sizes_together = pruned_together(fit.mask, pruning)
    rows = []
    for trial in range(recipe.trials):
        given = kept_together(fit.given[trial], pruning) if fit.given else None
        kept = weights_kept(pruning, sizes_together, given)
        shared = dense_elsewhere(recipe, trial, [*branches, *before], steps_per_epoch, to_come=before)
        for level in range(pruning.levels + 1):
            steps = level_steps(recipe, level, steps_per_epoch)
            count = steps.stop - steps.start
            trained = directory is not None and directory.is_trained(trial, level, pruning)
            dissected = trained and directory is not None and directory.is_dissected(
                trial, level, recipe.dissection.layers
            )  # fmt: skip
            state = "done" if dissected else "trained" if trained else ""
            if level == 0 and shared and not trained:
                branch, theirs = shared
                same = set(recipe.dissection.layers) <= set(branch.recipe.dissection.layers)
                dissected = same and same_dissection(recipe, trial, branch, theirs)
                trained, state = True, f"of {branch.directory.root}"
            # The untrained network is dissected together with level 0.
            dissections = 0 if dissected else 2 if level == 0 else 1
            networks = _networks_at_0(recipe) if level == 0 else 1
            space = 0.0 if trained else network * networks + mask + PREDICTION_BYTES * sizes.validation
            known = {"study": recipe.name, "trial": trial, "level": level}
            known |= {"weights remaining": sum(kept[level]) / sum(sizes_together)}
            costs = _costs(recipe, sizes, speed, steps_per_epoch, 0 if trained else count, not trained, dissections)
            rows.append(known | costs | {"megabytes": (space + dissections * dissection) / 1e6, "state": state})
        if recipe.retrained:
            trained = directory is not None and (directory.reference(trial, "retrained") / "measured.json").is_file()
            dissected = directory is not None and directory.is_reference_dissected(
                trial, "retrained", recipe.dissection.layers
            )  # fmt: skip
            steps = retrained_steps(recipe, steps_per_epoch)
            count = 0 if trained else steps.stop - steps.start
            known = {"study": recipe.name, "trial": trial, "level": 0, "weights remaining": 1.0}
            costs = _costs(recipe, sizes, speed, steps_per_epoch, count, not trained, 0 if dissected else 1)
            space = (0.0 if trained else network) + (0.0 if dissected else dissection)
            state = "retrained: done" if dissected else "retrained: trained" if trained else "retrained"
            rows.append(known | costs | {"megabytes": space / 1e6, "state": state})
    return rows


def _costs(
    recipe: Recipe,
    sizes: DataSizes,
    speed: Speed,
    steps_per_epoch: int,
    steps: int,
    is_measured: bool,
    dissections: int,
) -> dict[str, object]:
    """Return the costs of the training steps, the measurements of the accuracy and the dissections of one network."""
    images = steps * min(recipe.training.batch_size, sizes.training)
    measures = 1 + _times_measured(recipe, steps, steps_per_epoch) if is_measured else 0
    dissected = dissections * sizes.labelled
    seconds = images / speed.training + (measures * sizes.validation + dissected) / speed.dissection
    costs = {"steps": steps, "training images": images, "dissected images": dissected}
    return costs | {"hours": seconds / 3600}


def _networks_at_0(recipe: Recipe) -> int:
    """Return how many networks level 0 stores: the initial one, the rewinding point and the trained one."""
    return 3 if recipe.start is None else 1 + (recipe.start.rewind_weights is not None)


def _times_measured(recipe: Recipe, steps: int, steps_per_epoch: int) -> int:
    every = recipe.training.measure_every
    return 0 if every is None else max(0, steps - 1) // every.iterations(steps_per_epoch)


def _bytes(recipe: Recipe, fit: CheckedNetwork, sizes: DataSizes) -> tuple[float, float, float]:
    """Return the sizes in bytes of a network, of a mask and, approximately, of a dissection."""
    network = sum(tensor.numel() * tensor.element_size() for tensor in fit.model.state_dict().values())
    settings, size = recipe.dissection, recipe.data.size
    axes = units_axes(fit.model, settings.layers, (size, size), settings.units_axis)
    layers = list_layers(fit.model, size, units_axis=axes).set_index("layer")["units"]
    units = sum(int(layers.get(layer, 0)) for layer in settings.layers)
    # Each pair of a unit and a concept takes 8 bytes in the tally and about 8 in the table. Each block of images has 8
    # bytes for each unit and category, 4 for at least one pair of these, and 8 for each concept of a layer.
    pairs = 16.0 * units * sizes.concepts
    blocks = min(BLOCKS, sizes.labelled) * (12 * units * sizes.categories + 8 * len(settings.layers) * sizes.concepts)
    bases = 1 + len(settings.basis)
    return network, fit.mask.prunable, bases * (pairs + blocks + 8 * units * settings.chance)


def _sizes(recipe: Recipe, images: int | None, notes: dict[str, None]) -> DataSizes:
    origin, concepts = recipe.data.task, recipe.dissection.concepts
    training, validation, classes = IMAGENET
    read, classes_known, image_size = None, True, (recipe.data.size, recipe.data.size)
    drawn = sum(one.miniature.images for one in (origin, concepts) if isinstance(one, Drawn))
    if drawn:
        notes[f"{drawn:,} images that the study draws are not counted on disk"] = None
    if isinstance(origin, Drawn):
        # The last 16 of every 64 images are used for validation.
        whole, rest = divmod(origin.miniature.images, 64)
        training, classes = whole * 48 + min(rest, 48), MINIATURE_CLASSES
        validation = origin.miniature.images - training
    elif isinstance(origin, Cifar):
        training, validation, classes = 50_000, 10_000, 10 if origin.cifar10 is not None else 100
    elif isinstance(origin, HuggingFace) or expanded(origin).exists():
        _, train, val = open_sources(origin, recipe.data.size)
        training, validation, classes = len(train), len(val), len(train.classes)
        read = None if recipe.data.in_memory or train.pixels is not None else train
    else:
        classes_known = False
    if not classes_known and images is None:
        notes[
            f"{origin} does not exist: ImageNet's {training:,} training images are assumed; --images changes that"
        ] = None
    if images is not None:
        training = images
    (labelled, number), categories = BRODEN, BRODEN_CATEGORIES
    if isinstance(concepts, Drawn):
        labelled, number = concepts.miniature.images, MINIATURE_CONCEPTS
    elif expanded(concepts).exists():
        data = open_concepts(concepts)
        labelled, number, image_size = len(data), len(data.labels), data.image_size
        categories = len(data.categories)
    else:
        notes[f"{concepts} does not exist: Broden's {labelled:,} images are assumed"] = None
    if training < 1:
        raise InputError(f"the number of training images is {training}, expected at least 1")
    labelled = min(labelled, recipe.dissection.images or labelled)
    return DataSizes(training, validation, classes, labelled, number, categories, read, classes_known, image_size)


def _workers(recipe: Recipe) -> str:
    workers = recipe.data.workers
    return f"{workers} worker{'s' if workers > 1 else ''}" if workers else "the training process itself"
