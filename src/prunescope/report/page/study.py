"""Describe a study or a series for its page."""

from __future__ import annotations

from typing import Any

from prunescope.evidence import Evidence, category_columns
from prunescope.report.drawing import percent
from prunescope.report.method import counted, method
from prunescope.report.page.data import plain, table_columns
from prunescope.report.page.subject import Subject
from prunescope.store.layout import StudyDirectory
from prunescope.store.stored import StoredStudy


def of_study(study: StoredStudy, evidence: Evidence) -> Subject:
    """Return the subject of the page of a study or a series, finished or not."""
    verdict = evidence.verdict
    tables: dict[str, Any] = {
        "sensitivity": table_columns(evidence.sensitivity),
        "unfinished": bool(study.missing),
        "categories": category_columns(evidence.curves),
        "verdict": None
        if verdict is None
        else {
            "hypothesis": verdict.hypothesis,
            "text": verdict.text,
            "levels": table_columns(verdict.levels),
            "breaks": table_columns(verdict.breaks),
        },
        "claims": None if evidence.claims is None else table_columns(evidence.claims),
        "means": table_columns(evidence.levels),
    }
    return Subject(
        root=study.root,
        title=study.settings.name,
        kind="series" if study.settings.is_series else "study",
        layers=study.settings.layers,
        keys=study.finished,
        iou=study.settings.iou,
        axis=study.settings.axis,
        dissected=study.dissected,
        folder=study.dissection,
        curves=evidence.curves,
        facts=tuple(_facts(study)),
        notes=(*_unfinished(study), *evidence.notes),
        tables=tables,
        classes=evidence.classes,
        exemplars=evidence.exemplars,
        fates=evidence.fates,
        mask=None if study.settings.is_series else StudyDirectory(study.root).mask,
    )


def _facts(study: StoredStudy) -> list[tuple[str, str]]:
    settings = study.settings
    facts = [] if settings.network is None else [("Network", str(plain(settings.network)))]
    facts.append(("Trials", str(settings.trials)))
    levels, pruning = str(settings.levels + 1), settings.pruning
    if pruning and pruning.fraction and settings.levels:
        least = percent((1 - pruning.fraction) ** settings.levels)
        most = "at most " if pruning.scope == "filters" else ""
        start, whose = ("given", "its") if settings.given else ("dense", "the")
        levels += f", from the {start} network to {most}{least} % of {whose} weights"
    facts.append(("Levels", levels))
    if settings.levels:
        facts.append(("Method", " ".join(filter(None, [_method(study), counted(study.measured(*study.finished[0]))]))))
    facts.append(("Interpretable", f"IoU above {settings.iou:g}"))
    dissected = study.summary(*study.finished[0], settings.layers[0]).get("settings", {})
    return facts + dissection_facts(dissected if isinstance(dissected, dict) else {})


def dissection_facts(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Describe how a dissection was made, from the settings in its summary."""
    facts = []
    sample = settings.get("sample")
    if isinstance(sample, dict) and "of" in sample:
        facts.append(("Images", f"a sample of {settings.get('images')} of {sample['of']} labelled images"))
    elif "images" in settings:
        facts.append(("Images", f"{settings['images']} labelled images"))
    quantile = settings.get("quantile")
    if isinstance(quantile, int | float):
        facts.append(("Threshold", f"exceeded on {round(100 * quantile, 4):g} % of all positions"))
    return facts


def _method(study: StoredStudy) -> str:
    pruning = study.settings.pruning
    if pruning is not None:
        return method(pruning)
    return "The levels are checkpoints that existed already; nothing was trained."


def _unfinished(study: StoredStudy) -> list[str]:
    """Say which levels are missing and which layers have no weights left."""
    notes = []
    by_trial: dict[int, list[int]] = {}
    for trial, level in study.missing:
        by_trial.setdefault(trial, []).append(level)
    missing = [f"trial {t}, level{'s' if len(of) > 1 else ''} {_ranges(of)}" for t, of in by_trial.items()]
    if missing:
        notes.append(f"Not all levels are finished. The page shows those that are. Missing: {'; '.join(missing)}.")
    found = {key: study.measured(*key).empty for key in study.finished}
    empty = [f"trial {trial}, level {level}: {', '.join(of)}" for (trial, level), of in found.items() if of]
    if empty:
        notes.append(
            "Pruning has left no weights in some layers; the output of these layers is the same for every image: "
            f"{'; '.join(empty)}."
        )
    return notes


def _ranges(numbers: list[int]) -> str:
    """Return ascending numbers as text, with ranges in the place of three or more that follow each other.

    >>> _ranges([0, 1, 4, 5, 6, 9])
    '0, 1, 4 to 6, 9'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{of[0]} to {of[-1]}" if len(of) > 2 else ", ".join(map(str, of)) for of in parts)
