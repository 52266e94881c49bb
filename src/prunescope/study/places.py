"""Where a recipe's data and network are: a path says where something is and not what it is."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from prunescope.files import expanded
from prunescope.study.recipe import Drawn, Recipe
from prunescope.training.sources import Cifar, HuggingFace

# The parts of what a study is of, each with a fingerprint.
TASK, IMAGES, LABELS = "task data", "labelled images", "labels"
PACKED, NETWORK, MASKS = "packed copy", "network file", "masks"
Origin = str | Path | Cifar | HuggingFace


def task_place(recipe: Recipe, data: Path) -> Origin:
    """Say where the classification task is, given where the study draws its own data."""
    task = recipe.data.task
    return data / "task" / "classification" if isinstance(task, Drawn) else task


def concepts_place(recipe: Recipe, data: Path) -> Path:
    """Say where the labelled images are, given where the study draws its own data."""
    concepts = recipe.dissection.concepts
    return data / "concepts" if isinstance(concepts, Drawn) else Path(concepts)


def apart_from_places(content: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Leave out of a recipe's fields where things are, as far as fingerprints say what they are.

    Parameters
    ----------
    content
        Fields of a recipe: `network`, and of `data` and `dissection` what is there.
    known
        The parts whose fingerprints are known. Folders of other parts are seen from the root.
    """
    found = dict(content)
    if "task" in found.get("data", {}):
        found["data"] = found["data"] | {"task": _task_apart(found["data"]["task"], TASK in known)}
    if isinstance(found.get("dissection", {}).get("concepts"), str):
        concepts = found["dissection"]["concepts"]
        both = {IMAGES, LABELS} <= set(known)
        found["dissection"] = found["dissection"] | {"concepts": "a folder" if both else _absolute(concepts)}
    if "network" in found:
        found["network"] = _network_apart(found["network"], NETWORK in known)
    return found


def with_places_of(recipe: Recipe, other: Recipe) -> Recipe:
    """Return a recipe that looks for its data and its network where another one does."""
    return recipe.model_copy(
        update={
            "network": other.network,
            "data": recipe.data.model_copy(update={"task": other.data.task}),
            "dissection": recipe.dissection.model_copy(update={"concepts": other.dissection.concepts}),
        }
    )


def _task_apart(task: Any, known: bool) -> Any:
    if isinstance(task, str):
        return "a folder" if known else _absolute(task)
    for name in ("cifar10", "cifar100"):
        if task.get(name) is not None:
            # Whether it may be fetched says nothing of what it is.
            return {name: "a folder" if known else _absolute(task[name])}
    return task | {"huggingface": "a data set"} if known and "huggingface" in task else task


def _network_apart(network: str, known: bool) -> str:
    file, own, function = network.rpartition(".py:")
    if network.startswith("hf:"):
        return "hf:" if known else network
    if not own:
        return network
    return f".py:{function}" if known else f"{_absolute(file)}.py:{function}"


def _absolute(path: str) -> str:
    return os.path.abspath(expanded(path))  # noqa: PTH100 - without links resolved
