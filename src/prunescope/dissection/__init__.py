"""Find the concept that each unit of a network detects: thresholds, masks, pixel counts and scores."""

from prunescope.dissection.layer_files import read_summary, read_units
from prunescope.dissection.match_networks import match_units
from prunescope.dissection.matching import UnitMatcher, UnitMatching
from prunescope.dissection.published import import_netdissect
from prunescope.dissection.result import Dissection, LayerDissection
from prunescope.dissection.run import dissect, dissect_activations, dissect_networks
from prunescope.dissection.saved import dissect_activations_file, dissect_checkpoints
from prunescope.dissection.settings import Settings
from prunescope.dissection.storage import Budget
from prunescope.dissection.unit_numbers import read_unit_numbers

__all__ = [
    "Budget",
    "Dissection",
    "LayerDissection",
    "Settings",
    "UnitMatcher",
    "UnitMatching",
    "dissect",
    "dissect_activations",
    "dissect_activations_file",
    "dissect_checkpoints",
    "dissect_networks",
    "import_netdissect",
    "match_units",
    "read_summary",
    "read_unit_numbers",
    "read_units",
]
