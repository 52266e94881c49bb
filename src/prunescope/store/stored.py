"""Read what a study has stored so far from its directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
from pydantic import AfterValidator, AliasPath, BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunescope.bounds import MOST_LEVELS, MOST_TRIALS
from prunescope.dissection.layer_files import layer_folder
from prunescope.errors import InputError, nearest
from prunescope.files import file_name, read_file
from prunescope.reading import read_json, read_parquet
from prunescope.store.dissections import SUMMARY, UNITS
from prunescope.store.layout import StudyDirectory
from prunescope.store.measured import Measured, first_problem, read_measured
from prunescope.store.predictions import read_predictions
from prunescope.store.tables import check_summary, check_units
from prunescope.store.values import UnreadableError, loaded

_AGAIN = "remove it and run the study again"
# `iou` is not among these settings, because interpretable units are counted with the bound of the recipe.
REPEATED = ("quantile", "presence", "align", "precision")


class Pruning(BaseModel):
    """How a study prunes and retrains; fields that its recipe does not set have their default values."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    levels: Annotated[int | None, Field(ge=0, le=MOST_LEVELS, strict=True)] = None
    fraction: Annotated[float | None, Field(gt=0, lt=1)] = None
    remaining: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None, Field(max_length=MOST_LEVELS)] = None
    schedule: str = "iterative"
    criterion: str = "magnitude"
    scope: str = "global"
    exclude: tuple[str, ...] = ()
    retraining: str = "rewind"
    rewind_to: str | None = None
    fine_tune: str | None = None
    masks: str = "own"

    @model_validator(mode="after")
    def _says_how_often(self) -> Self:
        if self.levels is None and self.remaining is None:
            raise ValueError("neither levels nor remaining is given, so the number of levels is unknown")
        return self


def _distinct(layers: tuple[str, ...]) -> tuple[str, ...]:
    for layer in layers:
        if layers.count(layer) > 1:
            raise ValueError(f"the layer {layer!r} is listed twice; keep one")
    return layers


class Settings(BaseModel):
    """The fields of a study's recipe that its evidence and report use; other fields are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str = "study"
    network: Any = None
    trials: Annotated[int, Field(ge=1, le=MOST_TRIALS, strict=True)]
    pruning: Pruning | None = None
    checkpoints: tuple[int, ...] | None = None  # of a series: the number of checkpoints of each trial
    axis: str | None = None
    data: dict[str, Any] | None = None
    layers: Annotated[
        tuple[Annotated[str, AfterValidator(file_name)], ...],
        Field(min_length=1, validation_alias=AliasPath("dissection", "layers")),
        AfterValidator(_distinct),
    ]
    iou: Annotated[float, Field(ge=0, lt=1, validation_alias=AliasPath("dissection", "iou"))] = 0.05
    dissection: dict[str, Any] = {}
    start: Any = None

    @property
    def given(self) -> bool:
        """Whether level 0 has weights that the recipe gives, and was not trained."""
        return self.start is not None

    @model_validator(mode="before")
    @classmethod
    def _counts_checkpoints(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("trials"), list):
            return given
        trials = given["trials"]
        if not all(isinstance(trial, list) and trial for trial in trials):
            raise ValueError("trials: each trial of a series is a list of at least one checkpoint")
        given = {name: value for name, value in given.items() if name != "pruning"}
        return given | {"trials": len(trials), "checkpoints": [len(trial) for trial in trials]}

    @model_validator(mode="after")
    def _is_study_or_series(self) -> Self:
        if self.pruning is None and self.checkpoints is None:
            raise ValueError("pruning is missing")
        return self

    @property
    def is_series(self) -> bool:
        """Whether the levels are checkpoints that existed already, so that nothing was trained."""
        return self.checkpoints is not None

    @property
    def dissected_with(self) -> dict[str, Any]:
        """The settings of the recipe that the summary of every dissection must repeat."""
        network = None if self.is_series else self.network  # a checkpoint of a series may have a network of its own
        stated = {"network": network} | {name: self.dissection.get(name) for name in REPEATED}
        return {name: value for name, value in stated.items() if value is not None}

    @property
    def levels(self) -> int:
        """The highest level: the number of times that the network is pruned."""
        if self.checkpoints is not None:
            return max(self.checkpoints) - 1
        assert self.pruning is not None
        return self.pruning.levels or len(self.pruning.remaining or ())

    @property
    def keys(self) -> list[tuple[int, int]]:
        """The trial and the level of every network of the study."""
        levels = self.checkpoints or (self.levels + 1,) * self.trials
        return [(trial, level) for trial, count in enumerate(levels) for level in range(count)]


@dataclass(frozen=True)
class StoredStudy:
    """The directory of a study, from which tables are read one at a time.

    Attributes
    ----------
    root : Path
        The directory of the study.
    settings : Settings
        The settings read from its ``study.yaml``.
    finished, missing : tuple of (trial, level)
        The levels that have all their files, and those that do not.
    """

    root: Path
    settings: Settings
    finished: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]

    def measured(self, trial: int, level: int) -> Measured:
        """Read the measurements of a level, such as its accuracy and weights remaining."""
        return read_measured(StudyDirectory(self.root).measured(trial, level), trial, level)

    def predictions(self, trial: int, level: int) -> pd.DataFrame | None:
        """Read the predictions of a level for the validation images, and check them; see `read_predictions`.

        Returns
        -------
        DataFrame or None
            A row per validation image; None if there is no file, as in a series without data or in a level that was
            finished by an earlier version.
        """
        path = StudyDirectory(self.root).predictions(trial, level)
        return read_predictions(path, self.measured(trial, level).top1) if path.exists() else None

    def summary(self, trial: int, level: int, layer: str) -> dict[str, Any]:
        """Read the summary of a dissection, which contains counts and settings, and check it.

        Raises
        ------
        InputError
            If a file cannot be read, or if the summary contradicts the table of units, the recipe or its folder.
        """
        return self.dissected(trial, level, layer)[1]

    def units(self, trial: int, level: int, layer: str) -> pd.DataFrame:
        """Read the table of a dissection, which has a row per unit, and check it against the summary beside it.

        Raises
        ------
        InputError
            If a file cannot be read, if the table contains an invalid value, or if it contradicts the summary.
        """
        return self.dissected(trial, level, layer)[0]

    def dissected(self, trial: int, level: int, layer: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Read the table of units and the summary of a dissection together; see `units` and `summary`."""
        folder = self.dissection(trial, level, layer)
        table, summary = read_parquet(folder / UNITS, _AGAIN), read_json(folder / SUMMARY, _AGAIN)
        expected = {"layer": layer, "trial": trial, "level": level} | self.settings.dissected_with
        try:
            check_units(table, str(folder / UNITS))
            check_summary(summary, table, expected, str(folder / SUMMARY))
        except InputError as error:
            raise InputError(
                f"{error}; restore the original file, or remove {folder} and run the study again"
            ) from error
        return table, summary

    def dissection(self, trial: int, level: int, layer: str) -> Path:
        """Return the folder of the dissection of a layer."""
        return layer_folder(StudyDirectory(self.root).dissection(trial, level), layer)


@dataclass(frozen=True)
class ReadOnce(StoredStudy):
    """A study whose tables of units stay in memory, for computations that need them several times.

    Attributes
    ----------
    tables : dict
        The tables and summaries that were read, by trial, level and layer. They must not be modified.
    """

    tables: dict[tuple[int, int, str], tuple[pd.DataFrame, dict[str, Any]]] = field(default_factory=dict)

    def dissected(self, trial: int, level: int, layer: str) -> tuple[pd.DataFrame, dict[str, Any]]:
        """Return the table of units and the summary of a dissection, which are read the first time."""
        key = (trial, level, layer)
        if key not in self.tables:
            self.tables[key] = super().dissected(*key)
        return self.tables[key]


def stored_units(root: Path, layers: Sequence[str], trial: int, level: int, layer: str | None = None) -> pd.DataFrame:
    """Read the table of units of one layer at one level of a study or a series that may not be finished.

    Parameters
    ----------
    root
        Its directory.
    layers
        The layers that it dissects. The first one is read if `layer` is None.
    trial, level, layer
        The layer to read.

    Raises
    ------
    InputError
        If the layer is not among `layers`, or is not dissected yet; otherwise as in `StoredStudy.units`.
    """
    layer = layer or layers[0]
    if layer not in layers:
        raise InputError(f"{root}: the study does not dissect layer {layer!r}; {nearest(layer, layers)}")
    if not StudyDirectory(root).is_dissected(trial, level, (layer,)):
        raise InputError(f"{root}: layer {layer!r} of trial {trial}, level {level} is not dissected yet; run the study")
    return open_study(root).units(trial, level, layer)


def read_settings(root: Path) -> Settings:
    """Read the settings of the study or the series in a directory.

    Raises
    ------
    InputError
        If the directory does not contain a study, or if ``study.yaml`` is not valid.
    """
    path = StudyDirectory(root).recipe
    if not path.is_file():
        raise InputError(f"{root} contains no study: there is no study.yaml; give the --out directory of a study")
    try:
        return Settings.model_validate(loaded(read_file(path).decode()))
    except (UnreadableError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from error
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from error


def open_study(study_dir: str | Path) -> StoredStudy:
    """Open the directory of a study and find out which levels are finished.

    Parameters
    ----------
    study_dir : path
        A study's directory, which contains ``study.yaml`` and ``trial-T/level-LL/``.

    Returns
    -------
    StoredStudy
        The study, with at least one finished level.

    Raises
    ------
    InputError
        If the directory does not contain a study, if ``study.yaml`` is not valid, or if no level is finished.
    """
    root = Path(study_dir)
    directory, settings = StudyDirectory(root), read_settings(root)
    levels = settings.keys
    done = [
        (trial, level)
        for trial, level in levels
        if directory.measured(trial, level).is_file() and directory.is_dissected(trial, level, settings.layers)
    ]
    if not done:
        raise InputError(f"{root}: none of the study's {len(levels)} levels is finished; run the study first")
    return StoredStudy(root, settings, tuple(done), tuple(key for key in levels if key not in set(done)))
