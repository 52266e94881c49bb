"""Patterns that textures and materials lay on a surface, as values from -1 to 1.

A texture is light on half of its area and dark on the other half, all with the same contrast: a strong pattern would be
"detected" by a network that has learned nothing.
"""

from __future__ import annotations

import numpy as np


def _wave(t: np.ndarray) -> np.ndarray:
    """A triangle wave of period 1 from -1 to 1."""
    wave: np.ndarray = np.abs((t - np.floor(t)) * 4 - 2) - 1
    return wave


def _edge(wave: np.ndarray) -> np.ndarray:
    """Steepen a wave to light and dark with a soft border between them."""
    edge: np.ndarray = np.maximum(np.minimum(wave * 2, 1), -1)
    return edge


def striped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bands across x."""
    return _edge(_wave(x + 0 * y))


def dotted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Discs in a square lattice, half of the area."""
    u, v = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return _edge((0.4 - np.sqrt(u * u + v * v)) * 4)


def chequered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A chessboard."""
    board: np.ndarray = _edge(_wave(x) * 1.5) * _edge(_wave(y) * 1.5)
    return board


def zigzagged(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Bands that go up and down."""
    return _edge(_wave(y + 0.3 * _wave(x * 0.7)))


def woven(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Squares of bands, across and along in turn."""
    over = ((np.floor(x) + np.floor(y)) % 2) > 0
    return np.where(over, _edge(_wave(1.5 * x + 0 * y)), _edge(_wave(1.5 * y + 0 * x)))


def grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Lines in both directions, half of the area."""
    return _edge(np.maximum(_wave(x), _wave(y)) * 2 - 0.8)


TEXTURE_PATTERNS = {
    "striped": striped,
    "dotted": dotted,
    "chequered": chequered,
    "zigzagged": zigzagged,
    "woven": woven,
    "grid": grid,
}


def material_pattern(material: str, x: np.ndarray, y: np.ndarray, grain: np.ndarray) -> np.ndarray | None:
    """Give the faint relief by which a material is known, or None where it is smooth.

    Parameters
    ----------
    material
        One of the vocabulary's materials.
    x, y
        Position on the surface in 1/64 of the image's side, [columns] and [rows, 1].
    grain
        Noise from -1 to 1 at these pixels [rows, columns].
    """
    relief: np.ndarray | None = None
    if material == "brick":
        row = np.floor(y / 4)
        mortar = np.minimum(_wave(y / 4), _wave((x + 3 * (row % 2)) / 6) + 0 * y)
        relief = np.maximum(-mortar - 0.3, 0) * -1.6 + 0.2
    elif material == "wood":
        relief = 0.7 * _wave(y / 3.2 + 0.15 * _wave(x / 9)) + 0.4 * grain
    elif material == "metal":
        relief = 1.1 * _wave((x + y) / 18)
    elif material == "glass":
        relief = 1.6 * _edge(_wave((x - y) / 11) - 0.55)
    elif material == "foliage":
        relief = 1.8 * grain
    elif material == "stone":
        relief = 1.1 * grain + 0.5 * _wave((x + 2 * y) / 9)
    elif material == "water":
        relief = 0.9 * _wave(y / 3.4 + 0.35 * _wave(x / 12)) + 0.4 * grain
    return relief
