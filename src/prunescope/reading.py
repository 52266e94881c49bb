"""Read files that a user gives, or that may have been damaged since a study wrote them.

Parsers raise errors of many types, and few of them name the file. Each function here raises `InputError` instead, which
names the file and says what to do. Only regular files are read, because a pipe or a device might never end.
"""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunescope.errors import InputError
from prunescope.files import read_file

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


def read_json(path: Path, advice: str = "") -> dict[str, Any]:
    """Read a JSON file that contains an object.

    Parameters
    ----------
    path
        The file.
    advice
        What to do if the file cannot be read. It ends the error message. It is empty where the caller catches the error
        and adds its own advice.

    Raises
    ------
    InputError
        If the file is missing, is not a regular file, is not JSON, or contains something other than an object.
    """
    content = read_json_value(path, advice)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}{_ending(advice)}")
    return content


def read_json_value(path: Path, advice: str = "") -> Any:
    """Read a JSON file with any content; the parameters and the other errors are those of `read_json`."""
    try:
        return json.loads(read_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, "JSON", error, advice) from error


def read_text(path: Path, advice: str = "") -> str:
    """Read a text file in UTF-8, with or without a byte order mark.

    The parameters and the errors are those of `read_json`.
    """
    try:
        return read_file(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, "UTF-8 text", error, advice) from error


def read_parquet(path: Path, advice: str = "", columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Read a Parquet table, or only some of its columns; the other parameters and the errors are those of `read_json`.

    A column that is missing is an error too.
    """
    import pandas as pd

    try:
        return pd.read_parquet(io.BytesIO(read_file(path)), columns=None if columns is None else list(columns))
    except Exception as error:  # For a damaged file, pyarrow raises errors of many types.
        raise _unreadable(path, "parquet", error, advice) from error


def read_arrays(path: Path, advice: str = "", names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file by name; the other parameters and the errors are those of `read_json`.

    If `names` is given, only these arrays are read, as far as the file has them.
    """
    from safetensors import safe_open
    from safetensors.numpy import load

    try:
        if names is None or not path.is_file():
            return load(read_file(path))
        with safe_open(path, framework="numpy") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118
    # Apart from its own error, safetensors raises TypeError for types that NumPy lacks, such as bfloat16.
    except Exception as error:
        raise _unreadable(path, "safetensors", error, advice) from error


def _unreadable(path: Path, form: str, error: Exception, advice: str) -> InputError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return InputError(f"{path}: cannot be read as {form} ({reason}){_ending(advice)}")


def _ending(advice: str) -> str:
    return f"; {advice}" if advice else ""
