"""Describe a comparison of studies for its page, on which each study takes the place of a trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from prunescope.evidence import Comparison, category_columns
from prunescope.evidence.comparison import BEYOND
from prunescope.evidence.over_trials import over_trials
from prunescope.evidence.tables import POSITIONS
from prunescope.progress import Progress, silent
from prunescope.report.page.data import table_columns
from prunescope.report.page.subject import Subject
from prunescope.report.page.write import write_page


def write_comparison_report(directory: str | Path, found: Comparison, *, progress: Progress = silent) -> Path:
    """Write the page of a comparison of studies: ``report/index.html`` in a directory.

    Parameters
    ----------
    directory : path
        The folder of the comparison.
    found : Comparison
        The comparison, as `prunescope.compare` returns it.
    progress : function
        Called with the number of files written and their total number.

    Returns
    -------
    Path
        The path of the page.
    """
    names = [str(name) for name in found.curves["study"].unique()]
    curves = side_by_side(found.curves, names)
    subject = Subject(
        root=Path(directory),
        title=", ".join(names),
        kind="comparison",
        layers=tuple(map(str, curves["layer"].unique())),
        keys=tuple(dict.fromkeys(zip(curves["trial"].tolist(), curves["level"].tolist(), strict=True))),
        iou=0.05,
        axis=None,
        dissected=_none,
        folder=_none,
        curves=curves,
        facts=tuple((f"Study {number + 1}", name) for number, name in enumerate(names)),
        notes=found.notes,
        tables={
            "categories": category_columns(curves),
            "differences": table_columns(found.differences),
            "trial_names": names,
        },
    )
    return write_page(subject, None, progress)


def side_by_side(curves: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Return the means over the trials of each study, with levels that stand for equal weights remaining.

    Parameters
    ----------
    curves : DataFrame
        The evidence of all studies, with the column study.
    names : list of str
        The studies, in the order in which they are numbered.

    Returns
    -------
    DataFrame
        A row per study, level and layer. `trial` is the number of the study, and `level` the rank of its weights
        remaining among those of all studies. Intervals are over the trials or, where a study has one trial, over
        images.
    """
    parts = []
    for number, name in enumerate(names):
        rows = curves[curves["study"] == name].drop(columns=["study", *POSITIONS], errors="ignore")
        means = rows if rows["trial"].nunique() == 1 else over_trials(rows).drop(columns="trials")
        parts.append(means.assign(trial=number))
    joined = pd.concat(parts, ignore_index=True)
    descending = np.sort(joined["weights_remaining"].unique())[::-1]
    # Levels of studies with the same schedule differ by rounding.
    starts = descending[np.concatenate([[True], descending[:-1] > BEYOND * descending[1:]])]
    ranks = [int(np.flatnonzero(starts >= value / BEYOND)[-1]) for value in joined["weights_remaining"]]
    ranked = joined.assign(level=ranks).drop_duplicates(["trial", "level", "layer"])
    return ranked.sort_values(["trial", "level"], kind="stable").reset_index(drop=True)


def _none(*key: Any) -> NoReturn:
    raise LookupError(f"a comparison has no units, but those of {key} were asked for")
