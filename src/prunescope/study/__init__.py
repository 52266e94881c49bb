"""Running studies: stages, resuming, forecasting."""

from prunescope.study.run import run_study
from prunescope.study.stages import Event, Stage, stages

__all__ = ["Event", "Stage", "run_study", "stages"]
