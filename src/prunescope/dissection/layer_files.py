"""Find, read and protect the files of a layer's dissection."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from prunescope.errors import InputError
from prunescope.files import inside
from prunescope.reading import read_json, read_parquet

_AGAIN = "remove its folder and dissect the network again"


def refuse_other(directory: str | Path, layer: str, settings: Mapping[str, Any], *, known: bool = False) -> None:
    """Raise if a directory contains a dissection of a layer that was made with other settings.

    Parameters
    ----------
    directory, layer
        The directory, and the name of the layer in it.
    settings
        The settings of the new dissection, as its summary stores them.
    known
        Whether to compare only the settings given. Before a dissection runs, not all its settings are known. The
        setting `preprocessing`, which describes where the mean and the standard deviation come from, is never compared.

    Raises
    ------
    InputError
        If the directory contains a dissection of the layer with other settings (the message shows each difference), or
        a summary that cannot be read.
    """
    path = layer_folder(directory, layer) / "summary.json"
    if not path.is_file():
        return
    way_out = "give another --out (directory), or remove this one"
    held = read_json(path, way_out).get("settings")
    if not isinstance(held, dict):
        raise InputError(f"{path} exists but cannot be read as a dissection's summary; {way_out}")
    given = json.loads(json.dumps(dict(settings)))
    # The mean, the standard deviation and the order of the channels decide the results, not where they come from, which
    # dissections of older versions do not state.
    names = [name for name in (given if known else {**held, **given}) if name != "preprocessing"]
    different = [name for name in names if held.get(name) != given.get(name)]
    if different:
        lines = [f"  {name}: {_shown(held, name)} there, {_shown(given, name)} now" for name in different]
        raise InputError(
            f"{path.parent} contains a dissection with other settings; nothing was changed:\n" + "\n".join(lines)
            + f"\n{way_out[0].upper()}{way_out[1:]}"
        )  # fmt: skip


def _shown(settings: Mapping[str, Any], name: str) -> str:
    return json.dumps(settings[name], ensure_ascii=False) if name in settings else "not given"


def layer_folder(directory: str | Path, layer: str) -> Path:
    """Return the folder of a layer's files.

    It is the directory itself for an imported table, which has an empty layer name.

    Raises
    ------
    InputError
        If the layer's name would lead out of the directory, or cannot be the name of a folder.
    """
    return inside(directory, layer, "the layer") if layer else Path(directory)


def read_units(directory: str | Path, layer: str) -> pd.DataFrame:
    """Read the table of units of a layer, as written by `LayerDissection.save`."""
    return read_parquet(layer_folder(directory, layer) / "units.parquet", _AGAIN)


def is_complete(directory: str | Path, layer: str) -> bool:
    """Return whether `LayerDissection.save` has finished for this layer."""
    return all((layer_folder(directory, layer) / name).is_file() for name in ("units.parquet", "summary.json"))


def read_summary(directory: str | Path, layer: str) -> dict[str, Any]:
    """Read the summary of a layer, as written by `LayerDissection.save`."""
    return read_json(layer_folder(directory, layer) / "summary.json", _AGAIN)
