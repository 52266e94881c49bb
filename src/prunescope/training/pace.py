"""Decide, by elapsed time, when training reads its losses and when it writes a checkpoint."""

from __future__ import annotations

import time

from prunescope.processes import Processes

SECONDS = 5.0  # approximate time between two readings of the losses, since each waits for the device to finish
MOST_STEPS = 200  # maximum number of steps between two readings of the losses


class Pace:
    """Decides when to read the losses and when to write a checkpoint.

    The main process's clock decides, so that all processes act at the same step.

    Parameters
    ----------
    minutes
        The time between two checkpoints, in minutes.
    processes
        The processes that train together.
    step
        The number of the first step to be taken.
    """

    def __init__(self, minutes: float, processes: Processes, step: int) -> None:
        self._minutes = minutes
        self._processes = processes
        self._read_at_step, self._next = step, step + 1
        self._read = self._wrote = time.monotonic()

    def is_reading_due(self, done: int) -> bool:
        """Return whether the losses should be read after `done` steps."""
        return done >= self._next

    def losses_read(self, done: int) -> bool:
        """Record that the losses up to step `done` have been read; return whether a checkpoint is due."""
        now = time.monotonic()
        a_step = (now - self._read) / max(1, done - self._read_at_step)
        steps = min(MOST_STEPS, max(1, int(SECONDS / max(a_step, 1e-9))))
        due = now - self._wrote >= self._minutes * 60
        steps, due = self._processes.broadcast_object((steps, due))
        self._read, self._read_at_step, self._next = now, done, done + steps
        return bool(due)

    def checkpoint_written(self) -> None:
        """Record that a checkpoint has been written."""
        self._wrote = time.monotonic()
