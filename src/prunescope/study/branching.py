"""Branching: compare a study with other studies, from which it may reuse dense networks, dissections or masks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prunescope.errors import InputError
from prunescope.fingerprints import Fingerprint
from prunescope.store.layout import StudyDirectory
from prunescope.store.locations import NETWORK, START, TASK, apart_from_places
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe
from prunescope.study.identity import Identity
from prunescope.study.recording import recorded


@dataclass(frozen=True)
class Branch:
    """A study that other studies branch from."""

    directory: StudyDirectory
    recipe: Recipe

    @classmethod
    def open(cls, path: str | Path) -> Branch:
        """Open the study in a directory.

        Raises
        ------
        InputError
            If the directory contains no study, or its recipe cannot be read.
        """
        directory = StudyDirectory(Path(path))
        if not directory.recipe.is_file():
            raise InputError(f"{path} contains no study to branch from, because it has no study.yaml")
        return cls(directory, read_recipe(directory.recipe))

    @cached_property
    def fingerprints(self) -> dict[str, Fingerprint]:
        """The recorded fingerprints of the study's files by part; empty if the study recorded none or has not begun."""
        return recorded(self.directory)


def differences(recipe: Recipe, branch: Branch, identity: Identity | None = None) -> list[str]:
    """Return the names of the recipe fields that make the dense networks of two studies differ.

    The seed is not compared, because the trials of two studies are matched by their seeds (see `trial_of`).

    Parameters
    ----------
    recipe
        The recipe of the first study.
    branch
        The second study.
    identity
        The fingerprints of the first study's files. Data and network files are compared by content if the fingerprints
        of both studies are known, and by path otherwise.
    """
    known = identity.parts.keys() & branch.fingerprints.keys() if identity else set()
    other = identity.differences(branch.fingerprints) if identity else {}
    fields = {TASK: "data.task", NETWORK: "network", START: "start"}
    return [*other_fields(recipe, branch, known), *(name for part, name in fields.items() if part in other)]


def trial_of(recipe: Recipe, trial: int, other: Recipe) -> int | None:
    """Return the number of the other study's trial that has the same seed, or None if there is none."""
    number = recipe.seed + trial - other.seed
    return number if 0 <= number < other.trials else None


def other_fields(recipe: Recipe, branch: Branch, known: Collection[str]) -> list[str]:
    """Return the names of differing fields that dense networks depend on, except paths of parts in `known`."""
    ours, theirs = (dict(_fields(apart_from_places(_dense(one), known))) for one in (recipe, branch.recipe))
    return [field for field in {**ours, **theirs} if ours.get(field) != theirs.get(field)]


def _dense(recipe: Recipe) -> dict[str, Any]:
    """Return the fields that a trial's dense network depends on, without the seed."""
    content = recipe.decisive()
    training = {name: value for name, value in content["training"].items() if name != "measure_every"}
    start = None if recipe.start is None else recipe.start.model_dump(mode="json", exclude={"rewind_weights"})
    return {"network": recipe.network, "start": start, "data": content["data"], "training": training}


def _fields(content: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _fields(value, f"{at}{name}.")
        else:
            yield f"{at}{name}", value
