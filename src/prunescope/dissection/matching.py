"""Match the units of two layers by the correlation of their activation maps, and measure the layers' linear CKA."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from prunescope.dissection.maps import float_maps
from prunescope.errors import InputError
from prunescope.files import write_table
from prunescope.notebook import as_html
from prunescope.processes import Processes
from prunescope.reading import read_parquet

Array = np.ndarray[Any, Any]

_FILE = "matching.parquet"
_COLUMNS = ("unit", "matched_unit", "correlation", "cka")
_VALUES = 1 << 24  # float64 values that are processed at once, 128 MiB
_BLOCK = 512  # rows of the matrix of co-moments that are updated at once
# Rounding errors must not decide between units that correlate equally, such as copies of each other.
_DIGITS = 10
_SAME_NUMBER = 1e-12


@dataclass(frozen=True)
class UnitMatching:
    """A one-to-one matching of the units of layer B to the units of layer A.

    Attributes
    ----------
    units
        int64 [units_b]: for each unit of B, the unit of A that it is matched to; -1 for the units of B that are left
        over if B has more units than A.
    correlation
        float64 [units_b]: the Pearson correlation of the activations of the two units, from -1 to 1. It is 0 if one of
        them is dead (constant), and NaN for unmatched units.
    cka
        The linear CKA (centred kernel alignment) of the two layers, from 0 to 1; NaN if all units of a layer are dead.
    """

    units: Array
    correlation: Array
    cka: float

    def __repr__(self) -> str:
        matched = self.correlation[self.units >= 0]
        median = f"{np.median(matched):.2f}" if len(matched) else "nan"
        return (
            f"UnitMatching({len(self.units):,} units, {len(matched):,} matched, median correlation {median}, "
            f"CKA {self.cka:.2f})"
        )

    def _repr_html_(self) -> str:
        columns = {"unit": np.arange(len(self.units)), "matched_unit": self.units, "correlation": self.correlation}
        return as_html(repr(self), pd.DataFrame(columns))

    def save(self, directory: str | Path) -> Path:
        """Write the matching to `directory/matching.parquet`.

        The table has a row per unit of B and the columns `unit`, `matched_unit` (the unit of A, or -1), `correlation`
        and `cka`, which is the same in all rows.

        Returns
        -------
        Path
            The file, which is complete or absent. An earlier matching in the directory is overwritten.
        """
        path = Path(directory) / _FILE
        columns = (np.arange(len(self.units)), self.units, self.correlation, self.cka)
        write_table(path, pd.DataFrame(dict(zip(_COLUMNS, columns, strict=True))))
        return path

    @classmethod
    def read(cls, path: str | Path) -> UnitMatching:
        """Read a matching that `save` has written.

        Parameters
        ----------
        path
            The file, or the directory that contains `matching.parquet`.

        Raises
        ------
        InputError
            If the file cannot be read or does not contain a matching.
        """
        file = Path(path) / _FILE if Path(path).is_dir() else Path(path)
        table = read_parquet(file, "give a file that UnitMatching.save has written")
        if problem := _problem(table):
            raise InputError(f"{file}: {problem}; give a file that UnitMatching.save has written")
        return cls(
            table["matched_unit"].to_numpy(np.int64), table["correlation"].to_numpy(np.float64), float(table["cka"][0])
        )


class UnitMatcher:
    """Collects the activation maps of two layers batch by batch, and then matches their units.

    Every image and every position of the maps is one example, and every unit is one feature. The sums over examples are
    accumulated in float64 around the running mean (Chan et al. 1983), so that neither a large mean nor the batch size
    affects the result beyond rounding errors. Memory does not grow with the number of images: for `u` units in both
    layers together, it is a matrix of `u * u` float64 values. If the maps differ in height or width, each of these is
    resized bilinearly with half-pixel centres to the larger of the two.

    Parameters
    ----------
    layer_a, layer_b
        The names of the layers, for error messages.

    Examples
    --------
    >>> maps = torch.randn(8, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> matcher = UnitMatcher()
    >>> matcher.add(maps[:4], maps[:4].flip(1))
    >>> matcher.add(maps[4:], maps[4:].flip(1))
    >>> found = matcher.result()
    >>> found.units.tolist(), round(found.cka, 6)
    ([4, 3, 2, 1, 0], 1.0)
    """

    def __init__(self, layer_a: str = "A", layer_b: str = "B") -> None:
        self._layers = (layer_a, layer_b)
        self._units: tuple[int, ...] = ()
        self._examples = 0
        # The units of A come first, then those of B. Of the symmetric matrix of co-moments, only blocks on and above
        # the diagonal are computed.
        self._means = self._comoments = self._lowest = self._highest = torch.empty(0)

    def add(self, output_a: Tensor, output_b: Tensor, names: Sequence[str] = ()) -> None:
        """Add the outputs of the two layers for the same images.

        Parameters
        ----------
        output_a, output_b
            [n, units, h, w] or [n, units], on one device. The numbers of units must not change between calls. No
            reference to the outputs is kept.
        names
            The names of the n images, for error messages.

        Raises
        ------
        InputError
            If the outputs have other shapes, or contain a value that is not finite.
        """
        maps = self._checked((output_a, output_b), names)
        if not self._units:
            self._begin(maps)
        size = (max(part.shape[2] for part in maps), max(part.shape[3] for part in maps))
        images = max(1, _VALUES // (sum(self._units) * size[0] * size[1]))
        for first in range(0, len(maps[0]), images):
            self._accumulate((maps[0][first : first + images], maps[1][first : first + images]), size)

    def reduce(self, processes: Processes) -> None:
        """Combine the sums of all processes, each of which has added a part of the images.

        Afterwards, every process has the sums over all images. It must be called once, by every process.
        """
        if processes.count == 1:
            return
        counts = np.concatenate(processes.all_gather(np.array([self._examples], np.int64)))
        means, lowest, highest = (
            np.stack(processes.all_gather(part.cpu().numpy())) for part in (self._means, self._lowest, self._highest)
        )
        mean = counts @ means / counts.sum()
        apart = torch.from_numpy(means[processes.rank] - mean).to(self._means.device)
        self._add_product((apart * math.sqrt(self._examples))[:, None])
        total = self._comoments.cpu().numpy()
        processes.all_reduce(total)
        self._comoments = torch.from_numpy(total)
        self._means = torch.from_numpy(mean)
        self._lowest, self._highest = torch.from_numpy(lowest.min(0)), torch.from_numpy(highest.max(0))
        self._examples = int(counts.sum())

    def result(self) -> UnitMatching:
        """Return the matching of the units and the linear CKA of the layers, over all images added so far.

        Units are matched such that the sum of their correlations is largest. Dead units have no correlation and are
        matched last, in the order of their numbers. Linear CKA (Kornblith et al. 2019, section 3) is
        ||X'Y||^2 / (||X'X|| ||Y'Y||) with Frobenius norms, where X and Y are the centred matrices
        [images x positions, units] of the two layers.

        Raises
        ------
        InputError
            If no images have been added.
        """
        if not self._units:
            raise InputError("no activation maps have been added to the UnitMatcher; call `add` before `result`")
        of_a = self._units[0]
        comoments = self._comoments.cpu().numpy()
        spread = np.sqrt(np.diagonal(comoments))
        # Rounding errors can give a dead unit a spread, and resizing can take it from a unit that is not dead.
        dead = (self._lowest == self._highest).cpu().numpy() | (spread == 0)
        comoments = comoments * np.outer(~dead, ~dead)
        spread = np.where(dead, 1.0, spread)
        across = comoments[:of_a, of_a:]
        correlation = np.clip(across / spread[:of_a, None] / spread[of_a:], -1, 1)
        scale = _symmetric_norm(comoments[:of_a, :of_a]) * _symmetric_norm(comoments[of_a:, of_a:])
        cka = min(float(np.square(across).sum() / scale), 1.0) if scale > 0 else math.nan
        units = _matched(correlation, dead[:of_a], dead[of_a:])
        own = np.where(units < 0, np.nan, correlation[units, np.arange(len(units))])
        return UnitMatching(units, own, cka)

    def _checked(self, outputs: tuple[Tensor, Tensor], names: Sequence[str]) -> tuple[Tensor, Tensor]:
        shapes = [list(output.shape) for output in outputs]
        if any(output.ndim not in (2, 4) or 0 in output.shape for output in outputs) or shapes[0][0] != shapes[1][0]:
            raise InputError(
                f"the outputs of layers {self._layers[0]!r} and {self._layers[1]!r} have the shapes {shapes[0]} and "
                f"{shapes[1]}; expected [n, units, h, w] or [n, units], for the same n images"
            )
        units = tuple(shape[1] for shape in shapes)
        if self._units and units != self._units:
            raise InputError(
                f"layers {self._layers[0]!r} and {self._layers[1]!r} have {units[0]} and {units[1]} units, but had "
                f"{self._units[0]} and {self._units[1]} for earlier images; all images must give the same units"
            )
        maps = float_maps(outputs[0]), float_maps(outputs[1])
        for part, layer in zip(maps, self._layers, strict=True):
            finite = part.isfinite()
            if not finite.all():
                image, unit, y, x = (int(place) for place in (~finite).nonzero()[0])
                raise InputError(
                    f"layer {layer!r}, unit {unit}, image {names[image] if names else image}: an activation is "
                    f"{float(part[image, unit, y, x])}; correlations need finite values. Check the weights, and mean "
                    "and std"
                )
        return maps

    def _begin(self, maps: tuple[Tensor, Tensor]) -> None:
        self._units = tuple(part.shape[1] for part in maps)
        total = sum(self._units)
        # Devices such as Apple's GPUs have no float64.
        device = maps[0].device if maps[0].is_cuda else torch.device("cpu")
        self._means = torch.zeros(total, dtype=torch.float64, device=device)
        self._comoments = torch.zeros(total, total, dtype=torch.float64, device=device)
        self._lowest = torch.full((total,), math.inf, device=device)
        self._highest = -self._lowest

    def _accumulate(self, maps: tuple[Tensor, Tensor], size: tuple[int, int]) -> None:
        (h, w), images = size, len(maps[0])
        count = images * h * w
        device = self._means.device
        # The last column corrects the co-moments for the distance of these examples' mean from the mean before.
        examples = torch.empty(sum(self._units), count + 1, dtype=torch.float64, device=device)
        rows = examples[: self._units[0]], examples[self._units[0] :]
        extremes = []
        for into, part in zip(rows, maps, strict=True):
            part = part.to(device)
            extremes.append((part.amin((0, 2, 3)), part.amax((0, 2, 3))))
            if part.shape[2:] != size:
                part = nn.functional.interpolate(part.double(), size, mode="bilinear", align_corners=False)
            into[:, :count].view(len(into), images, h, w).copy_(part.transpose(0, 1))
        self._lowest = torch.minimum(self._lowest, torch.cat([low for low, _ in extremes]))
        self._highest = torch.maximum(self._highest, torch.cat([high for _, high in extremes]))
        mean = examples[:, :count].mean(1)
        examples[:, :count] -= mean[:, None]
        total = self._examples + count
        apart = mean - self._means
        examples[:, count] = apart * math.sqrt(self._examples / total * count)
        self._add_product(examples)
        self._means += apart * (count / total)
        self._examples = total

    def _add_product(self, values: Tensor) -> None:
        """Add the product of `values` [units, columns] and its transpose to the co-moments."""
        for first in range(0, len(values), _BLOCK):
            block = self._comoments[first : first + _BLOCK, first:]
            block.addmm_(values[first : first + _BLOCK], values[first:].T)


def _symmetric_norm(upper: Array) -> float:
    """Return the Frobenius norm of a symmetric matrix of which only the part from the diagonal upwards is given."""
    squares = np.square(upper)
    return math.sqrt(2 * np.triu(squares, 1).sum() + np.trace(squares))


def _matched(correlation: Array, dead_a: Array, dead_b: Array) -> Array:
    """Return the unit of A for each unit of B, or -1, from their correlations [units_a, units_b]."""
    units = np.full(len(dead_b), -1, np.int64)
    alive_a, alive_b = np.flatnonzero(~dead_a), np.flatnonzero(~dead_b)
    gain = np.round(correlation[np.ix_(alive_a, alive_b)], _DIGITS)
    gain += _SAME_NUMBER * (alive_a[:, None] == alive_b)
    chosen_a, chosen_b = linear_sum_assignment(gain, maximize=True)
    units[alive_b[chosen_b]] = alive_a[chosen_a]
    # Living units that are left over come before dead ones.
    left_a = [*np.delete(alive_a, chosen_a), *np.flatnonzero(dead_a)]
    left_b = [*np.delete(alive_b, chosen_b), *np.flatnonzero(dead_b)]
    count = min(len(left_a), len(left_b))
    units[left_b[:count]] = left_a[:count]
    return units


def _problem(table: pd.DataFrame) -> str | None:
    """Return the reason why a table is not a matching, or None if it is one."""
    if absent := [column for column in _COLUMNS if column not in table.columns]:
        return f"the table has no column {', '.join(absent)}"
    if not len(table):
        return "the table has no rows"
    for column in ("unit", "matched_unit"):
        if not pd.api.types.is_integer_dtype(table[column]) or table[column].isna().any():
            return f"the column {column} is {table[column].dtype}, expected whole numbers"
    for column in ("correlation", "cka"):
        if not pd.api.types.is_float_dtype(table[column]):
            return f"the column {column} is {table[column].dtype}, expected numbers"
    if table["unit"].tolist() != list(range(len(table))):
        return "the column unit does not count from 0"
    units = table["matched_unit"]
    if (units < -1).any() or units[units >= 0].duplicated().any():
        return "the column matched_unit contains a unit twice, or a number below -1"
    wrong = (table["correlation"].abs() > 1) | (table["correlation"].isna() != (units < 0))
    if wrong.any():
        return f"in row {int(wrong.to_numpy().argmax())} correlation is not from -1 to 1, or NaN for an unmatched unit"
    if table["cka"].nunique(dropna=False) > 1 or (table["cka"] < 0).any() or (table["cka"] > 1).any():
        return "the column cka does not contain one number from 0 to 1"
    return None
