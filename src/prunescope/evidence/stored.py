"""What a study has stored so far, read from its directory."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import pandas as pd
import yaml
from pydantic import AfterValidator, AliasPath, BaseModel, ConfigDict, Field, ValidationError, model_validator

from prunescope.dissection.result import layer_folder
from prunescope.errors import InputError
from prunescope.files import file_name
from prunescope.study.layout import StudyDirectory

UNIT_COLUMNS = ("unit", "label", "category", "iou", "dead")


class Pruning(BaseModel):
    """How a study prunes and retrains; what its recipe does not say is what it is without saying."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    levels: Annotated[int | None, Field(ge=0)] = None
    fraction: float | None = None
    remaining: tuple[float, ...] | None = None
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
            raise ValueError("neither levels nor remaining says how often the network is pruned")
        return self


class Settings(BaseModel):
    """What the numbers need to know of a study's recipe; its other fields are not read."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = "study"
    network: Any = None
    trials: Annotated[int, Field(ge=1)]
    pruning: Pruning
    layers: Annotated[
        tuple[Annotated[str, AfterValidator(file_name)], ...],
        Field(min_length=1, validation_alias=AliasPath("dissection", "layers")),
    ]
    iou: Annotated[float, Field(validation_alias=AliasPath("dissection", "iou"))] = 0.05

    @property
    def levels(self) -> int:
        """How often the network is pruned."""
        return self.pruning.levels or len(self.pruning.remaining or ())


class Measured(BaseModel):
    """One level's measurements: accuracies and weights remaining are fractions."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    weights_remaining: Annotated[float, Field(gt=0, le=1)]
    top1: float
    top5: float | None = None
    loss: float | None = None


@dataclass(frozen=True)
class StoredStudy:
    """A study's directory, read one table at a time.

    Attributes
    ----------
    root : Path
        The directory.
    settings : Settings
        What its ``study.yaml`` says.
    finished, missing : tuple of (trial, level)
        The levels whose files are all there, and the others.
    """

    root: Path
    settings: Settings
    finished: tuple[tuple[int, int], ...]
    missing: tuple[tuple[int, int], ...]

    def measured(self, trial: int, level: int) -> Measured:
        """Read a level's accuracy and weights remaining."""
        path = StudyDirectory(self.root).measured(trial, level)
        try:
            return Measured.model_validate(_json(path))
        except ValidationError as error:
            raise InputError(f"{path}: {_first(error)}; remove the file and run the study again") from error

    def summary(self, trial: int, level: int, layer: str) -> dict[str, Any]:
        """Read a dissection's summary: counts and settings."""
        return _json(self.dissection(trial, level, layer) / "summary.json")

    def units(self, trial: int, level: int, layer: str) -> pd.DataFrame:
        """Read a dissection's table: a row per unit."""
        path = self.dissection(trial, level, layer) / "units.parquet"
        try:
            table = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: cannot be read as parquet ({error}); remove it and run the study again"
            ) from error
        absent = [column for column in UNIT_COLUMNS if column not in table.columns]
        if absent:
            raise InputError(f"{path}: no column {', '.join(absent)}; remove it and run the study again")
        return table

    def dissection(self, trial: int, level: int, layer: str) -> Path:
        """Where a layer's dissection is."""
        return layer_folder(StudyDirectory(self.root).dissection(trial, level), layer)


def open_study(study_dir: str | Path) -> StoredStudy:
    """Look at what a study has stored.

    Parameters
    ----------
    study_dir : path
        A study's directory: ``study.yaml`` and ``trial-T/level-LL/``.

    Returns
    -------
    StoredStudy
        With at least one finished level.

    Raises
    ------
    InputError
        The directory holds no study, or no level is finished.
    """
    root = Path(study_dir)
    directory = StudyDirectory(root)
    path = directory.recipe
    if not path.is_file():
        raise InputError(f"{root} holds no study: there is no study.yaml; give the directory that `study --out` wrote")
    try:
        settings = Settings.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from error
    except ValidationError as error:
        raise InputError(f"{path}: {_first(error)}") from error
    levels = [(trial, level) for trial in range(settings.trials) for level in range(settings.levels + 1)]
    done = [
        (trial, level)
        for trial, level in levels
        if directory.measured(trial, level).is_file() and directory.is_dissected(trial, level, settings.layers)
    ]
    if not done:
        raise InputError(f"{root}: none of the study's {len(levels)} levels is finished; run the study first")
    return StoredStudy(root, settings, tuple(done), tuple(key for key in levels if key not in set(done)))


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); remove it and run the study again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: an object was expected, not {type(content).__name__}")
    return content


def _first(error: ValidationError) -> str:
    """Say what is wrong with the first field that is."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{field}: {first['msg'][:1].lower()}{first['msg'][1:]}"
