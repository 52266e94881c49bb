"""Published tables, as if they had been dissected here."""

from __future__ import annotations

from pathlib import Path

from prunescope.dissection.netdissect import read_netdissect
from prunescope.dissection.result import LayerDissection
from prunescope.errors import InputError
from prunescope.files import expanded


def import_netdissect(path: str | Path, *, out: str | Path | None = None, iou: float = 0.05) -> LayerDissection:
    """Read a table published in NetDissect-Lite's columns.

    Parameters
    ----------
    path
        The CSV file.
    out
        Where to write units, pairs and summary; nothing is written unless told. Another table's dissection that is
        there is not overwritten.
    iou
        A unit is interpretable when its score is above this.

    Raises
    ------
    InputError
        It is no such table, `iou` is out of its range, or `out` holds another dissection.
    """
    if not 0 <= iou < 1:
        raise InputError(f"iou is {iou}, expected a bound from 0 up to 1 (0.05 in the paper)")
    units, pairs, summary = read_netdissect(path, iou)
    found = LayerDissection("", units, pairs, summary)
    if out is not None:
        if expanded(path).resolve() == (Path(out) / "netdissect.csv").resolve():
            raise InputError(f"{path} would be overwritten, since {out} gets a file of that name; give another --out")
        found.save(out)
    return found
