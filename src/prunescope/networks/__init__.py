"""Build networks, load and save their weights, and inspect their layers."""

from prunescope.networks.geometry import Geometry, receptive_fields
from prunescope.networks.layers import check_layers, list_layers, observe, units_axes
from prunescope.networks.source import build_network, default_layers
from prunescope.networks.weights import load_weights, save_weights

__all__ = [
    "Geometry",
    "build_network",
    "check_layers",
    "default_layers",
    "list_layers",
    "load_weights",
    "observe",
    "receptive_fields",
    "save_weights",
    "units_axes",
]
