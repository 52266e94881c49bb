"""The one way in which prunescope imports torchvision."""

from __future__ import annotations

from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def import_torchvision() -> ModuleType:
    """Import torchvision, also where its compiled operators cannot be loaded.

    PyPI has no CPU build of torchvision, and its CUDA build beside a CPU build of torch cannot load its operators. It
    then fails at import, as it describes two of them (`nms` and `qnms`, for object detection) that are not there.
    Declaring the two makes models, transforms and data sets work; calling them still fails, and says so. Where
    torchvision imports by itself, nothing is declared.

    Returns
    -------
    ModuleType
        `torchvision`. After the first call, `import torchvision` works anywhere in the process.

    Examples
    --------
    >>> import_torchvision().__name__
    'torchvision'
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error):
            raise
        for operator in ("nms", "qnms"):
            torch.library.define(f"torchvision::{operator}", _SCHEMA)
        import torchvision
    module: ModuleType = torchvision
    return module
