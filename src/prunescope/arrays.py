"""The type of NumPy arrays whose element type is not stated, and the choice between arrays and tensors."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = NDArray[Any]

# Code that is generic in Values works with NumPy arrays alone or with tensors alone.
Values = TypeVar("Values", Array, Tensor)
