"""Run studies: stages, resuming and forecasts."""

from prunescope.store import read_recipe
from prunescope.study.reporting import Event
from prunescope.study.run import run_study
from prunescope.study.stages import Stage, stages

__all__ = ["Event", "Stage", "read_recipe", "run_study", "stages"]
