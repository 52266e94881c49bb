"""The functions for running and planning whole studies, which scripts and notebooks call."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from prunescope.bounds import MOST_COUNT, check_count
from prunescope.devices import choose_device
from prunescope.errors import InputError, nearest, refuse_text
from prunescope.evidence import curves, write_evidence
from prunescope.files import name_problem, refuse_links_out
from prunescope.processes import join_processes
from prunescope.report import draw_figures, write_report
from prunescope.store.layout import StudyDirectory
from prunescope.store.reading import read_recipe
from prunescope.store.recipe import Recipe
from prunescope.store.stored import open_study
from prunescope.study.branching import Branch
from prunescope.study.data import study_concepts
from prunescope.study.forecast import Forecast, forecast
from prunescope.study.mask_source import masks_branch
from prunescope.study.recording import changed_concepts
from prunescope.study.reporting import Report, unreported
from prunescope.study.run import run_study
from prunescope.study.speed import Speed
from prunescope.study.stages import Stage, stages
from prunescope.training.steps import Step


class Study:
    """A study, which trains, measures and dissects one network at every level of every trial.

    Parameters
    ----------
    recipe
        The name of a recipe in the package, the path of a recipe file, or a `Recipe`.
    out
        The study's directory. Stages that are complete there are not run again.
    changes
        Changes to the recipe, each as `FIELD=VALUE`, such as `training.length=2ep`.
    device
        The device to run on: `cpu`, `cuda`, `cuda:1`, ...; `auto` uses a GPU if there is one.
    branch_from
        Directories of other studies. Dense networks that they share with this study are taken from there instead of
        being trained again, and so are masks if the recipe sets `masks: branch`.
    snapshots
        Further steps of training, such as `6ep` or `500it`, at which to keep the weights, so that studies that branch
        from this one can rewind to them.

    Raises
    ------
    InputError
        If the recipe is not valid. The message names every problem with its line and field.

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
        """List the stages in order, each with whether it is complete."""
        return stages(self.recipe, self.out)

    def run(self, report: Report = unreported) -> pd.DataFrame:
        """Run the stages that are not complete, then write the evidence, the figures and the report.

        With `accelerate launch` or `torchrun`, every process must make this call.

        Parameters
        ----------
        report
            A function that is called from time to time with an `Event`, which describes the progress.

        Returns
        -------
        pd.DataFrame
            The evidence, with a row per trial, level and layer; see `curves`.
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
        """Return the evidence of the finished levels, with a row per trial, level and layer; see `curves`."""
        return curves(self.out)

    def units(self, trial: int, level: int, layer: str | None = None) -> pd.DataFrame:
        """Return the table of units of one layer at one level, with a row per unit.

        Parameters
        ----------
        trial, level
            The trial and the level, counted from 0.
        layer
            The name of the layer; by default, the first one in the recipe.

        Raises
        ------
        InputError
            If the level is not dissected, or if the study does not dissect this layer.
        """
        layers = self.recipe.dissection.layers
        layer = layer or layers[0]
        if layer not in layers:
            raise InputError(f"{self.out}: layer {layer!r} is not among the study's; {nearest(layer, layers)}")
        if not StudyDirectory(self.out).is_dissected(trial, level, (layer,)):
            raise InputError(f"{self.out}: layer {layer!r} of trial {trial}, level {level} is not dissected (yet)")
        return open_study(self.out).units(trial, level, layer)


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
    """Estimate what studies will cost before they run: steps, images, disk space and hours by trial and level.

    Parameters
    ----------
    recipes, changes, device, branch_from
        See `studies`. A single recipe is planned as one study.
    out
        The directory of the studies, which need not exist yet. Stages that are finished there are not counted. A single
        recipe is a study in `out` itself, several are studies in folders of it.
    images_per_second
        The speed in training and in dissection. By default, a few steps are measured on this machine.
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
    """Return the names of several recipes, which become folder names; raise if one is unsuitable or repeated."""
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
    """Write the evidence, the figures and the report of a study, which need not be finished.

    Parameters
    ----------
    out
        The study's directory. It need not be trusted, because nothing is written outside of it.

    Returns
    -------
    pd.DataFrame
        The evidence, with a row per trial, level and layer; see `curves`.
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
