"""Train and evaluate a network: hyperparameters, the training loop and checkpoints."""

from prunescope.training.loop import Measured, measure, train
from prunescope.training.recipe import StepRange, Training, learning_rate
from prunescope.training.steps import Step

__all__ = [
    "Measured",
    "Step",
    "StepRange",
    "Training",
    "learning_rate",
    "measure",
    "train",
]
