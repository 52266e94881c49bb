"""What a dissection found, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from prunescope.dissection.examples import Examples
from prunescope.dissection.netdissect import to_netdissect
from prunescope.errors import InputError, nearest
from prunescope.files import inside, write_arrays, write_json, write_table

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class LayerDissection:
    """What the units of one layer detect.

    Attributes
    ----------
    layer
        As `named_modules()` names it.
    units
        A row per unit: unit, label, category, iou, threshold, dead, number, `CATEGORY-label` and `CATEGORY-iou`.
        `label`, `number` (of label.csv) and `category` are its concept's; an imported table has no `number`. `unit` is
        the row's place, or where filters were removed the place of the dense network's unit.
    pairs
        A row for every unit and concept that meet: unit, label, number, category, truth, activation, intersect, iou.
    summary
        Counts of units, interpretable units, detected concepts (also by category), and the settings. Concepts are
        counted by their numbers; in an imported table, by category and name.
    tally
        The pixel counts, as `tally_arrays` names them, a row for each row of `units`; None in an imported table.
    examples
        The most exciting images, a row for each row of `units`; None in an imported table.
    """

    layer: str
    units: pd.DataFrame
    pairs: pd.DataFrame
    summary: dict[str, Any]
    tally: Mapping[str, Array] | None = None
    examples: Examples | None = None

    def numbered(self, numbers: Array) -> LayerDissection:
        """Give the units other numbers: those they have in the dense network, where filters were removed.

        Parameters
        ----------
        numbers
            int64 [units]: of each row of `units`, as `prunescope.pruning.unit_numbers` gives them.

        Returns
        -------
        LayerDissection
            The same counts and examples, row by row.

        Raises
        ------
        InputError
            There are more or fewer numbers than units.
        """
        if len(numbers) != len(self.units):
            raise InputError(f"layer {self.layer!r} has {len(self.units)} units, but {len(numbers)} numbers are given")
        new = pd.Series(np.asarray(numbers, np.int64), index=self.units["unit"].to_numpy())
        tally = self.tally
        if tally is not None:
            pairs = tally["block_pairs"]
            tally = {**tally, "block_pairs": np.stack([new[pairs[:, 0]].to_numpy(), pairs[:, 1]], axis=1)}
        return replace(
            self,
            units=self.units.assign(unit=new[self.units["unit"]].to_numpy()),
            pairs=self.pairs.assign(unit=new[self.pairs["unit"]].to_numpy()),
            tally=tally,
        )

    def save(self, directory: str | Path, *, replace: bool = False) -> Path:
        """Write the layer's files into `directory/LAYER`; summary.json comes last and says that all are there.

        Beside its own arrays, tally and examples hold `units`, int64: which unit each of their rows is.

        Parameters
        ----------
        directory
            New, or one in which the layer was dissected with the same settings: then its files are written anew.
        replace
            Overwrite a dissection with other settings too.

        Raises
        ------
        InputError
            A dissection with other settings is there (the differences are shown), or the layer's name cannot be that
            of a folder.
        """
        if not replace:
            refuse_other(directory, self.layer, self.summary.get("settings", {}))
        units = {"units": self.units["unit"].to_numpy(np.int64)}
        folder = layer_folder(directory, self.layer)
        (folder / "summary.json").unlink(missing_ok=True)
        write_table(folder / "units.parquet", self.units)
        write_table(folder / "units.csv", self.units)
        write_table(folder / "pairs.parquet", self.pairs)
        write_table(folder / "netdissect.csv", to_netdissect(self.units, self.pairs, list(self.summary["by_category"])))
        if self.tally is not None:
            write_arrays(folder / "tally.safetensors", {**self.tally, **units})
        if self.examples is not None:
            write_arrays(folder / "examples.safetensors", {**vars(self.examples), **units})
        write_json(folder / "summary.json", self.summary)
        return folder


@dataclass(frozen=True)
class Dissection(Mapping[str, LayerDissection]):
    """What the units of a network's layers detect: layer name -> `LayerDissection`."""

    layers: dict[str, LayerDissection]

    def __getitem__(self, layer: str) -> LayerDissection:
        return self.layers[layer]

    def __iter__(self) -> Any:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def units(self) -> pd.DataFrame:
        """The units of all layers, `layer` in the first column."""
        return self._joined("units")

    @property
    def pairs(self) -> pd.DataFrame:
        """Every unit and concept that meet, of all layers, `layer` in the first column."""
        return self._joined("pairs")

    @property
    def summary(self) -> pd.DataFrame:
        """A row per layer: units, interpretable, concepts, dead, and a column of concepts for each category."""
        rows = []
        for name, layer in self.items():
            counts = {key: layer.summary[key] for key in ("units", "interpretable", "concepts", "dead")}
            rows.append({"layer": name} | counts | layer.summary["by_category"])
        return pd.DataFrame(rows)

    def numbered(self, numbers: Mapping[str, Array]) -> Dissection:
        """Give every layer's units other numbers; see `LayerDissection.numbered`."""
        missing = [name for name in self if name not in numbers]
        if missing:
            raise InputError(f"no unit numbers are given for layer {missing[0]!r}; {nearest(missing[0], numbers)}")
        return Dissection({name: layer.numbered(numbers[name]) for name, layer in self.items()})

    def save(self, directory: str | Path, *, replace: bool = False) -> Path:
        """Write each layer's files into `directory/LAYER`; see `LayerDissection.save`.

        Raises
        ------
        InputError
            A dissection of one of the layers with other settings is there; then nothing is written.
        """
        for layer in self.values() if not replace else ():
            refuse_other(directory, layer.layer, layer.summary.get("settings", {}))
        for layer in self.values():
            layer.save(directory, replace=replace)
        return Path(directory)

    def _joined(self, table: str) -> pd.DataFrame:
        parts = [getattr(part, table).assign(layer=name) for name, part in self.items()]
        joined: pd.DataFrame = pd.concat(parts, ignore_index=True)
        return joined[["layer", *joined.columns.drop("layer")]]


def refuse_other(directory: str | Path, layer: str, settings: Mapping[str, Any], *, known: bool = False) -> None:
    """Refuse to overwrite a layer's dissection that was made with other settings.

    Parameters
    ----------
    directory, layer
        Where it would be.
    settings
        Of the new dissection, as its summary notes them.
    known
        Compare only those, since others are not known before the work.

    Raises
    ------
    InputError
        One is there; each difference is shown.
    """
    path = layer_folder(directory, layer) / "summary.json"
    if not path.is_file():
        return
    way_out = "give another --out (directory), or remove this one"
    try:
        there = json.loads(path.read_text(encoding="utf-8"))["settings"]
        held = dict(there)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is there and cannot be read as a dissection's summary; {way_out}") from error
    given = json.loads(json.dumps(dict(settings)))
    names = given if known else {**held, **given}
    different = [name for name in names if held.get(name) != given.get(name)]
    if different:
        lines = [f"  {name}: {_told(held, name)} there, {_told(given, name)} now" for name in different]
        raise InputError(
            f"{path.parent} holds a dissection with other settings; nothing was changed:\n" + "\n".join(lines)
            + f"\n{way_out[0].upper()}{way_out[1:]}"
        )  # fmt: skip


def _told(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not said"


def layer_folder(directory: str | Path, layer: str) -> Path:
    """Return the folder of a layer's files: the directory itself for an imported table, which names no layer.

    Raises
    ------
    InputError
        The layer's name would lead out of the directory, or cannot be that of a folder.
    """
    return inside(directory, layer, "the layer") if layer else Path(directory)


def read_units(directory: str | Path, layer: str) -> pd.DataFrame:
    """Read the units table of a layer that `save` wrote."""
    return pd.read_parquet(layer_folder(directory, layer) / "units.parquet")


def is_complete(directory: str | Path, layer: str) -> bool:
    """Say whether `save` finished for this layer."""
    return all((layer_folder(directory, layer) / name).is_file() for name in ("units.parquet", "summary.json"))


def read_summary(directory: str | Path, layer: str) -> dict[str, Any]:
    """Read the summary of a layer that `save` wrote."""
    summary: dict[str, Any] = json.loads((layer_folder(directory, layer) / "summary.json").read_text(encoding="utf-8"))
    return summary
