"""A study's recipe: read from YAML, validated as a whole, errors named by line and field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from prunescope.dissection.run import IMAGENET_MEAN, IMAGENET_STD
from prunescope.dissection.tally import Presence
from prunescope.errors import InputError, nearest
from prunescope.pruning.criteria import Criterion, Scope
from prunescope.training.recipe import Augmentation, Strict, Training
from prunescope.training.steps import Step

Color = tuple[float, float, float]


class Miniature(Strict):
    """Images of the miniature, drawn when the study begins."""

    images: Annotated[int, Field(ge=64, description="a quarter of them for validation")]
    seed: Annotated[int, Field(ge=0)] = 0


class Drawn(Strict):
    """Data that the study draws itself."""

    miniature: Miniature


Origin = Annotated[
    str | Drawn, Field(description="a folder, or `miniature: {images: N, seed: S}`", union_mode="left_to_right")
]


class Data(Strict):
    """The classification task."""

    task: Origin
    size: Annotated[int, Field(gt=0, description="images are size x size pixels")]
    augmentation: Augmentation = "imagenet"
    mean: Color = IMAGENET_MEAN
    std: Color = IMAGENET_STD
    in_memory: Annotated[bool, Field(description="hold all images decoded; for small data sets")] = False
    workers: Annotated[int, Field(ge=0, description="processes that decode images")] = 0


class Pruning(Strict):
    """Iterative pruning with rewinding (Frankle and Bau 2019, section 2)."""

    levels: Annotated[int, Field(ge=0, description="how often the network is pruned")]
    fraction: Annotated[float, Field(gt=0, lt=1, description="of the kept weights, a level")] = 0.2
    criterion: Criterion = "magnitude"
    scope: Scope = "global"
    exclude: Annotated[tuple[str, ...], Field(description="weights to leave whole, by name or pattern")] = ()
    rewind_to: Annotated[Step, Field(description="the step whose values the kept weights go back to")] = Step()


class DissectionSettings(Strict):
    """What is dissected, and how."""

    layers: Annotated[tuple[str, ...], Field(min_length=1)]
    concepts: Origin
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.005
    iou: Annotated[float, Field(ge=0, lt=1)] = 0.05
    presence: Presence = "image"
    batch_size: Annotated[int, Field(gt=0)] = 32


class Recipe(Strict):
    """A study: trials x levels of one network, each trained, measured and dissected."""

    name: Annotated[str, Field(min_length=1)]
    network: Annotated[str, Field(description="torchvision:NAME, prunescope:resnetDxW or path/to/file.py:function")]
    trials: Annotated[int, Field(gt=0)] = 1
    seed: Annotated[int, Field(ge=0, description="trial t initialises and shuffles with seed + t")] = 0
    data: Data
    training: Training
    pruning: Pruning
    dissection: DissectionSettings

    @model_validator(mode="after")
    def _rewind_within_training(self) -> Self:
        rewind, length = self.pruning.rewind_to, self.training.length
        # What is later in epochs and iterations alike is so whatever an epoch has; `check_steps` compares the rest.
        if rewind != length and rewind.epochs >= length.epochs and rewind.steps >= length.steps:
            raise PydanticCustomError(
                "rewind_to",
                "expected a step within training, not after its end, {length}",
                {"field": ("pruning", "rewind_to"), "input": str(rewind), "length": str(length)},
            )
        return self

    def check_steps(self, steps_per_epoch: int) -> None:
        """Refuse a rewinding step after the end of training, or training of no step.

        Raises
        ------
        InputError
            Both are named.
        """
        rewind, length = self.pruning.rewind_to, self.training.length
        if length.iterations(steps_per_epoch) == 0:
            raise InputError(f"recipe {self.name}: training.length is {length}, expected at least one step")
        if rewind.iterations(steps_per_epoch) > length.iterations(steps_per_epoch):
            raise InputError(
                f"recipe {self.name}: pruning.rewind_to is {rewind}, after the end of training.length, {length} (an "
                f"epoch has {steps_per_epoch} steps); give a step within training"
            )

    def to_yaml(self) -> str:
        """Write the recipe with every default resolved."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def shipped_recipes() -> list[str]:
    """List the recipes of the package by name."""
    folder = resources.files("prunescope") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str | Path) -> tuple[str, str]:
    """Find a recipe by its name in the package or by its path; return where it is and its text.

    Raises
    ------
    InputError
        There is no such recipe.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path}: the recipe cannot be read ({reason}); expected a YAML file") from error
    known = shipped_recipes()
    if str(name) not in known:
        raise InputError(
            f"there is no recipe called {str(name)!r}; {nearest(str(name), known)}; or give a path to a .yaml"
        )
    file = resources.files("prunescope") / "recipes" / f"{name}.yaml"
    return f"recipe {name}", file.read_text(encoding="utf-8")


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    name
        Of a recipe in the package, or a path.
    changes
        `FIELD=VALUE` with dots between the parts of a field, `training.length=2it`; the value is YAML.

    Raises
    ------
    InputError
        Every problem, with its line and field.
    """
    where, text = recipe_text(name)
    content, lines = _parse(where, text)
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or not field:
            raise InputError(f"--set {change!r}: expected FIELD=VALUE, such as training.length=2it")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {change!r}: the value is no YAML: {error}") from error
        parts = tuple(field.split("."))
        _change(content, parts, parsed, change)
        lines = {key: line for key, line in lines.items() if key[: len(parts)] != parts} | {parts: f"--set {change}"}
    return _validated(where, content, lines)


def _parse(where: str, text: str) -> tuple[dict[str, Any], dict[tuple[str, ...], str]]:
    lines: dict[tuple[str, ...], str] = {}

    def walk(node: yaml.Node, at: tuple[str, ...]) -> None:
        lines.setdefault(at, f"line {node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if key.value in seen:
                    raise InputError(f"{where}, line {key.start_mark.line + 1}: {key.value!r} is there twice; keep one")
                seen.add(key.value)
                lines[(*at, key.value)] = f"line {key.start_mark.line + 1}"
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for place, value in enumerate(node.value):
                walk(value, (*at, str(place)))

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{where}{line}: no YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict) or node is None:
        raise InputError(
            f"{where}: expected a recipe (fields such as name, network, training); see `prunescope recipe show`"
        )
    walk(node, ())
    return content, lines


def _change(content: dict[str, Any], field: tuple[str, ...], value: Any, change: str) -> None:
    for part in field[:-1]:
        inner = content.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"--set {change!r}: {part} is a value and has no fields")
        content = inner
    content[field[-1]] = value


def _validated(where: str, content: dict[str, Any], lines: Mapping[tuple[str, ...], str]) -> Recipe:
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        problems = _without_other_forms(error.errors(include_url=False))
        described = dict.fromkeys(_described(where, problem, lines) for problem in problems)
        raise InputError("\n".join(described)) from error


def _without_other_forms(problems: Sequence[Any]) -> list[Any]:
    """Of a field that can take several forms, leave out the complaint about the form that was not meant."""
    kept = []
    for problem in problems:
        siblings = [other for other in problems if other is not problem and other["loc"][:2] == problem["loc"][:2]]
        if problem["type"] in ("string_type", "literal_error") and len(problem["loc"]) > 2 and siblings:
            continue
        kept.append(problem)
    return kept


def _described(where: str, problem: Any, lines: Mapping[tuple[str, ...], str]) -> str:
    # A problem of the recipe as a whole brings the field that is to be mended.
    problem = problem | problem.get("ctx", {})
    field = tuple(str(part) for part in problem.get("field", problem["loc"]))
    at = next((field[:length] for length in range(len(field), 0, -1) if field[:length] in lines), ())
    place = f"{where}, {lines[at]}" if at else where
    if problem["type"] == "extra_forbidden":
        return f"{place}: {'.'.join(field)} is no field of a recipe; {nearest(field[-1], _fields_beside(field))}"
    if problem["type"] == "missing":
        return f"{place}: {'.'.join(field)} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place}: {'.'.join(at)} is {problem['input']!r}: {message}" if at else f"{place}: {message}"


def _fields_beside(field: Sequence[str]) -> list[str]:
    part: Any = Recipe
    for name in field[:-1]:
        part = getattr(part, "model_fields", {}).get(name)
        part = getattr(part, "annotation", None)
    return list(getattr(part, "model_fields", {}))
