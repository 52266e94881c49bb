"""The hyperparameters with which the network of a level is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from prunescope.bounds import MOST_COUNT, MOST_RATE
from prunescope.training.steps import Step
from prunescope.validation import Strict

MOST_MINUTES = 1e7


def _some(step: Step) -> Step:
    if step == Step():
        raise ValueError("expected at least one step: 1it, 500it, 1ep")
    return step


Interval = Annotated[Step, AfterValidator(_some)]


class Training(Strict):
    """Stochastic gradient descent with momentum and warm-up, and a schedule of milestones or a cosine."""

    length: Annotated[Interval, Field(description="how long a level is trained, such as 90ep, 500it or 1ep20it")]
    batch_size: Annotated[int, Field(gt=0, le=MOST_COUNT, description="the number of images per step")]
    learning_rate: Annotated[float, Field(gt=0, le=MOST_RATE, description="the learning rate after the warm-up")]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: Annotated[bool, Field(description="use Nesterov's momentum, which needs `momentum` above 0")] = False
    weight_decay: Annotated[
        float, Field(ge=0, le=MOST_RATE, description="the weight decay, which applies to every parameter")
    ] = 1e-4
    warmup: Annotated[Step, Field(description="how long the learning rate rises linearly from 0")] = Step()
    schedule: Annotated[
        Literal["cosine"] | tuple[Step, ...],
        Field(description="cosine to 0, or the milestones at which the learning rate is multiplied by `gamma`"),
    ] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    measure_every: Annotated[
        Interval | None, Field(description="measure on the validation set this often, not only at the end")
    ] = None
    precision: Annotated[
        Literal["fp32", "bf16"], Field(description="with bf16, forward passes compute in bfloat16 where that is safe")
    ] = "fp32"
    compile: Annotated[
        bool | Literal["inductor", "cudagraphs", "aot_eager"],
        Field(description="compile the forward and backward pass with torch.compile; true uses the backend inductor"),
    ] = False
    device_batch_size: Annotated[
        int | None,
        Field(
            gt=0,
            le=MOST_COUNT,
            description="the most images on a device at a time; gradients of larger batches are accumulated",
        ),
    ] = None
    synchronise_statistics: Annotated[
        bool, Field(description="whether batch normalisation uses the whole batch, and not only each GPU's share of it")
    ] = False
    trackers: Annotated[
        tuple[Literal["tensorboard"], ...],
        Field(description="trackers that losses and accuracies are written to as well"),
    ] = ()
    checkpoint_every: Annotated[
        Interval | None, Field(description="also write a checkpoint after so many steps or epochs")
    ] = None
    checkpoint_minutes: Annotated[
        float, Field(ge=0, le=MOST_MINUTES, description="write a checkpoint every so many minutes")
    ] = 10.0

    @model_validator(mode="after")
    def _has_momentum_for_nesterov(self) -> Self:
        if self.nesterov and self.momentum == 0:
            expected = "it needs a momentum above 0, and training.momentum is 0; give a momentum, or `nesterov: false`"
            raise PydanticCustomError(
                "misfit",
                "{expected}",
                {"field": ("training", "nesterov"), "input": True, "expected": expected},
            )
        return self


@dataclass(frozen=True)
class StepRange:
    """The steps that a level is trained for, and their learning rate.

    Attributes
    ----------
    start, stop
        The number of the first step and of the step after the last one. Step numbers determine the data order, also
        beyond the recipe's length of training.
    rate
        A constant learning rate, or None to follow the recipe's schedule.
    """

    start: int
    stop: int
    rate: float | None = None


def learning_rate(training: Training, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one step.

    During warm-up, the learning rate rises linearly and reaches its full value at the last step of the warm-up (Goyal
    et al. 2017, section 2.2). Afterwards it falls at the milestones or along a cosine.

    Parameters
    ----------
    training
        The hyperparameters.
    step
        The number of the step, counted from 0.
    steps_per_epoch
        The number of training steps per epoch.
    """
    warmup = training.warmup.iterations(steps_per_epoch)
    if step < warmup:
        return training.learning_rate * (step + 1) / warmup
    if training.schedule == "cosine":
        length = training.length.iterations(steps_per_epoch)
        passed_share = min(1.0, (step - warmup) / max(1, length - warmup))
        return training.learning_rate * 0.5 * (1 + math.cos(math.pi * passed_share))
    passed = sum(step >= milestone.iterations(steps_per_epoch) for milestone in training.schedule)
    return training.learning_rate * float(training.gamma**passed)
