"""The recipe of a study: its fields, and checks of their combinations."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from prunescope.bounds import (
    MOST_COUNT,
    MOST_DRAWN,
    MOST_SEED,
    MOST_SIZE,
    MOST_TRIALS,
    MOST_WORKERS,
)
from prunescope.dissection.basis import parse_bases
from prunescope.dissection.settings import Mean, Settings, Std
from prunescope.errors import InputError
from prunescope.files import file_name
from prunescope.miniature.write import LARGEST, SMALLEST
from prunescope.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from prunescope.networks.source import default_layers
from prunescope.store.pruning_settings import PruningSettings, misfit, pruning_seed
from prunescope.store.start import Start
from prunescope.tasks.sources import Augmentation, Cifar, HuggingFace
from prunescope.training.recipe import Training
from prunescope.validation import Strict, Text

LayerName = Annotated[str, AfterValidator(file_name)]  # The results of a layer are stored in a folder of this name.
Axis = Literal[1, 2, 3, -1, -2, -3]


class Miniature(Strict):
    """Images of the miniature data set, which are drawn when the study begins."""

    images: Annotated[
        int, Field(ge=64, le=MOST_DRAWN, description="the number of images, a quarter of which are used for validation")
    ]
    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0


class Drawn(Strict):
    """Synthetic data that the study draws itself."""

    miniature: Miniature


Folder = Annotated[Text, Field(min_length=1)]


def _form(origin: Any) -> str:
    """Return the name of the form that a value has, so that errors are reported for this form only."""
    if isinstance(origin, Strict):
        return type(origin).__name__
    if not isinstance(origin, dict):
        return "Folder"
    return next(
        (model.__name__ for model in (Cifar, HuggingFace) if model.model_fields.keys() & origin.keys()), "Drawn"
    )


FORMS = frozenset({"Folder", "Drawn", "Cifar", "HuggingFace"})
Concepts = Annotated[
    Annotated[Folder, Tag("Folder")] | Annotated[Drawn, Tag("Drawn")],
    Discriminator(lambda origin: "Drawn" if isinstance(origin, dict | Drawn) else "Folder"),
    Field(description="a folder, or `miniature: {images: N, seed: S}`"),
]
Images = Annotated[
    Annotated[Folder, Tag("Folder")]
    | Annotated[Drawn, Tag("Drawn")]
    | Annotated[Cifar, Tag("Cifar")]
    | Annotated[HuggingFace, Tag("HuggingFace")],
    Discriminator(_form),
    Field(description="a folder of train/CLASS and val/CLASS, `miniature: ...`, `cifar10: ...` or `huggingface: ...`"),
]


class Data(Strict):
    """The data of the classification task."""

    task: Images
    size: Annotated[int, Field(gt=0, le=MOST_SIZE, description="images are size x size pixels")]
    augmentation: Augmentation = "imagenet"
    mean: tuple[Mean, Mean, Mean] = IMAGENET_MEAN
    std: tuple[Std, Std, Std] = IMAGENET_STD
    in_memory: Annotated[bool, Field(description="keep all images decoded in memory; for small data sets")] = False
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS, description="the number of processes that decode images")] = 0

    def preprocessing(self) -> Preprocessing:
        """Return the preprocessing of the images that the network is trained and dissected on."""
        return Preprocessing(self.mean, self.std, source="data.mean and data.std of the recipe")


def _axes(given: Any, info: ValidationInfo) -> Any:
    """Validate `units_axis` as a whole, so that one problem is reported, and turn numeric layer names into strings."""
    if given is None:
        return None
    axes = {str(layer): axis for layer, axis in given.items()} if isinstance(given, dict) else given
    numbers = axes.values() if isinstance(axes, dict) else [axes]
    layers = info.data.get("layers", ())
    if isinstance(axes, dict) and not axes.keys() <= set(layers):
        expected = f"expected axes of the layers {', '.join(layers)}"
    elif any(type(axis) is not int or axis not in get_args(Axis) for axis in numbers):
        expected = (
            "expected 1, 2, 3, -1, -2 or -3, or one of these for each layer: 1 for [n, units, h, w], -1 for units last"
        )
    else:
        return axes
    raise misfit(("dissection", "units_axis"), given, expected)


class _Dissected(Strict):
    """Which layers are dissected, and on which labelled images."""

    layers: Annotated[
        tuple[LayerName, ...],
        Field(
            min_length=1,
            description="the layers to dissect; by default those for which dissections of the network were published",
        ),
    ]
    concepts: Concepts
    images: Annotated[
        int | None, Field(ge=1, le=MOST_COUNT, description="a sample of so many labelled images; all by default")
    ] = None
    units_axis: Annotated[
        Axis | dict[str, Axis] | None,
        Field(
            description="the axis of the layers' outputs that contains the units, or an axis for each layer; by "
            "default it is measured"
        ),
        BeforeValidator(_axes),
    ] = None


# Fields of the last base come first, in files that are written and in messages.
class DissectionSettings(Settings, _Dissected):
    """Which layers are dissected, on which labelled images and with which settings."""


_WITHOUT_INFLUENCE = {
    "data": ("workers",),
    "training": ("trackers", "checkpoint_every", "checkpoint_minutes"),
    "dissection": ("batch_size",),
}


class Recipe(Strict):
    """A study of one network, in which every level of every trial is trained, measured and dissected."""

    name: Annotated[Text, Field(min_length=1)]
    network: Annotated[
        Text, Field(description="torchvision:, timm: or hf:NAME, prunescope:resnetDxW or path/to/file.py:function")
    ]
    trials: Annotated[int, Field(gt=0, le=MOST_TRIALS)] = 1
    seed: Annotated[int, Field(ge=0, le=MOST_SEED, description="trial t initialises and shuffles with seed + t")] = 0
    start: Annotated[
        Start | None, Field(description="weights that level 0 takes from files; by default, it is trained")
    ] = None
    retrained: Annotated[
        bool,
        Field(
            description="train the dense network of each trial again, with the images in another order, as a reference "
            "for the consistency of pruned networks"
        ),
    ] = False
    data: Data
    training: Training
    pruning: PruningSettings
    dissection: DissectionSettings

    @model_validator(mode="before")
    @classmethod
    def _with_published_layers(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        dissection, network = given.get("dissection"), given.get("network")
        if isinstance(dissection, dict) and isinstance(network, str) and dissection.get("layers") is None:
            try:
                return given | {"dissection": dissection | {"layers": default_layers(network)}}
            except InputError as error:
                field = {"field": ("dissection", "layers"), "input": None, "expected": str(error)}
                raise PydanticCustomError("misfit", "{expected}", field) from error
        return given

    @model_validator(mode="after")
    def _seeds_can_be_drawn_from(self) -> Self:
        last = self.seed + self.trials - 1
        if last > MOST_SEED:
            raise misfit(("seed",), self.seed, f"trial {self.trials - 1} would have seed {last}, above {MOST_SEED}")
        draws = self.pruning.criterion == "random" and self.pruning.scope != "filters"
        if draws and pruning_seed(last, self.pruning.levels) >= 2**64:
            most = (2**64 - 1 - self.pruning.levels) // 1000 - (self.trials - 1)
            expected = f"with `criterion: random`, each level draws from 1000 x seed + level; expected at most {most}"
            raise misfit(("seed",), self.seed, expected)
        return self

    @model_validator(mode="after")
    def _drawn_images_have_a_size(self) -> Self:
        drawn = isinstance(self.data.task, Drawn) or isinstance(self.dissection.concepts, Drawn)
        if drawn and not SMALLEST <= self.data.size <= LARGEST:
            expected = f"images of the miniature are drawn with sides from {SMALLEST} to {LARGEST} pixels"
            raise misfit(("data", "size"), self.data.size, expected)
        return self

    @model_validator(mode="after")
    def _bases_fit_every_level(self) -> Self:
        files = [one.given for one in parse_bases(self.dissection.basis) if one.seed is None]
        if files and self.pruning.scope == "filters":
            expected = (
                "`scope: filters` removes units, which a matrix of a fixed size does not fit; expected rotate:SEED"
            )
            raise misfit(("dissection", "basis"), files[0], expected)
        return self

    @model_validator(mode="after")
    def _rewind_within_training(self) -> Self:
        rewind, length = self.pruning.rewind_to, self.training.length
        # More epochs and more iterations are later for any length of an epoch. `check_steps` compares the other cases.
        if rewind != length and rewind.epochs >= length.epochs and rewind.steps >= length.steps:
            expected = f"expected a step within training, not after its end, {length}"
            raise misfit(("pruning", "rewind_to"), rewind, expected)
        return self

    @model_validator(mode="after")
    def _has_weights_to_draw(self) -> Self:
        if self.pruning.retraining == "reinitialise" and "@" in self.network:
            expected = f"the published weights of {self.network} would be the same again; name the network without them"
            raise misfit(("pruning", "retraining"), "reinitialise", expected)
        return self

    @model_validator(mode="after")
    def _begins_with_usable_weights(self) -> Self:
        start, pruning = self.start, self.pruning
        if start is None:
            return self
        for field, files in start.files().items():
            if len(files) != self.trials:
                expected = (
                    f"a trial begins with weights of its own, and the study has {self.trials} trials; expected a list "
                    "with as many files"
                )
                if self.trials == 1:
                    expected = "the study has one trial; expected one file, or `trials` to be the number of files"
                raise misfit(("start", field), _shown_files(files), expected)
            if field == "weights" and len(set(files)) < len(files):
                raise misfit(("start", field), _shown_files(files), "a file is listed twice; give each trial its own")
        if self.retrained:
            expected = (
                "level 0 has given weights, so that there is no training to repeat; leave it out, or omit `start`"
            )
            raise misfit(("retrained",), True, expected)
        if "@" in self.network and self.network.startswith(("torchvision:", "timm:")):
            expected = f"`start.weights` replaces the published weights; give {self.network.partition('@')[0]}"
            raise misfit(("network",), self.network, expected)
        rewinds = pruning.rewinds and pruning.levels > 0
        if rewinds and start.rewind_weights is None:
            expected = (
                "levels rewind to the weights of an early step of the training, which `start.weights` does not "
                "contain; give a file of these weights as `start.rewind_weights`, or another retraining, such as "
                "fine-tune or learning-rate"
            )
            raise misfit(("pruning", "retraining"), pruning.retraining, expected)
        if start.rewind_weights is not None and not rewinds:
            expected = (
                f"no level rewinds with `retraining: {pruning.retraining}` and `levels: {pruning.levels}`; omit it"
            )
            raise misfit(("start", "rewind_weights"), _shown_files(start.rewind_weights), expected)
        if start.masks is not None and pruning.scope == "filters":
            expected = (
                "`scope: filters` removes whole filters of a dense network; omit the masks, or give another scope"
            )
            raise misfit(("start", "masks"), _shown_files(start.masks), expected)
        return self

    def check_steps(self, steps_per_epoch: int) -> None:
        """Check the length of training and the rewinding step, given the number of steps per epoch.

        Raises
        ------
        InputError
            If training has no steps, or if the rewinding step is after the end of training.
        """
        rewind, length = self.pruning.rewind_to, self.training.length
        if length.iterations(steps_per_epoch) == 0:
            raise InputError(f"recipe {self.name}: training.length is {length}, expected at least one step")
        if rewind.iterations(steps_per_epoch) > length.iterations(steps_per_epoch):
            raise InputError(
                f"recipe {self.name}: pruning.rewind_to is {rewind}, after the end of training.length, {length} (an "
                f"epoch has {steps_per_epoch} steps); give a step within training"
            )

    def decisive(self) -> dict[str, Any]:
        """Return the fields that influence the results, as plain values.

        Fields that only affect how the work is done, such as the number of workers, are left out. So is
        `retrained`, which adds a network and leaves the others as they are.
        """
        content = self.model_dump(mode="json", exclude={"retrained"})
        for part, names in _WITHOUT_INFLUENCE.items():
            for name in names:
                del content[part][name]
        return content

    def to_yaml(self) -> str:
        """Return the recipe as YAML, with every default resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _shown_files(files: tuple[str, ...]) -> str | list[str]:
    return files[0] if len(files) == 1 else list(files)
