"""The description of a series: checkpoints that exist already, which are dissected as the levels of a study."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, model_validator

from prunescope.bounds import MOST_COUNT, MOST_LEVELS, MOST_SIZE, MOST_TRIALS, MOST_WORKERS
from prunescope.dissection.settings import Mean, Std
from prunescope.store.pruning_settings import misfit
from prunescope.store.recipe import DissectionSettings, Folder
from prunescope.tasks.sources import Cifar, HuggingFace
from prunescope.validation import Strict, Text

Share = Annotated[float, Field(gt=0, le=1)]


class Checkpoint(Strict):
    """One network of a series.

    Attributes
    ----------
    weights
        A file of weights. Without it, the network has the published weights that its name loads.
    key
        The key of the file under which the weights are, if it is not one of the usual ones.
    masks
        A file of masks that the weights are multiplied by.
    network
        The network of this checkpoint, if it is not that of the series.
    remaining
        The weights remaining, from 0 to 1. They are counted from the weights if this is not given.
    at
        The position on the horizontal axis of the figures, if the series has an axis of its own: a number or a label.
    prune_to
        The weights remaining that the network is pruned to after its weights have been loaded.
    units
        A file that gives, for each unit of this checkpoint, the number of its unit in the first checkpoint.
    """

    weights: Text | None = None
    key: Text | None = None
    masks: Text | None = None
    network: Text | None = None
    remaining: Share | None = None
    at: float | Text | None = None
    prune_to: Share | None = None
    units: Text | None = None

    @model_validator(mode="after")
    def _belongs_to_weights(self) -> Self:
        for name in ("key", "masks"):
            if self.weights is None and getattr(self, name) is not None:
                raise ValueError(f"`{name}` belongs to a file of weights; give `weights` too")
        return self


class SeriesPruning(Strict):
    """How the checkpoints of a sweep are pruned; see `prunescope.prune` and `prunescope.prune_filters`."""

    criterion: Literal["magnitude", "random"] = "magnitude"
    scope: Literal["global", "layer", "filters"] = "global"
    exclude: tuple[Text, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    recalibrate: Annotated[
        bool, Field(description="estimate the statistics of normalisation layers again after pruning")
    ] = True


class SeriesData(Strict):
    """The images on which the accuracy of every checkpoint is measured."""

    task: Annotated[
        Folder | Cifar | HuggingFace, Field(description="a folder of val/CLASS, `cifar10: ...` or `huggingface: ...`")
    ]
    size: Annotated[int | None, Field(gt=0, le=MOST_SIZE, description="that of the labelled images by default")] = None
    workers: Annotated[int, Field(ge=0, le=MOST_WORKERS, description="processes that decode images")] = 0
    batch_size: Annotated[int, Field(gt=0, le=MOST_COUNT)] = 32


def _as_checkpoint(given: Any) -> Any:
    return {"weights": given} if isinstance(given, str) else given


class SeriesRecipe(Strict):
    """A series of checkpoints of one network, or of several networks that share the names of the dissected layers.

    Attributes
    ----------
    name
        The name of the series, for figures and pages.
    network
        The network, by name; a checkpoint may name its own.
    classes
        The number of classes, if it is not the network's default.
    trials
        The checkpoints of each trial in order. The first one of a trial is its level 0.
    axis
        The name of the horizontal axis of the figures, if it does not show the weights remaining.
    match
        Whether the units of each checkpoint are matched to those of the first one by their activation maps.
    untrained
        Whether an untrained network is dissected beside the first checkpoint of each trial: the network with random
        weights, and with the statistics of its normalisation layers estimated on the labelled images.
    pruning
        How checkpoints that have a `prune_to` are pruned.
    data
        The images on which accuracy is measured; it is left out without them.
    mean, std, channels
        How the images are normalised, as in `prunescope.dissect`, for all checkpoints. By default, each network is
        given them as its weights were trained, and one that does not state this like the first checkpoint.
    dissection
        The layers, the labelled images and the settings of the dissection.
    """

    name: Annotated[Text, Field(min_length=1)] = "series"
    network: Text
    classes: Annotated[int | None, Field(gt=0, le=MOST_COUNT)] = None
    trials: Annotated[
        tuple[Annotated[tuple[Checkpoint, ...], Field(min_length=1, max_length=MOST_LEVELS + 1)], ...],
        Field(min_length=1, max_length=MOST_TRIALS),
    ]
    axis: Annotated[Text | None, Field(min_length=1)] = None
    match: bool = False
    untrained: bool = False
    pruning: SeriesPruning = SeriesPruning()
    data: SeriesData | None = None
    mean: Annotated[tuple[Mean, ...] | None, Field(min_length=1, max_length=3)] = None
    std: Annotated[tuple[Std, ...] | None, Field(min_length=1, max_length=3)] = None
    channels: Literal[1, 3] | None = None
    dissection: DissectionSettings

    @model_validator(mode="before")
    @classmethod
    def _paths_are_checkpoints(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("trials"), list | tuple):
            return given
        trials = [
            [_as_checkpoint(one) for one in trial] if isinstance(trial, list | tuple) else trial
            for trial in given["trials"]
        ]
        return given | {"trials": trials}

    @model_validator(mode="after")
    def _axis_has_positions(self) -> Self:
        placed = [one.at is not None for trial in self.trials for one in trial]
        if self.axis is None and any(placed):
            raise misfit(("axis",), None, "expected a name for the axis that `at` is given for")
        if self.axis is not None and not all(placed):
            raise misfit(("axis",), self.axis, "expected `at` for every checkpoint")
        return self

    @property
    def levels(self) -> int:
        """The highest level of any trial."""
        return max(len(trial) for trial in self.trials) - 1

    def to_yaml(self) -> str:
        """Return the series as YAML, with every default resolved."""
        content = self.model_dump(mode="json")
        content["trials"] = [
            [{name: value for name, value in one.items() if value is not None} for one in trial]
            for trial in content["trials"]
        ]
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
