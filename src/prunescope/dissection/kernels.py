"""Compiled functions, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
T = TypeVar("T")


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Compile a function on first use, without Python's lock; later processes find it in numba's cache.

    Where no cache can be written, as in a container whose installation is read-only and whose user has no home, the
    function is compiled anew in every process. `NUMBA_CACHE_DIR` names a folder for the cache.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except (RuntimeError, OSError):
        # numba finds no folder that it can write to.
        compiled = numba.njit(nogil=True)(function)
    return cast("Callable[P, T]", compiled)
