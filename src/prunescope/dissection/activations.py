"""Read activation maps that were written by another framework."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from prunescope.arrays import Array
from prunescope.errors import InputError

_EXPECTED = "expected an .npz as numpy.savez writes it, with `features` [images, units, h, w]"


def read_activations(path: str | Path) -> dict[str, Array]:
    """Read the activation maps, and thresholds if there are any, from an .npz file.

    Nothing in the file is unpickled.

    Parameters
    ----------
    path
        An .npz file as `numpy.savez` writes it, with an array `features` [images, units, h, w] and optionally an array
        `thresholds` [units].

    Returns
    -------
    dict of str to np.ndarray
        The arrays `features` and, if the file contains it, `thresholds`.

    Raises
    ------
    InputError
        If the file cannot be read, is not an .npz file, contains no `features`, or if one of the two arrays does not
        consist of real numbers.
    """
    try:
        # Opening a pipe would block until another program writes to it.
        if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
            raise InputError(f"{path}: is not a file but a pipe or a device; {_EXPECTED}")
        with Path(path).open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise InputError(f"{path}: is not an .npz file, or is incomplete; {_EXPECTED}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as content:
                arrays = {name: content[name] for name in ("features", "thresholds") if name in content.files}
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); {_EXPECTED}") from error
    except (ValueError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: is damaged, or contains other objects than plain arrays ({error}); {_EXPECTED}"
        ) from error
    if "features" not in arrays:
        raise InputError(f"{path}: contains no array `features`; {_EXPECTED}")
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            raise InputError(f"{path}: the values of `{name}` are not real numbers; {_EXPECTED}")
    return arrays
