"""Masks, criteria and schedules: which weights are kept."""

from prunescope.pruning.criteria import prune, shuffle
from prunescope.pruning.mask import Mask, prunable_weights

__all__ = ["Mask", "prunable_weights", "prune", "shuffle"]
