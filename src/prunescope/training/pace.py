"""How often training looks at its losses and writes a checkpoint, by the clock."""

from __future__ import annotations

import time

from prunescope.training.processes import Processes

SECONDS = 5.0  # between two looks, about; each waits until the device has done what it was given
MOST_STEPS = 200  # between two looks


class Pace:
    """Decides on the main process's clock, so that all processes do the same at the same step.

    Parameters
    ----------
    minutes
        From one checkpoint to the next.
    processes
        Those that train together.
    step
        The first step to come.
    """

    def __init__(self, minutes: float, processes: Processes, step: int) -> None:
        self._minutes = minutes
        self._processes = processes
        self._looked_at, self._next = step, step + 1
        self._looked = self._wrote = time.monotonic()

    def looks(self, done: int) -> bool:
        """Whether to look at the losses after `done` steps."""
        return done >= self._next

    def looked(self, done: int) -> bool:
        """Note that the losses up to `done` have been looked at; return whether a checkpoint is due."""
        now = time.monotonic()
        a_step = (now - self._looked) / max(1, done - self._looked_at)
        steps = min(MOST_STEPS, max(1, int(SECONDS / max(a_step, 1e-9))))
        due = now - self._wrote >= self._minutes * 60
        steps, due = self._processes.agree((steps, due))
        self._looked, self._looked_at, self._next = now, done, done + steps
        return bool(due)

    def wrote(self) -> None:
        """Note that a checkpoint has been written."""
        self._wrote = time.monotonic()
