"""The locations of a recipe's data and network, and comparison of recipes regardless of these locations."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prunescope.files import expanded
from prunescope.store.recipe import Drawn, Recipe
from prunescope.tasks.sources import Cifar, HuggingFace

# The parts of a study's files. Each part has a fingerprint under this name.
TASK, IMAGES, LABELS = "task data", "labelled images", "labels"
PACKED, NETWORK, MASKS = "packed copy", "network file", "masks"
START, REWINDING = "starting weights", "rewinding weights"
Origin = str | Path | Cifar | HuggingFace


def task_place(recipe: Recipe, data: Path) -> Origin:
    """Return the location of the classification task; `data` is the folder of data that the study draws itself."""
    task = recipe.data.task
    return data / "task" / "classification" if isinstance(task, Drawn) else task


def concepts_place(recipe: Recipe, data: Path) -> Path:
    """Return the folder of the labelled images; `data` is the folder of data that the study draws itself."""
    concepts = recipe.dissection.concepts
    return data / "concepts" if isinstance(concepts, Drawn) else Path(concepts)


def apart_from_places(content: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Replace the paths in a recipe's fields by placeholders for all parts that fingerprints identify.

    Parameters
    ----------
    content
        The fields of a recipe as a nested dictionary. Any of `network`, `start`, `data` and `dissection` may be
        missing.
    known
        The names of the parts that have known fingerprints. Paths of other parts are made absolute.

    Returns
    -------
    dict
        A copy of `content` that is equal for two recipes if they differ only in the paths of known parts.
    """
    found = dict(content)
    if "task" in found.get("data", {}):
        found["data"] = found["data"] | {"task": _task_apart(found["data"]["task"], TASK in known)}
    if isinstance(found.get("dissection", {}).get("concepts"), str):
        concepts = found["dissection"]["concepts"]
        both = {IMAGES, LABELS} <= set(known)
        found["dissection"] = found["dissection"] | {"concepts": "a folder" if both else _absolute(concepts)}
    if "network" in found:
        found["network"] = network_apart(found["network"], NETWORK in known)
    if found.get("start") is not None:
        found["start"] = {
            field: _files_apart(given, (REWINDING if field == "rewind_weights" else START) in known)
            for field, given in found["start"].items()
        }
    return found


def with_places_of(recipe: Recipe, other: Recipe) -> Recipe:
    """Return a copy of `recipe` that takes its data, network and given weights from the locations given in `other`."""
    return recipe.model_copy(
        update={
            "network": other.network,
            "start": other.start,
            "data": recipe.data.model_copy(update={"task": other.data.task}),
            "dissection": recipe.dissection.model_copy(update={"concepts": other.dissection.concepts}),
        }
    )


def _task_apart(task: Any, known: bool) -> Any:
    if isinstance(task, str):
        return "a folder" if known else _absolute(task)
    for name in ("cifar10", "cifar100"):
        if task.get(name) is not None:
            # The field `download` is dropped, because it does not change the data.
            return {name: "a folder" if known else _absolute(task[name])}
    return task | {"huggingface": "a data set"} if known and "huggingface" in task else task


def network_apart(network: str, known: bool) -> str:
    """Replace the path in a network's name by a placeholder if its file's content is known, or make it absolute."""
    file, own, function = network.rpartition(".py:")
    if network.startswith("hf:"):
        return "hf:" if known else network
    if not own:
        return network
    return f".py:{function}" if known else f"{_absolute(file)}.py:{function}"


def _files_apart(given: Any, known: bool) -> Any:
    """Replace the paths in a field of `start`, which are a list, and leave `key`, which is not."""
    if not isinstance(given, list):
        return given
    return ["a file" if known else _absolute(file) for file in given]


def _absolute(path: str) -> str:
    return os.path.abspath(expanded(path))  # noqa: PTH100 - symbolic links must not be resolved
