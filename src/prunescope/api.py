"""What a notebook calls, above everything else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from prunescope.dissection.result import read_units
from prunescope.errors import InputError
from prunescope.evidence import curves, write_evidence
from prunescope.networks.devices import choose_device
from prunescope.report import draw_figures, write_report
from prunescope.study.clock import Report, Stage, stages, unreported
from prunescope.study.data import study_concepts
from prunescope.study.layout import StudyDirectory
from prunescope.study.reading import read_recipe
from prunescope.study.recipe import Recipe
from prunescope.study.run import run_study


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
        self, recipe: str | Path | Recipe, out: str | Path, *, changes: Sequence[str] = (), device: str = "auto"
    ) -> None:
        self.recipe = recipe if isinstance(recipe, Recipe) else read_recipe(recipe, changes)
        self.out = Path(out)
        self.device = choose_device(device)

    def stages(self) -> list[Stage]:
        """List the stages in order, and which of them are complete."""
        return stages(self.recipe, self.out)

    def run(self, report: Report = unreported) -> pd.DataFrame:
        """Run what is missing, then write the evidence, the figures and the report.

        Parameters
        ----------
        report
            Called now and then with an `Event`.

        Returns
        -------
        pd.DataFrame
            The evidence: a row per trial, level and layer.
        """
        run_study(self.recipe, self.out, device=self.device, report=report)
        return write_outcome(self.out)

    def evidence(self) -> pd.DataFrame:
        """Return the curves of what is finished: a row per trial, level and layer."""
        return curves(self.out)

    def units(self, trial: int, level: int, layer: str | None = None) -> pd.DataFrame:
        """Return the units of one level's layer (the recipe's first unless told).

        Raises
        ------
        InputError
            That level is not dissected.
        """
        layer = layer or self.recipe.dissection.layers[0]
        directory = StudyDirectory(self.out)
        if not directory.is_dissected(trial, level, (layer,)):
            raise InputError(f"{self.out}: layer {layer!r} of trial {trial}, level {level} is not dissected (yet)")
        return read_units(directory.dissection(trial, level), layer)


def write_outcome(out: str | Path) -> pd.DataFrame:
    """Write the evidence, the figures and the report of a study, finished or not.

    Parameters
    ----------
    out
        The study's directory.

    Returns
    -------
    pd.DataFrame
        The evidence: a row per trial, level and layer.
    """
    directory = StudyDirectory(Path(out))
    evidence = write_evidence(directory.root)
    draw_figures(evidence, directory.root / "figures")
    recipe = read_recipe(directory.recipe)
    write_report(directory.root, study_concepts(recipe, directory))
    return evidence
