"""A study as scripts and notebooks use it: run it, read its results and write its report again."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
from torch import nn

from prunescope.devices import choose_device
from prunescope.drawing import style_named
from prunescope.errors import InputError, refuse_text
from prunescope.evidence import Comparison, compare_studies, curves, read_evidence, write_evidence
from prunescope.evidence.overview import find_summaries, show
from prunescope.files import check_folder, refuse_links_out, write_table
from prunescope.networks.published_preprocessing import remember_preprocessing
from prunescope.notebook import as_html
from prunescope.processes import join_processes
from prunescope.progress import Progress, silent
from prunescope.report import draw_figures, write_comparison_report, write_dissection_report, write_report
from prunescope.report.compared import compared_figures
from prunescope.report.figures import check_formats, save_figures
from prunescope.store.layout import StudyDirectory
from prunescope.store.reading import read_recipe, read_series
from prunescope.store.recipe import Recipe
from prunescope.store.stored import open_study, stored_units
from prunescope.study.data import study_concepts
from prunescope.study.levels import open_level
from prunescope.study.recording import changed_concepts
from prunescope.study.reporting import Report, resampling
from prunescope.study.run import run_study
from prunescope.study.series import series_concepts
from prunescope.study.stages import Stage, stages
from prunescope.study.watching import shown_report
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

    @property
    def levels(self) -> int:
        """The number of times that the network is pruned."""
        return self.recipe.pruning.levels

    def __repr__(self) -> str:
        found = self.stages()
        done = sum(stage.done for stage in found)
        return f"Study({self.recipe.name!r}, out={str(self.out)!r}: {done:,} of {len(found):,} stages done)"

    def _repr_html_(self) -> str:
        rows = [(stage.trial, stage.level, stage.work, "yes" if stage.done else "no") for stage in self.stages()]
        return as_html(repr(self), pd.DataFrame(rows, columns=["trial", "level", "work", "done"]))

    def stages(self) -> list[Stage]:
        """List the stages in order, each with whether it is complete."""
        return stages(self.recipe, self.out)

    def run(self, report: Report | Literal["auto", False] = "auto") -> pd.DataFrame:
        """Run the stages that are not complete, then write the evidence, the figures and the report.

        With `accelerate launch` or `torchrun`, every process must make this call.

        Parameters
        ----------
        report
            A function that is called from time to time with an `Event`, which describes the progress. By default, a
            bar and a line for each finished level are shown on standard error if it is a terminal or belongs to a
            notebook. False turns this off.

        Returns
        -------
        pd.DataFrame
            The evidence, with a row per trial, level and layer; see `curves`.
        """
        with join_processes(self.device) as processes, shown_report(report, self) as told:
            run_study(
                self.recipe,
                self.out,
                device=self.device,
                branch_from=self.branch_from,
                snapshots=self.snapshots,
                report=told,
            )
            if processes.is_main:
                write_outcome(self.out, progress=resampling(told))
            processes.wait()
        return self.evidence()

    def evidence(self) -> pd.DataFrame:
        """Return the evidence of the finished levels, with a row per trial, level and layer; see `curves`."""
        return curves(self.out)

    def network(self, trial: int, level: int = 0) -> nn.Module:
        """Build the network of one level with its trained weights.

        Parameters
        ----------
        trial, level
            The trial and the level, counted from 0.

        Returns
        -------
        nn.Module
            The network, on the CPU. Pruned weights are zero; if the study removes filters, they are absent. `dissect`
            and `match_units` give it images as the study does.

        Raises
        ------
        InputError
            If the level is not trained, or if its files are damaged or contradict each other.
        """
        model = open_level(self.recipe, StudyDirectory(self.out), trial, level).trained()
        remember_preprocessing(model, self.recipe.data.preprocessing())
        return model

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
        return stored_units(self.out, self.recipe.dissection.layers, trial, level, layer)


def write_outcome(out: str | Path, *, progress: Progress = silent) -> pd.DataFrame:
    """Write the evidence, the figures and the report of a study, which need not be finished, or of a dissection.

    Parameters
    ----------
    out
        The directory of a study, a series, a sweep, a dissection or an imported table. Of a dissection or a table, only
        the report page is written. It need not be trusted, because nothing is written outside of it.
    progress
        A function that is called with the number of parts that are done and their total number: first of dissections
        whose images are resampled, then of files of the page.

    Returns
    -------
    pd.DataFrame
        The evidence, with a row per trial, level and layer: the table of `curves`, with intervals over images and the
        numbers of units of each fate. Of a dissection, the summary that `show` returns.
    """
    directory = StudyDirectory(Path(out))
    if not directory.recipe.is_file() and find_summaries(directory.root):
        refuse_links_out(directory.root, ("report", "report/data"))
        write_dissection_report(directory.root, progress=progress)
        return show(directory.root).summary
    study = open_study(directory.root)
    refuse_links_out(directory.root, ("figures", "report", "report/data", "report/sheets"))
    evidence = write_evidence(directory.root, progress)
    draw_figures(
        evidence.curves, directory.root / "figures", axis=study.settings.axis, sensitivity=evidence.sensitivity
    )
    if study.settings.is_series:
        concepts = series_concepts(read_series(directory.recipe))
    else:
        concepts = study_concepts(read_recipe(directory.recipe), directory)
    if changed := changed_concepts(directory, concepts):
        warnings.warn(
            "the labelled images have changed since the study began; the numbers are those of the earlier images, but "
            f"the report shows the images as they are now:\n{changed}",
            stacklevel=2,
        )
    write_report(directory.root, concepts, evidence, progress=progress)
    return evidence.curves


def write_figures(
    out: str | Path,
    *,
    style: str = "paper",
    formats: Sequence[str] = ("pdf", "svg", "png"),
    directory: str | Path | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write the figures of a study in a size for a paper or for slides.

    The evidence that is stored with the study is used if it agrees with the study's dissections; otherwise it is
    computed.

    Parameters
    ----------
    out
        The directory of a study or a series, finished or not.
    style
        ``paper`` for one column of a page, ``slides`` for slides, or ``page`` for the report page.
    formats
        The formats: any of pdf, svg and png (300 dots per inch). Fonts are embedded.
    directory
        The folder for the figures. By default, it is ``figures/STYLE`` in the study's directory.
    progress
        A function that is called with the number of dissections done and their total number.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    InputError
        If the directory does not contain a study, if a file in it is damaged, or if there is no such style or format.

    Examples
    --------
    ::

        prunescope.write_figures("out/demo", style="slides", formats=["png"])
    """
    root = Path(out)
    study = open_study(root)
    style_named(style)
    if directory is None:
        refuse_links_out(root, ("figures", f"figures/{style}"))
    found = read_evidence(root, progress)
    return draw_figures(
        found.curves,
        root / "figures" / style if directory is None else directory,
        formats,
        axis=study.settings.axis,
        sensitivity=found.sensitivity,
        style=style,
    )


def compare(
    studies: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    style: str = "page",
    formats: Sequence[str] = ("svg", "pdf", "png"),
    progress: Progress = silent,
) -> Comparison:
    """Compare studies with the first of them, and write a table and figures.

    Parameters
    ----------
    studies
        The directories of at least two studies or series. `prunescope.evidence.compare_studies` describes how they are
        compared.
    out
        The folder for ``differences.csv``, ``curves.csv``, the figures ``compare-curves`` and ``compare-differences``,
        and the page ``report/index.html``. By default, nothing is written.
    style, formats
        The size and the formats of the figures, as in `write_figures`.
    progress
        A function that is called with the number of studies read and their total number.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If the studies cannot be compared, if `out` is itself a study or cannot be written to, or if there is no such
        style or format.

    Examples
    --------
    ::

        found = prunescope.compare(["out/ways/rewinding", "out/ways/fine-tuning"], "out/compared")
        found.differences.query("quantity == 'interpretable'")
    """
    check_formats(formats)
    chosen = style_named(style)
    if out is not None:
        check_folder(Path(out))
        refuse_links_out(Path(out), ("report", "report/data"))
        if StudyDirectory(Path(out)).recipe.is_file():
            raise InputError(f"{out} is itself a study; give another folder for the comparison")
    found = compare_studies(studies, progress=progress)
    if out is not None:
        drawn = compared_figures(found.curves, found.differences, chosen)
        write_table(Path(out) / "curves.csv", found.curves)
        write_table(Path(out) / "differences.csv", found.differences)
        save_figures(drawn, out, formats, chosen)
        write_comparison_report(out, found)
    return found
