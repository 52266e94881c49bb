"""Import published result tables as dissections."""

from __future__ import annotations

from pathlib import Path

from prunescope.dissection.netdissect import read_netdissect
from prunescope.dissection.result import LayerDissection
from prunescope.dissection.settings import DEFAULTS, Settings
from prunescope.errors import InputError
from prunescope.files import expanded


def import_netdissect(path: str | Path, *, out: str | Path | None = None, iou: float = DEFAULTS.iou) -> LayerDissection:
    """Read a table published in NetDissect-Lite's columns.

    Parameters
    ----------
    path
        The CSV file, which may be compressed (.gz, .bz2, .xz, .zip).
    out
        The directory in which to write the tables of units and pairs and the summary. By default nothing is written. A
        dissection of another table in this directory is not overwritten.
    iou
        A unit is interpretable if its score is above this bound.

    Returns
    -------
    LayerDissection
        The units, pairs and summary, without pixel counts (`tally`) and examples.

    Raises
    ------
    InputError
        If the file is not such a table or cannot be read, if `iou` is out of range, if `out` contains another
        dissection, or if writing to `out` would overwrite the file itself.
    """
    Settings.checked(iou=iou)
    units, pairs, summary = read_netdissect(path, iou)
    found = LayerDissection("", units, pairs, summary)
    if out is not None:
        if expanded(path).resolve() == (Path(out) / "netdissect.csv").resolve():
            raise InputError(f"{path} would be overwritten, since {out} gets a file of that name; give another --out")
        found.save(out)
    return found
