"""Build networks, load and save their weights, and inspect their layers."""

from prunescope.networks.geometry import Geometry, receptive_fields
from prunescope.networks.layers import list_layers, units_axes
from prunescope.networks.observing import check_layers, observe
from prunescope.networks.preprocessing import Preprocessing
from prunescope.networks.published_preprocessing import preprocessing_of
from prunescope.networks.source import build_network, default_layers
from prunescope.networks.weights import load_weights, save_weights

__all__ = [
    "Geometry",
    "Preprocessing",
    "build_network",
    "check_layers",
    "default_layers",
    "list_layers",
    "load_weights",
    "observe",
    "preprocessing_of",
    "receptive_fields",
    "save_weights",
    "units_axes",
]
