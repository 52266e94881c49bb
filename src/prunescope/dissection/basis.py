"""Other bases in which the activation maps of a layer are dissected: random rotations, or directions from a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from prunescope.arrays import Array
from prunescope.bounds import MOST_SEED
from prunescope.errors import InputError
from prunescope.files import expanded, name_problem

BASES = "basis"  # the folder of the results in other bases, beside the folders of the layers
_EXPECTED = (
    "expected rotate:SEED or rotate:SEED:POWER, with a power from 0 to 1, or the path of a .safetensors file that "
    "contains a matrix [directions, units]"
)


@dataclass(frozen=True)
class Basis:
    """A basis of a layer's activations, given as text.

    Attributes
    ----------
    given
        The text: `rotate:SEED`, `rotate:SEED:POWER` or the path of a file.
    name
        The name of the folder of its results: `rotate-SEED`, `rotate-SEED-POWER` or the file's name without its suffix.
    seed, power
        The seed and the power of a rotation; the seed is None for a file.
    """

    given: str
    name: str
    seed: int | None = None
    power: float = 1.0

    def matrix(self, layer: str, units: int) -> Array:
        """Return the directions of the basis.

        Parameters
        ----------
        layer
            The name of the layer, by which a file with several matrices is searched.
        units
            The number of units of the layer.

        Returns
        -------
        Array
            float64 [directions, units]. A direction's map is the sum of the units' maps, weighted by its row.

        Raises
        ------
        InputError
            If the file cannot be read, or contains no matrix with as many columns as the layer has units.
        """
        if self.seed is not None:
            return rotation(units, self.seed, self.power)
        path = expanded(self.given)
        try:
            found = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"basis {self.given}: cannot be read as safetensors ({error}); {_EXPECTED}") from error
        if layer not in found and len(found) != 1:
            raise InputError(
                f"basis {self.given}: contains {len(found)} tensors, none of which is called {layer}; expected a "
                "single matrix, or one matrix for each layer under the layer's name"
            )
        matrix = found[layer] if layer in found else next(iter(found.values()))
        if matrix.ndim != 2 or matrix.shape[1] != units or not len(matrix) or matrix.dtype.kind != "f":
            raise InputError(
                f"basis {self.given}: the matrix for layer {layer!r} is {matrix.dtype} {list(matrix.shape)}, expected "
                f"real numbers [directions, {units}], since the layer has {units} units"
            )
        if not np.isfinite(matrix).all():
            raise InputError(f"basis {self.given}: the matrix for layer {layer!r} has values that are not finite")
        return matrix.astype(np.float64)


def rotation(units: int, seed: int, power: float = 1.0) -> Array:
    """Draw a random rotation, uniformly among all rotations, and take a power of it (Bau et al. 2017, section 3.2).

    Parameters
    ----------
    units
        The number of units, which span the space that is rotated.
    seed
        The seed of the rotation.
    power
        How far to rotate, from 0 (the identity) to 1, along the shortest path.

    Returns
    -------
    Array
        float64 [units, units], an orthogonal matrix with determinant 1.

    Examples
    --------
    >>> rotation(2, seed=0, power=0)
    array([[1., 0.],
           [0., 1.]])
    """
    if power == 0:
        return np.eye(units)
    # The orthogonal factor of a Gaussian matrix is uniform if the signs of the other factor's diagonal are positive.
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(units, units)))
    q = q * np.sign(np.diag(r))
    if np.linalg.slogdet(q)[0] < 0:
        q[:, 0] *= -1
    if power == 1:
        return q
    from scipy.linalg import schur

    # The Schur form of an orthogonal matrix is diagonal, with the angles of the rotation as its arguments.
    angles, vectors = schur(q, output="complex")
    turned: Array = (vectors * np.exp(1j * power * np.angle(np.diag(angles)))) @ vectors.conj().T
    return turned.real


def parse_bases(given: Sequence[str]) -> tuple[Basis, ...]:
    """Parse the descriptions of bases.

    Raises
    ------
    InputError
        If a description is not valid, or if the results of two bases would be in the same folder.
    """
    found: dict[str, Basis] = {}
    for text in given:
        basis = _parsed(text)
        if basis.name in found:
            raise InputError(
                f"basis {text}: its results would be in the same folder as those of {found[basis.name].given}, "
                f"{BASES}/{basis.name}; leave one out, or rename a file"
            )
        found[basis.name] = basis
    return tuple(found.values())


def _parsed(text: str) -> Basis:
    if text.startswith("rotate:"):
        parts = re.fullmatch(r"rotate:([0-9]{1,19})(?::([0-9]*\.?[0-9]+))?", text, flags=re.ASCII)
        if parts is None or int(parts[1]) > MOST_SEED or not 0 <= float(parts[2] or 1) <= 1:
            raise InputError(f"basis {text}: {_EXPECTED}")
        return Basis(text, text.replace(":", "-"), int(parts[1]), float(parts[2] or 1))
    path = Path(text)
    if path.suffix != ".safetensors" or name_problem(path.stem):
        raise InputError(f"basis {text}: {_EXPECTED}")
    return Basis(text, path.stem)
