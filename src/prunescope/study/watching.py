"""Show the progress of running studies to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeAlias

from rich.console import Console

from prunescope.plurals import counted
from prunescope.progress import in_notebook, wants_bar, watching_console
from prunescope.study.reporting import Event, Report, unreported

ReportOfStudy: TypeAlias = Callable[[Any, Event], None]
"""A callback for the progress of one of several studies. Its arguments are the study or series, and the event."""


@contextmanager
def shown_report(report: Report | Literal["auto", False], study: Any) -> Iterator[Report]:
    """Yield the callback for the events of a study or series.

    Parameters
    ----------
    report
        A callback, which is yielded unchanged; `auto` to show a bar, and a line for each finished level, if somebody is
        watching (see `prunescope.progress.is_watched`); or False to show nothing.
    study
        The study or series that is about to run.

    Raises
    ------
    InputError
        If `report` is something else.
    """
    if not wants_bar(report, "report"):
        yield report if callable(report) else unreported
        return
    with study_progress(watching_console(), named=False, redirect_stdout=False) as show:
        yield partial(show, study)


@contextmanager
def shown_reports(report: ReportOfStudy | Literal["auto", False], *, named: bool) -> Iterator[ReportOfStudy]:
    """Yield the callback for the events of several studies; see `shown_report`.

    If `named` is true, every line that is shown begins with the name of the study.
    """
    if not wants_bar(report, "report"):
        yield report if callable(report) else _unreported
        return
    with study_progress(watching_console(), named=named, redirect_stdout=False) as show:
        yield show


@contextmanager
def study_progress(console: Console, *, named: bool, **options: Any) -> Iterator[ReportOfStudy]:
    """Show the progress of studies: a line for every finished level and, on a terminal, a bar for the current stage.

    Parameters
    ----------
    console
        The console to show them on.
    named
        Whether every line begins with the name of the study.
    options
        Further arguments of `rich.progress.Progress`.
    """
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    with Progress(
        TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), console=console,
        transient=True, refresh_per_second=2 if in_notebook() else 10, disable=not console.is_terminal, **options,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=1.0)

        def show(study: Any, event: Event) -> None:
            name = f"{study.recipe.name}: " if named else ""
            stage = _stage_line(event, study.levels)
            bar.update(task, completed=event.overall, description=name + stage)
            for line in filter(None, [event.note, _level_line(event) if event.summaries else ""]):
                bar.console.print(name + line)

        yield show


def _unreported(_study: Any, _event: Event) -> None:
    """Ignore an event."""


def _stage_line(event: Event, levels: int) -> str:
    if event.work == "data":
        return f"{event.doing}: {event.fraction:.0%}"
    kept = "" if event.weights_remaining is None else f", {event.weights_remaining:.1%} of the weights"
    doing = {"train": "training", "dissect": "dissecting", "retrain": "training the dense network again"}[event.work]
    return f"trial {event.trial}, level {event.level} of {levels}{kept}: {doing} {event.fraction:.0%}{_left(event)}"


def _level_line(event: Event) -> str:
    units = "; ".join(
        f"{layer} {found['interpretable']:,} of {counted(found['units'], 'unit')} interpretable, "
        f"{counted(found['concepts'], 'concept')}"
        for layer, found in event.summaries.items()
    )
    accuracy = "" if event.top1 is None else f", top-1 {event.top1:.1%}"
    return (
        f"trial {event.trial}, level {event.level:2d}: {event.weights_remaining:6.1%} of the weights{accuracy}; "
        f"{units}{_left(event)}"
    )


def _left(event: Event) -> str:
    if event.remaining is None:
        return ""
    minutes, seconds = divmod(round(event.remaining), 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
    return f"; {text} left"
