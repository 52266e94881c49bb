"""Which unit detects what: thresholds, masks, tallies, scores."""

from prunescope.dissection.published import import_netdissect
from prunescope.dissection.result import Dissection, LayerDissection, read_summary, read_units
from prunescope.dissection.run import dissect, dissect_activations

__all__ = [
    "Dissection",
    "LayerDissection",
    "dissect",
    "dissect_activations",
    "import_netdissect",
    "read_summary",
    "read_units",
]
