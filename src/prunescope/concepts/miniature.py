"""The former location of `prunescope.miniature`, for programs written before it moved; it is removed in version 0.2."""

from __future__ import annotations

import warnings

from prunescope.miniature import make_miniature

__all__ = ["make_miniature"]

warnings.warn("prunescope.concepts.miniature has moved to prunescope.miniature", DeprecationWarning, stacklevel=2)
