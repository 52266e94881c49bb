"""Images to classify: where they come from, how they are decoded and augmented, and in which order they are shown."""

from prunescope.tasks.task import Task, open_task

__all__ = ["Task", "open_task"]
