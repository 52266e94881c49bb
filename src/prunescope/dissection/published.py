"""Published tables, as if they had been dissected here."""

from __future__ import annotations

from pathlib import Path

from prunescope.dissection.netdissect import read_netdissect
from prunescope.dissection.result import LayerDissection
from prunescope.errors import InputError


def import_netdissect(path: str | Path, *, out: str | Path | None = None, iou: float = 0.05) -> LayerDissection:
    """Read a table published in NetDissect-Lite's columns.

    Parameters
    ----------
    path
        The CSV file.
    out
        Where to write units, pairs and summary; nothing is written unless told.
    iou
        A unit is interpretable when its score is above this.

    Raises
    ------
    InputError
        It is no such table, or `iou` is out of its range.
    """
    if not 0 <= iou < 1:
        raise InputError(f"iou is {iou}, expected a bound from 0 up to 1 (0.05 in the paper)")
    units, pairs, summary = read_netdissect(path, iou)
    found = LayerDissection("", units, pairs, summary)
    if out is not None:
        found.save(out)
    return found
