"""Training a network: data, recipe, loop."""

from prunescope.training.data import Task, open_task
from prunescope.training.loop import Measured, measure, train
from prunescope.training.recipe import Training, learning_rate
from prunescope.training.steps import Step

__all__ = ["Measured", "Step", "Task", "Training", "learning_rate", "measure", "open_task", "train"]
