"""A study's stages, and how far it is with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prunescope.progress import Progress
from prunescope.study.layout import StudyDirectory
from prunescope.study.recipe import Recipe


@dataclass(frozen=True)
class Stage:
    """One piece of work of a study."""

    trial: int
    level: int
    work: str  # "train" or "dissect"
    done: bool


@dataclass(frozen=True)
class Event:
    """How far a study is."""

    trial: int
    level: int
    work: str  # "data", "train" or "dissect"
    fraction: float  # of this stage, 0 to 1
    overall: float  # of what this run has to do, 0 to 1
    remaining: float | None  # seconds, estimated
    weights_remaining: float | None = None
    top1: float | None = None
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)  # of a finished level, by layer
    doing: str = ""  # what is done with the data before the first stage
    note: str = ""  # what is worth a line of its own


Report = Callable[[Event], None]


def unreported(_event: Event) -> None:
    """Say nothing of an event."""


def stages(recipe: Recipe, out: str | Path) -> list[Stage]:
    """List a study's stages in order, and which of them are complete."""
    directory = StudyDirectory(Path(out))
    found = []
    for trial in range(recipe.trials):
        for level in range(recipe.pruning.levels + 1):
            trained = directory.is_trained(trial, level, recipe.pruning)
            dissected = trained and directory.is_dissected(trial, level, recipe.dissection.layers)
            found += [Stage(trial, level, "train", trained), Stage(trial, level, "dissect", dissected)]
    return found


# Training takes most of a level; the share only shapes the estimate.
SHARE: Mapping[str, float] = {"train": 0.9, "dissect": 0.1}


class Clock:
    """Knows what is left to do and estimates how long it takes, from what this run has done so far."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._total, self._done = 1.0, 0.0
        self._began = time.monotonic()
        self._event = Event(0, 0, "data", 0.0, 0.0, None)

    def preparing(self, doing: str) -> Progress:
        """Return what tells how much of some work on the data is done; `doing` says what it is."""
        return lambda done, total: self._report(replace(self._event, fraction=done / total, doing=doing))

    def note(self, text: str) -> None:
        """Tell what is worth a line of its own."""
        self._report(replace(self._event, note=text))

    def each(self, left: Sequence[Stage]) -> Iterator[Stage]:
        """Yield the stages that are left, one after the other."""
        self._total = sum(SHARE[stage.work] for stage in left) or 1.0
        self._began = time.monotonic()
        for stage in left:
            self._event = Event(stage.trial, stage.level, stage.work, 0.0, self._done / self._total, None)
            yield stage
            self._done += SHARE[stage.work]

    def tick(self, fraction: float, **known: Any) -> None:
        """Tell how much of the present stage is done."""
        overall = (self._done + fraction * SHARE[self._event.work]) / self._total
        elapsed = time.monotonic() - self._began
        remaining = elapsed * (1 / overall - 1) if overall > 0 and elapsed > 1 else None
        self._report(replace(self._event, fraction=fraction, overall=overall, remaining=remaining, **known))
