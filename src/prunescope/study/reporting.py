"""Progress reports of a running study, with an estimate of the remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunescope.progress import Progress
from prunescope.study.stages import Stage


@dataclass(frozen=True)
class Event:
    """A progress report of a running study."""

    trial: int
    level: int
    work: str  # "train", "dissect", "retrain" or, before the first stage and after the last one, "data"
    fraction: float  # the fraction of this stage that is done, from 0 to 1
    overall: float  # the fraction of this run's whole work that is done, from 0 to 1
    remaining: float | None  # the estimated remaining time in seconds, if it is known
    weights_remaining: float | None = None
    top1: float | None = None
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)  # dissection summaries of a level, by layer
    doing: str = ""  # for "data", a description of what is done
    note: str = ""  # a message to show on a line of its own


Report = Callable[[Event], None]


def unreported(_event: Event) -> None:
    """Ignore an event."""


def resampling(report: Report) -> Progress:
    """Return a progress callback that reports the last part of a run, in which the evidence is computed."""
    return lambda done, total: report(Event(0, 0, "data", done / total, 1.0, None, doing="resampling images"))


# The assumed share of a level's time by kind of work. It only influences the estimate of the remaining time.
SHARE: Mapping[str, float] = {"train": 0.9, "dissect": 0.1, "retrain": 1.0}


class ProgressReporter:
    """Reports the progress of a run and estimates the remaining time from the speed of the run so far.

    Parameters
    ----------
    report
        Called with each `Event`.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total, self._done = 1.0, 0.0
        self._began = time.monotonic()
        self._event = Event(0, 0, "data", 0.0, 0.0, None)

    def preparing(self, doing: str) -> Progress:
        """Return a progress callback for work before the first stage, which `doing` describes in a few words."""
        return lambda done, total: self._report(replace(self._event, fraction=done / total, doing=doing))

    def note(self, text: str) -> None:
        """Report a message to show on a line of its own."""
        self._report(replace(self._event, note=text))

    def follow(self, left: Sequence[Stage]) -> Iterator[Stage]:
        """Yield the given stages one after the other, and count each as done when the next one is requested."""
        self._total = sum(SHARE[stage.work] for stage in left) or 1.0
        self._began = time.monotonic()
        for stage in left:
            self._event = Event(stage.trial, stage.level, stage.work, 0.0, self._done / self._total, None)
            yield stage
            self._done += SHARE[stage.work]

    def finish_level(self, trial: int, level: int, **known: Any) -> None:
        """Report a finished level, with further `Event` fields in `known`."""
        self._report(replace(self._event, trial=trial, level=level, fraction=1.0, **known))

    def update(self, fraction: float, **known: Any) -> None:
        """Report the fraction of the current stage that is done, with further `Event` fields in `known`."""
        overall = (self._done + fraction * SHARE[self._event.work]) / self._total
        elapsed = time.monotonic() - self._began
        remaining = elapsed * (1 / overall - 1) if overall > 0 and elapsed > 1 else None
        self._report(replace(self._event, fraction=fraction, overall=overall, remaining=remaining, **known))
