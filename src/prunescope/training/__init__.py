"""Train and evaluate a network: hyperparameters, the training loop and checkpoints."""

from prunescope.training.loop import train
from prunescope.training.recipe import StepRange, Training, learning_rate
from prunescope.training.steps import Step
from prunescope.training.validation import ValidationResult, measure, measure_images

__all__ = [
    "Step",
    "StepRange",
    "Training",
    "ValidationResult",
    "learning_rate",
    "measure",
    "measure_images",
    "train",
]
