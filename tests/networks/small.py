"""What tests of networks from several sources look at."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn


def values(model: nn.Module) -> torch.Tensor:
    """All parameters, one after the other."""
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


class Touch:
    """Leaves evidence where it is unpickled."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.evidence}",)
