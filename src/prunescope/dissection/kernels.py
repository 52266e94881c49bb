"""Compile functions with numba and cache them on disk where possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import numba

P = ParamSpec("P")
T = TypeVar("T")


def kernel(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function so that numba compiles it at its first call.

    The compiled function releases Python's global interpreter lock. It is stored in numba's cache, from which later
    processes load it. If no cache can be written (for example in a container with a read-only installation and a user
    without a home directory), every process compiles the function again. The environment variable `NUMBA_CACHE_DIR`
    sets the folder of the cache.
    """
    try:
        compiled = numba.njit(nogil=True, cache=True)(function)
    except (RuntimeError, OSError):
        # numba raises these errors if it finds no folder that it can write to.
        compiled = numba.njit(nogil=True)(function)
    return cast("Callable[P, T]", compiled)
