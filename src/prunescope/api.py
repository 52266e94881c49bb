"""What a notebook calls, above everything else."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from prunescope.bounds import MOST_COUNT, check_count
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.evidence import curves, write_evidence
from prunescope.evidence.stored import open_study
from prunescope.files import name_problem, refuse_links_out
from prunescope.networks.devices import choose_device
from prunescope.report import draw_figures, write_report
from prunescope.study.branching import Branch, masks_branch
from prunescope.study.clock import Report, Stage, stages, unreported
from prunescope.study.data import study_concepts
from prunescope.study.forecast import Forecast, forecast
from prunescope.study.identity import changed_concepts
from prunescope.study.layout import StudyDirectory
from prunescope.study.reading import read_recipe
from prunescope.study.recipe import Recipe
from prunescope.study.run import run_study
from prunescope.study.speed import Speed
from prunescope.training.processes import join_processes
from prunescope.training.steps import Step


class Study:
    """A study: trials x levels of one network, each trained, measured and dissected.

    Parameters
    ----------
    recipe
        The name of a recipe in the package, a path to one, or a `Recipe`.
    out
        Its directory; what is complete there is not run again.
    changes
        `FIELD=VALUE`, such as `training.length=2ep`, over the recipe.
    device
        `cpu`, `cuda`, `cuda:1`, ...; `auto` takes a GPU where there is one.
    branch_from
        Directories of other studies: what they have of this one's dense networks is taken from there, and masks, where
        the recipe says `masks: branch`.
    snapshots
        Steps of training that studies which branch from this one rewind to: `6ep`, `500it`.

    Raises
    ------
    InputError
        The recipe is not valid; every problem is named with its line and field.

    Examples
    --------
    ::

        study = prunescope.Study("demo", out="out/demo")
        study.run()
        study.evidence()[["weights_remaining", "accuracy", "interpretable", "concepts"]]
    """

    def __init__(
        self,
        recipe: str | Path | Recipe,
        out: str | Path,
        *,
        changes: Sequence[str] = (),
        device: str = "auto",
        branch_from: Sequence[str | Path] = (),
        snapshots: Sequence[Step | str] = (),
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes)
        self.out = Path(out)
        self.device = choose_device(device, int(os.environ.get("LOCAL_RANK", "0")))
        refuse_text(branch_from, "branch_from")
        self.branch_from = tuple(Path(study) for study in branch_from)
        refuse_text(snapshots, "snapshots")
        self.snapshots = tuple(Step.parse(step) if isinstance(step, str) else step for step in snapshots)

    def stages(self) -> list[Stage]:
        """List the stages in order, and which of them are complete."""
        return stages(self.recipe, self.out)

    def run(self, report: Report = unreported) -> pd.DataFrame:
        """Run what is missing, then write the evidence, the figures and the report.

        Among the processes that `accelerate launch` or `torchrun` started, each makes this call.

        Parameters
        ----------
        report
            Called now and then with an `Event`.

        Returns
        -------
        pd.DataFrame
            The evidence: a row per trial, level and layer.
        """
        with join_processes(self.device) as processes:
            run_study(
                self.recipe,
                self.out,
                device=self.device,
                branch_from=self.branch_from,
                snapshots=self.snapshots,
                report=report,
            )
            if processes.is_main:
                write_outcome(self.out)
            processes.wait()
        return self.evidence()

    def evidence(self) -> pd.DataFrame:
        """Return the curves of what is finished: a row per trial, level and layer."""
        return curves(self.out)

    def units(self, trial: int, level: int, layer: str | None = None) -> pd.DataFrame:
        """Return the units of one level's layer (the recipe's first unless told).

        Raises
        ------
        InputError
            That level is not dissected, or the study has no such layer.
        """
        layers = self.recipe.dissection.layers
        layer = layer or layers[0]
        if layer not in layers:
            raise InputError(f"{self.out}: layer {layer!r} is not among the study's; {nearest(layer, layers)}")
        if not StudyDirectory(self.out).is_dissected(trial, level, (layer,)):
            raise InputError(f"{self.out}: layer {layer!r} of trial {trial}, level {level} is not dissected (yet)")
        return open_study(self.out).units(trial, level, layer)


def several(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
) -> list[Study]:
    """Prepare studies that share their dense networks; run them one after the other.

    Parameters
    ----------
    recipes
        As `Study` takes them. Each branches from those before it, where they agree on the dense network.
    out
        Each study is a directory in here, called as its recipe.
    changes
        Over every recipe.
    device, branch_from
        As in `Study`.

    Returns
    -------
    list of Study
        In the order of the recipes.

    Raises
    ------
    InputError
        A recipe is not valid, two are called the same, one takes masks and none before it fits, or `out` is itself a
        study.

    Examples
    --------
    ::

        for study in prunescope.several(["miniature", "shuffled", "reinitialised"], out="out/controls"):
            study.run()
    """
    read = _read(recipes, changes)
    folders = [Path(out) / name for name in _folder_names(read)]
    if StudyDirectory(Path(out)).recipe.is_file():
        raise InputError(
            f"{out} is itself a study; of several recipes each is a study in a folder of --out. Give another --out, "
            f"and --branch-from {out} to take its dense networks"
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


def plan(
    recipes: Sequence[str | Path | Recipe],
    out: str | Path | None = None,
    *,
    changes: Sequence[str] = (),
    device: str = "auto",
    branch_from: Sequence[str | Path] = (),
    images_per_second: tuple[float, float] | None = None,
    images: int | None = None,
) -> Forecast:
    """Say what studies will cost, before anything runs: steps, images, disk and hours by trial and level.

    Parameters
    ----------
    recipes, changes, device, branch_from
        As in `several`; one recipe is a study of its own.
    out
        Where the studies are or will be; what is finished there is not counted.
    images_per_second
        In training and in dissection; a few steps are measured on this machine unless given.
    images
        Training images; those of the data, where they are there, unless told.

    Returns
    -------
    Forecast
        Its `.table` is a DataFrame; its `.notes` say what was measured and assumed.

    Raises
    ------
    InputError
        A recipe is not valid or does not fit its network, or `out` holds another study.
    """
    read = _read(recipes, changes)
    speeds = images_per_second
    if images is not None:
        check_count("images", images, 1, MOST_COUNT)
    if speeds is not None and not (len(speeds) == 2 and all(0 < speed < math.inf for speed in speeds)):
        raise InputError(f"images_per_second is {speeds}, expected two numbers above 0")
    names = [""] if len(read) == 1 else _folder_names(read)
    return forecast(
        read,
        [None if out is None else Path(out) / name for name in names],
        device=choose_device(device),
        speed=None if speeds is None else Speed(*speeds),
        images=images,
        branches=[Branch.open(path) for path in branch_from],
    )


def _read(recipes: Sequence[str | Path | Recipe], changes: Sequence[str]) -> list[Recipe]:
    refuse_text(recipes, "recipes")
    return [recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes) for recipe in recipes]


def _folder_names(recipes: Sequence[Recipe]) -> list[str]:
    """Return the names of several recipes, each of which can be a folder of its own."""
    names = [recipe.name for recipe in recipes]
    for name in names:
        problem = "it would be hidden" if name.startswith(".") else name_problem(name)
        if problem:
            raise InputError(
                f"recipe {name!r}: of several recipes the name is a folder's name too, and it cannot be one "
                f"({problem}); give another name"
            )
        if names.count(name) > 1:
            raise InputError(f"{names.count(name)} recipes are called {name!r}; give each a name of its own")
    return names


def write_outcome(out: str | Path) -> pd.DataFrame:
    """Write the evidence, the figures and the report of a study, finished or not.

    Parameters
    ----------
    out
        The study's directory, which may be somebody else's: nothing is written outside of it.

    Returns
    -------
    pd.DataFrame
        The evidence: a row per trial, level and layer.
    """
    directory = StudyDirectory(Path(out))
    open_study(directory.root)
    recipe = read_recipe(directory.recipe)
    refuse_links_out(directory.root, ("figures", "report", "report/sheets"))
    evidence = write_evidence(directory.root)
    draw_figures(evidence, directory.root / "figures")
    concepts = study_concepts(recipe, directory)
    if changed := changed_concepts(directory, concepts):
        warnings.warn(
            "the labelled images have changed since the study began; its numbers are those of the images as they were, "
            f"and the page shows the images as they are now:\n{changed}",
            stacklevel=2,
        )
    write_report(directory.root, concepts)
    return evidence
