"""Activation maps that another framework wrote."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from prunescope.errors import InputError

_EXPECTED = "expected an .npz as numpy.savez writes it, with `features` [images, units, h, w]"


def read_activations(path: str | Path) -> dict[str, np.ndarray[Any, Any]]:
    """Read `features` and, where there are any, `thresholds` of an .npz; nothing in it is unpickled.

    Raises
    ------
    InputError
        The file cannot be read, is no such .npz, or what it holds are no real numbers.
    """
    try:
        # Opening a pipe would wait for another program to write into it.
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            raise InputError(f"{path}: is no file, but a pipe or a device; {_EXPECTED}")
        with Path(path).open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{path}: is no .npz, or is cut short; {_EXPECTED}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("features", "thresholds") if name in content.files}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {_EXPECTED}") from error
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: is damaged, or holds more than plain arrays ({error}); {_EXPECTED}") from error
    if "features" not in arrays:
        raise InputError(f"{path}: holds no `features`; {_EXPECTED}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise InputError(f"{path}: its `{name}` are no real numbers; {_EXPECTED}")
    return arrays
