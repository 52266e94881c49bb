"""Give an overview of a study, a series or a dissection: its main numbers, the verdict and the paper's claims."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.dissection.resampling import block_weights, resample_units
from prunescope.dissection.settings import DEFAULTS
from prunescope.errors import InputError
from prunescope.evidence.baselines import baselines
from prunescope.evidence.over_images import percentile_intervals
from prunescope.evidence.reading import read_evidence
from prunescope.evidence.tables import ENDS
from prunescope.evidence.verdict import Verdict
from prunescope.progress import Progress, silent
from prunescope.reading import read_json, read_parquet
from prunescope.store.dissections import SUMMARY, UNITS
from prunescope.store.stored import open_study
from prunescope.store.tables import check_summary, check_units
from prunescope.store.tallies import read_block_counts

SHOWN = ("accuracy", "interpretable", "concepts", "still_interpretable", "same_concept")
DEEPEST = 3  # OUT/NAME/LAYER/summary.json, where several files of weights were dissected


@dataclass(frozen=True)
class Overview:
    """The main results in a directory.

    Attributes
    ----------
    name
        The name of the study, or the directory of a dissection.
    kind
        "study", "series" or "dissection".
    summary
        Of a study or a series, a row per level and layer with the columns level, layer, trials, weights_remaining,
        accuracy, interpretable, concepts, still_interpretable and same_concept. With several trials they are means, and
        NAME_low and NAME_high are t intervals over the trials; with one, they are intervals over resampled images. Of a
        dissection, a row per layer with the columns folder, units, interpretable, concepts, dead, their intervals over
        images, the numbers of concepts by category, and what is known about chance.
    verdict, claims
        As in `Evidence`; None for a dissection, or where there is none.
    notes
        Sentences about what is left out.
    """

    name: str
    kind: str
    summary: pd.DataFrame
    verdict: Verdict | None
    claims: pd.DataFrame | None
    notes: tuple[str, ...]


def show(directory: str | Path, *, progress: Progress = silent) -> Overview:
    """Return an overview of the results in a directory: of a study, a series, a sweep or a dissection.

    Nothing is written. The evidence that is stored with a study is used if it agrees with the study's dissections;
    otherwise it is computed.

    Parameters
    ----------
    directory
        The directory of a study or a series, finished or not, or the `out` of a dissection.
    progress
        A function that is called with the number of dissections done and their total number.

    Returns
    -------
    Overview

    Raises
    ------
    InputError
        If the directory contains neither a study nor a dissection, or if a file in it is damaged.

    Examples
    --------
    ::

        found = prunescope.show("out/demo")
        found.summary, found.verdict.text, found.claims
    """
    root = Path(directory)
    if (root / "study.yaml").is_file():
        settings = open_study(root).settings
        found = read_evidence(root, progress)
        trials = found.curves["trial"].nunique()
        table = found.levels if trials > 1 else found.curves.assign(trials=1).sort_values("level", kind="stable")
        columns = ["level", "layer", "trials", "weights_remaining"]
        for name in SHOWN:
            columns += [column for column in (name, *(f"{name}{end}" for end in ENDS)) if column in table.columns]
        return Overview(
            name=settings.name,
            kind="series" if settings.is_series else "study",
            summary=table[columns].reset_index(drop=True),
            verdict=found.verdict,
            claims=found.claims,
            notes=found.notes,
        )
    summaries = find_summaries(root)
    if not summaries:
        inside = sorted(path.parent.name for path in root.glob("*/study.yaml"))
        hint = f"it contains the studies {', '.join(inside)}; give one of their folders" if inside else (
            "give the --out directory of a study, a series, a sweep or a dissection"
        )  # fmt: skip
        raise InputError(f"{root} contains no study and no dissection; {hint}")
    rows, notes = [], []
    for done, path in enumerate(summaries):
        row, problem = read_numbers(path, root)
        rows.append(row)
        notes += [problem] if problem else []
        progress(done + 1, len(summaries))
    return Overview(str(root), "dissection", pd.DataFrame(rows), None, None, tuple(notes))


def find_summaries(root: Path) -> list[Path]:
    """Return the summaries of finished dissections in a directory."""
    found = [path for depth in range(DEEPEST) for path in root.glob("*/" * depth + SUMMARY)]
    return sorted(path for path in found if (path.parent / UNITS).is_file())


def read_numbers(path: Path, root: Path) -> tuple[dict[str, Any], str]:
    """Return the row of one dissection, and a note if it has no intervals."""
    folder = path.parent
    try:
        summary, units = read_json(path), read_parquet(folder / UNITS)
    except InputError as error:
        raise InputError(f"{error}; run the dissection again") from error
    if "dead" not in units.columns:  # an imported table
        units = units.assign(dead=False)
    check_units(units, str(folder / UNITS))
    check_summary({name: value for name, value in summary.items() if name != "dead"}, units, {}, str(path))
    settings = summary.get("settings", {})
    iou = settings.get("iou", DEFAULTS.iou)
    row: dict[str, Any] = {"folder": str(folder.relative_to(root))}
    row |= {name: summary[name] for name in ("units", "interpretable", "concepts", "dead") if name in summary}
    problem = ""
    try:
        tally = read_block_counts(folder, units)
        found = resample_units(tally.pairs, block_weights(len(tally.truth)), iou)
        row |= percentile_intervals({"interpretable": found.interpretable, "concepts": found.concepts})
    except InputError as error:
        problem = f"Intervals over images are left out: {error}."
    return row | baselines(units, summary, iou) | dict(summary.get("by_category", {})), problem
