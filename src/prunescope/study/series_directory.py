"""Check that a directory holds an earlier state of a series, or nothing."""

from __future__ import annotations

import difflib
from typing import Any

from prunescope.errors import InputError
from prunescope.store.layout import LOCK, StudyDirectory
from prunescope.store.reading import read_series
from prunescope.store.series import SeriesRecipe


def refuse_other_series(directory: StudyDirectory, recipe: SeriesRecipe) -> None:
    """Raise if a directory holds anything other than an earlier state of this series.

    In the meantime, checkpoints may have been added at the end of a trial, and further trials.

    Raises
    ------
    InputError
        If the directory holds a study, another series (the message shows how they differ) or other files.
    """
    if not directory.recipe.is_file():
        there = directory.root.iterdir() if directory.root.is_dir() else ()
        # Fingerprints are written before the series, and a killed process leaves half-written files.
        ours = (directory.fingerprints, directory.hashes, directory.root / LOCK)
        others = [path.name for path in there if not path.match(".*.part.*") and path not in ours]
        if others or (directory.root.exists() and not directory.root.is_dir()):
            raise InputError(
                f"{directory.root} exists and does not contain a series; give a new or an empty directory as --out"
            )
        return
    try:
        before = read_series(directory.recipe)
    except InputError as error:
        raise InputError(f"{directory.root} does not contain a series; give another --out. {error}") from error
    if _decisive(before, recipe) != _decisive(recipe, before):
        lines = difflib.unified_diff(
            before.to_yaml().splitlines(), recipe.to_yaml().splitlines(), "study.yaml there", "series given", "", "", 0,
            "",
        )  # fmt: skip
        raise InputError(
            f"{directory.root} contains another series; nothing was changed. The difference:\n" + "\n".join(lines)
            + "\nGive another --out. Checkpoints can only be added at the end of a trial"
        )  # fmt: skip


def _decisive(recipe: SeriesRecipe, other: SeriesRecipe) -> dict[str, Any]:
    """Return what must be equal in both descriptions: all but locations and checkpoints that one lacks."""
    content = recipe.model_dump(mode="json", exclude={"trials", "name", "untrained", "dissection"})
    settings = recipe.dissection.model_dump(mode="json", exclude={"batch_size", "concepts"})
    if content["data"] is not None:
        content["data"] = {"size": content["data"]["size"]}
    shared = [
        [
            one.model_dump(exclude={"weights", "masks", "units"})
            | {name: getattr(one, name) is not None for name in ("weights", "masks", "units")}
            for one, _ in zip(mine, theirs, strict=False)
        ]
        for mine, theirs in zip(recipe.trials, other.trials, strict=False)
    ]
    return content | {"dissection": settings, "trials": shared}
