"""The patterns of textures and materials, as brightness values from -1 to 1.

A texture is light on half of its area and dark on the other half, and all textures have the same contrast. Otherwise,
even a network that has learned nothing would "detect" the stronger patterns.
"""

from __future__ import annotations

import numpy as np


def _wave(t: np.ndarray) -> np.ndarray:
    """Return a triangle wave with period 1 and values from -1 to 1."""
    wave: np.ndarray = np.abs((t - np.floor(t)) * 4 - 2) - 1
    return wave


def _edge(wave: np.ndarray) -> np.ndarray:
    """Steepen a wave, so that it becomes light and dark areas with soft borders between them."""
    edge: np.ndarray = np.maximum(np.minimum(wave * 2, 1), -1)
    return edge


def striped(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return stripes that alternate along x."""
    return _edge(_wave(x + 0 * y))


def dotted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return discs on a square lattice, which cover half of the area."""
    u, v = x - np.floor(x) - 0.5, y - np.floor(y) - 0.5
    return _edge((0.4 - np.sqrt(u * u + v * v)) * 4)


def chequered(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return a chessboard pattern."""
    board: np.ndarray = _edge(_wave(x) * 1.5) * _edge(_wave(y) * 1.5)
    return board


def zigzagged(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return zigzag stripes."""
    return _edge(_wave(y + 0.3 * _wave(x * 0.7)))


def woven(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return striped squares. The stripes are vertical and horizontal in turn."""
    over = ((np.floor(x) + np.floor(y)) % 2) > 0
    return np.where(over, _edge(_wave(1.5 * x + 0 * y)), _edge(_wave(1.5 * y + 0 * x)))


def grid(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return lines in both directions, which cover half of the area."""
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
    """Return the faint pattern that distinguishes a material, or None if the material is smooth.

    Parameters
    ----------
    material
        The name of a material in the vocabulary.
    x, y
        The positions of the pixels in units of 1/64 of the image's side, [columns] and [rows, 1].
    grain
        Noise from -1 to 1 at these pixels, [rows, columns].
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
