"""Choose the weights or filters to prune, and represent those that are kept."""

from prunescope.pruning.coverage import Coverage
from prunescope.pruning.criteria import prune, shuffle
from prunescope.pruning.filter_criteria import prune_filters
from prunescope.pruning.filters import Filters, shrink, unit_numbers
from prunescope.pruning.mask import Mask, prunable_weights

__all__ = [
    "Coverage",
    "Filters",
    "Mask",
    "prunable_weights",
    "prune",
    "prune_filters",
    "shrink",
    "shuffle",
    "unit_numbers",
]
