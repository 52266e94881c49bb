"""Train and evaluate a network: data, hyperparameters and the training loop."""

from prunescope.training.data import Task, open_task
from prunescope.training.loop import Measured, measure, train
from prunescope.training.processes import Processes, join_processes
from prunescope.training.recipe import Course, Training, learning_rate
from prunescope.training.steps import Step

__all__ = [
    "Course",
    "Measured",
    "Processes",
    "Step",
    "Task",
    "Training",
    "join_processes",
    "learning_rate",
    "measure",
    "open_task",
    "train",
]
