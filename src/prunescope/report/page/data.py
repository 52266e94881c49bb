"""Write the data of a page as scripts, because a page that is opened from disk cannot read other files.

Each file calls the function ``prunescope`` of the page with a name and a value. Arrays are compressed (zlib) and
written in base64, which is safe in every encoding that a web server may claim.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from prunescope.files import write_text

DATA = "data"


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """Return an array as text that the page can decode.

    Parameters
    ----------
    array : array [...]
        Numbers of type uint8, uint16, int16, int32 or float32.

    Returns
    -------
    dict
        The `type` of the numbers and their bytes, little-endian and compressed, as `data`.
    """
    little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return {"type": little.dtype.str[1:], "data": base64.b64encode(zlib.compress(little.tobytes(), 6)).decode()}


def table_columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    """Return the columns of a table as lists, with None in the place of missing values."""
    return {str(name): [plain(value) for value in table[name].tolist()] for name in table.columns}


def plain(value: Any) -> Any:
    """Return a value that JSON can hold: None for what is missing or not finite, and seven digits of a number."""
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(one) for one in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    return str(value)


def script(name: str, content: Mapping[str, Any]) -> str:
    """Return the text of a data file.

    Parameters
    ----------
    name : str
        The name under which the page asks for the data.
    content : mapping
        The data: what JSON can hold, and arrays as `packed` returns them.
    """
    # JSON is valid JavaScript, and escaped to ASCII it means the same in every encoding.
    return f"prunescope({json.dumps(name)},{json.dumps(content, separators=(',', ':'), allow_nan=False)});\n"


def write_data(folder: Path, name: str, content: Mapping[str, Any]) -> int:
    """Write a data file to the folder of a page, and return its size in bytes."""
    text = script(name, content)
    write_text(folder / DATA / f"{name}.js", text)
    return len(text)
