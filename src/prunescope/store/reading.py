"""Read recipes: a YAML file is merged over the recipe it extends, and changes over both.

Error messages name the file, line and field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from prunescope.bounds import shown
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.files import read_file, text_problem
from prunescope.store.recipe import FORMS, Recipe
from prunescope.store.series import SeriesRecipe
from prunescope.store.values import UnreadableError, loaded

MOST_BASES = 50
Field = tuple[str, ...]
Model = TypeVar("Model", Recipe, SeriesRecipe)
Lines = dict[Field, str]  # the origin of each field for messages: file and line, or the change that sets it

# These fields are alternatives to each other: setting one removes the others that the base recipe has set.
_INSTEAD = {"remaining": ("levels", "fraction"), "levels": ("remaining",), "fraction": ("remaining",)}
# These fields have several forms. A value of another form replaces the base's value instead of being merged into it.
_FORMED = {("data", "task"), ("dissection", "concepts")}
# Pydantic's messages speak of Python types; these messages describe the YAML that is expected instead.
_IN_YAML = {
    "tuple_type": "expected a list, such as [a, b]",
    "too_short": "expected a list with at least one item",
    "model_type": "expected fields, each with its value",
    "string_type": "expected text; put text that looks like a number in quotes",
}


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that the package contains."""
    folder = resources.files("prunescope") / "recipes"
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str | Path) -> tuple[str, str]:
    """Find a recipe by its name in the package or by its path.

    Parameters
    ----------
    name
        The name of a recipe in the package, or the path of a YAML file.

    Returns
    -------
    tuple of str
        The recipe's location, for messages, and its text.

    Raises
    ------
    InputError
        If there is no such recipe, or its file cannot be read.
    """
    if _is_path(name):
        if problem := text_problem(str(name)):
            raise InputError(f"{str(name)!r} is not the path of a recipe: {problem}; expected a YAML file")
        try:
            return str(name), read_file(name).decode()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{name}: the recipe cannot be read ({reason}); expected a YAML file") from error
    known = shipped_recipes()
    if str(name) not in known:
        raise InputError(
            f"there is no recipe called {str(name)!r}; {nearest(str(name), known)}; or give the path of a .yaml file"
        )
    file = resources.files("prunescope") / "recipes" / f"{name}.yaml"
    return f"recipe {name}", file.read_text(encoding="utf-8")


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    A recipe can extend another one with `extends: NAME`, where NAME is the name of a recipe in the package or a path
    relative to the file's own folder. Nested fields are merged, lists and values are replaced, and null stands for a
    field's default.

    Parameters
    ----------
    name
        The name of a recipe in the package, or the path of a YAML file.
    changes
        Changes to the recipe, each written as `FIELD=VALUE`. Dots separate the parts of a nested field, as in
        `training.length=2it`, and the value is parsed as YAML.

    Returns
    -------
    Recipe
        The validated recipe.

    Raises
    ------
    InputError
        If the recipe or a change is not valid. The message lists every problem with its file, line and field.
    """
    refuse_text(changes, "changes")
    where, content, lines = _with_base(name, ())
    for change in changes:
        field, equals, value = change.partition("=")
        if not equals or not field:
            raise InputError(f"--set {change!r}: expected FIELD=VALUE, such as training.length=2it")
        try:
            parsed = loaded(value)
        except UnreadableError as error:
            raise InputError(f"--set {shown(change)}: {error}") from error
        parts = tuple(field.split("."))
        _refuse_fields_of_values(content, parts, change)
        for part in reversed(parts):
            parsed = {part: parsed}
        # Parent fields that exist keep their location in the file; new ones are attributed to the change.
        news = [parts[:length] for length in range(1, len(parts)) if parts[:length] not in lines]
        changed = dict.fromkeys([*news, parts], f"{where}, --set {change}")
        content, lines = _merged((content, lines), (parsed, changed))
    return _validated(Recipe, where, content, lines)


def read_series(name: str | Path) -> SeriesRecipe:
    """Read and validate the description of a series from a YAML file.

    Parameters
    ----------
    name
        The path of the file. Paths in it are relative to the working directory, as in a recipe.

    Returns
    -------
    SeriesRecipe
        The validated series.

    Raises
    ------
    InputError
        If the file cannot be read or is not valid. The message lists every problem with its file, line and field.
    """
    where, text = recipe_text(name)
    content, lines = _parse(where, text)
    return _validated(SeriesRecipe, where, content, lines)


def validate_series(content: Mapping[str, Any]) -> SeriesRecipe:
    """Validate the description of a series that was not read from a file.

    Raises
    ------
    InputError
        If it is not valid. The message lists every problem with its field.
    """
    return _validated(SeriesRecipe, "series", dict(content), {})


def recipe_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file, in which no field is required, since it may extend another recipe."""
    schema = Recipe.model_json_schema()
    for part in (schema, *schema["$defs"].values()):
        part.pop("required", None)
    extends = {
        "type": "string",
        "description": "a recipe's name or path, whose fields are used where this file has none",
    }
    return schema | {"properties": {"extends": extends, **schema["properties"]}}


def _is_path(name: str | Path) -> bool:
    path = Path(name)
    return path.suffix in (".yaml", ".yml") or len(path.parts) > 1


def _with_base(name: str | Path, above: tuple[str, ...]) -> tuple[str, dict[str, Any], Lines]:
    """Read a recipe and merge it over the one it extends; `above` lists the recipes that extend it in turn."""
    where, text = recipe_text(name)
    content, lines = _parse(where, text)
    if "extends" not in content:
        return where, content, lines
    base, line = content.pop("extends"), lines.pop(("extends",))
    if not isinstance(base, str):
        raise InputError(f"{line}: extends is {base!r}, expected a recipe's name (`prunescope recipe list`) or path")
    found = str(Path(name).parent / base) if _is_path(base) and _is_path(name) else base
    try:
        recipe_text(found)
    except InputError as error:
        raise InputError(f"{line}: extends: {error}") from error
    chain = (*above, _identity(name))
    if len(chain) > MOST_BASES:
        raise InputError(
            f"{line}: extends: at most {MOST_BASES} recipes may extend each other, and {above[0]} starts a longer chain"
        )
    if _identity(found) in chain:
        raise InputError(f"{line}: extends: {base} extends this recipe itself; remove one of the two `extends`")
    _, below, below_lines = _with_base(found, chain)
    return where, *_merged((below, below_lines), (content, lines))


def _identity(name: str | Path) -> str:
    return str(Path(name).resolve()) if _is_path(name) else f"recipe {name}"


def _merged(base: tuple[dict[str, Any], Lines], over: tuple[dict[str, Any], Lines]) -> tuple[dict[str, Any], Lines]:
    lines = dict(base[1])

    def forget(field: Field) -> None:
        for other in [other for other in lines if other[: len(field)] == field]:
            del lines[other]

    def merge(below: Mapping[str, Any], above: Mapping[str, Any], at: Field) -> dict[str, Any]:
        merged = dict(below)
        for name in above if at == ("pruning",) else ():
            for other in _INSTEAD.get(name, ()) if above[name] is not None else ():
                if other not in above and merged.pop(other, None) is not None:
                    forget((*at, other))
        for name, value in above.items():
            there, field = merged.get(name), (*at, name)
            if _can_merge(there, value, field):
                merged[name] = merge(there or {}, value, field)
            else:
                merged[name] = value
                forget(field)
        return merged

    content = merge(base[0], over[0], ())
    return content, lines | over[1]


def _can_merge(there: Any, value: Any, field: Field) -> bool:
    if not isinstance(there, dict) or not isinstance(value, dict):
        return False
    return field not in _FORMED or bool(there.keys() & value.keys())


def _parse(where: str, text: str) -> tuple[dict[str, Any], Lines]:
    lines: Lines = {}
    try:
        content = loaded(text)
    except UnreadableError as error:
        line = "" if error.line is None else f", line {error.line}"
        raise InputError(f"{where}{line}: {error}") from error

    def walk(node: yaml.Node, at: Field) -> None:
        lines.setdefault(at, f"{where}, line {node.start_mark.line + 1}")
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if str(key.value) in seen:
                    raise InputError(f"{where}, line {key.start_mark.line + 1}: {key.value!r} occurs twice; keep one")
                seen.add(str(key.value))
                lines[(*at, key.value)] = f"{where}, line {key.start_mark.line + 1}"
                walk(value, (*at, key.value))
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                walk(value, (*at, str(index)))

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(node, yaml.MappingNode):
        walk(node, ())
    if not isinstance(content, dict):
        raise InputError(
            f"{where}: expected a recipe (fields such as name, network, training); see `prunescope recipe show`"
        )
    return content, lines


def _refuse_fields_of_values(content: Mapping[str, Any], field: Field, change: str) -> None:
    for part in field[:-1]:
        content = content.get(part) or {}
        if not isinstance(content, dict):
            raise InputError(f"--set {change!r}: {part} is a value and has no fields")


def _validated(model: type[Model], where: str, content: dict[str, Any], lines: Lines) -> Model:
    try:
        return model.model_validate(_without_nulls(content))
    except ValidationError as error:
        problems = _without_other_forms(error.errors(include_url=False))
        described = dict.fromkeys(_described(model, where, problem, lines) for problem in problems)
        raise InputError("\n".join(described)) from error


def _without_nulls(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(value) if isinstance(value, dict) else value
        for name, value in content.items()
        if value is not None
    }


def _without_other_forms(problems: Sequence[Any]) -> list[Any]:
    """Drop problems that only follow from other ones, such as a list that is too short without its invalid items."""
    kept = []
    for problem in problems:
        siblings = [other for other in problems if other is not problem and other["loc"][:2] == problem["loc"][:2]]
        # In a location, the name of a form follows the name of its field. The index of a list item is a number instead.
        of_a_form = len(problem["loc"]) > 2 and isinstance(problem["loc"][2], str)
        if of_a_form and problem["type"] in ("string_type", "literal_error") and siblings:
            continue
        if problem["type"] == "too_short" and problem["input"] and siblings:
            continue
        kept.append(problem)
    return kept


def _described(model: type[BaseModel], where: str, problem: Any, lines: Lines) -> str:
    # A problem of the recipe as a whole carries in its context the field that has to be changed.
    problem = problem | problem.get("ctx", {})
    given = tuple(str(part) for part in problem.get("field", problem["loc"]))
    field = given if given[:2] not in _FORMED else given[:2] + tuple(part for part in given[2:] if part not in FORMS)
    at = next((field[:length] for length in range(len(field), 0, -1) if field[:length] in lines), ())
    location = lines[at] if at else where
    if problem["type"] == "extra_forbidden":
        known = _fields_beside(model, field)
        return f"{location}: {'.'.join(field)} is not a field of a recipe; {nearest(field[-1], known)}"
    if problem["type"] == "missing":
        return f"{location}: {'.'.join(field)} is missing"
    message = _IN_YAML.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    # A default value has no location in a file, so its field is named even if only a parent field was found.
    named = field if problem["type"] == "misfit" or not lines else at
    return (
        f"{location}: {'.'.join(named)} is {shown(problem['input'])}: {message}" if named else f"{location}: {message}"
    )


def _fields_beside(model: type[BaseModel], field: Sequence[str]) -> list[str]:
    part: Any = model
    for name in field[:-1]:
        part = getattr(part, "model_fields", {}).get(name)
        part = getattr(part, "annotation", None)
        # The fields of an optional part, whose annotation is `Part | None`.
        part = next((one for one in get_args(part) if hasattr(one, "model_fields")), part)
    return list(getattr(part, "model_fields", {}))
