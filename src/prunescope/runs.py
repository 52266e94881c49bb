"""Run, list and plan one or several studies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import pandas as pd

from prunescope.api import Study
from prunescope.bounds import MOST_COUNT, check_count
from prunescope.devices import choose_device
from prunescope.errors import InputError, refuse_text
from prunescope.files import check_folder, name_problem
from prunescope.store.layout import StudyDirectory
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe
from prunescope.study.branching import Branch
from prunescope.study.forecast import Forecast, forecast
from prunescope.study.mask_source import masks_branch
from prunescope.study.reporting import Event
from prunescope.study.speed import Speed
from prunescope.study.watching import shown_reports


def studies(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
) -> list[Study]:
    """Prepare several studies that share their dense networks, to be run one after the other.

    Parameters
    ----------
    recipes
        The recipes, in any form that `Study` accepts. Each study branches from those before it, and shares their dense
        networks if the recipes agree on them.
    out
        The directory that contains the studies. Each study has a folder with the name of its recipe.
    changes
        Changes to every recipe, as in `Study`.
    device, branch_from
        See `Study`.

    Returns
    -------
    list of Study
        The studies, in the order of the recipes.

    Raises
    ------
    InputError
        If a recipe is not valid, if two recipes have the same name, if a recipe takes its masks from another study and
        no study before it fits, or if `out` is itself a study.

    Examples
    --------
    ::

        for study in prunescope.studies(["miniature", "shuffled", "reinitialised"], out="out/controls"):
            study.run()
    """
    read = _read(recipes, changes)
    folders = [Path(out) / name for name in _folder_names(read)]
    if StudyDirectory(Path(out)).recipe.is_file():
        raise InputError(
            f"{out} is itself a study, but each of several recipes becomes a study in a folder of --out. Give another "
            f"--out, and add --branch-from {out} to reuse its dense networks"
        )
    named = [Branch.open(path) for path in branch_from]
    found: list[Study] = []
    for place, (recipe, folder) in enumerate(zip(read, folders, strict=True)):
        before = [Branch(StudyDirectory(study.out), study.recipe) for study in found]
        masks_branch(recipe, named, before)
        later = [one.pruning.rewind_to for one in read[place + 1 :] if one.pruning.rewinds]
        branches = [*branch_from, *folders[:place]]
        found.append(Study(recipe, folder, device=device, branch_from=branches, snapshots=later))
    return found


def run_studies(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
    report: Callable[[Study, Event], None] | Literal["auto", False] = "auto",
) -> list[Study]:
    """Run one or several studies: train, prune and dissect every level, then write the evidence, figures and report.

    Stages that are complete in `out` are not run again, so the same call continues an interrupted run. If several
    processes were started by `accelerate launch` or `torchrun`, every process must make this call.

    Parameters
    ----------
    recipes
        The recipes, in any form that `Study` accepts.
    out
        The directory of the study. With several recipes, each becomes a study in a folder of `out`; see `studies`.
    changes, device, branch_from
        See `Study`.
    report
        A function that is called from time to time with the study that is running and an `Event`, which describes the
        progress. By default, a bar and a line for each finished level are shown on standard error if it is a terminal
        or belongs to a notebook. False turns this off.

    Returns
    -------
    list of Study
        The finished studies, in the order of the recipes.

    Raises
    ------
    InputError
        If a recipe is not valid, does not fit its data or its network, or takes its masks from another study and none
        fits; if two recipes have the same name; or if `out` contains something else or cannot be written to.

    Examples
    --------
    ::

        (study,) = prunescope.run_studies(["demo"], "out/demo")
        study.evidence()[["weights_remaining", "accuracy", "interpretable", "concepts"]]
    """
    found = _prepared(recipes, out, changes, device, branch_from)
    with shown_reports(report, named=len(found) > 1) as told:
        for study in found:
            study.run(partial(told, study))
    return found


def list_stages(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
) -> pd.DataFrame:
    """List the stages that `run_studies` would run with the same arguments, and which of them are done already.

    The recipes and the directory are checked as in a run, but nothing is written.

    Parameters
    ----------
    recipes, out, changes, device, branch_from
        See `run_studies`.

    Returns
    -------
    DataFrame
        A row per stage, in the order of the run, with the columns `study` (the recipe's name), `trial`, `level`, `work`
        (`train`, `dissect` or `retrain`) and `done`.

    Raises
    ------
    InputError
        If a recipe is not valid, if it takes its masks from another study and none fits, if two recipes have the same
        name, or if `out` contains another study or other files.
    """
    found = _prepared(recipes, out, changes, device, branch_from)
    for study in found:
        StudyDirectory(study.out).refuse_others(study.recipe)
    if len(found) == 1:
        masks_branch(found[0].recipe, [Branch.open(path) for path in branch_from])
    rows = [
        (study.recipe.name, stage.trial, stage.level, stage.work, stage.done)
        for study in found
        for stage in study.stages()
    ]
    return pd.DataFrame(rows, columns=["study", "trial", "level", "work", "done"])


def plan(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
    images_per_second: float | tuple[float, float] | None = None,
    images: int | None = None,
) -> Forecast:
    """Estimate what studies will cost before they run: steps, images, disk space and hours by trial and level.

    Parameters
    ----------
    recipes, changes, device, branch_from
        See `studies`. A single recipe is planned as one study.
    out
        The directory of the studies, which need not exist yet. Stages that are finished there are not counted. A single
        recipe is a study in `out` itself, several are studies in folders of it.
    images_per_second
        The speed in training and in dissection. A single number is the speed in training; dissection is then assumed to
        be three times as fast, as a forward pass takes about a third of the time of a training step. By default, a few
        steps are measured on this machine.
    images
        The number of training images. By default, it is taken from the data if they are available.

    Returns
    -------
    Forecast
        The estimate. Its `.table` is a DataFrame, and its `.notes` state what was measured and what was assumed.

    Raises
    ------
    InputError
        If a recipe is not valid or does not fit its network, if an argument is out of range, if data are missing and
        their number is unknown, or if `out` contains another study.
    """
    read = _read(recipes, changes)
    speeds = images_per_second
    if isinstance(speeds, int | float):
        speeds = (speeds, 3 * speeds)
    if images is not None:
        check_count("images", images, 1, MOST_COUNT)
    if speeds is not None and not (len(speeds) == 2 and all(0 < speed < math.inf for speed in speeds)):
        raise InputError(f"images_per_second is {images_per_second}, expected one or two numbers above 0")
    names = [""] if len(read) == 1 else _folder_names(read)
    return forecast(
        read,
        [None if out is None else Path(out) / name for name in names],
        device=choose_device(device),
        speed=None if speeds is None else Speed(*speeds),
        images=images,
        branches=[Branch.open(path) for path in branch_from],
    )


def _prepared(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path,
    changes: Sequence[str],
    device: str,
    branch_from: Sequence[str | Path],
) -> list[Study]:
    """Prepare studies to be run: a single one in `out` itself, several in folders of it."""
    refuse_text(recipes, "recipes")
    check_folder(Path(out))
    if len(recipes) == 1:
        return [Study(recipes[0], out, changes=changes, device=device, branch_from=branch_from)]
    return studies(recipes, out, changes=changes, device=device, branch_from=branch_from)


def _read(recipes: Sequence[str | Path | Recipe], changes: Sequence[str]) -> list[Recipe]:
    refuse_text(recipes, "recipes")
    if not recipes:
        raise InputError("recipes is an empty list; give the name or path of at least one recipe")
    return [recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes) for recipe in recipes]


def _folder_names(recipes: Sequence[Recipe]) -> list[str]:
    """Return the names of several recipes, which become folder names; raise if one is unsuitable or repeated."""
    names = [recipe.name for recipe in recipes]
    for name in names:
        problem = "it would be hidden" if name.startswith(".") else name_problem(name)
        if problem:
            raise InputError(
                f"recipe {name!r}: with several recipes, each name is also the name of a folder, but this one cannot "
                f"be ({problem}); give the recipe another name"
            )
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} recipes are called {name!r}; give each a different name")
    return names
